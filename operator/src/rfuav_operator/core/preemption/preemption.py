"""Which pods must stop so that a waiting job can run: the fewest, cheapest ones with enough room, or none.

In: a blocked job. Out: victims. No pod stops if the job would still not fit, if room is about to become free anyway,
or beyond what is needed: at the end the search tries to spare each chosen pod, the most expensive first.

A pool has thousands of blocked jobs and of pods that run, so most questions must end early: with the lowest priority
that anyone has (`Candidates.has_any`), then with the nodes where victims could help at all (`Clearable`). Only then
are nodes looked at one by one, those with the cheapest candidates first, until no other can be cheaper.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from heapq import heappop, heappush

from rfuav_crds.modes import PreemptWithin, ReclaimBorrowed
from rfuav_operator.core.capacity.placement import Kept, PoolCapacity
from rfuav_operator.core.capacity.room import Allocation, Holder, Room, Shape
from rfuav_operator.core.capacity.usage import Usage
from rfuav_operator.core.job.priority import priority
from rfuav_operator.core.model import Job, Kind, NodeName, Pool, Snapshot, Uid
from rfuav_operator.core.preemption.candidates import Candidates, Like, Preemptor, Victim, held_of
from rfuav_operator.core.preemption.feasibility import Clearable, Headroom
from rfuav_operator.core.preemption.running import Runners
from rfuav_operator.core.queue.quotas import Quotas

_LOWEST = -(2**40)  # below every priority
Cost = tuple[int, int, int, float, str]


@dataclass(slots=True)
class Answer:
    """The pods to stop; empty: stopping would not help, or none may be stopped (before `look_again`)."""

    victims: list[Victim] = field(default_factory=list)
    look_again: datetime | None = None


@dataclass(slots=True)
class _Taken:
    """The pods already chosen for the other pods of the same job."""

    holders: set[Holder] = field(default_factory=set)
    gpus: Counter[str] = field(default_factory=Counter)  # by namespace

    def add(self, victims: Iterable[Victim]) -> None:
        for victim in victims:
            self.holders.update(victim.stops)
            self.gpus[victim.job.namespace] += victim.gpus


@dataclass(frozen=True, slots=True)
class _Question:
    """One blocked job, and where victims could help it."""

    job: Job
    shape: Shape
    preemptor: Preemptor
    nodes: set[NodeName]  # where victims could help
    without: Collection[NodeName]  # among these, nodes whose room is promised to others

    @property
    def like(self) -> Like:
        """The limit of a node that it needs a part of."""
        return self.shape.kind, self.shape.gpus > 0

    def may_use(self, name: NodeName) -> bool:
        """Whether it may have room on this node."""
        return name in self.nodes and name not in self.without and name not in self.shape.avoided


class PreemptionIndex:
    """The index of one pool with preemption, kept between plans: the running pods, and where they matter."""

    def __init__(self, pool: Pool, capacity: PoolCapacity) -> None:
        self.runners = Runners(pool)
        self.clearable = Clearable(capacity, self.runners)


def is_on(pool: Pool) -> bool:
    """Whether a pool lets jobs be stopped for others."""
    policy = pool.spec.preemption
    return policy.within_pool != PreemptWithin.NEVER or policy.reclaim_borrowed != ReclaimBorrowed.NEVER


class Preemption:
    """Finds victims in one pool during one plan."""

    def __init__(
        self,
        pool: Pool,
        snapshot: Snapshot,
        index: PreemptionIndex,
        capacity: PoolCapacity,
        *,
        usage: Usage,
        quotas: Quotas,
        now: datetime,
    ) -> None:
        self._snapshot = snapshot
        self._capacity = capacity
        self._usage = usage
        self._quotas = quotas
        self._candidates = Candidates(pool, index.runners, quotas, now)
        self._runners = index.runners
        self._clearable = index.clearable
        self._with_room: dict[tuple[Kind, int], set[NodeName]] = {}  # may be less by now, where others were admitted
        self.asked = False  # somebody asked in this plan

    def forget(self) -> None:
        """Somebody was admitted: a namespace borrows more."""
        self._candidates.forget()

    def find(self, job: Job, shape: Shape, *, kept: Kept, by_quota: bool) -> Answer:
        """The pods to stop so that `job` can be admitted.

        Args:
            job: the waiting job.
            shape: its shape.
            kept: nodes whose room is promised to others.
            by_quota: its namespace's quota refuses it, even with room.
        """
        self.asked = True
        preemptor = self._candidates.preemptor(job, shape, mine=priority(job, self._snapshot) or 0)
        look_again = self._candidates.later(preemptor)
        if not self._candidates.has_any(preemptor):
            return Answer([], look_again)
        nodes = self._clearable.nodes(shape, below=self._candidates.below(preemptor))
        victims: list[Victim] = []
        if len(nodes) >= shape.nodes:
            question = _Question(job, shape, preemptor, nodes, kept)
            victims = self._for_quota(question) if by_quota else self._for_room(question)
        return Answer(victims, look_again)

    # --- room on nodes

    def _for_room(self, question: _Question) -> list[Victim]:
        """Victims on the cheapest nodes that could be made free enough, one node for each pod of the job."""
        taken, found, refused = _Taken(), 0, False
        victims: list[Victim] = []
        for room in self._options(question):
            chosen = self._on_node(question, room, taken)
            if chosen is None:
                refused = True  # by now a namespace would no longer borrow
                continue
            found += 1
            taken.add(chosen)
            victims += chosen
            if found == question.shape.nodes:
                return _needed(victims, lambda rest: self._will_fit(question, rest)) if found > 1 else victims
        return self._one_job(question) if refused else []

    def _one_job(self, question: _Question) -> list[Victim]:
        """The cheapest job of several nodes that makes enough room alone.

        Node by node, a smaller victim may come first, and then the namespace borrows too little for the larger one.
        """
        free = {name for name in question.nodes if self._fits(question, name, ())}
        tried: set[Uid] = set()
        for candidate in self._candidates.cheapest(question.preemptor):
            if candidate.uid in tried:
                continue
            tried.add(candidate.uid)
            victim = self._candidates.victim(candidate)
            gone = victim.stops
            nodes = {node for holder in gone for node in self._usage.nodes_of(*holder)} & question.nodes
            cleared = [name for name in nodes - free if self._fits(question, name, gone)]
            if len(free) + len(cleared) >= question.shape.nodes:
                return [victim]
        return []

    def _fits(self, question: _Question, name: NodeName, gone: Collection[Holder]) -> bool:
        """Whether one pod of the job finds room on a node without these, and without those that go anyway."""
        return question.may_use(name) and self._headroom(self._capacity.rooms[name], gone).fits(question.shape)

    def _options(self, question: _Question) -> Iterator[Room]:
        """Rooms that can be made free enough, the cheapest first.

        Where the limit of the job's own kind is reached, one like it must go: such nodes are looked at when the
        cheapest of those is the cheapest that is left. The other nodes, few as a rule, are all looked at first.
        """
        rooms = self._capacity.rooms
        found: list[tuple[Cost, NodeName]] = []  # a heap
        looked_at: set[NodeName] = set()
        for name in question.nodes if question.shape.nodes > 1 else self._nodes_cleared & question.nodes:
            if question.may_use(name) and self._headroom(rooms[name], ()).fits(question.shape):
                looked_at.add(name)
                heappush(found, (_cost((), name), name))
        for name in self._roomy(question) & question.nodes:
            if question.may_use(name) and name not in looked_at:
                looked_at.add(name)
                self._look(question, name, found)
        others = (
            self._candidates.cheapest(question.preemptor, question.like)
            if self._candidates.has_any(question.preemptor, question.like)
            else ()
        )
        for candidate in others:
            name = candidate.node
            if name in looked_at or not question.may_use(name):
                continue
            least = 1, candidate.priority, int(candidate.own), candidate.lost_seconds, name
            while found and found[0][0] <= least:
                yield rooms[heappop(found)[1]]
            looked_at.add(name)
            self._look(question, name, found)
        while found:
            yield rooms[heappop(found)[1]]

    def _look(self, question: _Question, name: NodeName, found: list[tuple[Cost, NodeName]]) -> None:
        chosen = self._on_node(question, self._capacity.rooms[name], _Taken())
        if chosen is not None:
            heappush(found, (_cost(chosen, name), name))

    def _roomy(self, question: _Question) -> set[NodeName]:
        """Nodes with enough left of the kind's own limit, when those are gone that go anyway."""
        kind, gpu = question.like
        asked = kind, question.shape.gpus
        if asked in self._with_room:
            return self._with_room[asked]
        found = set()
        for name, room in self._capacity.rooms.items():
            if name in self._nodes_cleared:
                headroom = self._headroom(room, ())
                has = headroom.kind[kind] if gpu else headroom.jobs[kind]
            else:
                has = room.slots[kind].own if gpu else room.cpu_jobs[kind] - room.jobs_used[kind]
            if has >= max(1, question.shape.gpus):
                found.add(name)
        self._with_room[asked] = found
        return found

    @cached_property
    def _nodes_cleared(self) -> set[NodeName]:
        """Nodes where a pod is already stopping."""
        several = [holder for holder, held in self._runners.going.items() if held.landing is not None]
        return {node for holder in several for node in self._usage.nodes_of(*holder)}.union(self._runners.clearing)

    def _on_node(self, question: _Question, room: Room, taken: _Taken) -> list[Victim] | None:
        """The pods to stop on one node; [] if the pod fits anyway, None if it cannot fit."""
        headroom = self._headroom(room, taken.holders)
        chosen: list[Victim] = []
        gpus = Counter(taken.gpus)
        if headroom.fits(question.shape):
            return chosen
        for victim in self._candidates.on_node(question.preemptor, room.node.name):
            held = room.holders.get(victim.holder)
            if held is None or victim.holder in taken.holders:
                continue
            if not self._candidates.may_take(question.preemptor, victim, gpus):
                # The last one of a namespace may reach below its share, so the largest has to be the last.
                last = next((v for v in reversed(chosen) if v.job.namespace == victim.job.namespace), None)
                if last is None or last.assignment.gpus >= victim.assignment.gpus:
                    continue
                chosen.remove(last)
                gpus[victim.job.namespace] -= last.gpus
                headroom.give_back(room.holders[last.holder], -1)
            gpus[victim.job.namespace] += victim.gpus
            headroom.give_back(held)
            chosen.append(victim)
            if headroom.fits(question.shape):
                return _spared(chosen, room, headroom, question.shape)
        return None

    def _headroom(self, room: Room, gone: Collection[Holder]) -> Headroom:
        """What the room has left without these, and without those that go anyway."""
        going = self._runners.going
        return Headroom.of(room, (held for key, held in room.holders.items() if key in going or key in gone))

    def _will_fit(self, question: _Question, victims: Iterable[Victim]) -> bool:
        """Whether all pods of the job find room when these are gone, and those that go anyway."""
        gone, lacking = held_of(victims), question.shape.nodes
        for name in question.nodes:
            lacking -= self._fits(question, name, gone)
            if lacking == 0:
                return True
        return False

    # --- the namespace's own quota

    def _for_quota(self, question: _Question) -> list[Victim]:
        """The namespace's own pods of lower priority, until its quota has a place again; then others, for the room."""
        if self._quotas.over_resources(question.job.namespace, question.shape) is not None:
            return []  # what it counts changes when pods are gone, not when they are chosen
        started = bool(question.job.status.assignments)

        def is_refused() -> bool:
            return self._quotas.refuses(question.job.namespace, question.shape, started=started) is not None

        def enough(rest: Collection[Victim]) -> bool:
            self._hold(list(released), released)
            self._release(rest, released)
            return not is_refused() and self._will_fit(question, rest)

        released: dict[Holder, Allocation] = {}
        chosen: list[Victim] = []
        try:
            for candidate in self._candidates.cheapest(question.preemptor, own=True):
                if not is_refused():
                    break
                victim = self._candidates.victim(candidate)
                if victim.holder not in released:
                    self._release([victim], released)
                    chosen.append(victim)
            if is_refused():
                return []
            if not self._will_fit(question, chosen):
                more = self._for_room(question)
                chosen = [*chosen, *more] if more else []
            return _needed(chosen, enough)
        finally:
            self._hold(list(released), released)

    def _release(self, victims: Iterable[Victim], released: dict[Holder, Allocation]) -> None:
        for holder in held_of(victims):
            held = self._usage.release(*holder)
            if held is not None:
                released[holder] = held

    def _hold(self, holders: Iterable[Holder], released: dict[Holder, Allocation]) -> None:
        for holder in holders:
            if holder in released:
                self._usage.hold(*holder, released.pop(holder))


def _spared(chosen: Collection[Victim], room: Room, headroom: Headroom, shape: Shape) -> list[Victim]:
    """Those of one node without which it is not enough: the dearest are tried first."""
    needed = list(chosen)
    for victim in reversed(needed[:]):
        held = room.holders[victim.holder]
        headroom.give_back(held, -1)
        if headroom.fits(shape):
            needed.remove(victim)
        else:
            headroom.give_back(held)
    return needed


def _needed(victims: Iterable[Victim], enough: Callable[[Collection[Victim]], bool]) -> list[Victim]:
    """Those without which it is not enough: the dearest are tried first."""
    needed = list(victims)
    for victim in sorted(needed, key=lambda v: v.cost, reverse=True):
        rest = [other for other in needed if other is not victim]
        if enough(rest):
            needed = rest
    return needed


def _cost(victims: Collection[Victim], node: str) -> Cost:
    """The cheapest node first: fewest pods, then of the lowest priority, borrowed, least work lost."""
    return (
        sum(len(v.stops) for v in victims),
        max((v.priority for v in victims), default=_LOWEST),
        sum(not v.borrows for v in victims),
        sum(v.lost_seconds for v in victims),
        node,
    )
