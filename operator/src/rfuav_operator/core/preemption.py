"""Who must stop so that a waiting job can run: the fewest, cheapest pods whose room is enough, or nobody.

A blocked job comes in; victims go out. Nobody is stopped where it would not let the job in, where room is about to
come back anyway, or beyond what is needed: the dearest of those chosen are tried again last.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rfuav_operator.core.model import Job, NodeName, Pool, Snapshot, Uid
from rfuav_operator.core.placement import Held, Holder, Need, Room
from rfuav_operator.core.queues import priority
from rfuav_operator.core.quotas import Quotas
from rfuav_operator.core.shapes import Kept, PoolRooms
from rfuav_operator.core.usage import Usage
from rfuav_operator.core.victims import Candidates, Victim

_LOWEST = -(2**40)  # below every priority


@dataclass(slots=True)
class Answer:
    """Whom to stop; empty: stopping would not help, or nobody may be stopped (before `look_again`)."""

    victims: list[Victim] = field(default_factory=list)
    look_again: datetime | None = None


@dataclass(slots=True)
class _Taken:
    """Who is stopped already for the other pods of the same job."""

    holders: set[Holder] = field(default_factory=set)
    gpus: Counter[str] = field(default_factory=Counter)  # by namespace

    def add(self, victims: Iterable[Victim]) -> None:
        for victim in victims:
            self.holders.update(victim.stops)
            self.gpus[victim.job.namespace] += victim.gpus


class Preemption:
    """Finds victims in one pool during one plan."""

    def __init__(
        self, pool: Pool, snapshot: Snapshot, jobs: Mapping[Uid, Job], *, usage: Usage, quotas: Quotas, now: datetime
    ) -> None:
        self._snapshot = snapshot
        self._usage = usage
        self._quotas = quotas
        self._candidates = Candidates(pool, snapshot, jobs, usage=usage, quotas=quotas, now=now)
        self._in_vain: set[tuple[int, str, Need, bool]] = set()
        policy = pool.spec.preemption
        self.is_on = policy.within_pool != "Never" or policy.reclaim_borrowed != "Never"

    def find(self, job: Job, need: Need, rooms: PoolRooms, *, kept: Kept) -> Answer:
        """Whom to stop so that `job` can be admitted. `kept`: nodes whose room is promised to others."""
        mine, started = priority(job, self._snapshot) or 0, bool(job.status.assignments)
        asked = mine, job.namespace, need, started
        if asked in self._in_vain:
            return Answer()
        candidates, look_again = self._candidates.for_job(job, need, mine=mine)
        victims: list[Victim] = []
        if candidates and self._quotas.refuses(job.namespace, need, started=started) is not None:
            victims = self._for_quota(job, need, rooms, candidates, started=started, kept=kept)
        elif candidates:
            victims = self._for_room(job, need, rooms, candidates, kept=kept)
        if victims:
            self._candidates.forget()
        else:
            self._in_vain.add(asked)
        return Answer(victims, look_again)

    # --- room on nodes

    def _for_room(
        self, job: Job, need: Need, rooms: PoolRooms, candidates: Iterable[Victim], *, kept: Collection[NodeName]
    ) -> list[Victim]:
        """Victims on the cheapest nodes that could be made free enough, one node for each pod of the job."""
        by_node: dict[str, list[Victim]] = defaultdict(list)
        for victim in candidates:
            by_node[victim.assignment.node].append(victim)
        options: list[tuple[tuple[int, int, int, float, str], Room]] = []
        for room in rooms.suits(need):
            name = room.node.name
            if name in kept or name in need.avoided:
                continue
            if need.nodes == 1 and name not in by_node and not self._candidates.is_clearing(name):
                continue  # nothing to gain there
            chosen = self._on_node(job, need, room, by_node[name], _Taken())
            if chosen is not None:
                options.append((_cost(chosen, name), room))
        options.sort(key=lambda option: option[0])
        taken, found = _Taken(), 0
        victims: list[Victim] = []
        for _, room in options:
            chosen = self._on_node(job, need, room, by_node[room.node.name], taken)
            if chosen is None:
                continue  # a namespace would not borrow any more by now
            found += 1
            taken.add(chosen)
            victims += chosen
            if found == need.nodes:
                return _needed(victims, lambda rest: self._will_fit(need, rooms, rest, kept))
        return []

    def _on_node(
        self, job: Job, need: Need, room: Room, candidates: Iterable[Victim], taken: _Taken
    ) -> list[Victim] | None:
        """Whom to stop on one node; [] when the pod will fit anyway, None when it cannot be made to fit."""
        trial = self._trial(room, taken.holders)
        chosen: list[Victim] = []
        gpus = Counter(taken.gpus)
        for victim in candidates:
            if not trial.lacks(need):
                break
            if victim.holder in trial.holders and self._may_take(job, victim, gpus):
                gpus[victim.job.namespace] += victim.gpus
                trial.release(victim.holder)
                chosen.append(victim)
        if trial.lacks(need):
            return None
        return _needed(chosen, lambda rest: not self._trial(room, taken.holders | _all_that_stops(rest)).lacks(need))

    def _trial(self, room: Room, gone: Collection[Holder]) -> Room:
        """The room without these, and without those that go anyway."""
        return room.without(h for h in room.holders if h in gone or self._candidates.goes(h))

    def _will_fit(self, need: Need, rooms: PoolRooms, victims: Iterable[Victim], kept: Collection[NodeName]) -> bool:
        """Whether all pods of the job find room when these are gone, and those that go anyway."""
        gone, left = _all_that_stops(victims), need.nodes
        for room in rooms.suits(need):
            name = room.node.name
            if name not in kept and name not in need.avoided and not self._trial(room, gone).lacks(need):
                left -= 1
                if left == 0:
                    return True
        return False

    def _may_take(self, job: Job, victim: Victim, taken: Mapping[str, int]) -> bool:
        """Whether it is a candidate after the others too: a namespace that would not borrow any more is left alone."""
        namespace = victim.job.namespace
        if namespace == job.namespace or victim.assignment.gpus == 0:
            return True
        return self._candidates.borrows(namespace, taken.get(namespace, 0))

    # --- the namespace's own quota

    def _for_quota(
        self, job: Job, need: Need, rooms: PoolRooms, candidates: Collection[Victim], *, started: bool, kept: Kept
    ) -> list[Victim]:
        """The namespace's own pods of lower priority, until its quota has a place again; then others, for the room."""

        def is_refused() -> bool:
            return self._quotas.refuses(job.namespace, need, started=started) is not None

        def enough(rest: Collection[Victim]) -> bool:
            self._hold(list(released), released)
            self._release(rest, released)
            return not is_refused() and self._will_fit(need, rooms, rest, kept)

        released: dict[Holder, Held] = {}
        chosen: list[Victim] = []
        try:
            for victim in candidates:
                if not is_refused():
                    break
                if victim.job.namespace == job.namespace and victim.holder not in released:
                    self._release([victim], released)
                    chosen.append(victim)
            if is_refused():
                return []
            if not self._will_fit(need, rooms, chosen, kept):
                others = [v for v in candidates if v.holder not in released]
                more = self._for_room(job, need, rooms, others, kept=kept)
                chosen = [*chosen, *more] if more else []
            return _needed(chosen, enough)
        finally:
            self._hold(list(released), released)

    def _release(self, victims: Iterable[Victim], released: dict[Holder, Held]) -> None:
        for holder in _all_that_stops(victims):
            held = self._usage.release(*holder)
            if held is not None:
                released[holder] = held

    def _hold(self, holders: Iterable[Holder], released: dict[Holder, Held]) -> None:
        for holder in holders:
            if holder in released:
                self._usage.hold(*holder, released.pop(holder))


def _all_that_stops(victims: Iterable[Victim]) -> set[Holder]:
    return {holder for victim in victims for holder in victim.stops}


def _needed(victims: Iterable[Victim], enough: Callable[[Collection[Victim]], bool]) -> list[Victim]:
    """Those without whom it is not enough: the dearest are tried first."""
    needed = list(victims)
    for victim in sorted(needed, key=lambda v: v.cost, reverse=True):
        rest = [other for other in needed if other is not victim]
        if enough(rest):
            needed = rest
    return needed


def _cost(victims: Collection[Victim], node: str) -> tuple[int, int, int, float, str]:
    """The cheapest node first: fewest, then of the lowest priority, borrowed, least work lost."""
    return (
        len(victims),
        max((v.priority for v in victims), default=_LOWEST),
        sum(not v.borrows for v in victims),
        sum(v.lost_seconds for v in victims),
        node,
    )
