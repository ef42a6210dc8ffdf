"""The Writer carries decisions to the API server: in order for one job, bounded in parallel over all.

Actions of the core come in. A failed status write drops what waited behind it, and the job is decided again on what was
read; a pod's create keeps its room until its outcome is known. Every answer enters ClusterState at once. No request
reaches beyond the leader's lease.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from rfuav_operator.core.model import (
    Action,
    CreatePod,
    CreateService,
    DeleteJob,
    DeletePod,
    Job,
    PatchLimitsStatus,
    PatchStatus,
    Pool,
    Quota,
    RecordEvent,
)
from rfuav_operator.settings import Writes
from rfuav_operator.shell import clock, ingest, metrics, paths
from rfuav_operator.shell.connection import MERGE_PATCH, Answer, Connection, NotSent, Unknown
from rfuav_operator.shell.events import Events
from rfuav_operator.shell.lane import Lane
from rfuav_operator.shell.patch import merge_patch
from rfuav_operator.shell.state import ClusterState

log = structlog.get_logger()

TICK = 0.05  # seconds between two looks at what the budget holds back
FIRST_BACKOFF, LAST_BACKOFF = 0.1, 5.0  # seconds
REFUSED_BACKOFF = 5.0  # seconds before a refused status or delete is decided again
FORGET_AFTER = 60.0  # seconds an idle lane is kept
UNAUTHORIZED, NOT_FOUND, CONFLICT, TOO_MANY, SERVER_ERROR = 401, 404, 409, 429, 500


class LeaseOver(RuntimeError):  # noqa: N818  the term of leader election
    """The lease has ended: nothing may be written any more."""


class Writer:
    """One queue for each job and pool.

    Args:
        lease_left: seconds for which this process is surely the leader.
    """

    def __init__(
        self,
        connection: Connection,
        state: ClusterState,
        events: Events,
        limits: Writes,
        lease_left: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._state = state
        self._events = events
        self._limits = limits
        self._lease_left = lease_left
        self._lanes: dict[str, Lane] = {}
        self._held_back: dict[str, Lane] = {}
        self._free = asyncio.Semaphore(limits.parallel)
        self._tasks: asyncio.TaskGroup | None = None
        self._tokens = 0.0
        self._running: set[asyncio.Task[None]] = set()
        self.abandoned = False  # a request was given up while it was under way: it may still be carried out

    async def run(self) -> None:
        """Carry out what is submitted, until cancelled; a lost lease ends it with an error."""
        async with asyncio.TaskGroup() as self._tasks:
            for key, lane in self._lanes.items():
                self._wake(key, lane)
            await self._pace()

    def submit(self, actions: Sequence[Action]) -> None:
        """Queue actions; those of one job keep their order."""
        for action in actions:
            key = _key(action)
            lane = self._lanes.setdefault(key, Lane())
            lane.add(action)
            self._wake(key, lane)

    async def drain(self, seconds: float) -> bool:
        """Begin nothing more, and wait until nothing is under way or the time is over; whether nothing is."""
        self._tasks = None  # what the budget held back would come due after the lease was given back
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        return not self._running

    # --- scheduling

    def _wake(self, key: str, lane: Lane) -> None:
        if lane.running or not lane.items or self._tasks is None:
            return
        if lane.urgent or lane.released:
            self._held_back.pop(key, None)
            lane.running = True
            task = self._tasks.create_task(self._empty(key, lane))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        elif key not in self._held_back:
            lane.waiting_since = clock.monotonic()
            self._held_back[key] = lane

    async def _empty(self, key: str, lane: Lane) -> None:
        while lane.items and (lane.urgent or lane.released):
            lane.released = False
            action = lane.items.popleft()
            succeeded = await self._carry_out(lane, action)
            lane.done(action)
            if not succeeded:
                self._drop(lane, action)
        lane.running = False
        if not lane.items:
            lane.ours.clear()  # the next decision is made on what the last answer brought
        self._wake(key, lane)

    def _drop(self, lane: Lane, failed: Action) -> None:
        for action in lane.items:
            lane.done(action)
            if isinstance(action, CreatePod):
                self._state.end_create(action.job_uid, action.name)
        lane.items.clear()
        lane.ours.clear()
        if isinstance(failed, PatchStatus):
            self._state.drop_plan(failed.job.uid)
        elif isinstance(failed, PatchLimitsStatus):
            self._state.drop_limits(failed.target)
            self._state.touch()

    async def _pace(self) -> None:
        last = clock.monotonic()
        while True:
            await asyncio.sleep(TICK)
            now = clock.monotonic()
            # One second's budget may be saved up, no more.
            self._tokens = min(
                self._tokens + (now - last) * self._limits.progress_per_second,
                max(self._limits.progress_per_second, 1.0),
            )
            last = now
            due = [
                (not lane.final, lane.waiting_since, key)
                for key, lane in self._held_back.items()
                if now - lane.written_at >= self._interval(lane)
            ]
            for _, _, key in sorted(due)[: int(self._tokens)]:
                self._tokens -= 1
                lane = self._held_back.pop(key)
                lane.released = True
                self._wake(key, lane)
            for key in [
                k
                for k, ln in self._lanes.items()
                if not ln.items and not ln.running and now - ln.written_at > FORGET_AFTER
            ]:
                del self._lanes[key]

    def _interval(self, lane: Lane) -> float:
        return self._limits.queue_interval_seconds if lane.slow else self._limits.progress_interval_seconds

    # --- one action

    async def _carry_out(self, lane: Lane, action: Action) -> bool:
        match action:
            case PatchStatus():
                return await self._patch_status(lane, action)
            case CreatePod():
                await self._create_pod(action)
            case CreateService():
                await self._create_service(action)
            case DeletePod():
                await self._delete_pod(action)
            case DeleteJob():
                await self._delete_job(action)
            case RecordEvent():
                self._events.record(action)
            case PatchLimitsStatus(target=target, status=status):
                written = await self._patch_limits(lane, action)
                if written:
                    self._state.settle_limits(target, status)
                return written
        return True

    async def _patch_status(self, lane: Lane, action: PatchStatus) -> bool:
        uid = action.job.uid
        read = self._state.read_job(uid)
        version = lane.version_for(action.job.resource_version)
        if read is None or read.resource_version != version:
            return False  # deleted, or changed by someone else since it was decided
        before = msgspec.to_builtins(read.status) if read.stored is None else dict(read.stored)
        patch = merge_patch(before, msgspec.to_builtins(action.status))
        if not patch:
            self._state.settle_status(uid, action.status)
            return True
        lane.written_at = clock.monotonic()
        body = {"metadata": {"resourceVersion": version}, "status": patch}
        answer = await self._send("PATCH", f"{paths.job(read)}/status", body, content_type=MERGE_PATCH)
        if answer is not None and answer.ok:
            lane.wrote(version, answer.body["metadata"]["resourceVersion"])
            ingest.job(self._state, read.kind, answer.body)
            self._state.settle_status(uid, action.status)
            return True
        if answer is None or answer.status == CONFLICT:
            await self._read_job(read)
        elif answer.status == NOT_FOUND:
            self._state.jobs.remove((read.kind, read.namespace, read.name))
        else:
            log.error(
                "status refused", job=f"{read.namespace}/{read.name}", status=answer.status, message=answer.message
            )
            await asyncio.sleep(REFUSED_BACKOFF)
        return False

    async def _read_job(self, job: Job) -> None:
        """Read a job until there is an answer: only then is the outcome of the last write known."""
        answer = await self._insist("GET", paths.job(job))
        if answer.ok:
            ingest.job(self._state, job.kind, answer.body)
        elif answer.status == NOT_FOUND:
            self._state.jobs.remove((job.kind, job.namespace, job.name))

    async def _create_pod(self, action: CreatePod) -> None:
        path, backoff = paths.pods(action.namespace), FIRST_BACKOFF
        try:
            while self._state.read_job(action.job_uid) is not None:
                answer = await self._made(action, await self._send("POST", path, action.manifest))
                if answer is None:
                    await asyncio.sleep(backoff * random.uniform(0.5, 1.5))  # noqa: S311  jitter
                    backoff = min(backoff * 2, LAST_BACKOFF)
                    continue
                if answer.ok:
                    ingest.pod(self._state, answer.body)
                elif answer.status != NOT_FOUND:  # the namespace is gone: its jobs follow
                    self._state.reject(action.job_uid, answer.message)
                return
        finally:
            self._state.end_create(action.job_uid, action.name)

    async def _made(self, action: CreatePod, answer: Answer | None) -> Answer | None:
        """What came of a create, by what stands under its name when its answer does not tell; None: try again.

        Our own pod there is as good as created, since the name follows from the job's UID and the attempt. An earlier
        try whose answer was lost may have made it: then it must not be made again, should it have ended and gone
        meanwhile, and it may fill the very quota that refuses this try.
        """
        if answer is not None and (answer.ok or answer.status == NOT_FOUND):
            return answer
        taken = answer is not None and answer.reason == "AlreadyExists"
        if answer is not None and answer.status == CONFLICT and not taken:
            return None  # a quota was written at the same time
        path = f"{paths.pods(action.namespace)}/{action.name}"
        found = await self._insist("GET", path)
        while answer is None and not found.ok and found.status != NOT_FOUND:  # not told: it keeps its room
            await asyncio.sleep(REFUSED_BACKOFF)
            found = await self._insist("GET", path)
        if found.ok and any(o["uid"] == action.job_uid for o in found.body["metadata"].get("ownerReferences", ())):
            return found
        if not taken:
            return answer
        return self._name_taken(action) if found.ok else None

    def _name_taken(self, action: CreatePod) -> Answer:
        job = self._state.read_job(action.job_uid)
        message = f"the pod {action.name} exists already and belongs to somebody else; delete it to let the job go on"
        if job is not None:
            self._events.record(
                RecordEvent(job=job, type="Warning", reason="PodNameTaken", action="CreatePod", note=message)
            )
        return Answer(CONFLICT, {"message": message})

    async def _delete_pod(self, action: DeletePod) -> None:
        path = f"{paths.pods(action.namespace)}/{action.name}"
        answer = await self._insist("DELETE", path, {"preconditions": {"uid": action.uid}})
        if answer.status == CONFLICT:  # another pod has the name by now
            answer = await self._insist("GET", path)
        if answer.status == NOT_FOUND:
            self._state.pods.remove((action.namespace, action.name))
        elif not answer.ok:
            log.error(
                "pod not deleted", pod=f"{action.namespace}/{action.name}", status=answer.status, message=answer.message
            )
            await asyncio.sleep(REFUSED_BACKOFF)
            self._state.touch([action.job_uid])
        elif answer.body.get("kind") == "Pod":
            ingest.pod(self._state, answer.body)

    async def _delete_job(self, action: DeleteJob) -> None:
        job = self._state.read_job(action.job.uid)
        if job is None or job.resource_version != action.job.resource_version:
            self._state.touch([action.job.uid])
            return
        body = {
            "preconditions": {"uid": job.uid, "resourceVersion": job.resource_version},
            "propagationPolicy": "Background",
        }
        answer = await self._insist("DELETE", paths.job(job), body)
        if answer.status == NOT_FOUND or (answer.ok and answer.body.get("kind") == "Status"):
            self._state.jobs.remove((job.kind, job.namespace, job.name))
        elif answer.ok:
            ingest.job(self._state, job.kind, answer.body)  # held by somebody's finalizer
        else:
            if answer.status != CONFLICT:
                log.error(
                    "job not deleted", job=f"{job.namespace}/{job.name}", status=answer.status, message=answer.message
                )
                await asyncio.sleep(REFUSED_BACKOFF)
            await self._read_job(job)
            self._state.touch([job.uid])

    async def _create_service(self, action: CreateService) -> None:
        """Create the Service of a job; one that is there already is its own, or its pods will say what they miss."""
        answer = await self._insist("POST", paths.services(action.namespace), dict(action.manifest))
        if not answer.ok and answer.status not in (CONFLICT, NOT_FOUND):
            log.error(
                "service refused",
                service=f"{action.namespace}/{action.name}",
                status=answer.status,
                message=answer.message,
            )

    async def _patch_limits(self, lane: Lane, action: PatchLimitsStatus) -> bool:
        target = action.target
        held: Pool | Quota | None
        if isinstance(target, Pool):
            held, take_in = self._state.pools.get(target.name), ingest.pool
        else:
            held, take_in = self._state.quotas.get(target.namespace), ingest.quota
        if held is None or held.uid != target.uid:
            return True
        patch = merge_patch(dict(held.status), dict(action.status))
        if not patch:
            return True
        lane.written_at = clock.monotonic()
        path = paths.limits(held)
        body = {"metadata": {"resourceVersion": held.resource_version}, "status": patch}
        answer = await self._send("PATCH", f"{path}/status", body, content_type=MERGE_PATCH)
        if answer is None or answer.status == CONFLICT:
            answer = await self._insist("GET", path)
            if answer.ok:
                take_in(self._state, answer.body)
            return False
        if answer.ok:
            take_in(self._state, answer.body)
        elif answer.status != NOT_FOUND:
            log.error("status refused", path=path, status=answer.status, message=answer.message)
            await asyncio.sleep(REFUSED_BACKOFF)
            return False
        return True

    # --- one request

    async def _insist(self, method: str, path: str, body: Any = None) -> Answer:
        """A request that may be sent twice, until there is an answer."""
        backoff = FIRST_BACKOFF
        while True:
            answer = await self._send(method, path, body)
            if answer is not None:
                return answer
            await asyncio.sleep(backoff * random.uniform(0.5, 1.5))  # noqa: S311  jitter
            backoff = min(backoff * 2, LAST_BACKOFF)

    async def _send(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> Answer | None:
        """A request, tried again while the server surely did not act on it; None: the outcome is not known."""
        backoff = FIRST_BACKOFF
        while True:
            wait: float | None = None
            async with self._free:
                left = self._lease_left()
                if left <= 0:
                    raise LeaseOver("the lease has ended: nothing may be written any more")
                began = clock.monotonic()
                try:
                    answer = await self._connection.request(
                        method, path, body, content_type=content_type, timeout=min(self._limits.timeout_seconds, left)
                    )
                except Unknown as error:
                    log.warning("outcome unknown", error=str(error))
                    metrics.wrote(method, "unknown", clock.monotonic() - began)
                    return None
                except asyncio.CancelledError:
                    self.abandoned = True
                    raise
                except NotSent as error:
                    log.warning("not sent", error=str(error))
                    metrics.wrote(method, "not sent", clock.monotonic() - began)
                else:
                    metrics.wrote(method, str(answer.status), clock.monotonic() - began)
                    if answer.status >= SERVER_ERROR:
                        log.warning(
                            "server error", method=method, path=path, status=answer.status, message=answer.message
                        )
                        return None
                    if answer.status not in (UNAUTHORIZED, TOO_MANY):
                        return answer
                    wait = answer.retry_after
            await asyncio.sleep(wait if wait is not None else backoff * random.uniform(0.5, 1.5))  # noqa: S311  jitter
            backoff = min(backoff * 2, LAST_BACKOFF)


def _key(action: Action) -> str:
    match action:
        case CreatePod(job_uid=uid) | CreateService(job_uid=uid) | DeletePod(job_uid=uid):
            return uid
        case PatchLimitsStatus(target=target):
            return target.uid
        case PatchStatus(job=job) | DeleteJob(job=job) | RecordEvent(job=job):
            return job.uid
