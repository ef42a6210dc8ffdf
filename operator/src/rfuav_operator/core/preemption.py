"""Who must stop so that a waiting job can run: the fewest, cheapest pods whose room is enough, or nobody.

A blocked job comes in; victims go out. Two things make a pod a candidate: its job's priority is lower (withinPool), or
its namespace borrows what the waiting one may take back (reclaimBorrowed). A namespace that does not borrow is stopped
for nobody else's sake. Nothing younger than minRuntimeSeconds is stopped.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from msgspec.structs import replace

from rfuav_operator.core.model import Assignment, Job, Kind, NodeName, PodPhase, Pool, Snapshot, Uid
from rfuav_operator.core.placement import Holder, Need, Room, is_active
from rfuav_operator.core.queues import priority
from rfuav_operator.core.quotas import Quotas
from rfuav_operator.core.shapes import PoolRooms
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
    def cost(self) -> tuple[int, bool, float, str]:
        """The cheapest first: lowest priority, borrowed room, least work lost."""
        return self.priority, not self.borrows, self.lost_seconds, self.assignment.pod


@dataclass(slots=True)
class Answer:
    """Whom to stop; empty: stopping would not help, or nobody may be stopped (before `look_again`)."""

    victims: list[Victim] = field(default_factory=list)
    look_again: datetime | None = None


class Preemption:
    """Finds victims in one pool during one plan."""

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
        self._look_again: datetime | None = None
        self._in_vain: set[tuple[int, str, Need]] = set()

    @property
    def is_on(self) -> bool:
        """Whether the pool lets anybody be stopped."""
        return self._policy.within_pool != "Never" or self._policy.reclaim_borrowed != "Never"

    def find(self, job: Job, need: Need, rooms: PoolRooms, *, kept: Collection[NodeName]) -> Answer:
        """Whom to stop so that `job` can be admitted. `kept`: nodes whose room is promised to others."""
        mine = priority(job, self._snapshot) or 0
        asked = mine, job.namespace, need
        if asked in self._in_vain:
            return Answer()
        self._look_again = None
        started = bool(job.status.assignments)
        if self._quotas.refuses(job.namespace, need, started=started) is not None:
            victims = self._for_quota(job, need, rooms, mine=mine, started=started)
        else:
            victims = self._for_room(job, need, rooms, mine=mine, kept=kept)
        if not victims:
            self._in_vain.add(asked)
        return Answer(victims, self._look_again)

    # --- room on nodes

    def _for_room(
        self, job: Job, need: Need, rooms: PoolRooms, *, mine: int, kept: Collection[NodeName]
    ) -> list[Victim]:
        """The cheapest nodes that could be made free enough, one for each pod of the job."""
        options: list[tuple[tuple[int, int, int, float, str], list[Victim]]] = []
        for room in rooms.suits(need):
            if room.node.name in kept or room.node.name in need.avoided:
                continue
            chosen = self._on_node(job, need, room, mine=mine)
            if chosen is not None:
                cost = (
                    len(chosen),
                    max((v.priority for v in chosen), default=-(2**40)),
                    sum(not v.borrows for v in chosen),
                    sum(v.lost_seconds for v in chosen),
                    str(room.node.name),
                )
                options.append((cost, chosen))
        options.sort(key=lambda option: option[0])
        if len(options) < need.nodes:
            return []
        return _distinct(v for _, chosen in options[: need.nodes] for v in chosen)

    def _on_node(self, job: Job, need: Need, room: Room, *, mine: int) -> list[Victim] | None:
        """Whom to stop on one node; [] when the pod fits already, None when it cannot be made to fit."""
        trial = replace_holders(room)
        chosen: list[Victim] = []
        taken: dict[str, int] = {}
        for victim in sorted(self._candidates(job, need, room.holders, mine=mine), key=lambda v: v.cost):
            if not trial.lacks(need):
                break
            if not self._may_take(job, victim, taken):
                continue
            taken[victim.job.namespace] = taken.get(victim.job.namespace, 0) + victim.assignment.gpus
            trial.release(victim.holder)
            chosen.append(victim)
        if trial.lacks(need):
            return None
        for victim in reversed(chosen[:]):  # the dearest first: is it needed after all?
            trial.hold(victim.holder, room.holders[victim.holder])
            if trial.lacks(need):
                trial.release(victim.holder)
            else:
                chosen.remove(victim)
        return chosen

    # --- the namespace's own quota

    def _for_quota(self, job: Job, need: Need, rooms: PoolRooms, *, mine: int, started: bool) -> list[Victim]:
        """The namespace's own pods of lower priority, until its quota has a place again and a node has room."""
        if self._policy.within_pool == "Never":
            return []
        holders = [
            (uid, name) for uid, name, held in self._usage.of_pool(self._pool.name) if held.namespace == job.namespace
        ]
        chosen: list[Victim] = []
        released = []
        try:
            for victim in sorted(self._candidates(job, need, holders, mine=mine), key=lambda v: v.cost):
                if victim.priority >= mine or victim.job.namespace != job.namespace:
                    continue
                for a in _stops(victim):
                    held = self._usage.release(victim.job.uid, a.pod)
                    if held is not None:
                        released.append((victim.job.uid, a.pod, held))
                chosen.append(victim)
                rooms.settle()
                if (
                    self._quotas.refuses(job.namespace, need, started=started) is None
                    and rooms.choose(need) is not None
                ):
                    return chosen
        finally:
            for uid, name, held in released:
                self._usage.hold(uid, name, held)
        return []

    # --- who may be stopped

    def _candidates(self, job: Job, need: Need, holders: Iterable[Holder], *, mine: int) -> Iterator[Victim]:
        reclaims = self._policy.reclaim_borrowed
        nominal = need.gpus > 0 and reclaims != "Never" and self._quotas.is_nominal(job.namespace, need)
        for uid, name in holders:
            other = self._jobs.get(uid)
            if other is None or uid == job.uid or other.deleting or not is_active(other):
                continue
            a = next((a for a in other.status.assignments if a.pod == name), None)
            if a is None or a.stopping or (need.gpus > 0 and a.gpus == 0 and need.cpu_milli == 0):
                continue
            theirs = priority(other, self._snapshot) or 0
            foreign = other.namespace != job.namespace
            borrows = self._quotas.borrowed(other.namespace) > 0
            lower = theirs < mine
            by_rank = self._policy.within_pool != "Never" and lower and (not foreign or borrows or a.gpus == 0)
            by_right = nominal and foreign and borrows and a.gpus > 0 and (lower or reclaims == "Any")
            if not by_rank and not by_right:
                continue
            if not self._is_old_enough(other, a):
                continue
            yield Victim(other, a, theirs, borrows, self._lost(other, a))

    def _may_take(self, job: Job, victim: Victim, taken: Mapping[str, int]) -> bool:
        """Whether it is still so after the others: a namespace that would not borrow any more is left alone."""
        ns = victim.job.namespace
        if ns == job.namespace or victim.assignment.gpus == 0:
            return True
        return self._quotas.borrowed(ns) > taken.get(ns, 0)

    def _is_old_enough(self, job: Job, a: Assignment) -> bool:
        for each in _stops_of(job, a):
            pod = self._snapshot.pods_of.get(job.uid, {}).get(each.pod)
            if pod is None or pod.deleting or pod.phase is not PodPhase.RUNNING or each.started_at is None:
                return False  # it has just been admitted, or is about to end
            at = each.started_at + timedelta(seconds=self._policy.min_runtime_seconds)
            if at > self._now:
                self._look_again = min(self._look_again or at, at)
                return False
        return True

    def _lost(self, job: Job, a: Assignment) -> float:
        """Seconds of work that would be done again; an inference keeps what it has classified."""
        if job.kind is Kind.INFERENCE or a.started_at is None:
            return 0.0
        saved = job.status.checkpoint.saved_at if job.status.checkpoint else None
        since = max(a.started_at, saved) if saved is not None else a.started_at
        return max(0.0, (self._now - since).total_seconds()) * job.spec.nodes


def replace_holders(room: Room) -> Room:
    """The room as a trial: what happens to it leaves the real one as it is."""
    return Room(
        node=room.node, tier=room.tier, cpu_jobs=room.cpu_jobs, holders=dict(room.holders), foreign=room.foreign
    )


def _stops(victim: Victim) -> list[Assignment]:
    return _stops_of(victim.job, victim.assignment)


def _stops_of(job: Job, a: Assignment) -> list[Assignment]:
    """What stops with one pod: a job of several nodes runs whole or not at all."""
    return list(job.status.assignments) if job.kind is Kind.TRAINING else [a]


def _distinct(victims: Iterable[Victim]) -> list[Victim]:
    """One victim a pod; a job of several nodes once."""
    found: dict[object, Victim] = {}
    for victim in victims:
        found.setdefault(victim.job.uid if victim.job.kind is Kind.TRAINING else victim.holder, victim)
    return list(found.values())


def stopped(job: Job, victims: Iterable[Victim], waiting: Job) -> tuple[Assignment, ...]:
    """The job's assignments with those of the victims stopping for `waiting`."""
    pods = {a.pod for victim in victims for a in _stops(victim)}
    return tuple(
        replace(a, stopping="Preempted", stopping_for=waiting.uid) if a.pod in pods and not a.stopping else a
        for a in job.status.assignments
    )
