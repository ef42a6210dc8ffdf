"""The Writer carries decisions to the API server: in order for one job, bounded in parallel over all.

Actions of the core come in. A failed status write drops what waited behind it, and the job is decided again on what was
read; a pod's create keeps its room until its outcome is known. What the cluster does not let through is set aside and
tried again, past a while of creates the job is told so; what the job does not want any more is not sent. Every answer
enters ClusterState at once. No request reaches beyond the leader's lease. A lane whose work raises waits, ever longer,
and the others go on.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import msgspec
import structlog

from rfuav_kube import clock, paths
from rfuav_kube.connection import MERGE_PATCH, Answer, Connection, NotSent, Unknown, Unsendable
from rfuav_kube.patch import merge_patch
from rfuav_operator.core.model import (
    Action,
    CreatePod,
    DeleteJob,
    DeletePod,
    Job,
    PatchLimitsStatus,
    PatchStatus,
    Pool,
    Quota,
    RecordEvent,
)
from rfuav_operator.core.stored import packing
from rfuav_operator.settings import Writes
from rfuav_operator.shell import kinds, metrics
from rfuav_operator.shell.lane import Lane, Status, Trouble
from rfuav_operator.shell.reading import ingest, pods
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.writing.events import Events

log = structlog.get_logger()

TICK = 0.05  # seconds between two looks at what the budget holds back
FIRST_BACKOFF, LAST_BACKOFF = 0.1, 5.0  # seconds
UNREACHED_BACKOFF = 1.0  # seconds at most while there is no connection: trying costs nobody anything
REFUSED_BACKOFF = 5.0  # seconds before a refused status or delete is decided again
FORGET_AFTER = 60.0  # seconds an idle lane is kept
LONGEST_WAIT = 30.0  # seconds for which a Retry-After is obeyed
LONGEST_ASIDE = 300.0  # seconds that work waits which raised, again and again
UNAUTHORIZED, NOT_FOUND, TIMEOUT, CONFLICT, INVALID, TOO_MANY, SERVER_ERROR = 401, 404, 408, 409, 422, 429, 500
# In the place of an answer: the API server was away; it was there, and none came; the request did not get to it.
CUT_OFF, UNKNOWN, NOT_SENT = 597, 598, 599
ALREADY_EXISTS = "AlreadyExists"
_OUTCOMES = {UNKNOWN: "unknown", NOT_SENT: "not sent"}


class LeaseOver(RuntimeError):  # noqa: N818  the term of leader election
    """The lease has ended: nothing may be written any more."""


class Outcome(NamedTuple):
    """What came of an action."""

    ok: bool = True  # False, of a status: it was not written
    again: float | None = None  # seconds after which it is tried again


DONE, FAILED = Outcome(), Outcome(ok=False)


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
        self._creating = asyncio.Semaphore(max(1, limits.parallel * 3 // 4))
        self._slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # of creates, by namespace
        self._tasks: asyncio.TaskGroup | None = None
        self._tokens = 0.0
        self._running: set[asyncio.Task[None]] = set()
        self.abandoned = False  # a request was given up while it was under way: it may still be carried out

    async def run(self) -> None:
        """Carry out what is submitted, until cancelled; a lost lease ends it with an error. What is left is dropped."""
        self.abandoned = False
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for key, lane in self._lanes.items():
                    self._wake(key, lane)
                await self._pace()
        finally:
            self._tasks = None
            self._lanes.clear()
            self._held_back.clear()

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

    def set_aside(self) -> int:
        """How many lanes wait because their work raised."""
        return sum(1 for lane in self._lanes.values() if lane.faults)

    # --- scheduling

    def _wake(self, key: str, lane: Lane) -> None:
        if lane.running or self._tasks is None:
            return
        if lane.is_due:
            self._held_back.pop(key, None)
            lane.running = True
            task = self._tasks.create_task(self._empty(key, lane))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        elif lane.status is not None and key not in self._held_back:
            lane.waiting_since = clock.monotonic()
            self._held_back[key] = lane

    async def _empty(self, key: str, lane: Lane) -> None:
        while (action := lane.next()) is not None:
            outcome = await self._apart(key, lane, action)
            if outcome.again is not None:
                metrics.tried_again.labels(type(action).__name__).inc()
                if self._tasks is not None:
                    self._tasks.create_task(self._resume(key, lane, action, outcome.again))
            elif isinstance(action, Status) and not outcome.ok:
                self._drop(lane, action)
            elif isinstance(action, Status):
                lane.recorded()
            else:
                lane.done(action)
        lane.running = False
        if lane.status is None:
            lane.ours.clear()  # the next decision is made on what the last answer brought
        self._wake(key, lane)

    async def _resume(self, key: str, lane: Lane, action: Action, after: float) -> None:
        await asyncio.sleep(after)
        lane.again(action)
        self._wake(key, lane)

    def _drop(self, lane: Lane, failed: Status) -> None:
        for action in lane.drop():
            if isinstance(action, CreatePod):
                self._state.end_create(action.job_uid, action.name)
        if isinstance(failed, PatchStatus):
            self._state.drop_plan(failed.job.uid)
        else:
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
            for key, lane in [(k, ln) for k, ln in self._held_back.items() if ln.is_due]:
                self._wake(key, lane)
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
            for key in [k for k, ln in self._lanes.items() if ln.is_idle and now - ln.written_at > FORGET_AFTER]:
                del self._lanes[key]

    def _interval(self, lane: Lane) -> float:
        return self._limits.queue_interval_seconds if lane.slow else self._limits.progress_interval_seconds

    # --- one action

    async def _apart(self, key: str, lane: Lane, action: Action) -> Outcome:
        """What came of an action. Whatever it raises is this lane's alone: it is tried again, ever later."""
        try:
            outcome = await self._carry_out(lane, action)
        except LeaseOver:
            raise
        except Exception as error:
            lane.faults += 1
            log.exception("lane set aside", key=key, action=type(action).__name__, faults=lane.faults)
            wait = min(REFUSED_BACKOFF * 2.0 ** min(lane.faults - 1, 16), LONGEST_ASIDE)
            if isinstance(action, Status):
                await asyncio.sleep(wait)
                return FAILED
            if isinstance(action, CreatePod):
                lane.trouble.add(f"{type(error).__name__}: {error}", wait)
            return Outcome(again=wait) if lane.tried(action) else DONE
        lane.faults = 0
        return outcome

    async def _carry_out(self, lane: Lane, action: Action) -> Outcome:
        match action:
            case PatchStatus():
                return await self._patch_status(lane, action)
            case CreatePod():
                return await self._create_pod(lane, action)
            case DeletePod():
                return await self._delete_pod(lane, action)
            case DeleteJob():
                return await self._delete_job(lane, action)
            case RecordEvent():
                self._events.record(action)
                return DONE
            case PatchLimitsStatus(target=target, status=status):
                written = await self._patch_limits(lane, action)
                if written.ok:
                    self._state.settle_limits(target, status)
                return written

    async def _patch_status(self, lane: Lane, action: PatchStatus) -> Outcome:
        uid = action.job.uid
        read = self._state.read_job(uid)
        version = lane.version_for(action.job.resource_version)
        if read is None or read.resource_version != version:
            return FAILED  # deleted, or changed by someone else since it was decided
        before = msgspec.to_builtins(read.status) if read.stored is None else dict(read.stored)
        patch = merge_patch(before, packing.pack(action.status))
        if not patch:
            self._state.settle_status(uid, action.status)
            return DONE
        lane.written_at = clock.monotonic()
        body = {"metadata": {"resourceVersion": version}, "status": patch}
        answer = await self._send("PATCH", f"{kinds.job(read)}/status", body, content_type=MERGE_PATCH)
        if answer is not None and answer.ok:
            lane.wrote(version, answer.body["metadata"]["resourceVersion"])
            ingest.job(self._state, read.kind, answer.body, action.status)
            self._state.settle_status(uid, action.status)
            return DONE
        if answer is None:
            lane.failed_writes += 1
            await self._read_job(read)
            await asyncio.sleep(_pause(lane.failed_writes))
        elif answer.status == CONFLICT:
            await self._read_job(read)
        elif answer.status == NOT_FOUND:
            self._state.jobs.remove((read.kind, read.namespace, read.name))
        else:
            log.error(
                "status refused", job=f"{read.namespace}/{read.name}", status=answer.status, message=answer.message
            )
            await asyncio.sleep(REFUSED_BACKOFF)
        return FAILED

    async def _read_job(self, job: Job) -> None:
        """Read a job until there is an answer: only then is the outcome of the last write known."""
        answer = await self._insist("GET", kinds.job(job))
        if answer.ok:
            ingest.job(self._state, job.kind, answer.body)
        elif answer.status == NOT_FOUND:
            self._state.jobs.remove((job.kind, job.namespace, job.name))
        else:
            log.error("job not read", job=f"{job.namespace}/{job.name}", status=answer.status, message=answer.message)
            await asyncio.sleep(REFUSED_BACKOFF)

    async def _create_pod(self, lane: Lane, action: CreatePod) -> Outcome:
        """One try of a create. The pod's room is kept until it is known whether the pod is there.

        Our own pod under its name is as good as created, since the name follows from the job's UID and the attempt. So
        before anything is sent again, or given up, it is looked whether an earlier try has made it.
        """
        if lane.tries(action):
            if self._state.was_there(action.job_uid, action.name):  # it ended and is gone, or a watch has brought it
                return self._created(action)
            found = await self._attempt("GET", f"{paths.pods(action.namespace)}/{action.name}")
            if found.ok:
                return self._found(lane, action, found)
            if found.status != NOT_FOUND:  # not told
                return self._later(lane, action, found)
        if not self._is_wanted(action):
            return self._created(action)
        if lane.trouble.is_enough:
            words = f"{lane.trouble.tries} tries failed, the last one with: {lane.trouble.words}"
            return self._created(action, refused=words)
        began = clock.monotonic()
        answer = await self._make_service(lane, action)
        if answer.ok:
            answer = await self._attempt("POST", paths.pods(action.namespace), action.manifest)
        if answer.ok:
            lane.trouble = Trouble()
            ingest.pod(self._state, answer.body)
            return self._created(action)
        if answer.reason == ALREADY_EXISTS:
            lane.tried(action)
            return Outcome(again=0.0)
        later = self._later(lane, action, answer) if answer.status == CONFLICT or not _decides(answer) else None
        if later is None:
            return self._created(action, refused=answer.message)
        if answer.status not in (CONFLICT, UNAUTHORIZED, CUT_OFF, NOT_SENT):  # a quota of all; our own troubles
            lane.trouble.add(answer.message, clock.monotonic() - began + (later.again or 0.0))
        return later

    def _is_wanted(self, action: CreatePod) -> bool:
        """Whether the job, as it is known now, still is to have this pod."""
        job = self._state.job(action.job_uid)
        if job is None or job.deleting or job.spec.cancel or job.spec.suspend:
            return False
        if job.status.phase is not None and job.status.phase.terminal:
            return False
        return any(a.pod == action.name and not a.stopping for a in job.status.assignments)

    def _found(self, lane: Lane, action: CreatePod, found: Answer) -> Outcome:
        """There is a pod under the name."""
        if pods.job_of(found.body) == action.job_uid:
            lane.trouble = Trouble()
            ingest.pod(self._state, found.body)
            return self._created(action)
        job = self._state.read_job(action.job_uid)
        message = f"the pod {action.name} exists already and belongs to somebody else; delete it to let the job go on"
        if job is not None:
            self._events.record(
                RecordEvent(job=job, type="Warning", reason="PodNameTaken", action="CreatePod", note=message)
            )
        return self._created(action, refused=message)

    def _created(self, action: CreatePod, *, refused: str = "") -> Outcome:
        """It is known now whether the pod is there."""
        if refused:
            self._state.reject(action.job_uid, refused)
        self._state.end_create(action.job_uid, action.name)
        return DONE

    async def _make_service(self, lane: Lane, action: CreatePod) -> Answer:
        """Have the Service there by which the pods of a job of several nodes find each other, before any of them."""
        if action.service is None or clock.monotonic() - lane.service_at < FORGET_AFTER:
            return Answer(200, None)
        answer = await self._attempt("POST", paths.services(action.namespace), action.service)
        if answer.ok or answer.reason == ALREADY_EXISTS:  # its own: the name follows from the job's UID
            lane.service_at = clock.monotonic()
            return Answer(200, None)
        return answer._replace(body={"message": f"its Service {action.service['metadata']['name']}: {answer.message}"})

    async def _delete_pod(self, lane: Lane, action: DeletePod) -> Outcome:
        path = f"{paths.pods(action.namespace)}/{action.name}"
        held = self._state.pods.get((action.namespace, action.name))
        if lane.tries(action) and (held is None or held.uid != action.uid or held.deleting or not held.live):
            return DONE
        answer = await self._attempt("DELETE", path, {"preconditions": {"uid": action.uid}})
        if answer.status == CONFLICT:  # another pod has the name by now
            answer = await self._attempt("GET", path)
        if answer.status == NOT_FOUND:
            self._state.pods.remove((action.namespace, action.name))
        elif not answer.ok:
            return self._later(lane, action, answer)
        elif answer.body.get("kind") == "Pod":
            ingest.pod(self._state, answer.body)
        return DONE

    async def _delete_job(self, lane: Lane, action: DeleteJob) -> Outcome:
        job = self._state.read_job(action.job.uid)
        if job is None or job.resource_version != action.job.resource_version:
            self._state.touch([action.job.uid])
            return DONE
        body = {
            "preconditions": {"uid": job.uid, "resourceVersion": job.resource_version},
            "propagationPolicy": "Background",
        }
        answer = await self._attempt("DELETE", kinds.job(job), body)
        if answer.status == NOT_FOUND or (answer.ok and answer.body.get("kind") == "Status"):
            self._state.jobs.remove((job.kind, job.namespace, job.name))
        elif answer.ok:
            ingest.job(self._state, job.kind, answer.body)  # held by somebody's finalizer
        elif answer.status == CONFLICT:
            await self._read_job(job)
            self._state.touch([job.uid])
        else:
            return self._later(lane, action, answer)
        return DONE

    def _later(self, lane: Lane, action: Action, answer: Answer) -> Outcome:
        """Set an effect aside for a while; what else waits for the job goes on."""
        tries = lane.tried(action)
        pause = REFUSED_BACKOFF
        if not _decides(answer) or answer.status == CONFLICT:
            pause = _pause(tries, UNREACHED_BACKOFF if answer.status == NOT_SENT else LAST_BACKOFF)
        if answer.status not in (CUT_OFF, NOT_SENT) and (tries in (1, 10) or tries % 100 == 0):
            log.warning(
                "tried again later",
                action=type(action).__name__,
                object=getattr(action, "name", "") or getattr(getattr(action, "job", None), "name", ""),
                tries=tries,
                status=answer.status,
                message=answer.message,
            )
        return Outcome(again=max(pause, min(answer.retry_after or 0.0, LONGEST_WAIT)))

    async def _patch_limits(self, lane: Lane, action: PatchLimitsStatus) -> Outcome:
        target = action.target
        held: Pool | Quota | None
        if isinstance(target, Pool):
            held, take_in = self._state.pools.get(target.name), ingest.pool
        else:
            held, take_in = self._state.quotas.get(target.namespace), ingest.quota
        if held is None or held.uid != target.uid:
            return DONE
        patch = merge_patch(dict(held.status), dict(action.status))
        if not patch:
            return DONE
        lane.written_at = clock.monotonic()
        path = kinds.limits(held)
        body = {"metadata": {"resourceVersion": held.resource_version}, "status": patch}
        answer = await self._send("PATCH", f"{path}/status", body, content_type=MERGE_PATCH)
        if answer is None or answer.status == CONFLICT:
            answer = await self._insist("GET", path)
            if answer.ok:
                take_in(self._state, answer.body)
            return FAILED
        if answer.ok:
            take_in(self._state, answer.body)
        elif answer.status != NOT_FOUND:
            log.error("status refused", path=path, status=answer.status, message=answer.message)
            await asyncio.sleep(REFUSED_BACKOFF)
            return FAILED
        return DONE

    # --- one request

    async def _insist(self, method: str, path: str, body: Any = None) -> Answer:
        """A request that may be sent twice, until there is an answer."""
        tries = 0
        while True:
            answer = await self._send(method, path, body)
            if answer is not None:
                return answer
            tries += 1
            await asyncio.sleep(_pause(tries))

    async def _send(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> Answer | None:
        """A request, tried again while the server surely did not act on it; None: the outcome is not known."""
        tries = 0
        while True:
            answer = await self._attempt(method, path, body, content_type=content_type)
            if _decides(answer):
                return answer
            if answer.status not in (NOT_SENT, UNAUTHORIZED, TOO_MANY):
                return None
            tries += 1
            pause = _pause(tries, UNREACHED_BACKOFF if answer.status == NOT_SENT else LAST_BACKOFF)
            await asyncio.sleep(pause if answer.retry_after is None else min(answer.retry_after, LONGEST_WAIT))

    async def _attempt(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> Answer:
        """One request; what went wrong on its way comes back as an answer too."""
        async with contextlib.AsyncExitStack() as slots:
            for slot in self._slots_of(method, path):
                await slots.enter_async_context(slot)
            left = self._lease_left()
            if left <= 0:
                raise LeaseOver("the lease has ended: nothing may be written any more")
            began = clock.monotonic()
            timeout = min(self._limits.timeout_seconds, left)
            try:
                answer = await self._connection.request(method, path, body, content_type=content_type, timeout=timeout)
            except Unknown as error:
                answer = Answer(UNKNOWN, {"message": str(error)})
            except asyncio.CancelledError:
                self.abandoned = True
                raise
            except Unsendable as error:
                log.exception("cannot be sent", method=method, path=path)
                answer = Answer(INVALID, {"reason": "Invalid", "message": f"it cannot be sent: {error}"})
            except NotSent as error:
                answer = Answer(NOT_SENT, {"message": str(error)})
            metrics.wrote(method, _OUTCOMES.get(answer.status, str(answer.status)), clock.monotonic() - began)
        if answer.status < SERVER_ERROR:
            return answer
        if await self._connection.reachable():
            return answer if answer.status == NOT_SENT else Answer(CUT_OFF, answer.body)
        log.warning("request failed", method=method, path=path, status=answer.status, message=answer.message)
        return answer

    def _slots_of(self, method: str, path: str) -> list[asyncio.Semaphore]:
        """What a request waits for.

        Whatever admits pods may take its time over each create: those of one namespace leave room for the others', and
        all of them for statuses and deletes.
        """
        if method != "POST":
            return [self._free]
        mine = self._slots.setdefault(path, asyncio.Semaphore(max(1, self._limits.parallel // 2)))
        return [mine, self._creating, self._free]


def _decides(answer: Answer) -> bool:
    """Whether the API server has said yes or no, as far as the object goes."""
    return answer.status < SERVER_ERROR and answer.status not in (UNAUTHORIZED, TIMEOUT, TOO_MANY)


def _pause(tries: int, most: float = LAST_BACKOFF) -> float:
    """Seconds before the next try, after so many."""
    return min(FIRST_BACKOFF * 2.0 ** min(tries - 1, 16), most) * random.uniform(0.5, 1.5)  # noqa: S311  jitter


def _key(action: Action) -> str:
    match action:
        case CreatePod(job_uid=uid) | DeletePod(job_uid=uid):
            return uid
        case PatchLimitsStatus(target=target):
            return target.uid
        case PatchStatus(job=job) | DeleteJob(job=job) | RecordEvent(job=job):
            return job.uid
