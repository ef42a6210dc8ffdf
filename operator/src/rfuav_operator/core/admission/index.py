"""Who may run next, and why the others wait: one plan over the queues of all pools.

The jobs and nodes that changed come in (`update`), then the question (`plan`). The statuses of jobs that were admitted,
stopped for others, or whose reason or place changed go out, with the pods to create and to delete. What is kept between
plans is an index of the snapshot: a new `Admission` gives the same answers.
"""

from collections.abc import Collection, Iterable, Mapping, MutableMapping
from datetime import datetime

from rfuav_operator.core import model
from rfuav_operator.core.admission import positions, waiting
from rfuav_operator.core.admission.cycle import admit_in_order
from rfuav_operator.core.admission.plan import Plan, PoolPlan, claims
from rfuav_operator.core.capacity import room, volumes
from rfuav_operator.core.capacity.explain import Reason
from rfuav_operator.core.capacity.placement import PoolRooms
from rfuav_operator.core.capacity.usage import Usage
from rfuav_operator.core.job.priority import priority
from rfuav_operator.core.model import Job, NodeName, Snapshot, Uid
from rfuav_operator.core.preemption.preemption import Ground, Preemption, is_on
from rfuav_operator.core.queue import quotas
from rfuav_operator.core.queue.eligibility import Gates, not_ready, ready_units, wants_room
from rfuav_operator.core.queue.queues import Key, Queues
from rfuav_operator.core.queue.quotas import Quotas


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
        self.usage = Usage(snapshot, jobs, now, on_change=self._room_changed)
        self.rooms = {name: PoolRooms(pool, self.usage.rooms[name]) for name, pool in snapshot.pools.items()}
        self._grounds = {name: Ground(pool, self.rooms[name]) for name, pool in snapshot.pools.items() if is_on(pool)}
        self._places: dict[str, positions.Places] = {name: positions.Places() for name in snapshot.pools}
        self.gates = Gates()
        # Waiting job -> pods stopping for it -> their nodes.
        self._making_room: dict[Uid, dict[room.Holder, NodeName]] = {}
        self._stopping: dict[Uid, set[tuple[Uid, str]]] = {}  # job -> (waiting job, pod)
        self._nodeless: dict[str, set[Uid]] = {}  # pool -> jobs admitted without a node
        self.failed = self.usage.failed  # jobs that could not be put in: the index is of no use then
        for uid in (*jobs, *(uid for uid in snapshot.pods_of if uid not in jobs)):
            try:
                self._index(uid, jobs.get(uid), snapshot, now)
            except Exception as error:  # noqa: BLE001  the caller sets the job aside
                self.failed.setdefault(uid, error)

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
        self.usage.update_landings(snapshot, jobs)
        for node in nodes:
            self.usage.update_node(node, snapshot, now)
        for uid in uids:
            job = jobs.get(uid)
            self.usage.update_job(uid, job, snapshot)
            self._index(uid, job, snapshot, now)

    def nodeless(self, pool: str) -> set[Uid]:
        """The jobs of a pool that hold room and have no node yet."""
        return self._nodeless.get(pool, set())

    def _index_runners(self, uid: Uid, job: Job | None, snapshot: Snapshot) -> None:
        held = self.usage.holds(uid)
        for ground in self._grounds.values():
            nodes = ground.runners.put(uid, job, held, snapshot)
            nodes += (node for name, one in held.items() if one.landing for node in self.usage.nodes_of(uid, name))
            for node in nodes:
                ground.clearable.changed(node)

    def _index(self, uid: Uid, job: Job | None, snapshot: Snapshot, now: datetime) -> None:
        self.gates.index(uid, job)
        self._index_runners(uid, job, snapshot)
        for beneficiary, pod in self._stopping.pop(uid, ()):
            making = self._making_room.get(beneficiary, {})
            making.pop((uid, pod), None)
            if not making:
                self._making_room.pop(beneficiary, None)
        for name in [name for name, nodeless in self._nodeless.items() if uid in nodeless]:
            self._nodeless[name].discard(uid)
            if not self._nodeless[name]:
                del self._nodeless[name]
        held = self.usage.holds(uid)
        for one in held.values():
            if not one.node:  # also of a job that is gone, and while it stops
                self._nodeless.setdefault(one.pool, set()).add(uid)
        if job is None:
            self.queues.remove(uid)
            return
        if model.is_active(job) and any(not a.node for a in job.status.assignments):
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
        need, pool = volumes.need_of(job, snapshot), snapshot.pools[job.spec.pool]
        if next(ready_units(job, snapshot, now), -1) == -1:
            nowhere = rooms.never(need) if pool.spec.scale_up.max_jobs == 0 else None
            return nowhere or quotas.never(pool.name, job.namespace, need, snapshot) or not_ready(job, snapshot)
        return Key(
            priority(job, snapshot) or 0,
            job.namespace,
            need,
            started=bool(job.status.assignments),
            claims=claims(job.status),
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
            rooms.settle(queue.needs if queue is not None else ())
            if name in self._grounds:
                self._grounds[name].runners.grow(now)
            if queue is None or not (queue.groups or queue.gated):
                continue
            limits = Quotas(name, snapshot, self.usage, rooms.rooms.values(), self.queues.namespaces(name))
            ground = self._grounds.get(name)
            preemption = None
            if ground is not None:
                preemption = Preemption(pool, snapshot, ground, rooms, usage=self.usage, quotas=limits, now=now)
            current = PoolPlan(
                pool=pool,
                queues=self.queues,
                usage=self.usage,
                rooms=rooms,
                quotas=limits,
                preemption=preemption,
                snapshot=snapshot,
                jobs=jobs,
                now=now,
                result=result,
                making_room=self._making_room,
                nodeless=self._nodeless.setdefault(name, set()),
            )
            admit_in_order(current)
            waiting.tell(current, self._places[name], stepped=stepped, everyone=everyone)
        for queue_name, queue in self.queues.pools.items():
            if queue_name not in snapshot.pools:
                for uid, why in queue.gated.items():
                    if everyone or uid in stepped:
                        result.wait(jobs, uid, waiting.status(jobs[uid], why, None, now))
        if result.unsettled:
            result.again(now)
        return result
