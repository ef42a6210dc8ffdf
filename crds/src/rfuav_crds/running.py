"""How a job is scheduled and run: the fields that both kinds of job share."""

from typing import Annotated, ClassVar

from pydantic import Field

from rfuav_crds.common import DataUri, Label, OptionalObjectName, Spec
from rfuav_crds.pod import PodTemplate
from rfuav_crds.quantity import Cpu, Memory, cel_quantity, parse_quantity
from rfuav_crds.rules import IMMUTABLE, Rule, matches

_REGISTRY = "[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?(:[0-9]{1,5})?/"
_PATH = "[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
_IMAGE = f"({_REGISTRY})?{_PATH}(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?"
_TEN_YEARS = 315_360_000  # seconds


class Resources(Spec):
    """What each pod of the job gets: requested, and the limit."""

    rules = (
        Rule(
            cel="!has(self.gpuMemory) || self.gpus > 0",
            message="gpuMemory is for jobs with a GPU: remove it, or write gpus: 1",
            field=".gpuMemory",
            check=lambda r: r.gpu_memory is None or r.gpus > 0,
        ),
        Rule(
            cel="!has(self.cpuLimit) || !isQuantity(string(self.cpu)) || !isQuantity(string(self.cpuLimit)) || "
            f"{cel_quantity('self.cpuLimit')}.compareTo({cel_quantity('self.cpu')}) >= 0",
            message="cpuLimit is the most that cpu may become: write at least as much as cpu, or remove it",
            field=".cpuLimit",
            check=lambda r: r.cpu_limit is None or parse_quantity(r.cpu_limit) >= parse_quantity(r.cpu),
        ),
        Rule(
            cel="!isQuantity(string(self.memory)) || !isQuantity(string(self.sharedMemory)) || "
            f"{cel_quantity('self.sharedMemory')}.compareTo({cel_quantity('self.memory')}) <= 0",
            message="sharedMemory is part of memory: write at most as much as memory, or raise memory",
            field=".sharedMemory",
            check=lambda r: parse_quantity(r.shared_memory) <= parse_quantity(r.memory),
        ),
    )

    gpus: Annotated[int, Field(ge=0, le=64)] = Field(
        1,
        description="GPUs for each pod (nvidia.com/gpu), 0 to 64. 0: a CPU job. More than 1 goes to nodes that "
        "do not share GPUs. Default: 1.",
    )
    gpu_memory: Memory | None = Field(
        None,
        description="GPU memory one process needs, bytes as a quantity (12Gi); only nodes whose GPUs have as "
        "much are chosen. Default: any GPU.",
    )
    cpu: Cpu = Field("4", description='CPU cores for each pod, as a quantity ("4", 500m). Default: 4.')
    cpu_limit: Cpu | None = Field(
        None,
        description="CPU cores that each pod may use at most, at least cpu; for namespaces whose ResourceQuota counts "
        "limits.cpu. Default: no limit, so that idle cores help.",
    )
    memory: Memory = Field("16Gi", description="Memory for each pod, bytes as a quantity (16Gi). Default: 16Gi.")
    shared_memory: Memory = Field(
        "2Gi", description="Size of /dev/shm, bytes as a quantity; part of memory. Default: 2Gi."
    )


class WeightsCache(Spec):
    """The folder where `pretrained` weights are looked up; nothing is downloaded."""

    uri: DataUri = Field(
        description="Folder with the ImageNet weights files under their torchvision names: pvc://CLAIM/path or "
        "file:///path."
    )


class Running(Spec):
    """Scheduling and running, the same in both kinds of job."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!oldSelf.cancel || self.cancel",
            message="cancel is one-way: create a new job to run it again",
            field=".cancel",
            reason="FieldValueForbidden",
        ),
    )

    resources: Annotated[Resources, IMMUTABLE] = Field(
        default_factory=Resources, description="GPUs, CPU and memory of each pod. Cannot change."
    )
    pool: Label = Field(
        "default",
        description="GPUPool whose nodes the job may use. May change while the job is queued. Default: default.",
    )
    priority_class_name: OptionalObjectName = Field(
        "",
        description="PriorityClass whose value orders the queue, higher first; the pods do not get it. May "
        "change while the job is "
        "queued. Default: empty, the default of the kind (inference above training).",
    )
    suspend: bool = Field(
        False,
        description="true: running pods save a checkpoint and stop, and the job waits; it keeps its place by age. "
        "May change. Default: false.",
    )
    cancel: bool = Field(
        False,
        description="true: ends the job for good; the record stays. May change only from false to true. "
        "Default: false.",
    )
    backoff_limit: Annotated[int, Field(ge=0, le=100), IMMUTABLE] = Field(
        3, description="Counted failures (of each shard) before the job fails, 0 to 100. Cannot change. Default: 3."
    )
    uncounted_limit: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        None,
        description="Failures that backoffLimit does not count (evictions, lost nodes, ...) before the job fails (of "
        "each shard). Progress of the checkpoint, or of the inputs, sets the count to 0. May change. "
        "Default: the operator's setting (20).",
    )
    active_deadline_seconds: Annotated[int, Field(ge=1, le=_TEN_YEARS)] | None = Field(
        None, description="Longest running time in seconds; waiting does not count. May change. Default: no limit."
    )
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=3600), IMMUTABLE] = Field(
        120, description="Time a stopped pod has to save a checkpoint, seconds, 1 to 3600. Cannot change. Default: 120."
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=_TEN_YEARS)] | None = Field(
        None,
        description="The job is deleted this many seconds after it finished; a TrainingJob not before InferenceJobs "
        "that wait for its weights have recorded them. May change. Default: kept.",
    )
    image: Annotated[
        str,
        Field(max_length=512),
        matches(
            _IMAGE,
            "write an image as registry/name:tag or name@sha256:..., in lower case and without https://",
            optional=True,
        ),
        IMMUTABLE,
    ] = Field(
        "",
        description="Container image that implements the pod contract. Cannot change. Default: empty, the operator's "
        "trainer image.",
    )
    pod_template: Annotated[PodTemplate, IMMUTABLE] = Field(
        default_factory=PodTemplate, description="Additions to the pods. Cannot change."
    )


POOL_RULES = tuple(
    Rule(
        cel=f"self.spec.{field} == oldSelf.spec.{field} || !has(oldSelf.status) || !has(oldSelf.status.phase) || "
        "oldSelf.status.phase == 'Queued'",
        message=f"{field} may change only while the job is queued: suspend does not queue it again, so create a "
        f"new job",
        field=f".spec.{field}",
        reason="FieldValueForbidden",
    )
    for field in ("pool", "priorityClassName")
)
