"""The decisions of a plan, and the state of one pool while the plan is made."""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from rfuav_crds import reasons
from rfuav_operator.core.capacity import explain
from rfuav_operator.core.capacity.explain import Reason
from rfuav_operator.core.capacity.placement import PoolCapacity
from rfuav_operator.core.capacity.room import Holder, Room, Shape, closed
from rfuav_operator.core.capacity.usage import Usage
from rfuav_operator.core.model import Assignment, Job, JobStatus, Kind, NodeName, Phase, Pool, Snapshot, Uid
from rfuav_operator.core.preemption.preemption import Preemption
from rfuav_operator.core.queue.eligibility import wants_room
from rfuav_operator.core.queue.queues import Key, PoolQueue, Queues
from rfuav_operator.core.queue.quotas import Quotas


@dataclass(slots=True)
class Plan:
    """What was decided: new statuses, pods to create and to delete, and when time alone changes the answer."""

    moved: dict[Uid, None] = field(default_factory=dict)  # jobs whose place or room changed, in order
    statuses: dict[Uid, JobStatus] = field(default_factory=dict)
    create: dict[Uid, list[Assignment]] = field(default_factory=dict)
    delete: dict[Uid, list[str]] = field(default_factory=dict)
    look_again: datetime | None = None
    unsettled: bool = False  # the next plan would add messages, although nothing else changes

    def wait(self, jobs: MutableMapping[Uid, Job], uid: Uid, status: JobStatus) -> None:
        """Set the status of a waiting job."""
        if status != jobs[uid].status:
            if claims(jobs[uid].status) != claims(status):
                self.moved[uid] = None
                self.unsettled = True
            jobs[uid] = replace(jobs[uid], status=status)
            self.statuses[uid] = status

    def again(self, at: datetime | None) -> None:
        """Plan once more at this instant."""
        if at is not None:
            self.look_again = at if self.look_again is None else min(self.look_again, at)


@dataclass(slots=True)
class PoolPlan:
    """The plan of one pool while it is made."""

    pool: Pool
    queues: Queues
    usage: Usage
    capacity: PoolCapacity
    quotas: Quotas
    preemption: Preemption | None  # None: nobody is stopped for others in this pool
    snapshot: Snapshot
    jobs: MutableMapping[Uid, Job]
    now: datetime
    result: Plan
    clearing_for: Mapping[Uid, Mapping[Holder, NodeName]]  # waiting job -> pods stopping for it -> their nodes
    unplaced: set[Uid]  # jobs admitted without a node
    kept: dict[NodeName, tuple[Uid, Shape]] = field(default_factory=dict)  # rooms promised to blocked jobs
    reasons: dict[Uid, Reason] = field(default_factory=dict)  # reasons of single jobs
    lures: dict[Shape, str] = field(default_factory=dict)  # by shape: a node to which the scheduler would bring it
    admitted: set[Uid] = field(default_factory=set)
    # StrictFIFO: the job that blocks its namespace (by quota) or, under "", all jobs (by room).
    heads: dict[str, Job] = field(default_factory=dict)
    starving: Uid | None = None  # blocked by room before all others: having waited too long, it keeps the next room
    made_room: bool = False  # pods stop for one job; other jobs that need this ask in the next plan
    open_shapes: set[Shape] | None = None  # shapes that may still find room; None: all are asked
    # What a GPUQuota has refused: namespace, kind, GPUs of all pods, whether the job has an admitted pod already.
    refused: set[tuple[str, Kind, int, bool]] = field(default_factory=set)

    def is_closed(self, key: Key) -> bool:
        """Whether a group need not be asked: no room is left for its shape, or no place in its namespace's quota."""
        return (
            (self.open_shapes is not None and key.shape not in self.open_shapes)
            or (key.namespace, key.shape.kind, key.shape.total_gpus, key.started) in self.refused
            or key.namespace in self.heads
        )

    def shape_now(self, shape: Shape) -> Shape:
        """The shape as it asks now: on the node where its claims are in use, avoided nodes forgiven if need be."""
        if not shape.single:
            return self.capacity.effective(shape)
        nodes = self.usage.nodes_of_claims(shape.single)
        pinned = replace(shape, single=()) if nodes is None else replace(shape, only=nodes)
        return self.capacity.effective(pinned)

    def volume_in_use(self, shape: Shape) -> Reason | None:
        """Why a claim of the shape cannot be mounted on any node now; None: it can."""
        if not shape.single:
            return None
        exclusive = next((name for name in shape.single if self._is_of_one_pod(name)), None)
        if exclusive is not None and self.usage.nodes_of_claims([exclusive]) is not None:
            text = f"{exclusive} is ReadWriteOncePod and in use by {self.usage.user_of(exclusive)}"
        elif self.usage.nodes_of_claims(shape.single) == frozenset():
            users = ", ".join(f"{name} by {user}" for name in shape.single if (user := self.usage.user_of(name)))
            text = f"no node can mount all of its ReadWriteOnce claims now; in use: {users}"
        else:
            return None
        return Reason(reason=reasons.WAITING_FOR_VOLUME, message=f"{explain.needs(replace(shape, single=()))}; {text}")

    def _is_of_one_pod(self, name: str) -> bool:
        namespace, _, claim = name.partition("/")
        held = self.snapshot.claims.get((namespace, claim))
        return held is not None and held.is_of_one_pod

    @property
    def queue(self) -> PoolQueue:
        """The jobs that wait for this pool."""
        return self.queues.pools[self.pool.name]

    def may_scale_up(self, shape: Shape) -> bool:
        """Whether one more of this shape may be admitted without a node, so that an autoscaler adds one."""
        most = self.pool.spec.scale_up.max_jobs
        if most == 0 or shape.avoided or shape.only or len(self.unplaced) >= most:
            return False
        return not self.lure(shape)

    def lure(self, shape: Shape) -> str:
        """The node to which the scheduler would bring a pod without one, though limits forbid it there; empty: none.

        It knows labels and taints, slots, CPU and memory; and it keeps such a pod off nodes where pods of ours are.
        """
        if shape not in self.lures:
            rooms = (room for rooms in self.usage.rooms.values() for room in rooms.values())
            self.lures[shape] = next((text for room in rooms if (text := self._lures(room, shape))), "")
        return self.lures[shape]

    def _lures(self, room: Room, shape: Shape) -> str:
        node, owner = room.node, self.usage.pool_of(room.node.name)
        wrong = f"of pool {owner}" if owner != self.pool.name else room.too_small(shape)
        if owner == self.pool.name and shape.gpus > 0:
            wrong = room.gpu_mismatch(shape) or wrong
        if not wrong or any(held.node for held in room.holders.values()):
            return ""
        if any(node.labels.get(key) != value for key, value in self.pool.spec.node_selector.items()):
            return ""
        short = shape.requests.too_large_for(node.allocatable - room.of_others)
        suits = not short and not closed(node, shape)
        return f"node {node.name}, which does not suit the job ({wrong})" if suits else ""

    def stands_in_line(self, uid: Uid) -> bool:
        """Whether the job waits whole, and for nothing but room and quota."""
        job = self.jobs.get(uid)
        return (
            job is not None
            and job.spec.pool == self.pool.name
            and job.status.phase is Phase.QUEUED
            and uid not in self.queue.gated
            and wants_room(job)
        )


def claims(status: JobStatus) -> bool:
    """Whether pods were stopped for the job and it was not admitted since: then it goes first."""
    return status.phase is Phase.QUEUED and status.reason == reasons.WAITING_FOR_PREEMPTED_JOBS
