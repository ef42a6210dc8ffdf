"""Preparations of data: the batch/v1 Jobs with our label, in a cache that follows them, and writes as the caller."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from rfuav_crds import contract
from rfuav_gateway.cluster.news import News
from rfuav_gateway.cluster.writes import create, insist, taken
from rfuav_gateway.tasks import preparations
from rfuav_gateway.tasks.identity import object_name
from rfuav_gateway.tasks.preparations import JobObject, Prepared
from rfuav_kube import objects, paths
from rfuav_kube.cache import Cache
from rfuav_kube.connection import Connection, Credential
from rfuav_kube.reflector import Reflector

AT_ONCE = 1  # seconds: the deadline of one that is cancelled; its controller then deletes the pod and ends it
_Key = tuple[str, str]  # namespace, name


def path(namespace: str = "", name: str = "") -> str:
    """Where the API server has the Jobs of a namespace, or one of them; without a namespace, all."""
    if not namespace:
        return f"/apis/{preparations.API_VERSION}/jobs"
    return f"/apis/{preparations.API_VERSION}/namespaces/{paths.named(namespace)}/jobs" + (
        f"/{paths.named(name)}" if name else ""
    )


class Preparations:
    """The preparations that the API server holds."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cache: Cache[_Key, Prepared] = Cache(self._changed)
        self._news = News()

    def reflector(self) -> Reflector[_Key, Prepared, JobObject]:
        """What fills it, from all namespaces; not running yet."""
        return Reflector(
            self._connection,
            path(),
            self._cache,
            read=JobObject,
            key=lambda read: (read.metadata.namespace, read.metadata.name),
            value=preparations.read,
            selector=contract.LABEL_PREPARATION,
        )

    def found(self, namespace: str, task_id: str) -> Prepared | None:
        """The preparation of an id."""
        held = self._cache.get((namespace, object_name(task_id)))
        return held if held is not None and held.task_id == task_id else None

    async def changed(self, one: Prepared) -> Prepared | None:
        """Wait until the preparation is held differently, and return it so; None: it is gone."""
        return await self._news.after(one, lambda: self._cache.get((one.namespace, one.name)))

    async def create(
        self, namespace: str, manifest: Mapping[str, Any], credential: Credential | None
    ) -> tuple[Prepared, bool]:
        """Create a Job; the one that has its name, and False, if there is one.

        Raises:
            NotDone: otherwise.
        """
        body, created = await create(
            self._connection, path(namespace), manifest, credential, kind="Job", namespace=namespace
        )
        return self._take(body), created

    async def read(self, namespace: str, name: str, credential: Credential | None) -> Prepared | None:
        """A preparation, asked for at the API server; None: there is none."""
        answer = await insist(self._connection, "GET", path(namespace, name), None, credential)
        return None if answer.status == HTTPStatus.NOT_FOUND else self._take(taken(answer, "Job", namespace, name))

    async def cancel(self, one: Prepared, user: str, credential: Credential | None) -> None:
        """End a preparation: its Job fails by its deadline, which deletes the pod; the record stays for its time."""
        patch = {
            "metadata": {"annotations": {contract.ANNOTATION_CANCELLED_BY: user}, "uid": one.uid},
            "spec": {"activeDeadlineSeconds": AT_ONCE},
        }
        answer = await insist(self._connection, "PATCH", path(one.namespace, one.name), patch, credential)
        self._take(taken(answer, "Job", one.namespace, one.name))

    def _take(self, body: Any) -> Prepared:
        read, why = objects.converted(body, JobObject)
        one = preparations.read(read, why)
        if contract.LABEL_PREPARATION not in (read.metadata.labels or {}):
            return one  # another's Job of the same name: never held
        key = one.namespace, one.name
        self._cache.put(key, objects.version(read.metadata), one)
        return self._cache.get(key) or one

    def _changed(self, old: Prepared | None, new: Prepared | None) -> None:
        for uid in {one.uid for one in (old, new) if one is not None}:
            self._news.tell(uid)
