"""The one loop: wait for dirt, take a snapshot, ask the core, hand its actions to the writer; it decides nothing."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

import structlog

from rfuav_kube import clock
from rfuav_operator.core.capacity.usage import Usage
from rfuav_operator.core.model import (
    Action,
    CreatePod,
    Job,
    PatchLimitsStatus,
    PatchStatus,
    Pod,
    Pool,
    Quota,
    Report,
    Uid,
)
from rfuav_operator.core.scheduler import Fault, Scheduler
from rfuav_operator.shell import metrics
from rfuav_operator.shell.gpu_time import gpu_time
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.writing.writer import Writer

log = structlog.get_logger()

COALESCE = 0.01  # seconds: events that belong together arrive together
TURN_AGAIN = timedelta(seconds=5)  # after a turn that failed
HEARTBEAT = 10.0  # seconds between two turns when nothing happens
HANDOFF_LIMIT = 60.0  # seconds after which room was not waited for


class Loop:
    """Turns state into actions.

    Args:
        take_reports: the progress reports that wait, those of the given jobs among them.
        beat: called with every turn, and now and then while nothing happens.
    """

    def __init__(
        self,
        state: ClusterState,
        writer: Writer,
        take_reports: Callable[[Iterable[Uid]], list[Report]],
        *,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._state = state
        self._writer = writer
        self._take_reports = take_reports
        self._beat = beat
        self._scheduler = Scheduler()
        self._dirty = asyncio.Event()
        self._wake_at: datetime | None = None
        # By node, the one with the latest end last: when pods of ours ended.
        self._freed: OrderedDict[str, list[float]] = OrderedDict()

    def nudge(self) -> None:
        """Something is dirty, or a report waits."""
        self._dirty.set()

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Note when a pod's end frees room, for the hand-off metric."""
        if old is not None and old.live and old.node is not None and (new is None or not new.live):
            now = clock.monotonic()
            freed = self._freed.setdefault(old.node, [])
            freed.append(now)
            del freed[:-64]
            self._freed.move_to_end(old.node)
            while next(iter(self._freed.values()))[-1] < now - HANDOFF_LIMIT:
                self._freed.popitem(last=False)

    async def run(self) -> None:
        """Decide until cancelled, from what the state holds; decisions of an earlier term do not count."""
        self._scheduler, self._wake_at = Scheduler(), None
        self._state.touch_all()
        try:
            while True:
                await self._wait()
                await asyncio.sleep(COALESCE)
                self.turn(clock.now())
        finally:
            gpu_time.note({})  # from now on another counts

    async def _wait(self) -> None:
        while True:
            now = clock.now()
            if self._wake_at is not None and now >= self._wake_at:
                self._wake_at = None
                return  # the core itself knows which jobs are due
            self._beat()
            if self._dirty.is_set():
                return
            left = HEARTBEAT if self._wake_at is None else (self._wake_at - now).total_seconds()
            try:
                async with asyncio.timeout(min(max(left, 0), HEARTBEAT)):
                    await self._dirty.wait()
            except TimeoutError:
                continue

    def turn(self, now: datetime) -> None:
        """One turn: all decisions that follow from the current state."""
        self._dirty.clear()
        dirt = self._state.take_dirt()
        reports = self._take_reports(dirt.jobs)
        began = time.perf_counter()
        try:
            decided = self._scheduler.turn(self._state.snapshot(), dirt, reports=reports, now=now)
        except Exception:  # no job's own fault: those are set aside inside
            log.exception("turn failed")
            metrics.faults.labels("turn").inc()
            self._scheduler = Scheduler()
            self._state.touch_all()
            self._dirty.clear()
            self._wake_at = now + TURN_AGAIN
            return
        metrics.turns.observe(time.perf_counter() - began)
        if (usage := self._scheduler.usage) is not None:
            gpu_time.note(usage.gpus)
        self._wake_at = decided.wake_at
        for fault in decided.faults:
            self._say(fault)
        for action in decided.actions:
            self._hold(action)
            metrics.actions.labels(type(action).__name__).inc()
        self._writer.submit(decided.actions)
        self._beat()

    def set_aside(self) -> Iterator[str]:
        """The kind of each job whose handling failed."""
        jobs = (self._state.job(uid) for uid in self._scheduler.aside)
        return (job.kind.value for job in jobs if job is not None)

    @property
    def usage(self) -> Usage | None:
        """What is in use after the last turn; None: that is not known."""
        return self._scheduler.usage

    def _say(self, fault: Fault) -> None:
        match fault.of:
            case Job(kind=kind, namespace=namespace, name=name, status=status):
                metrics.faults.labels("job").inc()
                job = f"{namespace}/{name}"
                log.error("job set aside", kind=kind, job=job, attempt=status.attempt, exc_info=fault.error)
            case Pool(name=name) | Quota(namespace=name):
                metrics.faults.labels("limits").inc()
                log.error("status of a pool or quota could not be made", name=name, exc_info=fault.error)
            case None:
                metrics.faults.labels("plan").inc()
                log.error("plan failed: no job is admitted until it succeeds", exc_info=fault.error)

    def _hold(self, action: Action) -> None:
        """From the moment it is planned, room is taken."""
        match action:
            case PatchStatus(job=job, status=status):
                self._state.plan_status(job.uid, status)
            case PatchLimitsStatus(target=target, status=status):
                self._state.plan_limits(target, status)
            case CreatePod(job_uid=uid, name=name, landing=landing):
                self._state.begin_create(uid, name, landing)
                held = self._state.job(uid)
                node = next((a.node for a in held.status.assignments if a.pod == name), "") if held else ""
                if (freed := self._freed.get(node)) is not None:
                    waited = clock.monotonic() - freed.pop(0)
                    if not freed:
                        del self._freed[node]
                    if waited < HANDOFF_LIMIT:
                        metrics.handoff.observe(waited)
            case _:
                pass
