"""Room on nodes: what a unit needs, what a node gives by the pool's limits, what is in use, and where a unit fits.

Usage is computed from the snapshot each time, never counted up and down: assignments of admitted jobs, live pods and
creates on their way, each once by pod name, and the pods of others.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from rfuav_operator.core import quantity
from rfuav_operator.core.lifecycle import may_live
from rfuav_operator.core.model import GpuTier, Job, Kind, Node, NodeName, Phase, Pod, Pool, Snapshot, Uid
from rfuav_operator.core.names import GPU

# GPUPool.spec.perGPU's default, for a pool read without it.
DEFAULT_TIERS = (
    GpuTier(min_memory="22Gi", training=1, inference=3),
    GpuTier(min_memory="11Gi", training=1, inference=2),
    GpuTier(min_memory=0, training=1, inference=1),
)
_REPELLING = ("NoSchedule", "NoExecute")
_HOSTNAME = "kubernetes.io/hostname"


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit of a job asks of a node: its shape. Equal shapes get equal answers, which are computed once."""

    kind: Kind
    gpus: int
    gpu_memory: int  # bytes on one GPU; 0: any
    cpu_milli: int
    memory_bytes: int
    node_selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[tuple[str, str, str, str], ...] = ()  # key, operator, value, effect
    avoided: frozenset[str] = frozenset()


def need_of(job: Job) -> Need:
    """The shape of a job's units. Raises ValueError when a quantity cannot be read."""
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
    return Need(
        kind=job.kind,
        gpus=asked.gpus,
        gpu_memory=quantity.whole(asked.gpu_memory) if asked.gpus > 0 else 0,
        cpu_milli=quantity.milli(asked.cpu),
        memory_bytes=quantity.whole(asked.memory),
        node_selector=tuple(sorted(template.node_selector.items())),
        tolerations=tuple(tolerations),
        avoided=frozenset(job.status.avoided_nodes),
    )


@dataclass(slots=True)
class Room:
    """One node of a pool: its limits and what is in use on it. `take` is the only change."""

    node: Node
    tier: GpuTier
    cpu_jobs: Mapping[Kind, int]
    slots_used: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    jobs_used: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))  # with gpus: 0
    foreign_gpus: int = 0
    cpu_milli: int = 0
    memory_bytes: int = 0
    pods: int = 0

    # --- limits

    def slot_limit(self, kind: Kind) -> int:
        """GPU slots that jobs of this kind may use together on the empty node."""
        if self.node.gpu_problem:
            return 0
        share = self.tier.training if kind is Kind.TRAINING else self.tier.inference
        return min(self.node.gpus * share, self.node.gpu_slots)

    def kind_free(self, kind: Kind) -> int:
        """Slots that this kind has left by its own limit alone."""
        return max(0, self.slot_limit(kind) - self.slots_used[kind])

    def slots_free(self) -> int:
        """Slots left of what the node has in all, the pods of others counted."""
        return max(0, self.node.gpu_slots - sum(self.slots_used.values()) - self.foreign_gpus)

    # --- the three questions

    def mismatch(self, need: Need) -> str:
        """Why the node is not for this shape at all, in words that can be counted over nodes; empty: it is."""
        if self.node.unschedulable:
            return "cordoned"
        if not self.node.ready:
            return "not ready"
        labels = self.node.labels
        if any(
            labels.get(key, self.node.name if key == _HOSTNAME else None) != value for key, value in need.node_selector
        ):
            return "outside spec.podTemplate.nodeSelector"
        taint = next(
            (t for t in self.node.taints if t.effect in _REPELLING and not _tolerated(t.key, t.value, t.effect, need)),
            None,
        )
        if taint is not None:
            return f"with the taint {taint.key}{'=' * bool(taint.value)}{taint.value}:{taint.effect}"
        if need.gpus == 0:
            return ""
        if self.node.gpu_problem:
            return f"with GPUs that cannot be used ({self.node.gpu_problem})"
        if self.node.gpu_slots == 0 or self.node.gpus == 0:
            return "without GPU"
        return self._gpu_mismatch(need)

    def _gpu_mismatch(self, need: Need) -> str:
        if need.gpu_memory:
            memory = self.node.gpu_memory_mib
            if memory is None:
                return "with GPUs of unknown memory (no label nvidia.com/gpu.memory)"
            if quantity.mib(memory) < need.gpu_memory:
                return (
                    f"with GPUs of {quantity.show_bytes(quantity.mib(memory))} "
                    f"({quantity.show_bytes(need.gpu_memory)} needed)"
                )
        if need.gpus > 1 and self.node.gpu_slots != self.node.gpus:
            return "with shared GPUs (a job of several GPUs needs them whole)"
        return ""

    def too_small(self, need: Need) -> str:
        """What the node could not give this shape even if it were empty; empty: nothing."""
        if need.gpus > 0:
            limit = self.slot_limit(need.kind)
            if need.gpus > limit:
                return f"with at most {limit} {_word(need.kind)} GPU slots"
        elif self.cpu_jobs[need.kind] == 0:
            return f"with no place for {_word(need.kind)} jobs without GPU"
        if need.cpu_milli > self.node.cpu_milli:
            return f"with {quantity.show_cpu(self.node.cpu_milli)} CPU"
        if need.memory_bytes > self.node.memory_bytes:
            return f"with {quantity.show_bytes(self.node.memory_bytes)} memory"
        return ""

    def lacks(self, need: Need) -> str:
        """What the node is short of now: a key that `reasons` counts over nodes; empty: the shape fits."""
        if need.gpus > 0:
            if need.gpus > self.kind_free(need.kind):
                return "slots"
            if need.gpus > self.slots_free():
                return "all slots"
        elif self.jobs_used[need.kind] >= self.cpu_jobs[need.kind]:
            return "jobs"
        if self.cpu_milli + need.cpu_milli > self.node.cpu_milli:
            return "cpu"
        if self.memory_bytes + need.memory_bytes > self.node.memory_bytes:
            return "memory"
        if self.pods >= self.node.pods:
            return "pods"
        return "avoided" if self.node.name in need.avoided else ""

    # --- the change

    def take(self, kind: Kind, *, gpus: int, cpu_milli: int, memory_bytes: int) -> None:
        """Count one of our pods on this node."""
        if gpus > 0:
            self.slots_used[kind] += gpus
        else:
            self.jobs_used[kind] += 1
        self._take_plain(cpu_milli, memory_bytes)

    def take_foreign(self, pod: Pod) -> None:
        """Count a pod of others on this node."""
        self.foreign_gpus += pod.gpus
        self._take_plain(pod.cpu_milli, pod.memory_bytes)

    def _take_plain(self, cpu_milli: int, memory_bytes: int) -> None:
        self.cpu_milli += cpu_milli
        self.memory_bytes += memory_bytes
        self.pods += 1


def _tolerated(key: str, value: str, effect: str, need: Need) -> bool:
    return any(
        (not t_effect or t_effect == effect)
        and ((t_key == key and (operator == "Exists" or t_value == value)) or (not t_key and operator == "Exists"))
        for t_key, operator, t_value, t_effect in need.tolerations
    )


def _word(kind: Kind) -> str:
    return "training" if kind is Kind.TRAINING else "inference"


# --- nodes to pools, and what is in use


def pool_of(node: Node, pools: Iterable[Pool]) -> str | None:
    """The pool a node belongs to: of those whose selector matches, most terms first, then by name."""
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


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Room that one pod name of ours holds."""

    kind: Kind
    node: str
    gpus: int
    cpu_milli: int
    memory_bytes: int


def held(snapshot: Snapshot, jobs: Mapping[Uid, Job]) -> Iterator[tuple[Uid, str, Held]]:
    """What every pod of ours holds, by job and pod name: recorded, alive, or on its way."""
    for uid in jobs.keys() | snapshot.pods_of.keys():
        job = jobs.get(uid)
        pods = snapshot.pods_of.get(uid, {})
        if job is not None:
            yield from _held_by_assignments(job, pods, snapshot)
        assigned = {a.pod for a in job.status.assignments} if job is not None else set()
        for pod in pods.values():
            if pod.name not in assigned and may_live(pod, snapshot.nodes):
                kind = job.kind if job is not None else pod.kind or Kind.TRAINING
                yield uid, pod.name, _held_by_pod(pod, kind, pod.node or pod.wanted_node or "")


def _held_by_assignments(job: Job, pods: Mapping[str, Pod], snapshot: Snapshot) -> Iterator[tuple[Uid, str, Held]]:
    if not job.status.assignments:
        return
    creating = snapshot.creating.get(job.uid, frozenset())
    active = not job.deleting and job.status.phase is not None and not job.status.phase.terminal
    for a in job.status.assignments:
        pod = pods.get(a.pod)
        if pod is not None and (active or may_live(pod, snapshot.nodes)):
            yield job.uid, a.pod, _held_by_pod(pod, job.kind, a.node or pod.node or "")
        elif pod is None and (active or a.pod in creating):
            need = need_of(job)
            yield (
                job.uid,
                a.pod,
                Held(kind=job.kind, node=a.node, gpus=a.gpus, cpu_milli=need.cpu_milli, memory_bytes=need.memory_bytes),
            )


def _held_by_pod(pod: Pod, kind: Kind, node: str) -> Held:
    return Held(kind=kind, node=node, gpus=pod.gpus, cpu_milli=pod.cpu_milli, memory_bytes=pod.memory_bytes)


def rooms(
    snapshot: Snapshot, jobs: Mapping[Uid, Job], *, without: frozenset[tuple[Uid, str]] = frozenset()
) -> dict[str, dict[NodeName, Room]]:
    """Pool name -> node name -> room, with everything counted that is in use, `without` these pods of these jobs."""
    by_pool: dict[str, dict[NodeName, Room]] = {name: {} for name in snapshot.pools}
    by_node: dict[str, Room] = {}
    for node in snapshot.nodes.values():
        name = pool_of(node, snapshot.pools.values())
        if name is None:
            continue
        spec = snapshot.pools[name].spec
        limits = {Kind.TRAINING: spec.per_node_cpu.training, Kind.INFERENCE: spec.per_node_cpu.inference}
        room = Room(node=node, tier=tier_of(node, spec.per_gpu), cpu_jobs=limits)
        by_pool[name][node.name] = by_node[node.name] = room
        for pod in snapshot.foreign.get(node.name, ()):
            room.take_foreign(pod)
    for uid, pod_name, use in held(snapshot, jobs):
        if use.node in by_node and (uid, pod_name) not in without:
            by_node[use.node].take(use.kind, gpus=use.gpus, cpu_milli=use.cpu_milli, memory_bytes=use.memory_bytes)
    return by_pool


def choose(need: Need, candidates: Iterable[Room], *, placement: str) -> Room | None:
    """The room for one more unit of this shape, or None. Pack fills the fullest node first, Spread the emptiest."""
    fitting = (room for room in candidates if not room.mismatch(need) and not room.lacks(need))

    def order(room: Room) -> tuple[int, int, str]:
        wasted = int(need.gpus == 0 and room.node.gpu_slots > 0)  # CPU jobs leave GPU nodes to others while they can
        free = room.slots_free() if need.gpus > 0 else room.cpu_jobs[need.kind] - room.jobs_used[need.kind]
        return wasted, free if placement == "Pack" else -free, room.node.name

    return min(fitting, key=order, default=None)


def is_active(job: Job) -> bool:
    """Whether the job holds room by its status: admitted, and not at its end."""
    return job.status.phase in (Phase.ADMITTED, Phase.RUNNING)
