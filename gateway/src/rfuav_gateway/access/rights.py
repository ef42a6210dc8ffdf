"""What a caller may do: a SelfSubjectAccessReview (authorization.k8s.io/v1), sent with the caller's credentials.

Reads come from the gateway's cache, so each is allowed only if the caller could have read the same by themselves.
Writes need no question: they are sent as the caller.
"""

from http import HTTPStatus

from rfuav_crds.contract import GROUP, PLURALS
from rfuav_gateway.access.callers import Caller, Unavailable
from rfuav_gateway.access.remembered import Remembered
from rfuav_kube.connection import Connection, ConnectionProblem

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
KNOWN_SECONDS = 10.0
MOST = 16_384  # answers that are remembered


class Rights:
    """Asks the API server, and remembers the answers for ten seconds.

    Args:
        connection: to the API server.
        everything_in: the namespace that callers without credentials share (compat); empty: there are none.
    """

    def __init__(self, connection: Connection, *, everything_in: str = "") -> None:
        self._connection = connection
        self._shared = everything_in
        self._known: Remembered[tuple[str, ...], bool] = Remembered(KNOWN_SECONDS, MOST)

    async def may(
        self,
        caller: Caller,
        verb: str,
        resource: str,
        namespace: str = "",
        *,
        group: str = GROUP,
        subresource: str = "",
    ) -> bool:
        """Whether the caller may; without a namespace, in all of them.

        Raises:
            Unavailable: the API server cannot be asked now.
        """
        if caller.credential is None:
            return namespace == self._shared
        question = caller.key, verb, group, resource, subresource, namespace
        return await self._known.get(question, lambda: self._ask(caller, question))

    async def may_see_preparations(self, caller: Caller, namespace: str) -> bool:
        """Whether the caller may read the batch/v1 Jobs of a namespace, which prepare data."""
        return await self.may(caller, "get", "jobs", namespace, group="batch")

    async def may_read_logs(self, caller: Caller, namespace: str) -> bool:
        """Whether the caller may read the logs of pods in a namespace, as `kubectl logs` would."""
        return await self.may(caller, "get", "pods", namespace, group="", subresource="log")

    async def may_see_pools(self, caller: Caller) -> bool:
        """Whether the caller may list GPUPools, and with that see nodes and GPUs; callers of compat may.

        Raises:
            Unavailable: as `may`.
        """
        return caller.credential is None or await self.may(caller, "list", PLURALS["GPUPool"])

    async def _ask(self, caller: Caller, question: tuple[str, ...]) -> bool:
        _, verb, group, resource, subresource, namespace = question
        wanted = {
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
            "namespace": namespace,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {name: value for name, value in wanted.items() if value}},
        }
        try:
            answer = await self._connection.request("POST", REVIEWS, body, credential=caller.credential)
        except ConnectionProblem as error:
            raise Unavailable(str(error)) from error
        if answer.ok:
            return answer.body.get("status", {}).get("allowed") is True
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return False
        raise Unavailable(answer.message)
