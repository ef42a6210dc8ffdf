"""Who in a pool may be stopped for a waiting job, and what stops with each: candidates, not yet a choice.

Two things make a pod a candidate: its job's priority is lower (withinPool), or its namespace borrows what the waiting
one may take back (reclaimBorrowed). A namespace that does not borrow is stopped for nobody else's sake, and nothing
younger than minRuntimeSeconds is stopped. The snapshot with this turn's jobs comes in; `Victim`s go out.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from rfuav_operator.core.model import Assignment, Job, Kind, PodPhase, Pool, Snapshot, Uid
from rfuav_operator.core.placement import Holder, Need, is_active
from rfuav_operator.core.queues import priority
from rfuav_operator.core.quotas import Quotas
from rfuav_operator.core.usage import Usage


@dataclass(frozen=True, slots=True)
class Victim:
    """One pod that may be stopped, and with it, in a job of several nodes, all pods of the job."""

    job: Job
    assignment: Assignment
    priority: int
    borrows: bool
    lost_seconds: float  # work since the last checkpoint, which is done again

    @property
    def holder(self) -> Holder:
        """By what rooms know it."""
        return self.job.uid, self.assignment.pod

    @property
    def stops(self) -> list[Holder]:
        """All that stops with it."""
        return [(self.job.uid, a.pod) for a in _stops_of(self.job, self.assignment)]

    @property
    def gpus(self) -> int:
        """GPU slots that its namespace has less then."""
        return sum(a.gpus for a in _stops_of(self.job, self.assignment))

    @property
    def cost(self) -> tuple[int, bool, float, str]:
        """The cheapest first: lowest priority, borrowed room, least work lost."""
        return self.priority, not self.borrows, self.lost_seconds, self.assignment.pod


def _stops_of(job: Job, a: Assignment) -> list[Assignment]:
    """What stops with one pod: a job of several nodes runs whole or not at all."""
    return list(job.status.assignments) if job.kind is Kind.TRAINING else [a]


def stopped(job: Job, victims: Iterable[Victim], waiting: Job) -> tuple[Assignment, ...]:
    """The job's assignments with those of the victims stopping for `waiting`."""
    pods = {name for victim in victims for _, name in victim.stops}
    return tuple(
        replace(a, stopping="Preempted", stopping_for=waiting.uid) if a.pod in pods and not a.stopping else a
        for a in job.status.assignments
    )


class Candidates:
    """Who may be stopped in one pool, during one plan."""

    def __init__(
        self, pool: Pool, snapshot: Snapshot, jobs: Mapping[Uid, Job], *, usage: Usage, quotas: Quotas, now: datetime
    ) -> None:
        self._pool = pool
        self._snapshot = snapshot
        self._jobs = jobs
        self._usage = usage
        self._quotas = quotas
        self._now = now
        self._policy = pool.spec.preemption
        self.forget()

    def forget(self) -> None:
        """Somebody was stopped: look at all anew."""
        self._known: dict[tuple[int, str, bool], tuple[list[Victim], datetime | None]] = {}
        self._going: set[Holder] | None = None  # pods that go already: stopped, suspended, drained, ended
        self._clearing: set[str] = set()  # nodes that they leave
        self._going_gpus: Counter[str] = Counter()  # by namespace

    def for_job(self, job: Job, need: Need, *, mine: int) -> tuple[list[Victim], datetime | None]:
        """Whom a job of priority `mine` may stop, the cheapest first, and when more will be old enough."""
        reclaims = self._policy.reclaim_borrowed
        nominal = need.gpus > 0 and reclaims != "Never" and self._quotas.is_nominal(job.namespace, need)
        asker = mine, job.namespace, nominal
        if asker in self._known:
            return self._known[asker]
        found: list[Victim] = []
        look_again: datetime | None = None
        going = self._all_going()
        for uid, name, held in self._usage.of_pool(self._pool.name):
            if (uid, name) in going:
                continue
            other, borrows = self._jobs[uid], self.borrows(held.namespace)
            theirs, foreign = priority(other, self._snapshot) or 0, other.namespace != job.namespace
            by_rank = self._policy.within_pool != "Never" and (not foreign or borrows or held.gpus == 0)
            by_right = nominal and foreign and borrows and held.gpus > 0
            if not ((theirs < mine and (by_rank or by_right)) or (by_right and reclaims == "Any")):
                continue
            a = next(a for a in other.status.assignments if a.pod == name)
            old_at = self._old_enough_at(other, a)
            if old_at is not None and old_at <= self._now:
                found.append(Victim(other, a, theirs, borrows, self._lost(other, a)))
            elif old_at is not None:
                look_again = min(look_again or old_at, old_at)
        self._known[asker] = sorted(found, key=lambda victim: victim.cost), look_again
        return self._known[asker]

    def borrows(self, namespace: str, taken: int = 0) -> bool:
        """Whether it holds more than its own when those that go already, and `taken` slots beside, are gone."""
        self._all_going()
        return self._quotas.borrowed(namespace) > self._going_gpus[namespace] + taken

    def goes(self, holder: Holder) -> bool:
        """Whether the pod goes already: its room is about to come back."""
        return holder in self._all_going()

    def is_clearing(self, node: str) -> bool:
        """Whether such a pod is on this node."""
        self._all_going()
        return node in self._clearing

    def _all_going(self) -> Collection[Holder]:
        if self._going is None:
            self._going = set()
            for uid, name, held in self._usage.of_pool(self._pool.name):
                job, pod = self._jobs.get(uid), self._snapshot.pods_of.get(uid, {}).get(name)
                a = None
                if job is not None and is_active(job) and not job.deleting:
                    a = next((a for a in job.status.assignments if a.pod == name), None)
                if a is None or a.stopping or (pod is not None and not pod.live):
                    self._going.add((uid, name))
                    self._clearing.add(held.node)
                    self._going_gpus[held.namespace] += held.gpus
        return self._going

    def _old_enough_at(self, job: Job, a: Assignment) -> datetime | None:
        """From when it may be stopped; None: it has just been admitted, or is about to end."""
        since = []
        for each in _stops_of(job, a):
            pod = self._snapshot.pods_of.get(job.uid, {}).get(each.pod)
            if pod is None or pod.deleting or pod.phase is not PodPhase.RUNNING or each.started_at is None:
                return None
            since.append(each.started_at)
        return max(since) + timedelta(seconds=self._policy.min_runtime_seconds)

    def _lost(self, job: Job, a: Assignment) -> float:
        """Seconds of work that would be done again; an inference keeps what it has classified."""
        if job.kind is Kind.INFERENCE or a.started_at is None:
            return 0.0
        saved = job.status.checkpoint.saved_at if job.status.checkpoint else None
        since = max(a.started_at, saved) if saved is not None else a.started_at
        return max(0.0, (self._now - since).total_seconds()) * job.spec.nodes
