"""Which pods of a pool may be stopped for a waiting job, and what stops with each: candidates, not yet a choice.

Two things make a pod a candidate: its job's priority is lower (withinPool), or its namespace borrows what the waiting
one may take back (reclaimBorrowed). Pods of a namespace that does not borrow are never stopped for another namespace,
and pods younger than minRuntimeSeconds are never stopped. In: the running pods. Out: `Victim`s, the cheapest
first, only as many as the caller asks for.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from heapq import merge
from typing import NamedTuple

from msgspec.structs import replace

from rfuav_crds import reasons
from rfuav_crds.modes import PreemptWithin, ReclaimBorrowed
from rfuav_operator.core.capacity.room import Holder, Shape
from rfuav_operator.core.model import Assignment, Job, Kind, NodeName, Pool, Uid
from rfuav_operator.core.preemption.running import Runner, RunnerClass, Runners, stops_of
from rfuav_operator.core.queue.quotas import Quotas

HIGHEST = 2**40  # above every priority
Like = tuple[Kind, bool]  # kind, with GPU or without


class Preemptor(NamedTuple):
    """The properties of a waiting job that decide which others it may stop."""

    priority: int
    namespace: str
    nominal: bool  # it would stay within its namespace's own share, and may take back what others borrow


class Candidate(NamedTuple):
    """One pod that may be stopped; the cheapest is the least: lowest priority, borrowed room, least work lost."""

    priority: int
    own: bool  # its namespace does not borrow
    lost_seconds: float
    node: NodeName
    pod: str
    uid: Uid


@dataclass(frozen=True, slots=True)
class Victim:
    """One pod that may be stopped, and with it, in a job of several nodes, all pods of the job."""

    runner: Runner
    borrows: bool
    lost_seconds: float  # work since the last checkpoint, which is done again

    @property
    def job(self) -> Job:
        """The job that it is a pod of."""
        return self.runner.job

    @property
    def assignment(self) -> Assignment:
        """The record of the pod."""
        return self.runner.assignment

    @property
    def priority(self) -> int:
        """The job's priority."""
        return self.runner.runner_class.priority

    @property
    def holder(self) -> Holder:
        """By what rooms know it."""
        return self.runner.holder

    @property
    def stops(self) -> list[Holder]:
        """All that stops with it."""
        return [(self.job.uid, a.pod) for a in stops_of(self.job, self.assignment)]

    @property
    def gpus(self) -> int:
        """GPU slots that its namespace has less then."""
        return sum(a.gpus for a in stops_of(self.job, self.assignment))

    @property
    def cost(self) -> tuple[int, bool, float, str]:
        """The cheapest first: lowest priority, borrowed room, least work lost."""
        return self.priority, not self.borrows, self.lost_seconds, self.assignment.pod


def stopped(job: Job, victims: Iterable[Victim], waiting: Job) -> tuple[Assignment, ...]:
    """The job's assignments with those of the victims stopping for `waiting`."""
    pods = {name for victim in victims for _, name in victim.stops}
    return tuple(
        replace(a, stopping=reasons.PREEMPTED, stopping_for=waiting.uid) if a.pod in pods and not a.stopping else a
        for a in job.status.assignments
    )


class Candidates:
    """The candidates of one pool, during one plan."""

    def __init__(self, pool: Pool, runners: Runners, quotas: Quotas, now: datetime) -> None:
        self._within = pool.spec.preemption.within_pool != PreemptWithin.NEVER
        self._reclaims = pool.spec.preemption.reclaim_borrowed
        self._runners = runners
        self._quotas = quotas
        self._now = now
        self._reach: dict[tuple[bool, Like | None], _Reach] = {}  # of the young, of the old
        self._spare: dict[str, int] = {}

    def forget(self) -> None:
        """Somebody was admitted: a namespace borrows more."""
        self._reach.clear()
        self._spare.clear()

    # --- askers

    def preemptor(self, job: Job, shape: Shape, *, mine: int) -> Preemptor:
        """What decides which others this job may stop."""
        nominal = (
            shape.gpus > 0 and self._reclaims != ReclaimBorrowed.NEVER and self._quotas.is_nominal(job.namespace, shape)
        )
        return Preemptor(mine, job.namespace, nominal)

    def below(self, preemptor: Preemptor) -> int:
        """Whoever has at least this priority is never stopped for it."""
        return HIGHEST if preemptor.nominal and self._reclaims == ReclaimBorrowed.ANY else preemptor.priority

    def has_any(self, preemptor: Preemptor, like: Like | None = None) -> bool:
        """Whether there is a candidate at all, or one like this."""
        return self._reaches(self._lowest(like, young=False), preemptor)

    def later(self, preemptor: Preemptor) -> datetime | None:
        """When to look again: a pod that would be a candidate is too young."""
        return self._runners.next_birthday() if self._reaches(self._lowest(None, young=True), preemptor) else None

    def _lowest(self, like: Like | None, *, young: bool) -> "_Reach":
        known = self._reach.get((young, like))
        if known is None:
            known = self._reach[young, like] = _Reach({}, HIGHEST, {})
            for runner_class in self._runners.young if young else self._runners.old:
                if like is None or (runner_class.kind, runner_class.gpu) == like:
                    known.count(runner_class, borrows=self.borrows(runner_class.namespace))
        return known

    def _reaches(self, reach: "_Reach", preemptor: Preemptor) -> bool:
        mine, namespace, nominal = preemptor
        if self._within and (reach.anyone < mine or reach.own.get(namespace, HIGHEST) < mine):
            return True
        below = self.below(preemptor)
        return nominal and any(ns != namespace and lowest < below for ns, lowest in reach.borrowers.items())

    # --- candidates

    def cheapest(self, preemptor: Preemptor, only: Like | None = None, *, own: bool = False) -> Iterator[Candidate]:
        """The pods that the asker may stop, the cheapest first; `only` pods like these, of its `own` namespace only."""
        found = []
        for runner_class in self._runners.old:
            if (own and runner_class.namespace != preemptor.namespace) or (
                only and (runner_class.kind, runner_class.gpu) != only
            ):
                continue
            if self._may_stop(preemptor, runner_class):
                found.append(self._in_order(runner_class, not self.borrows(runner_class.namespace)))
        return merge(*found)

    def on_node(self, preemptor: Preemptor, name: NodeName) -> list[Victim]:
        """The pods that the asker may stop on one node, the cheapest first."""
        found = [
            Victim(runner, self.borrows(runner.runner_class.namespace), self._lost(runner))
            for runner in self._runners.on_node(name)
            if runner.old_at is not None
            and runner.old_at <= self._now
            and self._may_stop(preemptor, runner.runner_class)
        ]
        return sorted(found, key=lambda victim: victim.cost)

    def _in_order(self, runner_class: RunnerClass, own: bool) -> Iterator[Candidate]:
        for runner in self._runners.least_lost(runner_class):
            uid, pod = runner.holder
            yield Candidate(runner_class.priority, own, self._lost(runner), runner.node, pod, uid)

    def victim(self, candidate: Candidate) -> Victim:
        """The candidate with all that is known of it."""
        return Victim(self._runners.named(candidate.uid, candidate.pod), not candidate.own, candidate.lost_seconds)

    def _lost(self, runner: Runner) -> float:
        return (
            max(0.0, (self._now - runner.since).total_seconds()) * runner.runner_class.repeats if runner.since else 0.0
        )

    def _may_stop(self, preemptor: Preemptor, runner_class: RunnerClass) -> bool:
        mine, namespace, nominal = preemptor
        own, lower = runner_class.namespace == namespace, runner_class.priority < mine
        borrows = runner_class.gpu and self.borrows(runner_class.namespace)
        if self._within and lower and (own or borrows or not runner_class.gpu):
            return True
        return nominal and not own and borrows and (lower or self._reclaims == ReclaimBorrowed.ANY)

    def may_take(self, preemptor: Preemptor, victim: Victim, taken: Counter[str]) -> bool:
        """Whether it stays a candidate after others: a namespace that would no longer borrow is left alone."""
        namespace = victim.job.namespace
        if namespace == preemptor.namespace or victim.assignment.gpus == 0:
            return True
        return self.borrows(namespace, taken[namespace])

    def borrows(self, namespace: str, taken: int = 0) -> bool:
        """Whether it holds more than its own when those that go already, and `taken` slots beside, are gone."""
        spare = self._spare.get(namespace)
        if spare is None:
            spare = self._spare[namespace] = self._quotas.borrowed(namespace) - self._runners.going_gpus[namespace]
        return spare > taken


@dataclass(slots=True)
class _Reach:
    """The lowest priorities of running jobs: a job without a lower one finds no candidate."""

    own: dict[str, int]  # by namespace
    anyone: int  # of those that any namespace may stop by rank
    borrowers: dict[str, int]  # of those whose GPUs are borrowed, by namespace

    def count(self, runner_class: RunnerClass, *, borrows: bool) -> None:
        self.own[runner_class.namespace] = min(self.own.get(runner_class.namespace, HIGHEST), runner_class.priority)
        if borrows or not runner_class.gpu:
            self.anyone = min(self.anyone, runner_class.priority)
        if borrows and runner_class.gpu:
            self.borrowers[runner_class.namespace] = min(
                self.borrowers.get(runner_class.namespace, HIGHEST), runner_class.priority
            )


def held_of(victims: Iterable[Victim]) -> set[Holder]:
    """All that stops with these."""
    return {holder for victim in victims for holder in victim.stops}
