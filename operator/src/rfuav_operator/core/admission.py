"""Who may run next, and why the others wait: one plan over all queues, in numbered steps.

The jobs and nodes that changed come in (`update`), then the question (`plan`). The statuses of jobs that were admitted,
stopped for others, or whose reason or place changed go out, with the pods to create and to delete. What is kept between
plans is an index of the snapshot: `Admission` built anew gives the same answers.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import nsmallest

from msgspec.structs import replace

from rfuav_operator.core import conditions, names, placement, places, progress, quotas, reasons, units
from rfuav_operator.core.gates import Gates
from rfuav_operator.core.inorder import InOrder
from rfuav_operator.core.lifecycle import may_live, starting
from rfuav_operator.core.model import (
    Assignment,
    Job,
    JobStatus,
    Kind,
    NodeName,
    Phase,
    Pool,
    Queue,
    Snapshot,
    Uid,
)
from rfuav_operator.core.placement import Holder, Need, Room
from rfuav_operator.core.preemption import Ground, Preemption, is_on
from rfuav_operator.core.queues import Key, PoolQueue, Queues, age_of, priority
from rfuav_operator.core.quotas import Quotas
from rfuav_operator.core.reasons import Reason
from rfuav_operator.core.shapes import PoolRooms
from rfuav_operator.core.usage import Usage, planned
from rfuav_operator.core.victims import Victim, stopped

_STRICT = "StrictFIFO"


@dataclass(slots=True)
class Plan:
    """What was decided: new statuses, pods to create and to delete, and when time alone changes the answer."""

    moved: dict[Uid, None] = field(default_factory=dict)  # jobs whose place or room is another now, in order
    statuses: dict[Uid, JobStatus] = field(default_factory=dict)
    create: dict[Uid, list[Assignment]] = field(default_factory=dict)
    delete: dict[Uid, list[str]] = field(default_factory=dict)
    look_again: datetime | None = None
    unsettled: bool = False  # the next plan would say more, although nothing else changes

    def wait(self, jobs: MutableMapping[Uid, Job], uid: Uid, status: JobStatus) -> None:
        """Tell a job that waits."""
        if status != jobs[uid].status:
            if _claims(jobs[uid].status) != _claims(status):
                self.moved[uid] = None
                self.unsettled = True
            jobs[uid] = replace(jobs[uid], status=status)
            self.statuses[uid] = status

    def again(self, at: datetime | None) -> None:
        """Plan once more at this instant."""
        if at is not None:
            self.look_again = at if self.look_again is None else min(self.look_again, at)


@dataclass(slots=True)
class _PoolPlan:
    """The plan of one pool while it is made."""

    pool: Pool
    queue: PoolQueue
    rooms: PoolRooms
    quotas: Quotas
    preemption: Preemption | None  # None: nobody is stopped for others in this pool
    snapshot: Snapshot
    jobs: MutableMapping[Uid, Job]
    now: datetime
    result: Plan
    kept: dict[NodeName, tuple[Uid, Need]] = field(default_factory=dict)  # rooms promised to blocked jobs
    own: dict[Uid, Reason] = field(default_factory=dict)  # reasons of single jobs
    admitted: set[Uid] = field(default_factory=set)
    heads: dict[str, Job] = field(default_factory=dict)  # StrictFIFO: who stops those behind it; "": by room
    first: Uid | None = None  # of those blocked by room: it keeps the next when it has waited too long
    made_room: bool = False  # others stop for one; who else needs that asks in the next plan
    open: set[Need] | None = None  # shapes that there is still room for; None: nobody can be left out yet
    refused: set[tuple[str, Kind, int, bool]] = field(default_factory=set)  # whom a GPUQuota has no place for

    def is_closed(self, key: Key) -> bool:
        """Whether a group need not be asked: no room is left for its shape, or no place in its namespace's quota."""
        return (
            (self.open is not None and key.need not in self.open)
            or (key.namespace, key.need.kind, key.need.total_gpus, key.started) in self.refused
            or key.namespace in self.heads
        )


class Admission:
    """The queues and rooms of all pools.

    Args:
        snapshot: the state of now; its pools, quotas and priority classes stay as they are for the life of this.
        jobs: the jobs as this turn leaves them.
    """

    def __init__(self, snapshot: Snapshot, jobs: Mapping[Uid, Job], now: datetime) -> None:
        self.queues = Queues()
        self.rooms: dict[str, PoolRooms] = {}
        self._grounds: dict[str, Ground] = {}  # of the pools that let jobs be stopped
        self.usage = Usage(snapshot, jobs, on_change=self._room_changed)
        self.rooms = {name: PoolRooms(pool, self.usage.rooms[name]) for name, pool in snapshot.pools.items()}
        self._grounds = {name: Ground(pool, self.rooms[name]) for name, pool in snapshot.pools.items() if is_on(pool)}
        self._places: dict[str, places.Places] = {name: places.Places() for name in snapshot.pools}
        self.gates = Gates()
        self._making_room: dict[Uid, dict[Holder, NodeName]] = {}  # waiting job -> pods stopping for it -> their nodes
        self._stopping: dict[Uid, set[tuple[Uid, str]]] = {}  # job -> (waiting job, pod)
        self._nodeless: dict[str, set[Uid]] = {}  # pool -> jobs admitted without a node
        for uid in (*jobs, *(uid for uid in snapshot.pods_of if uid not in jobs)):
            self._index(uid, jobs.get(uid), snapshot, now)

    def _room_changed(self, pool: str, node: NodeName, released: bool) -> None:
        if pool in self.rooms:
            self.rooms[pool].changed(node, released=released)
        if pool in self._grounds:
            self._grounds[pool].clearable.changed(node)

    # --- what changed

    def update(
        self, uids: Iterable[Uid], nodes: Iterable[NodeName], snapshot: Snapshot, jobs: Mapping[Uid, Job], now: datetime
    ) -> None:
        """Bring the index up to date for these jobs and nodes."""
        for node in nodes:
            self.usage.update_node(node, snapshot)
        for uid in uids:
            job = jobs.get(uid)
            self.usage.update_job(uid, job, snapshot)
            self._index(uid, job, snapshot, now)

    def _index_runners(self, uid: Uid, job: Job | None, snapshot: Snapshot) -> None:
        held = self.usage.holds(uid)
        for ground in self._grounds.values():
            nodes = ground.runners.put(uid, job, held, snapshot)
            nodes += (node for one in held.values() if one.landing for node in self.usage.nodes_of(one))
            for node in nodes:
                ground.clearable.changed(node)

    def _index(self, uid: Uid, job: Job | None, snapshot: Snapshot, now: datetime) -> None:
        self.gates.index(uid, job)
        self._index_runners(uid, job, snapshot)
        for waiting, pod in self._stopping.pop(uid, ()):
            making = self._making_room.get(waiting, {})
            making.pop((uid, pod), None)
            if not making:
                self._making_room.pop(waiting, None)
        for nodeless in self._nodeless.values():
            nodeless.discard(uid)
        if job is None:
            self.queues.remove(uid)
            return
        held = self.usage.holds(uid)
        waits = placement.is_active(job) and any(not a.node for a in job.status.assignments)
        if waits or any(not one.node for one in held.values()):  # by its record, or one of its pods that still stops
            self._nodeless.setdefault(job.spec.pool, set()).add(uid)
        for a in job.status.assignments:
            if a.stopping_for and a.pod in held:
                self._stopping.setdefault(uid, set()).add((Uid(a.stopping_for), a.pod))
                self._making_room.setdefault(Uid(a.stopping_for), {})[uid, a.pod] = NodeName(a.node)
        if not wants_room(job):
            self.queues.remove(uid)
            return
        self.queues.put(job, self._where(job, snapshot, now))

    def _where(self, job: Job, snapshot: Snapshot, now: datetime) -> Key | Reason:
        """The group in which the job stands, or why it may not run whatever the room."""
        gate = self.gates.closed(job, snapshot)
        rooms = self.rooms.get(job.spec.pool)
        if gate is not None or rooms is None:
            return gate or self.gates.no_pool(job, snapshot)
        need, pool = placement.need_of(job), snapshot.pools[job.spec.pool]
        if next(ready_units(job, snapshot, now), -1) == -1:
            nowhere = rooms.never(need) if pool.spec.scale_up.max_jobs == 0 else None
            return nowhere or quotas.never(pool.name, job.namespace, need, snapshot) or not_ready(job, snapshot)
        return Key(
            priority(job, snapshot) or 0,
            job.namespace,
            need,
            started=bool(job.status.assignments),
            claims=_claims(job.status),
        )

    # --- the plan

    def plan(
        self,
        snapshot: Snapshot,
        jobs: MutableMapping[Uid, Job],
        now: datetime,
        *,
        stepped: Collection[Uid] = (),
        everyone: bool = False,
    ) -> Plan:
        """Admit as many as limits, quotas and room allow; `jobs` is brought up to date with what was decided.

        Args:
            snapshot: the state of now.
            jobs: the jobs as the steps of this turn left them.
            now: the instant.
            stepped: jobs that changed in this turn: those of them that wait are told why at once.
            everyone: tell all that wait, not just the first and those that changed.
        """
        result = Plan()
        for name, pool in snapshot.pools.items():
            queue = self.queues.pools.get(name)
            rooms = self.rooms[name]
            rooms.settle()
            if name in self._grounds:
                self._grounds[name].runners.grow(now)
            if queue is None or not (queue.groups or queue.gated):
                continue
            limits = Quotas(name, snapshot, self.usage, rooms.rooms.values())
            ground = self._grounds.get(name)
            preemption = None
            if ground is not None:
                preemption = Preemption(pool, snapshot, ground, rooms, usage=self.usage, quotas=limits, now=now)
            at_hand = _PoolPlan(pool, queue, rooms, limits, preemption, snapshot, jobs, now, result)
            self._admit_in_order(at_hand)
            self._tell(at_hand, stepped=stepped, everyone=everyone)
        for queue_name, queue in self.queues.pools.items():
            if queue_name not in snapshot.pools:
                for uid, why in queue.gated.items():
                    if everyone or uid in stepped:
                        result.wait(jobs, uid, _waiting(jobs[uid], why, None, now))
        if result.unsettled:
            result.again(now)
        return result

    def _admit_in_order(self, at: _PoolPlan) -> None:
        # 1. What others are clearing is kept for those they clear it for; then one after the other, in order.
        self._keep_what_is_cleared(at)
        line = InOrder(at.queue.buckets.values(), at.quotas.share, lambda group: at.is_closed(group.key))
        while at.open != set() and "" not in at.heads and (turn := line.pop()) is not None:
            group, index = turn
            key, job = group.key, at.jobs[group.ages[index][2]]
            need = at.rooms.effective(key.need)
            # 2. Shapes that can never run.
            nowhere = at.rooms.never(need)
            if nowhere is not None and not self._may_scale_up(at, need):
                continue
            if at.quotas.never(key.namespace, need) is not None:
                continue
            if key.claims and job.uid in at.own:  # its room is being cleared
                if at.pool.spec.queueing == _STRICT:
                    at.heads.setdefault("", job)
                line.go_on(group, index)
                continue
            # 3. Quota, then room, pod by pod: what was admitted counts before the next is chosen.
            started = bool(job.status.assignments)  # since this plan, maybe
            over = at.quotas.over_limits(key.namespace, need, started=started)
            refusal = over or at.quotas.over_resources(key.namespace, need)
            closed = refusal is not None or nowhere is not None or at.rooms.is_full(need)
            chosen = [] if closed else self._place(at, job, need)
            if not chosen and refusal is None and self._may_scale_up(at, need):
                chosen = self._without_node(at, job, need)
            if chosen:
                job = at.jobs[job.uid] = replace(job, status=_admit(job, chosen, at.now))
                at.result.statuses[job.uid] = job.status
                at.result.create.setdefault(job.uid, []).extend(chosen)
                at.result.moved[job.uid] = None
                at.result.unsettled |= bool(at.kept)  # other nodes may be the nearest to what is kept for
                if at.preemption is not None:  # who asked in vain may stop those of a namespace that borrows now
                    at.result.unsettled |= at.preemption.asked and at.quotas.borrowed(job.namespace) > 0
                    at.preemption.forget()
                if not key.started:
                    at.admitted.add(job.uid)
                line.go_on(group, index, same=self._wants_more(at, job))
                continue
            # 4. No: others stop for it, or it keeps the next room, or it just waits, and all like it.
            if nowhere is not None:
                continue  # further shards of a job that the pool grew for
            self._stand_up_for(at, job, need, by_quota=refusal is not None)
            if at.pool.spec.queueing == _STRICT:
                at.heads.setdefault(key.namespace if refusal is not None else "", job)
            elif over is not None and self._is_nobody_helped(at):
                at.refused.add((key.namespace, need.kind, need.total_gpus, started))
            elif refusal is None and at.first is not None and self._is_nobody_helped(at):
                at.open = {one for one in (at.queue.needs if at.open is None else at.open) if self._fits(at, one)}
                if not self._may_scale_up(at, need):
                    at.open.discard(key.need)  # one of several nodes has room, and all of them have not

    def _is_nobody_helped(self, at: _PoolPlan) -> bool:
        """Whether those that cannot be admitted just wait from here on: asking them changes nothing."""
        return (at.preemption is None or at.made_room) and not self._making_room

    def _fits(self, at: _PoolPlan, shape: Need) -> bool:
        """Whether a job of this shape may still be admitted in this plan: room only becomes less."""
        need = at.rooms.effective(shape)
        if self._may_scale_up(at, need):
            return True
        return at.rooms.never(need) is None and at.rooms.choose(need, kept=at.kept) is not None

    @staticmethod
    def _wants_more(at: _PoolPlan, job: Job) -> bool:
        """Whether a further shard of a job that was just admitted may start."""
        return job.spec.shards > 1 and next(ready_units(job, at.snapshot, at.now), -1) != -1

    def _nowhere(self, at: _PoolPlan, nowhere: Reason, never: Reason | None) -> Reason:
        """What a shape is told that no present node takes: a pool that grows may bring one, when it is its turn."""
        most = at.pool.spec.scale_up.max_jobs
        if most == 0:
            return nowhere
        waiting = len(self._nodeless.get(at.pool.name, ()))
        text = f"{nowhere.message}; {waiting} of at most {most} jobs wait for nodes that an autoscaler adds (scaleUp)"
        return never or Reason(reason=reasons.WAITING_FOR_CAPACITY, message=text)

    @staticmethod
    def _kept_for_others(at: _PoolPlan, need: Need) -> Reason | None:
        """Why room that is there is not given to this shape; None: there is none."""
        room = at.rooms.choose(need) if at.kept else None
        if room is None or room.node.name not in at.kept:
            return None
        head = at.jobs[at.kept[room.node.name][0]]
        text = (
            f"{reasons.needs(need)}; room on {room.node.name} is kept for {head.namespace}/{head.name}, which is first"
        )
        return Reason(reason=reasons.WAITING_FOR_CAPACITY, message=text)

    # --- placing

    def _place(self, at: _PoolPlan, job: Job, need: Need) -> list[Assignment]:
        """Assignments for the next unit of a job, for one of several nodes whole; the room is taken at once."""
        if need.nodes > 1:
            return self._place_together(at, job, need)
        shard = next(ready_units(job, at.snapshot, at.now))
        room = at.rooms.choose(need, kept=at.kept)
        if room is None:
            return []
        attempt = units.attempt_of(job.status, shard) + 1
        return [self._take(job, need, room, names.pod_name(job, attempt, shard=shard), shard=shard)]

    def _place_together(self, at: _PoolPlan, job: Job, need: Need) -> list[Assignment]:
        nodes: dict[NodeName, Room] = {}
        for _ in range(need.nodes):
            room = at.rooms.choose(need, exclude=nodes, kept=at.kept)
            if room is None:
                return []
            nodes[room.node.name] = room
        attempt = job.status.attempt + 1
        return [
            self._take(job, need, room, names.pod_name(job, attempt, rank=rank), rank=rank)
            for rank, room in enumerate(nodes.values())
        ]

    def _take(
        self, job: Job, need: Need, room: Room, pod: str, *, shard: int | None = None, rank: int | None = None
    ) -> Assignment:
        node = room.node.name
        self.usage.hold(job.uid, pod, planned(job, need, node))
        return Assignment(pod=pod, node=node, gpus=need.gpus, shard=shard, rank=rank)

    def _may_scale_up(self, at: _PoolPlan, need: Need) -> bool:
        most = at.pool.spec.scale_up.max_jobs
        return most > 0 and need.avoided == frozenset() and len(self._nodeless.get(at.pool.name, ())) < most

    def _without_node(self, at: _PoolPlan, job: Job, need: Need) -> list[Assignment]:
        """Assignments whose nodes are still to come: their pending pods make an autoscaler add them."""
        if job.status.assignments:
            return []  # further shards wait for what is there
        shard = next(ready_units(job, at.snapshot, at.now))
        attempt = units.attempt_of(job.status, shard) + 1
        chosen = []
        for rank in range(need.nodes):
            pod = names.pod_name(job, attempt, shard=shard, rank=rank)
            self.usage.hold(job.uid, pod, planned(job, need, ""))
            several = rank if need.nodes > 1 else None
            chosen.append(Assignment(pod=pod, node="", gpus=need.gpus, shard=shard, rank=several))
        self._nodeless.setdefault(at.pool.name, set()).add(job.uid)
        return chosen

    # --- blocked jobs

    def _keep_what_is_cleared(self, at: _PoolPlan) -> None:
        waiting = [at.jobs[uid] for uid in self._making_room if uid in at.jobs]
        waiting = [
            j for j in waiting if j.spec.pool == at.pool.name and _claims(j.status) and _stands_in_line(at, j.uid)
        ]
        for job in sorted(waiting, key=lambda j: (-(priority(j, at.snapshot) or 0), age_of(j))):
            making = self._making(at, job)
            if making:
                self._wait_for(at, job, at.rooms.effective(placement.need_of(job)), making)

    def _wait_for(self, at: _PoolPlan, job: Job, need: Need, making: Mapping[Holder, NodeName]) -> None:
        at.own[job.uid] = _waits_for(need, making)
        self._keep(at, job, need, making)

    def _stand_up_for(self, at: _PoolPlan, job: Job, need: Need, *, by_quota: bool) -> None:
        """Do for a blocked job what can be done: stop others, or keep the next room for it."""
        making = self._making(at, job)
        if making:
            self._wait_for(at, job, need, making)
            return
        if at.preemption is not None and not at.made_room:
            answer = at.preemption.find(job, need, kept=at.kept, by_quota=by_quota)
            at.result.again(answer.look_again)
            if answer.victims:
                at.made_room = True
                self._wait_for(at, job, need, self._stop(at, answer.victims, job))
                return
        if by_quota or at.first is not None:
            return
        at.first = job.uid
        starved = (job.status.queued_at or job.created) + timedelta(seconds=at.pool.spec.starvation_seconds)
        if starved > at.now:
            at.result.again(starved)
            return
        self._keep(at, job, need, {})

    @staticmethod
    def _keep(at: _PoolPlan, job: Job, need: Need, making: Mapping[Holder, NodeName]) -> None:
        """Let nobody behind it take the next room on the nearest nodes, nor what its namespace may use.

        The nearest are those that lack least when the pods that make room for it are gone, and of them those for which
        that makes the difference.
        """
        nodes = set(making.values())
        enough = [
            name
            for name in nodes
            if name not in at.kept
            and at.rooms.is_suiting(name, need)
            and name not in need.avoided
            and at.rooms.rooms[name].lacks(need)
            and not at.rooms.rooms[name].without(making).lacks(need)
        ]
        if len(enough) >= need.nodes:  # none is nearer
            at.kept |= dict.fromkeys(sorted(enough)[: need.nodes], (job.uid, need))
            at.quotas.promise(job, need)
            return

        def distance(room: Room) -> tuple[tuple[bool, int, int, int], bool, str]:
            if room.node.name not in nodes or not room.lacks(need):
                return _missing(room, need), True, room.node.name
            return _missing(room.without(making), need), False, room.node.name

        free = (room for room in at.rooms.suits(need) if room.node.name not in at.kept)
        for room in nsmallest(need.nodes, free, key=distance):
            at.kept[room.node.name] = job.uid, need
        at.quotas.promise(job, need)

    def _making(self, at: _PoolPlan, job: Job) -> Mapping[Holder, NodeName]:
        """Pods that stop for this job, and their nodes; those on a node that is lost may never be seen to end."""
        found = self._making_room.get(job.uid, {})
        return {pod: node for pod, node in found.items() if (room := at.rooms.rooms.get(node)) and room.node.ready}

    def _stop(self, at: _PoolPlan, victims: Collection[Victim], waiting: Job) -> Mapping[Holder, NodeName]:
        """Stop the victims: they save a checkpoint, leave, and queue again in their old place. Their pods and nodes."""
        making: dict[Holder, NodeName] = {}
        mine = priority(waiting, at.snapshot) or 0
        for uid in dict.fromkeys(v.job.uid for v in victims):
            victim = at.jobs[uid]
            theirs = next(v for v in victims if v.job.uid == uid)
            why = (
                "to give back borrowed GPUs"
                if theirs.priority >= mine
                else f"of priority {mine} over {theirs.priority}"
            )
            text = (
                f"preempted by {waiting.kind} {waiting.namespace}/{waiting.name}, {why}; runs again from its checkpoint"
            )
            held = stopped(victim, [v for v in victims if v.job.uid == uid], waiting)
            settled = conditions.put(
                victim.status.conditions,
                "Evicted",
                value=True,
                reason="Preempted",
                message=text,
                now=at.now,
                generation=victim.generation,
            )
            runs = any(a.started_at is not None and not a.stopping for a in held)
            status = replace(
                victim.status,
                phase=Phase.RUNNING if runs else Phase.ADMITTED,
                assignments=held,
                conditions=settled,
                reason="Preempted",
                message=text,
            )
            at.jobs[uid] = replace(victim, status=status)
            at.result.statuses[uid] = status
            leaving = [a for a in held if a.stopping_for == waiting.uid]
            making |= {(uid, a.pod): NodeName(a.node) for a in leaving}
            at.result.delete.setdefault(uid, []).extend(a.pod for a in leaving)
            at.result.moved[uid] = None
        return making

    # --- what those that wait are told

    def _tell(self, at: _PoolPlan, *, stepped: Collection[Uid], everyone: bool) -> None:
        told = self._places[at.pool.name]
        line = places.Line(at.queue, at.quotas, at.admitted)
        changed = sorted(uid for uid in {*stepped, *at.own} if _stands_in_line(at, uid))
        tell = told.choose(line, stepped=changed, everyone=everyone, now=at.now)
        at.result.again(told.refresh_at)
        ends = told.ends(self.usage, at.pool.name, at.jobs, at.now) if tell else None
        far = {uid: g for uid in changed if (g := self.queues.group_of(uid)) is not None and not everyone}
        for uid, position, group in tell:
            far.pop(uid, None)
            job = at.jobs[uid]
            start = ends.estimate(job.kind, position) if ends is not None else None
            why = self._why(at, uid, group.key, told, everyone=everyone)
            at.result.wait(at.jobs, uid, _waiting(job, why, places.queue(job, position, line.length, start), at.now))
        for uid, group in far.items():  # their place follows when it is their turn to be told
            if uid not in at.admitted:
                why, job = self._why(at, uid, group.key, told, everyone=False), at.jobs[uid]
                at.result.wait(at.jobs, uid, _waiting(job, why, job.status.queue, at.now))
        for uid, why in at.queue.gated.items():
            if (everyone or uid in stepped) and at.jobs[uid].status.phase is Phase.QUEUED:
                at.result.wait(at.jobs, uid, _waiting(at.jobs[uid], why, None, at.now))

    def _why(self, at: _PoolPlan, uid: Uid, key: Key, told: places.Places, *, everyone: bool) -> Reason:
        """Why it waits, by what the plan left: the first reason that applies."""
        if uid in at.own:
            return at.own[uid]
        need = at.rooms.effective(key.need)
        nowhere, never = at.rooms.never(need), at.quotas.never(key.namespace, need)
        if nowhere is not None and not self._may_scale_up(at, need):
            return self._nowhere(at, nowhere, never)
        head = at.heads.get("") or at.heads.get(key.namespace)
        if never is None and head is not None and head.uid != uid:
            return _behind(head, by_quota="" not in at.heads)
        if never is None and uid != at.first:  # what is promised to the first is not to be held against it
            never = at.quotas.refuses(key.namespace, need, started=key.started)
        why = never or nowhere or self._kept_for_others(at, need)
        if why is None:
            stale = at.rooms.is_stale(need)
            why = at.rooms.words(need, fresh=everyone or (stale and told.may_refresh_words()))
        return why


def _stands_in_line(at: _PoolPlan, uid: Uid) -> bool:
    job = at.jobs.get(uid)
    return (
        job is not None
        and job.spec.pool == at.pool.name
        and job.status.phase is Phase.QUEUED
        and uid not in at.queue.gated
        and wants_room(job)
    )


def wants_room(job: Job) -> bool:
    """Whether anything of the job still waits to be admitted."""
    phase = job.status.phase
    if job.deleting or phase is None or phase.terminal or job.spec.suspend or job.spec.cancel:
        return False
    return phase is Phase.QUEUED or (
        len(job.status.assignments) < units.width(job) and next(units.open_units(job), -1) != -1
    )


# --- units


def ready_units(job: Job, snapshot: Snapshot, now: datetime) -> Iterator[units.Shard]:
    """Units that may start now: their backoff is over and no pod of an earlier attempt may live."""
    if job.status.phase is Phase.QUEUED and job.status.assignments:
        return  # resumed while its pods still stop
    room_for = units.width(job) - len(job.status.assignments)
    names_held = {a.pod for a in job.status.assignments}
    if snapshot.creating.get(job.uid, frozenset()) - names_held:
        return  # a create of an attempt that was given up is still on its way
    left = [p for p in snapshot.pods_of.get(job.uid, {}).values() if p.name not in names_held]
    alive = {None if job.spec.nodes > 1 else p.index for p in left if may_live(p, snapshot.nodes)}
    for shard in units.open_units(job):
        if room_for <= 0:
            return
        until = units.not_before(job.status, shard)
        if (until is None or until <= now) and not (None in alive or (shard or 0) in alive):
            room_for -= 1
            yield shard


def not_ready(job: Job, snapshot: Snapshot) -> Reason:
    """Why none of the open units may start: backoff, or pods of an earlier attempt."""
    waits = [t for t in (units.not_before(job.status, s) for s in units.open_units(job)) if t is not None]
    last = job.status.failures[-1] if job.status.failures else None
    if waits:
        again = f"{min(waits):%Y-%m-%dT%H:%M:%SZ}"
        why = f"attempt {last.attempt} failed: {last.reason}: {last.message}; " if last else ""
        word = reasons.BACKING_OFF
        if last is not None and last.reason == reasons.REJECTED_BY_CLUSTER:
            word, why = reasons.REJECTED_BY_CLUSTER, f"{last.message}; "
        return Reason(reason=word, message=f"{why}tried again at {again}")
    pods = sorted(
        {a.pod for a in job.status.assignments}
        | {p.name for p in snapshot.pods_of.get(job.uid, {}).values() if may_live(p, snapshot.nodes)}
    )
    text = f"waits until pods of an earlier attempt are gone: {', '.join(pods[:3])}"
    return Reason(reason=reasons.WAITING_FOR_CAPACITY, message=text)


def _behind(head: Job, *, by_quota: bool) -> Reason:
    what = "waits for quota" if by_quota else "does not fit"
    text = f"behind {head.namespace}/{head.name}, which {what} (queueing: StrictFIFO)"
    return Reason(reason=reasons.WAITING_FOR_QUOTA if by_quota else reasons.WAITING_FOR_CAPACITY, message=text)


def _claims(status: JobStatus) -> bool:
    """Whether others were stopped for the job: told so, and not admitted since, it goes first."""
    return status.phase is Phase.QUEUED and status.reason == reasons.WAITING_FOR_PREEMPTED_JOBS


def _waits_for(need: Need, making: Mapping[Holder, NodeName]) -> Reason:
    pods = ", ".join(f"{pod} on {node}" for (_, pod), node in sorted(making.items())[:3])
    more = f" and {len(making) - 3} more" if len(making) > 3 else ""  # noqa: PLR2004  shown above
    text = f"{reasons.needs(need)}; waits until preempted pods have stopped: {pods}{more}"
    return Reason(reason=reasons.WAITING_FOR_PREEMPTED_JOBS, message=text)


def _missing(room: Room, need: Need) -> tuple[bool, int, int, int]:
    """How much of what the shape needs the node is short of: the nearest first."""
    jobs_free = room.cpu_jobs[need.kind] - room.jobs_used[need.kind]
    slots = max(0, need.gpus - room.free[need.kind] if need.gpus > 0 else 1 - jobs_free)
    cpu = max(0, need.cpu_milli - (room.node.cpu_milli - room.cpu_milli))
    memory = max(0, need.memory_bytes - (room.node.memory_bytes - room.memory_bytes))
    return room.node.name in need.avoided, slots, cpu, memory


# --- what is written


def _admit(job: Job, admitted: list[Assignment], now: datetime) -> JobStatus:
    """The record of one more unit that stands before any pod of it does: attempt, assignment, Admitted."""
    at = now.replace(microsecond=0)
    status, shard = job.status, admitted[0].shard
    status = progress.begin_attempt(status, shard, job.kind)
    status = units.begin_attempt(status, shard, shards=job.spec.shards)
    running = status.phase is Phase.RUNNING
    message = starting([*(a for a in status.assignments if not a.stopping), *admitted])
    settled = status.conditions
    for kind, value, reason, text in (
        ("Admitted", True, "Admitted", message),
        ("PodsReady", False, "Starting", message),
    ):
        settled = conditions.put(
            settled, kind, value=value, reason=reason, message=text, now=now, generation=job.generation
        )
    for kind in ("Evicted", "Reconciling", "Stalled"):
        settled = conditions.clear(settled, kind, reason="Admitted", now=now, generation=job.generation)
    return replace(
        status,
        phase=Phase.RUNNING if running else Phase.ADMITTED,
        reason=status.reason if running else "Starting",
        message=status.message if running else message,
        conditions=settled,
        assignments=(*status.assignments, *admitted),
        queue=None,
        admitted_at=status.admitted_at if running else at,
    )


def _waiting(job: Job, why: Reason, queue: Queue | None, now: datetime) -> JobStatus:
    """The status of a job that waits whole: why, and its place."""
    if job.status.phase is not Phase.QUEUED:
        return job.status
    settled = conditions.put(
        job.status.conditions,
        "Admitted",
        value=False,
        reason=why.reason,
        message=why.message,
        now=now,
        generation=job.generation,
    )
    settled = conditions.clear(settled, "Reconciling", reason="Queued", now=now, generation=job.generation)
    if why.reason == reasons.MISCONFIGURED:
        settled = conditions.put(
            settled,
            "Stalled",
            value=True,
            reason=why.reason,
            message=why.message,
            now=now,
            generation=job.generation,
        )
    else:
        settled = conditions.clear(settled, "Stalled", reason=why.reason, now=now, generation=job.generation)
    return replace(job.status, reason=why.reason, message=why.message, conditions=settled, queue=queue)
