"""What is in use in the whole cluster: rooms by pool and node, GPU slots by namespace. Each pod name counts once.

In: the snapshot, first whole, then the jobs and nodes that changed. Out: `Room`s and `Share`s. A holder is
an assignment of an active job, a live pod, or a create that is under way. Holders are looked up in the snapshot, job by
job, and kept by pod name: a sum changes only together with the entry that it counts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from msgspec.structs import replace

from rfuav_operator.core.alarms import Alarms
from rfuav_operator.core.capacity.room import Allocation, Holder, Room, Shape, pool_of, room_of, shape_of
from rfuav_operator.core.capacity.volumes import claims_of
from rfuav_operator.core.model import KINDS, Job, Kind, Node, NodeName, Phase, Pod, Snapshot, Uid, may_live


@dataclass(slots=True)
class Share:
    """What one namespace holds of one pool."""

    gpus: int = 0
    cpu_pods: int = 0  # pods without GPU
    jobs: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))  # with an admitted pod


_NOTHING: Mapping[str, Allocation] = {}
_NO_NODE = NodeName("")  # under which those are kept that wait for one
_BINDS_WITHIN = timedelta(seconds=60)  # of its creation, an orphan is bound, or perhaps never will be


class Usage:
    """The holders of all room.

    Args:
        snapshot: the state of now.
        jobs: the snapshot's jobs, with this turn's changes.
        now: the instant.
        on_change: called with the pool and the node whose room was changed, and whether room may have been given back.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        jobs: Mapping[Uid, Job],
        now: datetime,
        *,
        on_change: Callable[[str, NodeName, bool], None] = lambda _pool, _node, _released: None,
    ) -> None:
        self.rooms: dict[str, dict[NodeName, Room]] = {name: {} for name in snapshot.pools}
        self.shares: dict[tuple[str, str], Share] = {}  # pool, namespace
        self.gpus: dict[tuple[str, Kind, str], int] = {}  # slots held, where any are: namespace, kind, pool
        self._on_change = on_change
        self._pool_of: dict[NodeName, str] = {}
        self._held: dict[Uid, dict[str, Allocation]] = {}
        self._on_node: dict[NodeName, dict[Holder, Allocation]] = {}
        self._absent: dict[str, dict[Holder, Allocation]] = {}  # namespace -> recorded, not seen
        self._claims: dict[str, dict[Holder, NodeName]] = {}  # namespace/claim -> the pods that mount it, and where
        self._foreign: dict[NodeName, list[tuple[str, Holder]]] = {}  # of foreign pods: claim and pod
        self.expires: Alarms[NodeName] = Alarms()  # when a pod of others that is not bound stops to count on a node
        self.failed: dict[Uid, Exception] = {}  # jobs whose room could not be computed
        # What changed beside rooms; the caller clears it.
        self.moved: set[tuple[str, str]] = set()  # shares: pool, namespace
        self.mounted: set[str] = set()  # namespaces whose claims came into use, or are no longer in use
        for uid in jobs.keys() | snapshot.pods_of.keys():
            try:
                for name, held in dict(held_by(uid, jobs.get(uid), snapshot)).items():  # each pod counts once
                    self._put(uid, name, held)
            except Exception as error:  # noqa: BLE001  the caller sets the job aside
                self.failed[uid] = error
        for node in (*snapshot.nodes, *(name for name in snapshot.foreign if name not in snapshot.nodes)):
            self.update_node(node, snapshot, now)

    # --- questions

    def room(self, node: NodeName) -> Room | None:
        """The room of one node, if it belongs to a pool."""
        pool = self._pool_of.get(node)
        return None if pool is None else self.rooms[pool].get(node)

    def pool_of(self, node: NodeName) -> str:
        """The pool that a node belongs to; empty: none."""
        return self._pool_of.get(node, "")

    def share(self, pool: str, namespace: str) -> Share:
        """What a namespace holds of a pool."""
        return self.shares.get((pool, namespace)) or Share()

    def holds(self, uid: Uid) -> Mapping[str, Allocation]:
        """What a job holds, by pod name."""
        return self._held.get(uid, _NOTHING)

    def of_pool(self, pool: str) -> Iterator[tuple[Uid, str, Allocation]]:
        """All that is held in one pool: job, pod name, room."""
        for uid, pods in self._held.items():
            for name, held in pods.items():
                if held.pool == pool:
                    yield uid, name, held

    def on_node(self, node: NodeName) -> set[Uid]:
        """The jobs that hold room on one node."""
        return {uid for uid, _ in self._on_node.get(node, ())}

    def nodes_held(self) -> set[NodeName]:
        """The nodes where room is held, including nodes that are gone and may return."""
        return {node for node in self._on_node if node != _NO_NODE and self._sure(node)}

    def absent(self, namespace: str) -> Iterable[Allocation]:
        """Allocations of a namespace whose pod was not seen: a ResourceQuota does not count them yet."""
        return self._absent.get(namespace, {}).values()

    def nodes_of_claims(self, claims: Iterable[str]) -> frozenset[str] | None:
        """The nodes that may mount all of these (namespace/name), by where they are in use; None: nowhere."""
        found: frozenset[str] | None = None
        for claim in claims:
            users = self._claims.get(claim)
            if users:
                nodes = frozenset(users.values()) - {_NO_NODE}
                found = nodes if found is None else found & nodes
        return found

    def user_of(self, claim: str) -> str:
        """One of the pods that mount a claim, and its node, in words; empty: there is none."""
        users = self._claims.get(claim)
        if not users:
            return ""
        (_, pod), node = min(users.items())
        return f"pod {pod}" + (f" on {node}" if node else "")

    # --- changes

    def update_job(self, uid: Uid, job: Job | None, snapshot: Snapshot) -> None:
        """Bring what a job holds up to date."""
        old, new = self._held.get(uid, {}), dict(held_by(uid, job, snapshot))
        if old == new:
            return
        for name in [name for name in old if name not in new]:
            self.release(uid, name)
        for name, held in new.items():
            if self._held.get(uid, {}).get(name) != held:
                self.hold(uid, name, held)

    def update_node(self, name: NodeName, snapshot: Snapshot, now: datetime) -> None:
        """Bring one node up to date: it came, changed, went, or pods of others did on it."""
        foreign = self._others_on(name, snapshot, now)
        self.update_landings(snapshot, snapshot.jobs)  # before the node goes: it may hold their room
        was = self._pool_of.pop(name, None)
        if was is not None:
            self.rooms.get(was, {}).pop(name, None)
        self._update_foreign_claims(name, foreign)
        node = snapshot.nodes.get(name)
        there = self._land(name, node)
        pool = None if node is None else pool_of(node, snapshot.pools.values())
        if node is not None and pool is not None:
            self._pool_of[name] = pool
            self.rooms.setdefault(pool, {})[name] = room_of(
                node, snapshot.pools[pool].spec, holders=there, foreign=foreign
            )
        self._forget_empty(name)
        for changed in {was, pool} - {None}:
            self._on_change(str(changed), name, True)

    def update_landings(self, snapshot: Snapshot, jobs: Mapping[Uid, Job]) -> None:
        """Look again where those without a node may land: their creates may have begun since."""
        for uid in self.on_node(_NO_NODE):
            self.update_job(uid, jobs.get(uid), snapshot)

    def _others_on(self, node: NodeName, snapshot: Snapshot, now: datetime) -> list[Pod]:
        """Pods of others that take room on a node: the bound ones, and orphans that are about to be bound there.

        One that is never bound (scheduling gates, a scheduler that does not exist) must not hold room for ever.
        """
        found = snapshot.foreign.get(node, ())
        ends = {pod.uid: pod.created + _BINDS_WITHIN for pod in found if pod.node is None}
        self.expires.set(node, min((end for end in ends.values() if end > now), default=None))
        return [pod for pod in found if pod.node is not None or ends[pod.uid] > now]

    def _update_foreign_claims(self, node: NodeName, foreign: Iterable[Pod]) -> None:
        for claim, user in self._foreign.pop(node, ()):
            if self._claims.get(claim, {}).get(user) == node:  # else it is known on another node by now
                self._unmount(claim, user)
        mounted = [
            (f"{pod.namespace}/{claim}", (pod.uid, f"{pod.namespace}/{pod.name}"))
            for pod in foreign
            for claim in pod.claims
        ]
        if mounted:
            self._foreign[node] = mounted
        for claim, user in mounted:
            self._mount(claim, user, node)

    def _mount(self, claim: str, user: Holder, node: NodeName) -> None:
        self.mounted.add(claim.partition("/")[0])
        self._claims.setdefault(claim, {})[user] = node

    def _unmount(self, claim: str, user: Holder) -> None:
        self.mounted.add(claim.partition("/")[0])
        users = self._claims.get(claim, {})
        users.pop(user, None)
        if not users:
            self._claims.pop(claim, None)

    def hold(self, uid: Uid, name: str, held: Allocation) -> None:
        """Let a pod hold room, replacing what it held before."""
        before = self.nodes_of(uid, name)
        was = self._take_out(uid, name, before)
        self._put(uid, name, held)
        if was is not None and was.counts_as(held) and not self._on_node.get(_NO_NODE):
            return  # it was created, or bound, where its room was held already
        for node in dict.fromkeys((*before, *self.nodes_of(uid, name))):
            self._changed(node, released=node in before or held.bars)

    def release(self, uid: Uid, name: str) -> Allocation | None:
        """Give back what a pod held."""
        nodes = self.nodes_of(uid, name)
        held = self._take_out(uid, name, nodes)
        for node in nodes:
            self._changed(node, released=True)
        return held

    def _take_out(self, uid: Uid, name: str, nodes: Iterable[NodeName]) -> Allocation | None:
        """What a pod held, on these nodes, and holds no longer; their rooms do not count again yet."""
        mine = self._held.get(uid, {})
        held = mine.pop(name, None)
        if held is None:
            return None
        key = held.pool, held.namespace
        self.moved.add(key)
        share = self.shares[key]
        share.gpus -= held.gpus
        self._count_gpus(held, -held.gpus)
        share.cpu_pods -= held.gpus == 0
        share.jobs[held.kind] -= _is_first(held, mine)
        if share == Share():
            del self.shares[key]
        if not mine:
            del self._held[uid]
        for node in nodes:
            self._on_node.get(node, {}).pop((uid, name), None)
            self._forget_empty(node)
        if held.absent:
            absent = self._absent[held.namespace]
            del absent[uid, name]
            if not absent:
                del self._absent[held.namespace]
        for claim in held.claims:
            self._unmount(f"{held.namespace}/{claim}", (uid, name))
        return held

    def _forget_empty(self, node: NodeName) -> None:
        if node not in self._pool_of and not self._on_node.get(node):  # else its room shows the same map
            self._on_node.pop(node, None)

    def _put(self, uid: Uid, name: str, held: Allocation) -> None:
        self.moved.add((held.pool, held.namespace))
        share = self.shares.setdefault((held.pool, held.namespace), Share())
        mine = self._held.setdefault(uid, {})
        share.jobs[held.kind] += _is_first(held, mine)
        share.gpus += held.gpus
        self._count_gpus(held, held.gpus)
        share.cpu_pods += held.gpus == 0
        mine[name] = held
        self._on_node.setdefault(NodeName(held.node), {})[uid, name] = held
        if held.landing is not None:
            for room in [room for rooms in self.rooms.values() for room in rooms.values()]:
                if held.may_land_on(room.node, self._sure(room.node.name)):
                    self._on_node.setdefault(room.node.name, {})[uid, name] = held
        elif held.bars and self._on_node.get(_NO_NODE) and (there := self.room(NodeName(held.node))) is not None:
            self._land(there.node.name, there.node)
        if held.absent:
            self._absent.setdefault(held.namespace, {})[uid, name] = held
        for claim in held.claims:
            self._mount(f"{held.namespace}/{claim}", (uid, name), NodeName(held.node))

    def _count_gpus(self, held: Allocation, more: int) -> None:
        key = held.namespace, held.kind, held.pool
        if left := self.gpus.get(key, 0) + more:
            self.gpus[key] = left
        else:
            self.gpus.pop(key, None)

    def nodes_of(self, uid: Uid, name: str) -> list[NodeName]:
        """The nodes where a pod holds room: its own, or all where the scheduler may put it."""
        held = self._held.get(uid, {}).get(name)
        if held is None:
            return []
        if held.node or held.landing is None:
            return [NodeName(held.node)]
        return [_NO_NODE, *(node for node in self._pool_of if (uid, name) in self._on_node.get(node, {}))]

    def _sure(self, node: NodeName) -> Iterable[Allocation]:
        """Those that are on a node or go there, without those that may."""
        return [held for held in self._on_node.get(node, {}).values() if held.node]

    def _land(self, name: NodeName, node: Node | None) -> dict[Holder, Allocation]:
        """Let those without a node hold room on this one if the scheduler may put them there, else not; all that do."""
        there = self._on_node.setdefault(name, {})
        for holder, held in self._on_node.get(_NO_NODE, {}).items():
            if node is not None and held.may_land_on(node, self._sure(name)):
                there[holder] = held
            else:
                there.pop(holder, None)
        return there

    def _changed(self, node: NodeName, *, released: bool) -> None:
        room = self.room(node)
        if room is not None:
            if released and self._on_node.get(_NO_NODE):
                self._land(node, room.node)
            room.count()
            self._on_change(self._pool_of[node], node, released)


def _is_first(held: Allocation, others: Mapping[str, Allocation]) -> bool:
    """Whether it alone makes its job one of those that hold room in the pool: pods of a job that is gone may differ."""
    return not any(other.pool == held.pool and other.kind is held.kind for other in others.values())


# --- what one job holds


def held_by(uid: Uid, job: Job | None, snapshot: Snapshot) -> Iterator[tuple[str, Allocation]]:
    """What every pod of one job holds, by name: recorded, alive, or on its way."""
    pods = snapshot.pods_of.get(uid, {})
    assigned: set[str] = set()
    if job is not None and job.status.assignments:
        assigned = {a.pod for a in job.status.assignments}
        yield from _by_assignments(job, pods, snapshot)
    for pod in pods.values():
        if pod.name not in assigned and may_live(pod, snapshot.nodes):
            node = pod.node or pod.wanted_node or NodeName("")
            pool = job.spec.pool if job is not None else _pool_of_node(node, snapshot)
            kind = job.kind if job is not None else pod.kind or Kind.TRAINING
            yield pod.name, _by_pod(pod, kind, pool, node)


def _by_assignments(job: Job, pods: Mapping[str, Pod], snapshot: Snapshot) -> Iterator[tuple[str, Allocation]]:
    creating = snapshot.creating.get(job.uid, frozenset())
    active = not job.deleting and job.status.phase is not None and not job.status.phase.terminal
    shape: Shape | None = None
    for a in job.status.assignments:
        pod = pods.get(a.pod)
        if pod is not None and (active or may_live(pod, snapshot.nodes)):
            held = _by_pod(pod, job.kind, job.spec.pool, pod.node or a.node)
            # Past the queue the job's pool is fixed, and anybody may change a label.
            if job.status.phase is not Phase.QUEUED and held.pool != job.spec.pool:
                held = replace(held, pool=job.spec.pool)
            yield a.pod, replace(held, requests=replace(held.requests, slots=a.gpus)) if pod.unreadable else held
        elif pod is None and (active or a.pod in creating):
            shape = shape or shape_of(job)
            landing = None if a.node else snapshot.landings.get((job.uid, a.pod))
            asked = replace(shape.requests, slots=max(a.gpus, shape.gpus))
            yield a.pod, replace(planned(job, shape, a.node), landing=landing, requests=asked)


def planned(job: Job, shape: Shape, node: str) -> Allocation:
    """What a pod that is recorded and was not seen yet holds."""
    return Allocation(
        kind=job.kind,
        namespace=job.namespace,
        pool=job.spec.pool,
        node=node,
        requests=shape.requests,
        cpu_limit_milli=shape.cpu_limit_milli,
        absent=True,
        claims=claims_of(job),
    )


def _by_pod(pod: Pod, kind: Kind, pool: str, node: str) -> Allocation:
    return Allocation(
        kind=kind,
        namespace=pod.namespace,
        pool=pod.pool or pool,
        node=node,
        requests=pod.requests,
        claims=pod.claims,
        landing=None if node else pod.landing,
        unreadable=pod.unreadable,
        bars=pod.bars,
        alone=pod.alone,
    )


def _pool_of_node(node: NodeName, snapshot: Snapshot) -> str:
    held = snapshot.nodes.get(node)
    return (pool_of(held, snapshot.pools.values()) or "") if held is not None else ""
