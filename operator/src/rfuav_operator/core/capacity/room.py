"""Room on one node: what a unit needs, what the node offers by the pool's limits, what is in use, and what fits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from rfuav_crds.contract import GPU
from rfuav_operator.core import quantity
from rfuav_operator.core.capacity import gpus
from rfuav_operator.core.model import KINDS, GpuTier, Job, Kind, Landing, Node, Pod, Pool, PoolSpec, Uid, Volume
from rfuav_operator.core.quantity import NOTHING, Amounts

# GPUPool.spec.perGPU's default, for a pool read without it.
DEFAULT_TIERS = (
    GpuTier(min_memory="22Gi", training=1, inference=3),
    GpuTier(min_memory="11Gi", training=1, inference=2),
    GpuTier(min_memory=0, training=1, inference=1),
)
_MERELY_PREFERRED = "PreferNoSchedule"  # every other effect of a taint repels


class Shape(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """What one pod of a job asks of a node: its shape. Equal shapes get equal answers, which are computed once."""

    kind: Kind
    requests: Amounts
    gpu_memory: int  # bytes on one GPU; 0: any
    cpu_limit_milli: int = 0  # counted by ResourceQuotas alone; 0: none
    nodes: int = 1  # pods that start together, each on a node of its own
    node_selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[tuple[str, str, str, str], ...] = ()  # key, operator, value, effect
    avoided: frozenset[str] = frozenset()
    vetoed: frozenset[str] = frozenset()  # nodes that the scheduler refused: others come first
    volumes: tuple[Volume, ...] = ()  # that not every node can mount
    single: tuple[str, ...] = ()  # claims that one node mounts at a time, as namespace/name
    only: frozenset[str] = frozenset()  # nodes where these are in use: only those are possible; empty: they are free

    @property
    def gpus(self) -> int:
        """GPU slots of one pod."""
        return self.requests.slots

    @property
    def total_gpus(self) -> int:
        """GPU slots of all pods together."""
        return self.requests.slots * self.nodes


def shape_of(job: Job) -> Shape:
    """The shape of a job's pods. Raises ValueError when a quantity cannot be read."""
    asked, template = job.spec.resources, job.spec.pod_template
    tolerations = [
        (
            str(t.get("key") or ""),
            str(t.get("operator") or "Equal"),
            str(t.get("value") or ""),
            str(t.get("effect") or ""),
        )
        for t in template.tolerations
    ]
    if asked.gpus > 0:
        tolerations.append((GPU, "Exists", "", "NoSchedule"))
    return Shape(
        kind=job.kind,
        requests=asked.requests(),
        gpu_memory=quantity.whole(asked.gpu_memory) if asked.gpus > 0 else 0,
        cpu_limit_milli=quantity.milli(asked.cpu_limit),
        nodes=job.spec.nodes if job.kind is Kind.TRAINING else 1,
        node_selector=tuple(sorted(template.node_selector.items())),
        tolerations=tuple(tolerations),
        avoided=frozenset(job.status.avoided_nodes),
        vetoed=frozenset(job.status.vetoes),
    )


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """Room that one pod name of ours holds."""

    kind: Kind
    namespace: str
    pool: str  # of its job
    node: str  # empty: none yet (a pool that scales up)
    requests: Amounts
    cpu_limit_milli: int = 0
    absent: bool = False  # recorded, and its pod was not seen yet
    claims: tuple[str, ...] = ()  # PersistentVolumeClaims that it mounts
    landing: Landing | None = None  # without a node: room is held on every one that it may land on
    unreadable: str = ""  # its pod, and why that cannot be read: nobody knows what it takes
    bars: bool = False  # is bound, and keeps those off that wait for a node to come
    alone: bool = False  # the scheduler lets no further pod of ours onto its node

    @property
    def gpus(self) -> int:
        """GPU slots that it holds."""
        return self.requests.slots

    def counts_as(self, other: "Allocation") -> bool:
        """Whether the room of a node is the same with the other in its place."""
        return (
            self.landing is None
            and other.landing is None
            and (self.node, self.kind, self.requests) == (other.node, other.kind, other.requests)
            and (self.claims, self.unreadable, self.alone) == (other.claims, other.unreadable, other.alone)
        )

    def may_land_on(self, node: Node, there: Iterable["Allocation"]) -> bool:
        """Whether the scheduler may put it on this node beside those `there`: it knows nothing of a pool's limits."""
        return (
            self.landing is not None
            and self.landing.may_be(node)
            and not (self.landing.keeps_off(node) and any(held.bars for held in there))
            and not self.requests.too_large_for(node.allocatable)
        )


Holder = tuple[Uid, str]  # job and pod name


class Slots(NamedTuple):
    """The GPU slots of one room, as one kind of job sees them."""

    limit: int  # that the kind may use together on the empty node
    used: int
    own: int  # left of its limit alone
    free: int  # that a job of the kind can have now: also by what the node has in all


@dataclass(slots=True)
class Room:
    """One node of a pool: its limits, the holders of its room, and their sums."""

    node: Node
    tier: GpuTier
    cpu_jobs: Mapping[Kind, int]
    holders: dict[Holder, Allocation] = field(default_factory=dict)
    foreign: Sequence[Pod] = ()
    slot_limits: dict[Kind, int] = field(default_factory=dict)
    slots: dict[Kind, Slots] = field(default_factory=dict)
    jobs_used: dict[Kind, int] = field(default_factory=dict)  # with gpus: 0
    stray_gpus: dict[Kind, int] = field(default_factory=dict)  # of others, by a label that names the kind
    of_others: Amounts = NOTHING  # what the pods of others take, or may take
    left: Amounts = NOTHING  # of what the node has in all
    unread: bool = False  # one of its pods takes nobody knows what: nothing new comes beside it
    alone: bool = False  # one of its pods keeps the room that is left: the scheduler lets no other pod of ours in
    claimed: bool = False  # a pod of others has devices by resource claims: they may be any of its GPUs

    def __post_init__(self) -> None:
        for kind, share in ((Kind.TRAINING, self.tier.training), (Kind.INFERENCE, self.tier.inference)):
            usable = 0 if self.node.gpu_problem or self.node.gpu_unknown else self.node.gpus * share
            self.slot_limits[kind] = min(usable, self.node.gpu_slots)
        self.count()

    @property
    def foreign_gpus(self) -> int:
        """GPU slots that the pods of others take, or may take."""
        return self.of_others.slots

    @property
    def takes_gpu_jobs(self) -> bool:
        """Whether new jobs may use its GPUs."""
        node = self.node
        return node.is_open and node.gpus > 0 and not node.gpu_problem and not node.gpu_unknown

    def free(self, kind: Kind, *, gpu: bool) -> int:
        """GPU slots, or places for jobs without GPU, that a job of the kind can have now."""
        return self.slots[kind].free if gpu else self.cpu_jobs[kind] - self.jobs_used[kind]

    # --- the three questions

    def mismatch(self, shape: Shape) -> str:
        """Why the node is not for this shape at all, in words that can be counted over nodes; empty: it is."""
        return closed(self.node, shape) or (self.gpu_mismatch(shape) if shape.requests.slots > 0 else "")

    def gpu_mismatch(self, shape: Shape) -> str:
        """The same of its GPUs alone, for a shape that uses some."""
        if self.node.gpu_problem:
            return f"with GPUs that cannot be used ({self.node.gpu_problem})"
        if self.node.gpu_capacity == 0:
            return "without GPU"
        if self.node.gpu_unknown:
            return "with GPUs of unknown sharing"
        if self.node.gpus == 0:
            return "without a healthy GPU"
        if shape.gpu_memory:
            memory = self.node.gpu_memory_mib or 0
            if quantity.mib(memory) < shape.gpu_memory:
                return (
                    f"with GPUs of {quantity.show_bytes(quantity.mib(memory))} "
                    f"({quantity.show_bytes(shape.gpu_memory)} needed)"
                )
        if shape.gpus > 1 and self.node.is_gpu_shared:
            return "with shared GPUs (a job of several GPUs needs whole ones)"
        return ""

    def too_small(self, shape: Shape) -> str:
        """What the node could not give this shape even if it were empty; empty: nothing."""
        asked = shape.requests
        if asked.slots > 0:
            limit = self.slot_limits[shape.kind]
            if asked.slots > limit:
                return f"with at most {limit} {shape.kind.word} GPU slots"
        elif self.cpu_jobs[shape.kind] == 0:
            return f"with no place for {shape.kind.word} jobs without GPU"
        short = asked.too_large_for(self.node.allocatable)
        if not short:
            return ""
        resource = quantity.RESOURCES[short]
        return f"with {resource.show(getattr(self.node.allocatable, short))} {resource.title}"

    def lacks(self, shape: Shape) -> str:
        """What the node is short of now: a key that `explain` counts over nodes; empty: the shape fits."""
        asked = shape.requests
        if asked.slots > 0:
            if asked.slots > self.slots[shape.kind].free:
                return "slots"
        elif self.jobs_used[shape.kind] >= self.cpu_jobs[shape.kind]:
            return "jobs"
        if short := asked.short_of(self.left):
            return short
        if self.alone:
            return "alone"
        return "avoided" if self.node.name in shape.avoided else ""

    def crowded(self) -> str:
        """What is in use beyond the node's limits, by pods that are or will certainly be there; empty: nothing."""
        there = {key: held for key, held in self.holders.items() if held.node}
        sure = Room(node=self.node, tier=self.tier, cpu_jobs=self.cpu_jobs, holders=there, foreign=self.foreign)
        for kind, slots in sure.slots.items():
            used = slots.used + sure.stray_gpus[kind]
            if used > slots.limit:
                return f"{used} {kind.word} GPU slots of {slots.limit}"
            if sure.jobs_used[kind] > sure.cpu_jobs[kind]:
                return f"{sure.jobs_used[kind]} {kind.word} jobs without GPU of {sure.cpu_jobs[kind]}"
        for what, resource in quantity.RESOURCES.items():
            if (left := getattr(sure.left, what)) < 0:
                limit = getattr(self.node.allocatable, what)
                return f"{resource.show(limit - left)} {resource.title} of {resource.show(limit)}"
        if len(there) > 1 and any(held.alone for held in there.values()):
            return "room reserved for another job"
        return ""

    def delays(self, shape: Shape, waiting: Shape) -> bool:
        """Whether a pod of `shape` here would take what `waiting`, which the room is kept for, is short of.

        It would not where enough for both is left: then only what runs already decides when `waiting` can start.
        """
        if (
            shape.kind is waiting.kind
            and shape.gpus > 0
            and waiting.gpus > 0
            and shape.gpus + waiting.gpus > self.slots[shape.kind].own
        ):
            return True
        if shape.gpus == 0 and waiting.gpus == 0 and shape.kind is waiting.kind:
            left = self.cpu_jobs[shape.kind] - self.jobs_used[shape.kind]
            if left <= 1:
                return True
        return shape.requests.crowds_out(waiting.requests, self.left)

    # --- changes

    def without(self, keys: Iterable[Holder]) -> "Room":
        """The same room as a trial, these holders gone: what happens to it leaves the real one as it is."""
        gone = set(keys)
        left = {key: held for key, held in self.holders.items() if key not in gone}
        return Room(node=self.node, tier=self.tier, cpu_jobs=self.cpu_jobs, holders=left, foreign=self.foreign)

    def hold(self, key: Holder, held: Allocation) -> None:
        """Let a pod of ours hold room here."""
        self.holders[key] = held
        self.count()

    def release(self, key: Holder) -> None:
        """Give back what a pod of ours held here."""
        self.holders.pop(key, None)
        self.count()

    @property
    def unread_by(self) -> str:
        """The pod that closes the node, and why it cannot be read."""
        ours = [f"pod {name} ({held.unreadable})" for (_, name), held in self.holders.items() if held.unreadable]
        others = [f"pod {pod.namespace}/{pod.name} ({pod.unreadable})" for pod in self.foreign if pod.unreadable]
        return (*ours, *others, "")[0]

    @property
    def claimed_by(self) -> str:
        """The pod that closes its GPUs, because it may have any of them."""
        return next((f"{pod.namespace}/{pod.name}" for pod in self.foreign if pod.claims_devices), "")

    def count(self) -> None:
        """Sum up all that is in use: nothing is ever counted up and down."""
        slots, jobs, stray = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
        unread = alone = claimed = False
        for held in self.holders.values():
            if held.requests.slots > 0:
                slots[held.kind] += held.requests.slots
            else:
                jobs[held.kind] += 1
            if held.unreadable:
                unread = True
            if held.alone:
                alone = True
        for pod in self.foreign:
            if pod.kind is not None and pod.requests.slots > 0:
                stray[pod.kind] += pod.requests.slots
            elif pod.kind is not None:
                jobs[pod.kind] += 1
            if pod.claims_devices:
                claimed = True
            if pod.unreadable:
                unread = True
        self.jobs_used, self.stray_gpus = jobs, stray
        self.unread, self.alone, self.claimed = unread, alone, claimed
        given = self.node.allocatable
        ours = quantity.total([held.requests for held in self.holders.values()])
        others = quantity.total([pod.requests for pod in self.foreign]) if self.foreign else NOTHING
        if claimed:
            others = replace(others, slots=given.slots)
        if unread:  # it may take all that is left, and stays so while those go that can be read
            others = replace(others, slots=max(0, given.slots - ours.slots), pods=others.pods + given.pods)
        left = given - ours
        self.of_others, self.left = others, left - others if others is not NOTHING else left
        slots_left = max(0, self.left.slots)
        for kind, limit in self.slot_limits.items():
            own = max(0, limit - slots[kind] - stray[kind])
            self.slots[kind] = Slots(limit, slots[kind], own, min(own, slots_left))


def _tolerated(key: str, value: str, effect: str, shape: Shape) -> bool:
    return any(
        (not t_effect or t_effect == effect)
        and (t_key in ("", key) if operator == "Exists" else (t_key, operator, t_value) == (key, "Equal", value))
        for t_key, operator, t_value, t_effect in shape.tolerations
    )


def closed(node: Node, shape: Shape) -> str:
    """Why the scheduler binds no pod of this shape to the node, resources not considered; empty: it does."""
    if node.unreadable:
        return f"that cannot be read ({node.unreadable})"
    if node.deleting:
        return "being deleted"
    if node.unschedulable:
        return "cordoned"
    if not node.ready:
        return "not ready"
    if shape.node_selector and any(node.label(key) != value for key, value in shape.node_selector):
        return "outside spec.podTemplate.nodeSelector"
    if shape.only and node.name not in shape.only:
        return f"where {', '.join(shape.single)} cannot be mounted (in use elsewhere)"
    for volume in shape.volumes:
        if not volume.is_reachable(node):
            return f"that cannot mount volume {volume.name}"
    for taint in node.taints:
        if taint.effect != _MERELY_PREFERRED and not _tolerated(taint.key, taint.value, taint.effect, shape):
            return f"with the taint {taint.key}{'=' * bool(taint.value)}{taint.value}:{taint.effect}"
    return ""


def unsuited(node: Node, pool: PoolSpec, shape: Shape) -> str:
    """Why a node does not suit this shape by the pool's limits, which the scheduler does not know; empty: it does.

    A node whose GPUs' labels are missing (so far) counts as suitable.
    """
    room = room_of(node, pool)
    if shape.gpus > 0 and room.node.gpu_unknown:
        return ""
    return (room.gpu_mismatch(shape) if shape.gpus > 0 else "") or room.too_small(shape)


def room_of(
    node: Node, pool: PoolSpec, *, holders: dict[Holder, Allocation] | None = None, foreign: Sequence[Pod] = ()
) -> Room:
    """The room of a node by the limits of its pool."""
    node = gpus.in_pool(node, pool)
    return Room(
        node=node,
        tier=tier_of(node, pool.per_gpu),
        cpu_jobs=cpu_jobs(pool),
        holders={} if holders is None else holders,
        foreign=foreign,
    )


def cpu_jobs(pool: PoolSpec) -> dict[Kind, int]:
    """Jobs without GPU that one node takes, by kind."""
    return {Kind.TRAINING: pool.per_node_cpu.training, Kind.INFERENCE: pool.per_node_cpu.inference}


# --- nodes to pools


def pool_of(node: Node, pools: Iterable[Pool]) -> str | None:
    """The pool of a node: among those whose selector matches, the one with most terms, then by name."""
    matching = (p for p in pools if all(node.labels.get(k) == v for k, v in p.spec.node_selector.items()))
    best = min(matching, key=lambda p: (-len(p.spec.node_selector), p.name), default=None)
    return None if best is None else best.name


def tier_of(node: Node, tiers: Sequence[GpuTier]) -> GpuTier:
    """The tier of a node's GPUs: the highest that their memory reaches, the lowest when it is unknown."""
    ordered = sorted(tiers or DEFAULT_TIERS, key=lambda t: quantity.whole(t.min_memory), reverse=True)
    if node.gpu_memory_mib is None:
        return ordered[-1]
    memory = quantity.mib(node.gpu_memory_mib)
    return next((t for t in ordered if quantity.whole(t.min_memory) <= memory), GpuTier(training=0, inference=0))
