"""Which jobs may run next, and why the others wait: one plan over the queues of all pools.

In: the jobs and nodes that changed (`update`), then the question (`plan`). Out: the statuses of jobs that were
admitted, stopped for others, or changed their reason or place, with the pods to create and to delete. An index of
the snapshot is kept between plans; a new `Admission` gives the same answers.
"""

from collections.abc import Collection, Iterable, Mapping, MutableMapping
from datetime import datetime

from rfuav_operator.core import model
from rfuav_operator.core.admission import positions, waiting
from rfuav_operator.core.admission.cycle import admit_in_order
from rfuav_operator.core.admission.plan import Plan, PoolPlan, claims
from rfuav_operator.core.capacity import room, volumes
from rfuav_operator.core.capacity.explain import Reason
from rfuav_operator.core.capacity.placement import PoolCapacity
from rfuav_operator.core.capacity.usage import Usage
from rfuav_operator.core.job.priority import priority
from rfuav_operator.core.model import Job, NodeName, Snapshot, Uid
from rfuav_operator.core.preemption.preemption import Preemption, PreemptionIndex, is_on
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
        self.capacity: dict[str, PoolCapacity] = {}
        self._preemption: dict[str, PreemptionIndex] = {}  # of the pools that let jobs be stopped
        self._growing = {name: pool for name, pool in snapshot.pools.items() if pool.spec.scale_up.max_jobs > 0}
        self._changed: set[str] = set(snapshot.pools)  # those of which something changed since their last plan
        self._again: dict[str, datetime] = {}  # pool -> when time alone changes its plan
        self.usage = Usage(snapshot, jobs, now, on_change=self._room_changed)
        self.capacity = {name: PoolCapacity(pool, self.usage.rooms[name]) for name, pool in snapshot.pools.items()}
        self._preemption = {
            name: PreemptionIndex(pool, self.capacity[name]) for name, pool in snapshot.pools.items() if is_on(pool)
        }
        self._places: dict[str, positions.Places] = {name: positions.Places() for name in snapshot.pools}
        self.gates = Gates()
        # Waiting job -> pods stopping for it -> their nodes.
        self._clearing_for: dict[Uid, dict[room.Holder, NodeName]] = {}
        self._stopping: dict[Uid, set[tuple[Uid, str]]] = {}  # job -> (waiting job, pod)
        self._unplaced: dict[str, set[Uid]] = {}  # pool -> jobs admitted without a node
        self.failed = self.usage.failed  # jobs that could not be put in: the index is of no use then
        for uid in (*jobs, *(uid for uid in snapshot.pods_of if uid not in jobs)):
            try:
                self._index(uid, jobs.get(uid), snapshot, now)
            except Exception as error:  # noqa: BLE001  the caller sets the job aside
                self.failed.setdefault(uid, error)

    def _room_changed(self, pool: str, node: NodeName, released: bool) -> None:
        if pool in self.capacity:
            self._changed.add(pool)
            self._may_lure(node)
            self.capacity[pool].changed(node, released=released)
        if pool in self._preemption:
            self._preemption[pool].clearable.changed(node)

    def _may_lure(self, node: NodeName) -> None:
        """Whether a pool grows for a job depends on the nodes to which the scheduler could bring it instead."""
        room = self.usage.room(node)
        for name, pool in self._growing.items():
            selector = pool.spec.node_selector
            if room is None or all(room.node.labels.get(key) == value for key, value in selector.items()):
                self._changed.add(name)

    # --- what changed

    def quotas_changed(self, namespaces: Collection[str]) -> None:
        """The ResourceQuotas of these namespaces changed."""
        self._changed |= self.queues.waiting(namespaces)

    def update(
        self, uids: Iterable[Uid], nodes: Iterable[NodeName], snapshot: Snapshot, jobs: Mapping[Uid, Job], now: datetime
    ) -> None:
        """Bring the index up to date for these jobs and nodes."""
        self.usage.update_landings(snapshot, jobs)
        for node in nodes:
            self.usage.update_node(node, snapshot, now)
            self._changed |= self._growing.keys()  # it may have had other labels
        for uid in uids:
            job = jobs.get(uid)
            self.usage.update_job(uid, job, snapshot)
            self._index(uid, job, snapshot, now)

    def unplaced(self, pool: str) -> set[Uid]:
        """The jobs of a pool that hold room and have no node yet."""
        return self._unplaced.get(pool, set())

    def _index_runners(self, uid: Uid, job: Job | None, snapshot: Snapshot) -> None:
        held = self.usage.holds(uid)
        for preemptible in self._preemption.values():
            nodes = preemptible.runners.put(uid, job, held, snapshot)
            nodes += (node for name, one in held.items() if one.landing for node in self.usage.nodes_of(uid, name))
            for node in nodes:
                preemptible.clearable.changed(node)

    def _index(self, uid: Uid, job: Job | None, snapshot: Snapshot, now: datetime) -> None:
        self._changed.add(self.queues.pool_of(uid))
        if job is not None:
            self._changed.add(job.spec.pool)
        self.gates.index(uid, job)
        self._index_runners(uid, job, snapshot)
        for beneficiary, pod in self._stopping.pop(uid, ()):
            making = self._clearing_for.get(beneficiary, {})
            making.pop((uid, pod), None)
            if not making:
                self._clearing_for.pop(beneficiary, None)
        for name in [name for name, unplaced in self._unplaced.items() if uid in unplaced]:
            self._changed.add(name)
            self._unplaced[name].discard(uid)
            if not self._unplaced[name]:
                del self._unplaced[name]
        held = self.usage.holds(uid)
        for one in held.values():
            if not one.node:  # also of a job that is gone, and while it stops
                self._unplaced.setdefault(one.pool, set()).add(uid)
        if job is None:
            self.queues.remove(uid)
            return
        if model.is_active(job) and any(not a.node for a in job.status.assignments):
            self._unplaced.setdefault(job.spec.pool, set()).add(uid)
        for a in job.status.assignments:
            if a.stopping_for and a.pod in held:
                self._stopping.setdefault(uid, set()).add((Uid(a.stopping_for), a.pod))
                self._clearing_for.setdefault(Uid(a.stopping_for), {})[uid, a.pod] = NodeName(a.node)
        if not wants_room(job):
            self.queues.remove(uid)
            return
        self.queues.put(job, self._where(job, snapshot, now))

    def _where(self, job: Job, snapshot: Snapshot, now: datetime) -> Key | Reason:
        """The group of the job in its queue, or why it may not run even with room."""
        gate = self.gates.closed(job, snapshot)
        capacity = self.capacity.get(job.spec.pool)
        if gate is not None or capacity is None:
            return gate or self.gates.no_pool(job, snapshot)
        shape, pool = volumes.shape_of(job, snapshot), snapshot.pools[job.spec.pool]
        if next(ready_units(job, snapshot, now), -1) == -1:
            nowhere = capacity.never(shape) if pool.spec.scale_up.max_jobs == 0 else None
            return nowhere or quotas.never(pool.name, job.namespace, shape, snapshot) or not_ready(job, snapshot)
        return Key(
            priority(job, snapshot) or 0,
            job.namespace,
            shape,
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
        """Admit as many jobs as limits, quotas and room allow; `jobs` is updated with the decisions.

        A pool of which nothing changed since its last plan is left out: its plan would be the same.

        Args:
            snapshot: the state of now.
            jobs: the jobs as the steps of this turn left them.
            now: the instant.
            stepped: jobs that changed in this turn; waiting ones get their reason immediately.
            everyone: give all waiting jobs their reason, not only the first and the changed ones.
        """
        result = Plan()
        for name, pool in snapshot.pools.items():
            self._look_at_use(snapshot)  # also at that of the pools before
            due = self._again.get(name)
            if not everyone and name not in self._changed and (due is None or due > now):
                continue
            self._changed.discard(name)
            self._again.pop(name, None)
            queue = self.queues.pools.get(name)
            capacity = self.capacity[name]
            capacity.settle(queue.shapes if queue is not None else ())
            if name in self._preemption:
                self._preemption[name].runners.grow(now)
            if queue is None or not (queue.groups or queue.gated):
                continue
            limits = Quotas(name, snapshot, self.usage, capacity.rooms.values(), self.queues.namespaces(name))
            preemptible = self._preemption.get(name)
            preemption = None
            if preemptible is not None:
                preemption = Preemption(pool, snapshot, preemptible, capacity, usage=self.usage, quotas=limits, now=now)
            current = PoolPlan(
                pool=pool,
                queues=self.queues,
                usage=self.usage,
                capacity=capacity,
                quotas=limits,
                preemption=preemption,
                snapshot=snapshot,
                jobs=jobs,
                now=now,
                result=result,
                clearing_for=self._clearing_for,
                unplaced=self._unplaced.setdefault(name, set()),
            )
            result.look_again, result.unsettled = None, False
            admit_in_order(current)
            waiting.tell(current, self._places[name], stepped=stepped, everyone=everyone)
            if result.unsettled:
                result.again(now)
            if result.look_again is not None:
                self._again[name] = result.look_again
        self._changed &= snapshot.pools.keys()
        result.look_again, result.unsettled = min(self._again.values(), default=None), False
        for queue_name, queue in self.queues.pools.items():
            if queue_name not in snapshot.pools:
                for uid, why in queue.gated.items():
                    if everyone or uid in stepped:
                        result.wait(jobs, uid, waiting.status(jobs[uid], why, None, now))
        if result.unsettled:
            result.again(now)
        return result

    def _look_at_use(self, snapshot: Snapshot) -> None:
        """Mark the pools for which it matters what came into use, or is no longer in use."""
        self._changed |= {pool for pool, _ in self.usage.moved}
        namespaces = {ns for _, ns in self.usage.moved if ns in snapshot.resource_quotas} | self.usage.mounted
        if namespaces:
            self._changed |= self.queues.waiting(namespaces)
        self.usage.moved.clear()
        self.usage.mounted.clear()
