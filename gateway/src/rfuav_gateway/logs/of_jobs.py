"""The pods of a job, for its stream of logs: listed at the API server whenever the job has changed.

The gateway does not watch pods: a cluster has many, and only those of jobs whose logs are read matter.
"""

import asyncio
from http import HTTPStatus

import msgspec
import structlog

from rfuav_crds import contract
from rfuav_gateway.cluster.tasks import Tasks, path
from rfuav_gateway.logs.source import End, Pod, TaskState
from rfuav_gateway.tasks import views
from rfuav_gateway.tasks.jobs import Job
from rfuav_gateway.tasks.words import Phrases
from rfuav_kube import objects, paths
from rfuav_kube.connection import Connection, ConnectionProblem
from rfuav_kube.objects import section, words
from rfuav_kube.pods import PodObject
from rfuav_operator.core.names import may_be_pod_of

log = structlog.get_logger()

MOST = 500  # pods of one job
AGAIN = 3.0  # seconds after a list that failed
_ENDED = ("Succeeded", "Failed")


class _Pods(msgspec.Struct):
    items: list[msgspec.Raw] = []


class JobSource:
    """One job: what `logs` follows.

    Args:
        connection: the way to the API server, as the gateway.
        tasks: holds the job.
        job: as it is held now.
        phrases: of the language in which the end is told.
    """

    def __init__(self, connection: Connection, tasks: Tasks, job: Job, phrases: Phrases) -> None:
        self._connection = connection
        self._tasks = tasks
        self._phrases = phrases
        self.key = job.uid
        self.namespace = job.namespace
        self.where = ""
        self._job: Job | None = job
        self._last = job
        self._pods: tuple[Pod, ...] = ()

    async def load(self) -> None:
        """List the pods; if there are none any more, find out where the output keeps the log."""
        await self._list(self._last)
        if self.state().end is not None and not self._pods:
            self.where = await self._kept()

    def state(self) -> TaskState:
        """What is known now."""
        if self._job is None:
            return TaskState(self._pods, End("cancelled", self._phrases.deleted.format(task_id=self._last.task_id)))
        if self._job.status.phase not in views.ENDED:
            return TaskState(self._pods)
        return TaskState(self._pods, End(views.status_of(self._job), views.story(self._job, self._phrases)))

    async def changed(self, seen: TaskState) -> None:
        """Return as soon as the state is another one than `seen`."""
        while self.state() == seen:
            self._job = await self._tasks.changed(self._last)
            if self._job is not None:
                self._last = self._job
                await self._list(self._job)

    async def _list(self, job: Job) -> None:
        """List the pods, trying until it succeeds."""
        while not await self._listed(job):  # noqa: ASYNC110  it waits for a server
            await asyncio.sleep(AGAIN)

    async def _kept(self) -> str:
        """The URI of the log in the job's output; empty: the job never ran, or does not exist."""
        job = self._last
        try:
            answer = await self._connection.request("GET", path(job.type, job.namespace, job.name))
        except ConnectionProblem as error:
            log.warning("output not known", job=f"{job.namespace}/{job.name}", error=str(error))
            return ""
        if not answer.ok or not section(answer.body, "status").get("startedAt"):
            return ""
        spec = section(answer.body, "spec")
        several = job.type == "inference" and spec.get("shards", 1) != 1
        name = contract.LOG.replace(".", "-*.", 1) if several else contract.LOG
        return f"{str(section(spec, 'output').get('uri', '')).rstrip('/')}/{name}"

    async def _listed(self, job: Job) -> bool:
        params = {"labelSelector": f"{contract.LABEL_JOB_UID}={job.uid}", "limit": str(MOST)}
        try:
            status, body, _ = await self._connection.get_bytes(paths.pods(job.namespace), params)
        except ConnectionProblem as error:
            log.warning("pods not listed", job=f"{job.namespace}/{job.name}", error=str(error))
            return False
        if status != HTTPStatus.OK:
            log.warning("pods not listed", job=f"{job.namespace}/{job.name}", status=status)
            return False
        found = []
        for item in msgspec.json.decode(body, type=_Pods).items:
            try:
                read, _ = objects.leniently(item, PodObject)
            except objects.DecodeError as error:
                log.warning("pod cannot be read", job=f"{job.namespace}/{job.name}", error=words(error))
                continue
            if (pod := _pod(job, read)) is not None:
                found.append(pod)
        self._pods = tuple(sorted(found, key=lambda pod: (pod.attempt, pod.name)))
        return True


def _pod(job: Job, read: PodObject) -> Pod | None:
    """A pod of the job; None: it only has its label."""
    meta = read.metadata
    labels = meta.labels or {}
    owner = next((one for one in meta.owner_references or () if one.controller), None)
    if owner is None or owner.uid != job.uid:
        return None
    if not may_be_pod_of(meta.name, labels, kind=owner.kind, job=job.name, uid=job.uid):
        return None
    trainer = next((one for one in read.status.container_statuses or () if one.name == contract.CONTAINER), None)
    state = None if trainer is None else trainer.state
    return Pod(
        name=meta.name,
        attempt=_number(labels.get(contract.LABEL_ATTEMPT)) or 1,
        shard=_number(labels.get(contract.LABEL_SHARD)),
        rank=_number(labels.get(contract.LABEL_RANK)),
        started=bool(read.spec.node_name),  # its container may start at any time, without a change of the job
        finished=read.status.phase in _ENDED or (state is not None and state.terminated is not None),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 7 else None  # noqa: PLR2004  digits
