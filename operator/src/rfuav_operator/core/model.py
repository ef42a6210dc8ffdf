"""The values the core works on: jobs, pods, nodes and pools, frozen.

The caller decodes API objects into them; the packages of the core read them and answer with a new `JobStatus` and
actions. Field names are snake_case here and camelCase on the wire; instants are aware UTC `datetime`, whole seconds in
status.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Literal, NewType

import msgspec

from rfuav_crds.modes import Placement, PreemptWithin, Queueing, ReclaimBorrowed, StopPolicy
from rfuav_operator.core.quantity import Amounts, milli, whole

Uid = NewType("Uid", str)
NodeName = NewType("NodeName", str)


class Kind(StrEnum):
    """The two kinds of job."""

    TRAINING = "TrainingJob"
    INFERENCE = "InferenceJob"

    @property
    def word(self) -> str:
        """The kind for people: training, inference."""
        return "training" if self is Kind.TRAINING else "inference"


KINDS = tuple(Kind)
"""Both: a tuple is walked four times as fast as an enumeration."""


class Phase(StrEnum):
    """One word for people; machines read the conditions."""

    QUEUED = "Queued"
    ADMITTED = "Admitted"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def terminal(self) -> bool:
        """Whether a job in this phase never moves again."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


class Wire(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A frozen value with camelCase names on the wire; unknown fields are ignored, defaults are left out."""


# --- status


class Condition(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A condition as Kubernetes writes it."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: datetime
    observed_generation: int = 0


class Assignment(Wire, frozen=True, kw_only=True):
    """Where one pod of the job runs or will run; held from the plan until no pod of the attempt can live."""

    pod: str
    node: str = ""  # empty: the scheduler chooses (a pool that scales up)
    gpus: int = 0
    shard: int | None = None  # InferenceJob
    rank: int | None = None  # TrainingJob of several nodes
    started_at: datetime | None = (
        None  # its container was seen running: a pod gone after this has vanished, not been lost
    )
    stuck_since: datetime | None = None  # one of its containers cannot start (ErrImagePull, ...): first seen
    provisional: bool = False  # on a node that was added for it, whose suitability is not known yet
    gpu_uuid: str = msgspec.field(default="", name="gpuUUID")  # the physical GPU its process reports to use
    stopping: str = ""  # why its pod is being removed; the room is held until the pod is gone or terminal
    shards: str = ""  # only in the stored form: the pods of these shards, named `pod` followed by the shard
    stopping_for: str = ""  # UID of the job that its room is taken back for


class Queue(Wire, frozen=True, kw_only=True):
    """Place in the queue of the pool, from 1."""

    position: int
    of: int
    estimated_start: datetime | None = None


class Progress(Wire, frozen=True, kw_only=True):
    """What the pods last reported. TrainingJob uses epochs and steps, InferenceJob processed / failed / total."""

    percent: int | None = None
    epoch: int | None = None
    total_epochs: int | None = None
    step: int | None = None
    total_steps: int | None = None
    processed: int | None = None
    failed: int | None = None
    total: int | None = None
    samples_per_second: float | None = None
    gpu_memory_bytes: int | None = None  # held by the process that reports; shards are summed
    gpu_utilization: int | None = None  # percent, of the whole device; of several shards the mean
    remaining_seconds: int | None = None
    sequence: int | None = None
    updated_at: datetime | None = None


class Checkpoint(Wire, frozen=True, kw_only=True):
    """The newest checkpoint that the trainer reported."""

    uri: str
    epoch: int | None = None
    step: int | None = None  # of all epochs
    saved_at: datetime | None = None


class Failure(Wire, frozen=True, kw_only=True):
    """Why one pod did not succeed; the last five are kept."""

    attempt: int
    pod: str
    node: str = ""
    reason: str
    exit_code: int | None = None
    message: str = ""
    finished_at: datetime
    counted: bool = False
    shard: int | None = None


class ShardCounts(Wire, frozen=True, kw_only=True):
    """Per-shard numbers of an InferenceJob. Map keys are shard indices as strings; sets are ranges like `0-3,7`."""

    total: int = 1
    completed: str = ""
    finished: Progress | None = None  # sums of the completed shards
    attempts: dict[str, int] = {}
    retries: dict[str, int] = {}  # failures: the counted ones, and the others since the shard last moved forward
    furthest: dict[str, int] = {}  # inputs done when uncounted failures began to count
    counted_failures: dict[str, int] = {}
    not_before: dict[str, datetime] = {}
    progress: dict[str, Progress] = {}
    packed: dict[str, dict[str, str]] = {}  # as it is stored alone: see `stored.packing`


class Source(Wire, frozen=True, kw_only=True):
    """The TrainingJob an InferenceJob takes its weights from, as resolved when it completed."""

    name: str
    uid: str
    weights: str


class CustomMetric(Wire, frozen=True, kw_only=True):
    """A metric that other frameworks report under a name of their own."""

    name: str
    value: str


class JobStatus(Wire, frozen=True, kw_only=True):
    """The whole status of a job, both kinds."""

    observed_generation: int = 0
    phase: Phase | None = None
    reason: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] = ()
    attempt: int = 0
    priority: int | None = None  # value of its PriorityClass when it was last admitted; counts as long as it is
    assignments: tuple[Assignment, ...] = ()
    queue: Queue | None = None
    progress: Progress | None = None
    metrics: dict[str, float] = {}
    custom_metrics: tuple[CustomMetric, ...] = ()
    checkpoint: Checkpoint | None = None
    outputs: dict[str, str] = {}
    failures: tuple[Failure, ...] = ()
    counted_failures: int = 0
    uncounted_failures: int = 0  # evictions, lost nodes and the like since it moved forward; bounded: no endless loop
    furthest: int = 0  # TrainingJob: the checkpoint's steps (or epochs) from which they count
    rejections: int = (
        0  # tries in a row that the cluster did not let begin (pod refused, no new node, registry down): they space the
        # tries, nothing more
    )
    not_before: datetime | None = None  # end of the backoff
    avoided_nodes: dict[str, datetime] = {}
    vetoes: dict[str, int] = {}  # node -> how often the scheduler refused it since the job last ran
    running_seconds: int = 0  # of runs that ended
    running_since: datetime | None = None  # start of the present run; None: no pod runs
    shards: ShardCounts | None = None
    source: Source | None = None
    queued_at: datetime | None = None
    admitted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


# --- spec: what the rules read; the whole spec travels beside it for the pod


class Resources(Wire, frozen=True, kw_only=True):
    """What one pod asks for. Quantities stay strings as the user wrote them; `quantity` reads them."""

    gpus: int = 1
    gpu_memory: str | int | None = None
    cpu: str | int | float | None = None
    cpu_limit: str | int | float | None = None
    memory: str | int | None = None
    shared_memory: str | int | None = None

    def requests(self) -> Amounts:
        """How much of each resource the pod requests. Raises ValueError when a quantity cannot be read."""
        return Amounts(slots=self.gpus, cpu_milli=milli(self.cpu), memory=whole(self.memory), pods=1)


class PodTemplate(Wire, frozen=True, kw_only=True):
    """The part of podTemplate that placement reads."""

    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()


class ModelSource(Wire, frozen=True, kw_only=True):
    """The part of spec.model that the rules read."""

    from_training_job: str = ""
    weights: str = ""


class JobSpec(Wire, frozen=True, kw_only=True):
    """The scheduling part of both kinds' spec. The API server has filled in the defaults."""

    model: ModelSource = ModelSource()
    resources: Resources = Resources()
    pool: str = "default"
    priority_class_name: str = ""
    suspend: bool = False
    cancel: bool = False
    backoff_limit: int = 3
    uncounted_limit: int | None = None  # None: the operator's
    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None
    termination_grace_period_seconds: int = 120
    image: str = ""
    nodes: int = 1
    shards: int = 1
    parallelism: int = 1
    pod_template: PodTemplate = PodTemplate()


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A TrainingJob or InferenceJob as last read, with the status that was planned for it if that is newer."""

    kind: Kind
    namespace: str
    name: str
    uid: Uid
    resource_version: str
    generation: int
    created: datetime
    deleting: bool
    spec: JobSpec
    raw_spec: Mapping[str, Any]
    status: JobStatus
    stored: Mapping[str, Any] | None = None  # the status as it is stored, where that had to be made to fit
    problems: tuple[
        str, ...
    ] = ()  # spec fields that cannot run (rfuav_crds.unsupported, undecodable spec): Misconfigured
    claims: tuple[str, ...] = ()  # PersistentVolumeClaims that the spec names, sorted
    set_aside: str = ""  # why it could not be read, or handled: it is left alone, and its room is held

    @property
    def unreadable(self) -> str:
        """Why it could not be read, as of every other value that is read."""
        return self.set_aside


def is_active(job: Job) -> bool:
    """Whether the job holds room by its status: admitted, and not at its end."""
    return job.status.phase in (Phase.ADMITTED, Phase.RUNNING)


# --- cluster


class PodPhase(StrEnum):
    """status.phase of a pod."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """A container of our pod, not the trainer, that fails or keeps the trainer waiting.

    A webhook added it (for example a mesh): podTemplate has no containers.
    """

    name: str
    init: bool = False  # it must end before the trainer starts
    waiting_reason: str = ""
    waiting_message: str = ""
    running: bool = False  # and the trainer waits for it: an init container, or a sidecar that has not started up
    exit_code: int | None = None  # not 0
    reason: str = ""  # of its end: OOMKilled, Error, ...
    message: str = ""

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"{'init container' if self.init else 'sidecar'} `{self.name}`"


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod, ours or foreign, reduced to what the rules read. Requests are effective (init containers counted).

    Values of a container (when it started and ended, what it waits for) are those of the trainer.
    """

    namespace: str
    name: str
    uid: Uid
    kind: Kind | None = None  # label rfuav.io/kind: how a pod counts when no job owns it (any more)
    pool: str = ""  # label rfuav.io/pool: the pool of its job, which stays when its node goes to another
    job_name: str = ""  # of the job that it was made for, by its owner or its label
    output: str = ""  # annotation rfuav.io/output: where it writes to
    job_uid: Uid | None = None  # its job by controller reference, labels and name; None: a foreign pod
    attempt: int = 0
    index: int = 0  # rank or shard
    node: NodeName | None = None  # spec.nodeName: bound
    wanted_node: NodeName | None = None  # the node its required affinity names
    landing: "Landing | None" = None  # of ours, without either: where it may land
    for_new_node: bool = False  # of ours: made to wait for a node to come
    bars: bool = False  # of ours, bound: keeps pods that wait for a node to come off its own
    alone: bool = False  # of ours: the scheduler lets no further pod of ours onto its node
    phase: PodPhase = PodPhase.PENDING
    deleting: bool = False
    created: datetime
    bound_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    reason: str = ""  # status.reason: Evicted, NodeLost, UnexpectedAdmissionError, ...
    message: str = ""
    disrupted: bool = False  # condition DisruptionTarget=True
    unschedulable: str = ""  # message of PodScheduled=False
    unschedulable_since: datetime | None = None
    setting_up_since: datetime | None = None  # its volumes and its network are not ready: since when
    waiting_reason: str = ""  # ErrImagePull, ImagePullBackOff, CreateContainerConfigError, ...
    waiting_message: str = ""
    exit_code: int | None = None
    terminated_reason: str = ""  # OOMKilled, Error, ...
    termination_message: str = ""
    beside: tuple[Beside, ...] = ()
    accompanied: bool = False  # another container, which nobody ends with the trainer, has not ended
    requests: Amounts = Amounts(pods=1)
    claims: tuple[str, ...] = ()  # PersistentVolumeClaims that it mounts
    claims_devices: bool = False  # of others, by resource claims (DRA): which devices of its node it has is not known
    unreadable: str = ""  # why not all of it could be read: its node takes nothing new, and it is not judged

    @property
    def gpus(self) -> int:
        """GPU slots that it asks for."""
        return self.requests.slots

    @property
    def live(self) -> bool:
        """Whether its containers may still run, or start: it takes room."""
        return self.phase not in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    @property
    def started(self) -> bool:
        """Whether its trainer was seen running; a sidecar that waits keeps the phase at Pending."""
        return self.phase is PodPhase.RUNNING or self.started_at is not None

    @property
    def ended(self) -> bool:
        """Whether its trainer has ended and that decides, because nothing of the pod runs on but a sidecar.

        Without one the kubelet says so a moment later, and the pod stays, with its log.
        """
        return not self.live or (self.exit_code is not None and self.accompanied)


class Landing(msgspec.Struct, frozen=True, kw_only=True):
    """Where the scheduler may put a pod of ours that waits for a node to come (a pool that scales up)."""

    pool: str = ""  # of its job
    selector: tuple[tuple[str, str], ...] = ()  # labels of the node
    barred: frozenset[str] = frozenset()  # labels of nodes that it keeps off while a pod of ours is bound there

    def may_be(self, node: Node) -> bool:
        """Whether it may be this node, as far as labels go."""
        return all(node.labels.get(k) == v for k, v in self.selector)

    def keeps_off(self, node: Node) -> bool:
        """Whether it goes to the node only if none of our pods is there."""
        return node_label(node.name) in self.barred


_LABEL_LIMIT, _LABEL_KEPT = 63, 52


def node_label(node: str) -> str:
    """A node's name as the value of a label, which may have 63 characters."""
    if len(node) <= _LABEL_LIMIT:
        return node
    return f"{node[:_LABEL_KEPT].rstrip('.-')}-{sha256(node.encode()).hexdigest()[:10]}"


class Taint(Wire, frozen=True, kw_only=True):
    """A taint of a node."""

    key: str
    effect: str
    value: str = ""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node, its GPUs as the device plugin and feature discovery describe them."""

    name: NodeName
    labels: Mapping[str, str]
    ready: bool = True
    unschedulable: bool = False
    deleting: bool = False  # an autoscaler empties it first
    taints: tuple[Taint, ...] = ()
    gpu_capacity: int = 0  # nvidia.com/gpu in all, those of unhealthy GPUs included
    gpus: int = 0  # healthy physical GPUs
    gpu_replicas: int = 0  # slots of each; 0: not known
    gpu_memory_mib: int | None = None  # of one physical GPU
    gpu_unknown: str = ""  # what is wrong with the labels of feature discovery: `gpus` and memory are not known
    gpu_problem: str = ""  # renamed or MIG resources: why its GPUs cannot be used
    allocatable: Amounts = Amounts()  # to pods; the slots of healthy GPUs alone
    unreadable: str = ""  # why it could not be read: it offers no room, and its pods stay
    created: datetime | None = None

    @property
    def gpu_slots(self) -> int:
        """Allocatable nvidia.com/gpu."""
        return self.allocatable.slots

    @property
    def is_open(self) -> bool:
        """Whether pods may come to it, as far as its own state goes."""
        return self.ready and not self.unschedulable and not self.deleting

    @property
    def is_gpu_shared(self) -> bool:
        """Whether several pods may use one of its GPUs: yes, unless it is known that they may not."""
        return self.gpu_replicas != 1

    def label(self, key: str) -> str | None:
        """A label's value; the host name is the node's own where no label says it."""
        return self.labels.get(key, self.name if key == "kubernetes.io/hostname" else None)


OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
"""The taint by which a person says that nothing runs on the node any more."""


def may_live(pod: Pod, nodes: Mapping[NodeName, Node]) -> bool:
    """Whether containers of the pod may still run.

    A pod that is being deleted counts as dead only when its node was deleted or tainted out-of-service: with both, a
    person states that nothing runs there. A pod for a new node may be seen before its node; Kubernetes itself removes
    it when that node is gone.
    """
    if not pod.live:
        return False
    if not pod.deleting or pod.node is None:
        return True
    node = nodes.get(pod.node)
    if node is None:
        return pod.for_new_node
    return all(t.key != OUT_OF_SERVICE for t in node.taints)


class Requirement(Wire, frozen=True, kw_only=True):
    """What one label, or the name, of a node must be."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, value: str | None) -> bool:
        """Whether this value meets the requirement; None: the node has no such label."""
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        return _compares(value, self.operator, self.values)


def _compares(value: str | None, operator: str, values: tuple[str, ...]) -> bool:
    try:
        mine, limit = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return mine > limit if operator == "Gt" else operator == "Lt" and mine < limit


class NodeTerm(Wire, frozen=True, kw_only=True):
    """Requirements that hold together; a term without any holds nowhere."""

    match_expressions: tuple[Requirement, ...] = ()  # of labels
    match_fields: tuple[Requirement, ...] = ()  # of metadata.name

    def holds(self, node: Node) -> bool:
        """Whether it holds on this node."""
        if not self.match_expressions and not self.match_fields:
            return False
        return all(r.holds(node.label(r.key)) for r in self.match_expressions) and all(
            r.key == "metadata.name" and r.holds(node.name) for r in self.match_fields
        )


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A PersistentVolume, reduced to the nodes that can mount it."""

    name: str
    terms: tuple[NodeTerm, ...] | None = None  # one of them must hold; None: no node affinity
    zones: tuple[tuple[str, frozenset[str]], ...] = ()  # topology label -> values that suit
    unreadable: str = ""  # why it could not be read: it is reached from nowhere

    @property
    def is_anywhere(self) -> bool:
        """Whether every node can mount it."""
        return self.terms is None and not self.zones

    def is_reachable(self, node: Node) -> bool:
        """Whether the node can mount it, by the rules of the scheduler's plugins VolumeBinding and VolumeZone."""
        if self.terms is not None and not any(term.holds(node) for term in self.terms):
            return False
        if not self.zones or not any(label in node.labels for pair in TOPOLOGY.items() for label in pair):
            return True  # a node that names no zone is not judged by it
        return all(node.labels.get(key, node.labels.get(TOPOLOGY[key])) in values for key, values in self.zones)


TOPOLOGY = {
    f"topology.kubernetes.io/{what}": f"failure-domain.beta.kubernetes.io/{what}" for what in ("zone", "region")
}
"""Labels of nodes and volumes that say where they are, and what they were called before."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A PersistentVolumeClaim."""

    namespace: str
    name: str
    volume: str = ""  # the PersistentVolume that it is bound to; empty: none yet
    phase: str = "Pending"  # | Bound | Lost
    modes: frozenset[str] = frozenset()
    deleting: bool = False
    unreadable: str = ""  # why not all of it could be read

    @property
    def is_of_one_node(self) -> bool:
        """Whether only one node may mount it at a time; also true if no mode is known."""
        return not self.modes & {"ReadWriteMany", "ReadOnlyMany"}

    @property
    def is_of_one_pod(self) -> bool:
        """Whether only one pod may mount it at a time."""
        return "ReadWriteOncePod" in self.modes


class GpuTier(Wire, frozen=True, kw_only=True):
    """How many jobs of each kind one physical GPU of at least this memory takes."""

    min_memory: str | int = 0
    training: int = 1
    inference: int = 1


class PerNodeCpu(Wire, frozen=True, kw_only=True):
    """How many CPU jobs (gpus: 0) a node takes."""

    training: int = 2
    inference: int = 4


class GpuSharing(Wire, frozen=True, kw_only=True):
    """How nodes that lack labels of GPU feature discovery share their GPUs."""

    replicas: int  # slots of one physical GPU
    memory: str | int  # of one physical GPU


class Preemption(Wire, frozen=True, kw_only=True):
    """When running jobs make room for others."""

    within_pool: PreemptWithin = PreemptWithin.NEVER
    reclaim_borrowed: ReclaimBorrowed = ReclaimBorrowed.NEVER
    min_runtime_seconds: int = 300


class ScaleUp(Wire, frozen=True, kw_only=True):
    """Jobs admitted without a node, so that their pending pods make an autoscaler add one."""

    max_jobs: int = 0
    timeout_seconds: int = 900


class GpuShare(Wire, frozen=True, kw_only=True):
    """A namespace's share of a pool, in GPU slots; None: no limit."""

    nominal: int = 0
    borrowing_limit: int | None = None
    lending_limit: int | None = None

    @property
    def reserved(self) -> int:
        """GPU slots of the nominal share that others may not borrow."""
        return 0 if self.lending_limit is None else max(0, self.nominal - self.lending_limit)


class PoolQuota(Wire, frozen=True, kw_only=True):
    """What a namespace may use of one pool."""

    name: str = ""
    gpus: GpuShare = GpuShare()
    max_training_jobs: int | None = None
    max_inference_jobs: int | None = None


class LabelRequirement(Wire, frozen=True, kw_only=True):
    """A condition on one label."""

    key: str
    operator: str  # In | NotIn | Exists | DoesNotExist
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels meet it, as in every Kubernetes selector; an operator that is not known: no."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        return False


class NamespaceSelector(Wire, frozen=True, kw_only=True):
    """Which namespaces are meant, by their labels."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelRequirement, ...] = ()

    def selects(self, namespace: Namespace | None) -> bool:
        """Whether this namespace is meant; one that was not read (None) is not."""
        return (
            namespace is not None
            and all(namespace.labels.get(key) == value for key, value in self.match_labels.items())
            and all(one.holds(namespace.labels) for one in self.match_expressions)
        )


class PriorityAccess(Wire, frozen=True, kw_only=True):
    """Which PriorityClasses the jobs of some namespaces may name: these, and all up to the ceiling."""

    names: tuple[str, ...] = ()
    ceiling: int | None = None
    namespace_selector: NamespaceSelector | None = None  # None: all


class PoolSpec(Wire, frozen=True, kw_only=True):
    """GPUPool.spec; behaviour that comes later is reported by `problems` of the pool."""

    node_selector: dict[str, str] = {}
    per_gpu: tuple[GpuTier, ...] = msgspec.field(default=(), name="perGPU")
    per_node_cpu: PerNodeCpu = msgspec.field(default=PerNodeCpu(), name="perNodeCPU")
    gpu_sharing: GpuSharing | None = None
    queueing: Queueing = Queueing.BEST_EFFORT_FIFO
    placement: Placement = Placement.PACK
    preemption: Preemption = Preemption()
    starvation_seconds: int = 1800
    scale_up: ScaleUp = ScaleUp()
    schedule_timeout_seconds: int = 300
    start_timeout_seconds: int = 1800
    priority_classes: tuple[PriorityAccess, ...] | None = None  # None: all up to the defaults of the kinds
    default_quota: PoolQuota | None = None  # of namespaces whose GPUQuota does not name the pool
    stop_policy: StopPolicy = StopPolicy.NONE


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """A GPUPool."""

    name: str
    uid: Uid
    resource_version: str
    generation: int
    spec: PoolSpec
    status: Mapping[str, Any] = {}
    problems: tuple[str, ...] = ()
    unreadable: str = ""  # why its spec could not be read: it admits nothing


class QuotaSpec(Wire, frozen=True, kw_only=True):
    """GPUQuota.spec."""

    pools: tuple[PoolQuota, ...] = ()
    weight: int = 1
    stop_policy: StopPolicy = StopPolicy.NONE  # NONE or HOLD


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """A GPUQuota: a namespace has at most one."""

    namespace: str
    uid: Uid
    resource_version: str
    generation: int
    spec: QuotaSpec
    status: Mapping[str, Any] = {}
    unreadable: str = ""  # why its spec could not be read: its namespace gets nothing new


class ResourceQuota(msgspec.Struct, frozen=True, kw_only=True):
    """A plain ResourceQuota without scopes: what the API server will refuse beyond. GPUs, millicores, bytes, pods.

    What is missing in `used` has not been counted yet, and is refused.
    """

    namespace: str
    name: str
    hard: Mapping[str, int]
    used: Mapping[str, int]
    unreadable: str = ""  # why it could not be read: its namespace gets nothing new


class PriorityClass(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduling.k8s.io PriorityClass."""

    name: str
    value: int
    unreadable: str = ""  # why it could not be read: it counts as absent


class Namespace(msgspec.Struct, frozen=True, kw_only=True):
    """A Namespace; pools may select it by its labels."""

    name: str
    labels: Mapping[str, str]
    unreadable: str = ""  # why it could not be read: it counts as absent


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's settings that the rules read."""

    image: str = ""
    training_priority_class: str = "rfuav-training"
    inference_priority_class: str = "rfuav-inference"
    training_priority: int = 1000  # when the class does not exist
    inference_priority: int = 2000
    cluster_assigns_users: bool = False  # pods get no user or group unless their job names one
    allow_cpu: bool = False  # sets RFUAV_ALLOW_CPU=1 in every pod; only for demos and tests
    progress_url: str = ""  # KUBEFLOW_TRAINER_SERVER_URL base; empty: no progress server
    progress_ca: str = ""  # PEM bundle for the pod annotation
    backoff_base_seconds: int = 10
    backoff_cap_seconds: int = 600
    uncounted_limit: int = 20
    node_avoid_seconds: int = 600
    rival: str = ""  # another release of the operator on standby, for the pools' status


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the core may know, at one instant. The maps are not changed while the core reads them.

    The first part is everything that the API server holds: a pool, a quota or a pod that is left out does not
    exist. Only the writing process knows the second part; other callers leave it empty.
    """

    jobs: Mapping[Uid, Job] = {}
    pods_of: Mapping[Uid, Mapping[str, Pod]] = {}  # our pods: job UID -> pod name -> pod
    # Live pods of others by node, those among them that carry our labels and belong to no job (orphans, forgeries);
    # of the latter also those that are not bound yet, by the node that they are made for.
    foreign: Mapping[NodeName, tuple[Pod, ...]] = {}
    made_for: Mapping[tuple[str, str], Mapping[str, Pod]] = {}  # live pods by namespace and name of a job, of whichever
    nodes: Mapping[NodeName, Node] = {}
    pools: Mapping[str, Pool] = {}
    quotas: Mapping[str, Quota] = {}  # by namespace
    resource_quotas: Mapping[str, Mapping[str, ResourceQuota]] = {}  # namespace -> name -> quota
    priority_classes: Mapping[str, PriorityClass] = {}
    namespaces: Mapping[str, Namespace] = {}
    claims: Mapping[tuple[str, str], Claim] = {}  # by namespace and name
    volumes: Mapping[str, Volume] = {}
    defaults: Defaults  # the settings of the operator

    # Pod names whose create was handed over and whose outcome is not known yet. A job deleted meanwhile stays in
    # `jobs`, `deleting`, until its entry here is gone: its assignments say which room the create may still take.
    creating: Mapping[Uid, frozenset[str]] = {}
    leaving: Mapping[tuple[str, str], frozenset[Uid]] = {}  # of these deleted jobs, by namespace and name
    landings: Mapping[tuple[Uid, str], Landing] = {}  # of those that wait for a node to come, by job and pod
    # The API server's own words on a create it answered with 403 or 422; cleared when the job's status changes.
    rejected: Mapping[Uid, str] = {}
    # Our pods that were seen and have disappeared, by job, while its status names them. Other absent pods
    # were never made, as far as this process knows.
    gone: Mapping[Uid, frozenset[str]] = {}
    unwritten: Collection[Uid] = ()  # jobs whose decided status is not known to be stored


# --- actions: what the core answers


class PatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Write this status over the one that was read (optimistic lock on `job.resource_version`)."""

    job: Job  # as read
    status: JobStatus
    urgent: bool = True  # a transition; False: progress or queue position, written under the budget
    final: bool = False  # holds the last value of a progress: first in the budget
    slow: bool = False  # nothing but the place in the queue and the words about it: may wait longest
    wide: bool = False  # one more pod of very many: the large status is not written for each


class CreatePod(msgspec.Struct, frozen=True, kw_only=True):
    """Create the pod; only after every status write of the same job handed over before it has succeeded."""

    job_uid: Uid
    namespace: str
    name: str
    manifest: Mapping[str, Any]
    landing: Landing | None = None  # of a pod that waits for a node to come
    service: Mapping[str, Any] | None = None  # of a job of several nodes: its Service, which is made first


class DeletePod(msgspec.Struct, frozen=True, kw_only=True):
    """Delete one pod, by name and UID, with its own grace period."""

    job_uid: Uid
    namespace: str
    name: str
    uid: Uid


class DeleteJob(msgspec.Struct, frozen=True, kw_only=True):
    """Delete a finished job whose TTL is over; its pods go with it (ownerReference)."""

    job: Job


class RecordEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An events.k8s.io Event on the job."""

    job: Job
    type: str  # Normal | Warning
    reason: str
    action: str
    note: str


class PatchLimitsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Write the status of a GPUPool or GPUQuota; under the budget."""

    target: Pool | Quota
    status: Mapping[str, Any]


Action = PatchStatus | CreatePod | DeletePod | DeleteJob | RecordEvent | PatchLimitsStatus


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One progress report, already authenticated: it came from this live pod."""

    job_uid: Uid
    pod: str
    attempt: int
    index: int
    sequence: int
    progress: Progress
    metrics: Mapping[str, float] = {}
    custom_metrics: tuple[CustomMetric, ...] = ()
    checkpoint: Checkpoint | None = None
    outputs: Mapping[str, str] = {}
    gpu_uuid: str = ""
    final: bool = False
    received_at: datetime
