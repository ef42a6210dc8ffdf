"""GPUPool: which nodes belong together, and how many jobs may share their GPUs."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rfuav_crds.common import Model, ObjectName, Spec
from rfuav_crds.modes import Placement, PreemptWithin, Queueing, ReclaimBorrowed, StopPolicy
from rfuav_crds.pod import LABEL_KEY, LABEL_VALUE, LabelMap
from rfuav_crds.quantity import Memory, MemoryOrZero, cel_quantity, parse_quantity
from rfuav_crds.rules import Rule, matches
from rfuav_crds.share import Limits
from rfuav_crds.status import Conditions, Count

Jobs = Annotated[int, Field(ge=0, le=1000)]


class GpuTier(Spec):
    """The limits of one physical GPU with at least this memory."""

    min_memory: MemoryOrZero = Field(
        0,
        description='Memory of one physical GPU, bytes as a quantity; a "24 GB" card reports 23-24 thousand '
        "MiB: write 22Gi. Default: 0.",
    )
    training: Jobs = Field(1, description="TrainingJobs at a time, 0 to 1000. Default: 1.")
    inference: Jobs = Field(1, description="InferenceJob shards at a time, 0 to 1000. Default: 1.")


class PerNodeCpu(Spec):
    """The limits of one node for jobs with gpus: 0."""

    training: Jobs = Field(2, description="TrainingJobs at a time, 0 to 1000. Default: 2.")
    inference: Jobs = Field(4, description="InferenceJob shards at a time, 0 to 1000. Default: 4.")


class GpuSharing(Spec):
    """How nodes share their GPUs, for clusters without GPU feature discovery."""

    replicas: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="Slots (nvidia.com/gpu) that the device plugin makes of one physical GPU, 1 to 1000; 1: GPUs are "
        "not shared."
    )
    memory: Memory = Field(description="Memory of one physical GPU, bytes as a quantity, for example 24Gi.")


class Preemption(Spec):
    """When running jobs are stopped to make room for others."""

    within_pool: PreemptWithin = Field(
        PreemptWithin.NEVER,
        strict=False,
        description="Whether jobs of higher priority stop those of lower (LowerPriority). Default: Never.",
    )
    reclaim_borrowed: ReclaimBorrowed = Field(
        ReclaimBorrowed.NEVER,
        strict=False,
        description="Whether a namespace takes back its nominal share from borrowers: from those of lower priority "
        "(LowerPriority), or from all (Any). Default: Never.",
    )
    min_runtime_seconds: Annotated[int, Field(ge=0, le=604_800)] = Field(
        300, description="A job that has run for fewer seconds is not stopped. Default: 300."
    )


class ScaleUp(Spec):
    """Jobs admitted without a node, so that their pending pods make an autoscaler add one."""

    max_jobs: Annotated[int, Field(ge=0, le=1000)] = Field(
        0, description="Most such jobs at a time; 0: none. Default: 0."
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        900, description="How long such a job waits for its node, in seconds, before it queues again. Default: 900."
    )


_LABEL_HINT = "letters, digits, '-', '_' and '.', as Kubernetes allows in labels"


class LabelRequirement(Spec):
    """A condition on one label, as in every Kubernetes selector."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.operator in ['In', 'NotIn']) == has(self.values)",
            message="write values with operator In or NotIn, and none with Exists or DoesNotExist",
            field=".values",
            check=lambda r: (r.operator in ("In", "NotIn")) == (r.values is not None),
        ),
    )

    key: Annotated[str, Field(max_length=317), matches(LABEL_KEY, f"write the key of a label: {_LABEL_HINT}")] = Field(
        description="Key of the label."
    )
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How the label is compared.")
    values: (
        Annotated[
            list[
                Annotated[str, Field(max_length=63), matches(LABEL_VALUE, f"write the value of a label: {_LABEL_HINT}")]
            ],
            Field(min_length=1, max_length=32),
        ]
        | None
    ) = Field(None, description="For In and NotIn. Default: none.")


class NamespaceSelector(Spec):
    """Selects namespaces by their labels; all conditions must hold."""

    match_labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)] | None = Field(
        None,
        description="Labels that the namespace carries; kubernetes.io/metadata.name is its name. Default: none.",
    )
    match_expressions: Annotated[list[LabelRequirement], Field(max_length=16)] | None = Field(
        None, description="Conditions on its labels. Default: none."
    )


class PriorityAccess(Spec):
    """Which PriorityClasses the jobs of some namespaces may name."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.names) || has(self.ceiling)",
            message="write names, ceiling, or both",
            check=lambda a: a.names is not None or a.ceiling is not None,
        ),
    )

    names: Annotated[list[ObjectName], Field(min_length=1, max_length=32)] | None = Field(
        None, description="PriorityClasses that they may name. Default: none."
    )
    ceiling: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] | None = Field(
        None, description="They may name every PriorityClass whose value is at most this. Default: none."
    )
    namespace_selector: NamespaceSelector | None = Field(
        None, description="The namespaces that this entry applies to. Default: all."
    )


def _tiers() -> list[GpuTier]:
    return [
        GpuTier(min_memory="22Gi", training=1, inference=3),
        GpuTier(min_memory="11Gi", training=1, inference=2),
        GpuTier(min_memory=0, training=1, inference=1),
    ]


class GPUPoolSpec(Spec):
    """Nodes and limits. Everything may change; running jobs are not stopped by a lower limit."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.perGPU.map(t, has(t.minMemory) && isQuantity(string(t.minMemory)) ? "
            f"-{cel_quantity('t.minMemory')}.asApproximateFloat() : 0.0).isSorted()",
            message="the first tier whose minMemory a GPU reaches applies: write the tiers from the largest "
            "minMemory to the smallest",
            field=".perGPU",
            check=lambda s: (sizes := [parse_quantity(t.min_memory) for t in s.per_gpu]) == sorted(sizes, reverse=True),
        ),
    )

    node_selector: LabelMap = Field(
        default_factory=dict,
        description="Labels of the pool's nodes. A node belongs to one pool: the one with the most labels here, "
        "then by name. "
        "Default: every node.",
    )
    per_gpu: Annotated[list[GpuTier], Field(min_length=1, max_length=6)] = Field(
        default_factory=_tiers,
        alias="perGPU",
        description="How many jobs one physical GPU takes, by its memory, from the largest minMemory to the smallest. "
        "Default: 22Gi 1/3, 11Gi 1/2, 0 1/1 (training/inference).",
    )
    per_node_cpu: PerNodeCpu = Field(
        default_factory=PerNodeCpu, alias="perNodeCPU", description="How many CPU jobs (gpus: 0) one node takes."
    )
    gpu_sharing: GpuSharing | None = Field(
        None,
        description="How nodes of the pool that lack labels of GPU feature discovery (nvidia.com/gpu.count, .memory "
        "and .replicas) share their GPUs: it replaces missing labels. A node takes no new GPU jobs if labels, this "
        "field and the device plugin contradict each other, or if it lacks labels and this field is not set.",
    )
    queueing: Queueing = Field(
        Queueing.BEST_EFFORT_FIFO,
        strict=False,
        description="BestEffortFIFO: jobs that fit may pass a head that does not; StrictFIFO: no job passes. "
        "Default: BestEffortFIFO.",
    )
    placement: Placement = Field(
        Placement.PACK,
        strict=False,
        description="Pack: fill nodes one after the other; Spread: the emptiest node first. Default: Pack.",
    )
    preemption: Preemption = Field(default_factory=Preemption, description="When running jobs make room for others.")
    starvation_seconds: Annotated[int, Field(ge=0, le=604_800)] = Field(
        1800,
        description="A blocked head older than this, in seconds, reserves the next room that would fit it. "
        "Default: 1800.",
    )
    schedule_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        300,
        description="An admitted pod not bound in this time, in seconds, gives its room back and tries another "
        "node. Default: 300.",
    )
    start_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        1800, description="A bound pod not running in this time, in seconds (image, volume): the same. Default: 1800."
    )
    scale_up: ScaleUp = Field(default_factory=ScaleUp, description="Letting an autoscaler add nodes.")
    priority_classes: Annotated[list[PriorityAccess], Field(max_length=16)] | None = Field(
        None,
        description="Which PriorityClasses jobs may name here, by namespace; what any entry allows is allowed, all "
        "else waits as Misconfigured. The default class of a kind is always allowed. Default: one entry for all "
        "namespaces, whose ceiling is the higher of the values of the two default classes.",
    )
    default_quota: Limits | None = Field(
        None,
        description="What each namespace may use of the pool whose GPUQuota does not name it. Default: nothing of its "
        "own, and no limit on borrowing.",
    )
    stop_policy: StopPolicy = Field(
        StopPolicy.NONE,
        strict=False,
        description="Hold: admit nothing new; HoldAndDrain: also stop what runs. Default: None.",
    )


class ByKind(Model):
    """A number for each kind of job."""

    training: Count = Field(0, description="TrainingJobs.")
    inference: Count = Field(0, description="InferenceJobs.")


class Pending(ByKind):
    """Waiting jobs."""

    total: Count = Field(0, description="Both kinds together.")


class GPUPoolStatus(Model):
    """What the operator last saw of the pool."""

    observed_generation: Count = Field(0, description="Generation of the spec that this status describes.")
    nodes: Count = Field(0, description="Nodes of the pool.")
    gpus: Count = Field(0, description="Healthy physical GPUs of those nodes, as far as they are known.")
    slots: Count = Field(0, description="Allocatable nvidia.com/gpu of those nodes.")
    slots_in_use: ByKind = Field(default_factory=ByKind, description="GPU slots held, by kind of job.")
    foreign_slots: Count = Field(
        0, description="GPU slots that pods of other workloads request, or may have by resource claims (DRA)."
    )
    pending: Pending = Field(default_factory=Pending, description="Queued jobs.")
    running: ByKind = Field(default_factory=ByKind, description="Admitted or running jobs.")
    borrowed: Count = Field(0, description="GPU slots held beyond the nominal share of their namespace.")
    conditions: Conditions = Field(
        default_factory=list,
        description="Ready: whether the pool takes part in admission, and why not, or which GPUs are left out "
        "(GPUsUnknown: no labels; GPUsUnhealthy). SecondRelease: whether another release of the operator stands by.",
    )
