"""A writer with one queue for each key: in order for one key, bounded in parallel over all.

In: actions, known only as records or effects (`lane`). A carrier, which knows what they mean, carries each one out.
Records that are not urgent share a budget. Effects that waited for a failed record are dropped with it. A lane whose
work raises waits, longer each time, and the others continue.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import structlog

from rfuav_kube import backoff, clock
from rfuav_kube.lane import Lane
from rfuav_kube.requester import LeaseOver

log = structlog.get_logger()

TICK = 0.05  # seconds between two looks at what the budget holds back
FORGET_AFTER = 60.0  # seconds an idle lane is kept
FAULT_BACKOFF = 5.0  # seconds that work waits which raised
LONGEST_ASIDE = 300.0  # seconds that it waits when it raises again and again

A = TypeVar("A")
L = TypeVar("L", bound=Lane[Any])
L_contra = TypeVar("L_contra", bound=Lane[Any], contravariant=True)


class Outcome(NamedTuple):
    """What came of an action."""

    ok: bool = True  # False, of a record: it was not written
    again: float | None = None  # seconds after which it is tried again


DONE, FAILED = Outcome(), Outcome(ok=False)


class Budget(NamedTuple):
    """Writes of records that are not urgent."""

    per_second: float  # of all; at most one second's budget may be saved
    interval_seconds: float  # least time between two of one key
    slow_interval_seconds: float  # the same for those that may wait longest


class Carrier(Protocol[A, L_contra]):
    """Knows what actions mean."""

    async def carry_out(self, lane: L_contra, action: A, /) -> Outcome:
        """Carry out an action."""

    def not_written(self, action: A, dropped: list[A], /) -> None:
        """A record was not written, and what waited for it is given up."""

    def put_off(self, action: A, /) -> None:
        """An effect will be tried again."""


class KeyedWriter(Generic[A, L]):
    """Carries out submitted actions.

    Args:
        lane: makes the queue of a key.
    """

    def __init__(self, carrier: Carrier[A, L], lane: Callable[[], L], budget: Budget) -> None:
        self._carrier = carrier
        self._lane = lane
        self._budget = budget
        self._lanes: dict[str, L] = {}
        self._held_back: dict[str, L] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._tokens = 0.0
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Carry out submitted actions until cancelled; a lost lease ends it with an error. The rest is dropped."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for key, lane in self._lanes.items():
                    self._wake(key, lane)
                await self._pace()
        finally:
            self._tasks = None
            self._lanes.clear()
            self._held_back.clear()

    def submit(self, key: str, action: A) -> None:
        """Queue an action; those of one key keep their order."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = self._lane()
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

    def depth(self) -> dict[str, int]:
        """How many lanes have work: under way, held back by the budget, or to be tried again."""
        found = {"running": 0, "held_back": 0, "retrying": 0}
        for key, lane in self._lanes.items():
            if lane.running:
                found["running"] += 1
            elif key in self._held_back:
                found["held_back"] += 1
            elif not lane.is_idle:
                found["retrying"] += 1
        return found

    def _wake(self, key: str, lane: L) -> None:
        if lane.running or self._tasks is None:
            return
        if lane.is_due:
            self._held_back.pop(key, None)
            lane.running = True
            task = self._tasks.create_task(self._empty(key, lane))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        elif lane.record is not None and key not in self._held_back:
            lane.waiting_since = clock.monotonic()
            self._held_back[key] = lane

    async def _empty(self, key: str, lane: L) -> None:
        while (action := lane.next()) is not None:
            outcome = await self._apart(key, lane, action)
            if outcome.again is not None:
                self._carrier.put_off(action)
                if self._tasks is not None:
                    self._tasks.create_task(self._resume(key, lane, action, outcome.again))
            elif not lane.is_record(action):
                lane.done(action)
            elif outcome.ok:
                lane.recorded()
            else:
                self._carrier.not_written(action, lane.drop())
        lane.running = False
        if lane.record is None:
            lane.ours.clear()  # the next decision is made on what the last answer brought
        self._wake(key, lane)

    async def _resume(self, key: str, lane: L, action: A, after: float) -> None:
        await asyncio.sleep(after)
        lane.again(action)
        self._wake(key, lane)

    async def _apart(self, key: str, lane: L, action: A) -> Outcome:
        """The outcome of an action. An error concerns only this lane: the action is retried after a growing pause."""
        try:
            outcome = await self._carrier.carry_out(lane, action)
        except LeaseOver:
            raise
        except Exception as error:
            lane.faults += 1
            log.exception("lane set aside", key=key, action=type(action).__name__, faults=lane.faults)
            wait = backoff.grown(lane.faults, first=FAULT_BACKOFF, most=LONGEST_ASIDE)
            if lane.is_record(action):
                await asyncio.sleep(wait)
                return FAILED
            lane.raised(action, error, wait)
            return Outcome(again=wait) if lane.tried(action) else DONE
        lane.faults = 0
        return outcome

    async def _pace(self) -> None:
        last = clock.monotonic()
        while True:
            await asyncio.sleep(TICK)
            now = clock.monotonic()
            earned = (now - last) * self._budget.per_second
            self._tokens = min(self._tokens + earned, max(self._budget.per_second, 1.0))
            last = now
            for key, lane in [(k, ln) for k, ln in self._held_back.items() if ln.is_due]:
                self._wake(key, lane)
            due = [
                (not lane.flags.final, lane.waiting_since, key)
                for key, lane in self._held_back.items()
                if now - lane.written_at >= self._interval(lane)
            ]
            for _, _, key in sorted(due)[: int(self._tokens)]:
                self._tokens -= 1
                lane = self._held_back.pop(key)
                lane.released = True
                self._wake(key, lane)
            for key in [k for k, ln in self._lanes.items() if now - ln.written_at > FORGET_AFTER and ln.is_idle]:
                del self._lanes[key]

    def _interval(self, lane: L) -> float:
        return self._budget.slow_interval_seconds if lane.flags.slow else self._budget.interval_seconds
