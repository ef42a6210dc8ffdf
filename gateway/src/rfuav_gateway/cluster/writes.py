"""Writes of jobs, sent as the caller: the API server decides whether they may, and its words are the answer."""

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from rfuav_crds.contract import ANNOTATION_CANCELLED_BY, API_VERSION, PLURALS
from rfuav_gateway.cluster.tasks import Tasks, path
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.identity import KINDS
from rfuav_gateway.tasks.jobs import Job
from rfuav_kube import paths
from rfuav_kube.connection import MERGE_PATCH, Answer, Connection, ConnectionProblem, Credential, Unsendable
from rfuav_kube.objects import section

TRIES = 4
PAUSE = 0.25  # seconds before the second try; doubles
TIMEOUT = 10.0  # seconds of one try
MOST_EVENTS = 500  # of one object that are read


class NotDone(Exception):  # noqa: N818  an answer, not a fault
    """The API server refused, or could not be asked; `status` is its own, 503 if there was no answer."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


class Writes:
    """Creates, cancels, deletes and reads jobs as somebody."""

    def __init__(self, connection: Connection, tasks: Tasks) -> None:
        self._connection = connection
        self._tasks = tasks

    async def create(
        self, kind: TaskType, namespace: str, manifest: Mapping[str, Any], credential: Credential | None
    ) -> tuple[Job, bool]:
        """Create a job; the one that has its name, and False, if there is one.

        A create may be sent twice: its name follows from the task, so the second finds the first.

        Raises:
            NotDone: otherwise.
        """
        body, created = await create(
            self._connection, path(kind, namespace), manifest, credential, kind=KINDS[kind], namespace=namespace
        )
        return self._tasks.take(kind, body), created

    async def read(self, kind: TaskType, namespace: str, name: str, credential: Credential | None) -> Job | None:
        """A job, asked for at the API server; None: there is none."""
        answer = await insist(self._connection, "GET", path(kind, namespace, name), None, credential)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        return self._tasks.take(kind, taken(answer, KINDS[kind], namespace, name))

    async def try_out(
        self, kind: TaskType, namespace: str, manifest: Mapping[str, Any], credential: Credential | None
    ) -> Any:
        """A job as the API server would store it; nothing is created (a dry run).

        Raises:
            NotDone: it would refuse it.
        """
        return taken(
            await insist(self._connection, "POST", f"{path(kind, namespace)}?dryRun=All", manifest, credential)
        )

    async def object_of(self, kind: TaskType, namespace: str, name: str, credential: Credential | None) -> Any:
        """A whole job, asked for at the API server; None: there is none.

        Raises:
            NotDone: it cannot be read.
        """
        answer = await insist(self._connection, "GET", path(kind, namespace, name), None, credential)
        return None if answer.status == HTTPStatus.NOT_FOUND else taken(answer, KINDS[kind], namespace, name)

    async def events(self, namespace: str, kind: str, name: str, credential: Credential | None) -> list[Any]:
        """The Events about an object, in no order.

        Raises:
            NotDone: they cannot be read.
        """
        about = quote(f"involvedObject.kind={kind},involvedObject.name={name}")
        at = f"/api/v1/namespaces/{paths.named(namespace)}/events?limit={MOST_EVENTS}&fieldSelector={about}"
        found = taken(await insist(self._connection, "GET", at, None, credential)).get("items")
        return found if isinstance(found, list) else []

    async def cancel(self, job: Job, user: str, credential: Credential | None) -> Job:
        """Have the operator cancel a job."""
        return await self.change(job, {"cancel": True}, credential, annotations={ANNOTATION_CANCELLED_BY: user})

    async def change(
        self,
        job: Job,
        spec: Mapping[str, Any],
        credential: Credential | None,
        *,
        annotations: Mapping[str, str] | None = None,
    ) -> Job:
        """Change fields of a job's spec, and annotations."""
        metadata = {"uid": job.uid} | ({"annotations": annotations} if annotations else {})
        patch = {"metadata": metadata, "spec": spec}
        answer = await insist(self._connection, "PATCH", path(job.type, job.namespace, job.name), patch, credential)
        self._drop_if_gone(job, answer)
        return self._tasks.take(job.type, taken(answer, KINDS[job.type], job.namespace, job.name))

    async def delete(self, job: Job, credential: Credential | None) -> None:
        """Delete a job; its pods go with it."""
        body = {"preconditions": {"uid": job.uid}, "propagationPolicy": "Background"}
        answer = await insist(self._connection, "DELETE", path(job.type, job.namespace, job.name), body, credential)
        self._drop_if_gone(job, answer)
        taken(answer)
        self._tasks.gone(job)

    async def change_pool(
        self, name: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]], credential: Credential | None
    ) -> Any:
        """Change a GPUPool: `change` makes of its spec the fields to write; the pool as it is then.

        Raises:
            NotDone: the API server refuses it, or others change it all the time.
        """
        at = f"/apis/{API_VERSION}/{PLURALS['GPUPool']}/{name}"
        for _ in range(TRIES):
            held = taken(await insist(self._connection, "GET", at, None, credential))
            patch = {
                "metadata": {"resourceVersion": held["metadata"]["resourceVersion"]},
                "spec": change(held.get("spec") or {}),
            }
            answer = await insist(self._connection, "PATCH", at, patch, credential)
            if answer.status != HTTPStatus.CONFLICT:
                break
        return taken(answer)

    def _drop_if_gone(self, job: Job, answer: Answer) -> None:
        if answer.status == HTTPStatus.NOT_FOUND:
            self._tasks.gone(job)


async def create(
    connection: Connection,
    at: str,
    manifest: Mapping[str, Any],
    credential: Credential | None,
    *,
    kind: str,
    namespace: str,
) -> tuple[Any, bool]:
    """Create an object; the one that has its name, and False, if there is one.

    Raises:
        NotDone: otherwise.
    """
    name = manifest["metadata"]["name"]
    answer = await insist(connection, "POST", at, manifest, credential)
    created = (answer.status, answer.reason) != (HTTPStatus.CONFLICT, "AlreadyExists")
    if not created:
        answer = await insist(connection, "GET", f"{at}/{name}", None, credential)
        if answer.status == HTTPStatus.NOT_FOUND:
            raise NotDone(HTTPStatus.SERVICE_UNAVAILABLE, "a job of this name is just being deleted: try again", 1)
    return taken(answer, kind, namespace, name), created


async def insist(connection: Connection, method: str, at: str, body: Any, credential: Credential | None) -> Answer:
    """A request that may be sent twice, until there is an answer.

    Raises:
        NotDone: there is none.
    """
    problem = ""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            answer = await connection.request(
                method,
                at,
                body,
                content_type=MERGE_PATCH if method == "PATCH" else "application/json",
                timeout=TIMEOUT,
                credential=credential,
            )
        except Unsendable as error:
            raise NotDone(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        except ConnectionProblem as error:
            problem = str(error)
            continue
        if answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return answer
        problem = answer.message
    raise NotDone(HTTPStatus.SERVICE_UNAVAILABLE, f"the API server does not answer: {problem}", PAUSE * 2**TRIES)


def taken(answer: Answer, kind: str = "", namespace: str = "", name: str = "") -> Any:
    """The object of an answer that is one.

    Args:
        answer: of the API server.
        kind: that it has to have, before it is held for everybody; empty: any.
        namespace: the same.
        name: the same.

    Raises:
        NotDone: it is a refusal, or another object than the one that was asked for.
    """
    if not answer.ok:
        raise NotDone(answer.status, answer.message, answer.retry_after)
    meta = section(answer.body, "metadata")
    if kind and (answer.body.get("kind"), meta.get("namespace"), meta.get("name")) != (kind, namespace, name):
        raise NotDone(HTTPStatus.BAD_GATEWAY, f"the API server did not answer with the {kind} {namespace}/{name}")
    return answer.body
