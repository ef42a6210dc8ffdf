"""The pods of a job, for its stream of logs: listed at the API server whenever the job has changed.

The gateway does not watch pods: a cluster has many, and only those of jobs whose logs are read matter.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Generic, Protocol, TypeVar

import msgspec
import structlog

from rfuav_crds import contract
from rfuav_crds.bounds import EARLIEST, bounded
from rfuav_gateway.cluster.preparations import Preparations
from rfuav_gateway.cluster.tasks import Tasks, path
from rfuav_gateway.logs.kept import MOST_FILES
from rfuav_gateway.logs.source import End, KeptFile, Pod, TaskState
from rfuav_gateway.tasks import preparations, views
from rfuav_gateway.tasks.jobs import Job
from rfuav_gateway.tasks.preparations import Prepared, Report
from rfuav_gateway.tasks.words import Phrases
from rfuav_kube import objects, paths
from rfuav_kube.connection import Connection, ConnectionProblem
from rfuav_kube.objects import section, words
from rfuav_kube.pods import ContainerStatus, PodObject
from rfuav_operator.core.names import may_be_pod_of

log = structlog.get_logger()

MOST = 500  # pods of one job
AGAIN = 3.0  # seconds after a list that failed
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"  # what the Job controller labels pods with
_ENDED = ("Succeeded", "Failed")


class _Held(Protocol):
    """What a source needs to know of a job, whichever it is."""

    @property
    def uid(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def task_id(self) -> str: ...


J = TypeVar("J", bound=_Held)


class _Pods(msgspec.Struct):
    items: list[msgspec.Raw] = []


class _Source(ABC, Generic[J]):
    """One job: what `logs` follows.

    Args:
        connection: the way to the API server, as the gateway.
        job: as it is held now.
        phrases: of the language in which the end is told.
    """

    def __init__(self, connection: Connection, job: J, phrases: Phrases) -> None:
        self._connection = connection
        self._phrases = phrases
        self.key = job.uid
        self.namespace = job.namespace
        self.where = ""
        self.kept: tuple[KeptFile, ...] = ()
        self._job: J | None = job
        self._last = job
        self._pods: tuple[Pod, ...] = ()

    async def load(self) -> None:
        """List the pods; if there are none any more, find out where the output keeps the log."""
        await self._list(self._last)
        if self.state().end is not None and not self._pods:
            self.where, self.kept = await self._output(self._last)

    def state(self) -> TaskState:
        """What is known now."""
        return TaskState(self._pods, self.end_for(self))

    def end_for(self, reader: "_Source[J]") -> End | None:
        """How the task ended, in the language of another source of it."""
        phrases = reader._phrases  # noqa: SLF001  of the same class
        if self._job is None:
            return End("cancelled", phrases.deleted.format(task_id=self._last.task_id))
        return self._end(self._job, phrases)

    async def changed(self, seen: TaskState) -> None:
        """Return as soon as the state is another one than `seen`."""
        while self.state() == seen:
            self._job = await self._next(self._last)
            if self._job is not None:
                self._last = self._job
                await self._list(self._job)

    @abstractmethod
    def _end(self, job: J, phrases: Phrases) -> End | None:
        """How the job ended; None: it has not."""

    @abstractmethod
    async def _next(self, job: J) -> J | None:
        """The job after its next change; None: it is gone."""

    @abstractmethod
    def _selector(self, job: J) -> str:
        """The label that the pods of the job have."""

    @abstractmethod
    def _pods_of(self, job: J, found: Sequence[PodObject]) -> list[Pod]:
        """Those of the pods that are the job's."""

    @abstractmethod
    async def _output(self, job: J) -> tuple[str, tuple[KeptFile, ...]]:
        """The URI of the log in the job's output, with a star for several files, and these; empty: there is none."""

    async def _list(self, job: J) -> None:
        """List the pods, trying until it succeeds."""
        while not await self._listed(job):  # noqa: ASYNC110  it waits for a server
            await asyncio.sleep(AGAIN)

    async def _listed(self, job: J) -> bool:
        found = await self._read(job)
        if found is None:
            return False
        self._pods = tuple(sorted(self._pods_of(job, found), key=lambda pod: (pod.attempt, pod.name)))
        return True

    async def _read(self, job: J) -> list[PodObject] | None:
        """The pods with the label of the job; None: they cannot be read now."""
        params = {"labelSelector": self._selector(job), "limit": str(MOST)}
        try:
            status, body, _ = await self._connection.get_bytes(paths.pods(job.namespace), params)
        except ConnectionProblem as error:
            log.warning("pods not listed", job=f"{job.namespace}/{job.name}", error=str(error))
            return None
        if status != HTTPStatus.OK:
            log.warning("pods not listed", job=f"{job.namespace}/{job.name}", status=status)
            return None
        found = []
        for item in msgspec.json.decode(body, type=_Pods).items:
            try:
                found.append(objects.leniently(item, PodObject)[0])
            except objects.DecodeError as error:
                log.warning("pod cannot be read", job=f"{job.namespace}/{job.name}", error=words(error))
        return found


class JobSource(_Source[Job]):
    """A training or inference; `tasks` holds it."""

    def __init__(self, connection: Connection, tasks: Tasks, job: Job, phrases: Phrases) -> None:
        super().__init__(connection, job, phrases)
        self._tasks = tasks

    def _end(self, job: Job, phrases: Phrases) -> End | None:
        if job.status.phase not in views.ENDED:
            return None
        return End(views.status_of(job), views.story(job, phrases))

    async def _next(self, job: Job) -> Job | None:
        return await self._tasks.changed(job)

    def _selector(self, job: Job) -> str:
        return f"{contract.LABEL_JOB_UID}={job.uid}"

    def _pods_of(self, job: Job, found: Sequence[PodObject]) -> list[Pod]:
        return [pod for read in found if (pod := _pod(job, read)) is not None]

    async def _output(self, job: Job) -> tuple[str, tuple[KeptFile, ...]]:
        """The log in the job's output; empty: the job never ran, or does not exist."""
        try:
            answer = await self._connection.request("GET", path(job.type, job.namespace, job.name))
        except ConnectionProblem as error:
            log.warning("output not known", job=f"{job.namespace}/{job.name}", error=str(error))
            return "", ()
        if not answer.ok or not section(answer.body, "status").get("startedAt"):
            return "", ()
        spec = section(answer.body, "spec")
        folder = str(section(spec, "output").get("uri", "")).rstrip("/")
        shards = spec.get("shards", 1) if job.type == "inference" else 1
        if shards == 1:
            uri = f"{folder}/{contract.LOG}"
            return uri, (KeptFile(uri),)
        names = (contract.LOG.replace(".", f"-{shard}.", 1) for shard in ("*", *range(min(int(shards), MOST_FILES))))
        several, *each = (f"{folder}/{name}" for name in names)
        return several, tuple(KeptFile(uri, shard) for shard, uri in enumerate(each))


class PreparationSource(_Source[Prepared]):
    """A preparation of data; `held` holds it. Its pods are those that its Job controls."""

    def __init__(self, connection: Connection, held: Preparations, one: Prepared, phrases: Phrases) -> None:
        super().__init__(connection, one, phrases)
        self._held = held

    async def report(self) -> Report | None:
        """What its last pod left when it ended; None: nothing, or it cannot be read now."""
        found = [pod for pod in await self._read(self._last) or () if _controlled(pod, self._last.uid)]
        reports = [_report(pod) for pod in sorted(found, key=_born)]
        return next((one for one in reversed(reports) if one is not None), None)

    async def _output(self, job: Prepared) -> tuple[str, tuple[KeptFile, ...]]:
        """None: the log of a preparation is that of its pod alone."""
        del job
        return "", ()

    def _end(self, job: Prepared, phrases: Phrases) -> End | None:
        if job.status not in preparations.ENDED:
            return None
        return End(job.status, preparations.story(job, phrases))

    async def _next(self, job: Prepared) -> Prepared | None:
        return await self._held.changed(job)

    def _selector(self, job: Prepared) -> str:
        return f"{CONTROLLER_UID}={job.uid}"

    def _pods_of(self, job: Prepared, found: Sequence[PodObject]) -> list[Pod]:
        own = sorted((pod for pod in found if _controlled(pod, job.uid)), key=_born)
        return [
            Pod(
                name=pod.metadata.name,
                attempt=attempt,
                started=bool(pod.spec.node_name),
                finished=_finished(pod),
            )
            for attempt, pod in enumerate(own, 1)
        ]


def _controlled(pod: PodObject, uid: str) -> bool:
    return any(one.controller and one.uid == uid for one in pod.metadata.owner_references or ())


def _born(pod: PodObject) -> tuple[datetime, str]:
    return bounded(pod.metadata.creation_timestamp or EARLIEST), pod.metadata.name


def _report(pod: PodObject) -> Report | None:
    trainer = _trainer(pod)
    ended = None if trainer is None else trainer.state.terminated
    return None if ended is None or not ended.message else preparations.report(ended.message)


def _trainer(pod: PodObject) -> ContainerStatus | None:
    return next((one for one in pod.status.container_statuses or () if one.name == contract.CONTAINER), None)


def _finished(pod: PodObject) -> bool:
    trainer = _trainer(pod)
    return pod.status.phase in _ENDED or (trainer is not None and trainer.state.terminated is not None)


def _pod(job: Job, read: PodObject) -> Pod | None:
    """A pod of the job; None: it only has its label."""
    meta = read.metadata
    labels = meta.labels or {}
    owner = next((one for one in meta.owner_references or () if one.controller), None)
    if owner is None or owner.uid != job.uid:
        return None
    if not may_be_pod_of(meta.name, labels, kind=owner.kind, job=job.name, uid=job.uid):
        return None
    return Pod(
        name=meta.name,
        attempt=_number(labels.get(contract.LABEL_ATTEMPT)) or 1,
        shard=_number(labels.get(contract.LABEL_SHARD)),
        rank=_number(labels.get(contract.LABEL_RANK)),
        started=bool(read.spec.node_name),  # its container may start at any time, without a change of the job
        finished=_finished(read),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 7 else None  # noqa: PLR2004  digits
