"""The bodies of requests and answers, field by field as clients of the RFUAV model service know them.

Unknown fields of a request are ignored, as that service did. Every number and text has a bound: that of the CRDs, where
a field becomes one of theirs.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from rfuav_crds import Architecture

MODELS = tuple(name for name in get_args(Architecture) if name != "custom")
"""The networks that a training may name."""
CPU = "cpu"
MOST_IN_BATCH = 1000
MOST_LISTED = 1000
MOST_CANCELLED = 1000

TaskType = Literal["training", "inference"]
TaskStatus = Literal["pending", "queued", "running", "completed", "failed", "cancelled"]
PreparationType = Literal["dataset_split", "data_augmentation", "image_crop"]


def _encodable(text: str) -> str:
    """The text, if it can be written as UTF-8 and has no NUL, which no path has."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise PydanticCustomError("string_unicode", "write text without NUL and half characters (lone surrogates)")
    return text


def _known_model(name: str) -> str:
    if name not in MODELS:
        raise PydanticCustomError("enum", "write one of: {models}", {"models": ", ".join(MODELS)})
    return name


_Encodable = AfterValidator(_encodable)
Path = Annotated[str, Field(min_length=1, max_length=1024), _Encodable]
OptionalPath = Annotated[str, Field(max_length=1024), _Encodable]
Folder = Annotated[str, Field(max_length=200), _Encodable]
TaskId = Annotated[str, Field(max_length=253), _Encodable]
BatchId = Annotated[str, Field(max_length=240), _Encodable]
Description = Annotated[str, Field(max_length=4096), _Encodable]
CallbackUrl = Annotated[str, Field(max_length=2048), _Encodable]
Priority = Annotated[int, Field(ge=1, le=10)]
Device = Annotated[str, Field(max_length=16, pattern=r"^(cpu|cuda(:[0-9]{1,3})?)$")]
DeviceName = Annotated[str, Field(max_length=64)]
Model = Annotated[str, Field(max_length=64, json_schema_extra={"enum": list(MODELS)}), AfterValidator(_known_model)]

# OpenAPI's date-time has a zone.
Time = Annotated[
    datetime,
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time-local",
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?$",
        }
    ),
]

_TASK_ID = Field(None, description="Identity of the task, 1 to 253 characters. Default: a new UUID.")
_DESCRIPTION = Field(None, description="Anything about the task, kept with it.")
_CALLBACK = Field(
    None, description="URL that gets one signed POST when the task has ended. Only the public internet, by default."
)
_DEVICE = Field("cuda", description="cpu, cuda or cuda:N. The cluster chooses the GPU, whatever N is.")


class Request(BaseModel):
    """A body that a client sends."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Answer(BaseModel):
    """A body that the gateway sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- requests


class TrainingStart(Request):
    """POST /api/v2/training/start."""

    model: Model = Field(description="Network, by its name in torchvision.")
    num_classes: Annotated[int, Field(ge=2, le=10_000)] = Field(description="Number of classes, 2 to 10000.")
    train_path: Path = Field(description="Training data: one folder for each class.")
    val_path: Path = Field(description="Validation data, with the same classes.")
    save_path: Path = Field(description="Folder of the results.")
    name: Folder | None = Field(None, description="Folder below save_path.")
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(8, description="Pictures in a batch, from 1.")
    num_epochs: Annotated[int, Field(ge=1, le=100_000)] = Field(100, description="Passes over the data, from 1.")
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(1e-4, description="Learning rate of Adam, up to 1.")
    image_size: Annotated[int, Field(ge=32, le=2048)] = Field(224, description="Side of the pictures, from 32 pixels.")
    device: Device = _DEVICE
    weight_path: OptionalPath = Field("", description="Weights to start from; they take precedence over pretrained.")
    pretrained: bool = Field(True, description="Whether to start from ImageNet weights.")
    shuffle: bool = Field(True, description="Always true: the order is random.")
    task_id: TaskId | None = _TASK_ID
    priority: Priority = Field(5, description="1 (first) to 10.")
    description: Description | None = _DESCRIPTION
    callback_url: CallbackUrl | None = _CALLBACK


class InferenceStart(Request):
    """POST /api/v2/inference/start."""

    cfg_path: Path = Field(description="YAML file of the training.")
    weight_path: Path = Field(description="Weights file.")
    source_path: Path = Field(description="Picture, recording, or folder of them.")
    save_path: OptionalPath | None = Field(None, description="Folder of the results. Default: beside source_path.")
    name: Folder | None = Field(None, description="Folder below save_path.")
    device: Device = _DEVICE
    task_id: TaskId | None = _TASK_ID
    priority: Priority = Field(3, description="1 (first) to 10.")
    callback_url: CallbackUrl | None = _CALLBACK


class InferenceBatch(Request):
    """POST /api/v2/inference/batch: one task for each source."""

    cfg_path: Path = Field(description="YAML file of the training.")
    weight_path: Path = Field(description="Weights file.")
    source_paths: Annotated[list[Path], Field(min_length=1, max_length=MOST_IN_BATCH)] = Field(
        description="Pictures, recordings, or folders of them, 1 to 1000."
    )
    save_base_path: OptionalPath | None = Field(
        None, description="Folder with a folder of results for each source. Default: beside each source."
    )
    task_id: BatchId | None = Field(
        None, description="Its tasks are ID-1, ID-2, ..., so that a batch which is sent again is the same tasks."
    )
    device: Device = _DEVICE
    priority: Priority = Field(3, description="1 (first) to 10.")
    callback_url: CallbackUrl | None = _CALLBACK


class PreviewAsked(Request):
    """POST /api/v2/preview: one of the three."""

    training: TrainingStart | None = Field(None, description="A body of /api/v2/training/start.")
    inference: InferenceStart | None = Field(None, description="A body of /api/v2/inference/start.")
    manifest: dict[str, Any] | None = Field(None, description="A TrainingJob or InferenceJob, as kubectl takes it.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(part is not None for part in (self.training, self.inference, self.manifest)) != 1:
            raise PydanticCustomError("one_of", "write one of training, inference and manifest")
        return self


class CancelMany(Request):
    """POST /api/v2/tasks/cancel: a filter. Everything that is written must hold; at least one thing must be written."""

    status: Literal["pending", "queued", "running"] | None = Field(
        None, description="Only tasks with this status word."
    )
    task_type: TaskType | None = Field(None, description="Only tasks of this type.")
    task_ids: Annotated[list[TaskId], Field(min_length=1, max_length=MOST_CANCELLED)] | None = Field(
        None, description="Only these, 1 to 1000."
    )
    older_than_seconds: Annotated[int, Field(ge=0, le=10**9)] | None = Field(
        None, description="Only tasks that were created at least so long ago."
    )
    dry_run: bool = Field(True, description="Whether to show alone what would be cancelled.")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if all(part is None for part in (self.status, self.task_type, self.task_ids, self.older_than_seconds)):
            raise PydanticCustomError(
                "no_filter", "write at least one of status, task_type, task_ids and older_than_seconds"
            )
        return self


class Slots(Request):
    """How many tasks of each type."""

    training: Annotated[int, Field(ge=0, le=1000)] = Field(description="Trainings at a time.")
    inference: Annotated[int, Field(ge=0, le=1000)] = Field(description="Inferences at a time.")


class ResourcesConfig(Request):
    """POST /api/v2/resources/config. A limit holds for all GPUs of a kind; that of cpu is shared by the nodes."""

    max_concurrent: Annotated[
        dict[Annotated[str, Field(max_length=64)], Slots], Field(min_length=1, max_length=4096)
    ] = Field(description="Tasks at a time, by device: cuda:0 or cpu.")


class SplitStart(Request):
    """POST /api/v2/preprocessing/split."""

    input_path: Path = Field(description="Folder with one folder for each class.")
    output_path: Path = Field(description="Folder that gets train, valid, and perhaps test.")
    train_ratio: Annotated[float, Field(gt=0, lt=1)] = Field(0.8, description="Share of the training part.")
    val_ratio: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Share of the validation part; the rest is for tests. Default: all of the rest.",
    )
    task_id: TaskId | None = _TASK_ID
    description: Description | None = _DESCRIPTION


class AugmentStart(Request):
    """POST /api/v2/preprocessing/augment."""

    dataset_path: Path = Field(description="Folder with train and valid.")
    output_path: OptionalPath | None = Field(None, description="Folder of the results. Default: dataset_aug beside it.")
    methods: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=16)] | None = Field(
        None, description="AdvancedBlur, CLAHE, ColorJitter, GaussNoise, ISONoise, Sharpen. Default: all."
    )
    task_id: TaskId | None = _TASK_ID
    description: Description | None = _DESCRIPTION


_PIXELS = Field(ge=0, le=1_000_000)


class CropStart(Request):
    """POST /api/v2/preprocessing/crop."""

    input_path: Path = Field(description="Picture, or folder of pictures at any depth.")
    output_path: Path = Field(description="Folder of the results.")
    x: Annotated[int, _PIXELS] = Field(description="Left edge, pixels.")
    y: Annotated[int, _PIXELS] = Field(description="Upper edge, pixels.")
    width: Annotated[int, Field(ge=1, le=1_000_000)] = Field(description="Width, pixels.")
    height: Annotated[int, Field(ge=1, le=1_000_000)] = Field(description="Height, pixels.")
    task_id: TaskId | None = _TASK_ID
    description: Description | None = _DESCRIPTION


# --- answers


class Metrics(Answer):
    """Metrics of the last epoch that ended; what is not known is null."""

    epoch: int | None = Field(None, description="Epochs done.")
    total_epochs: int | None = Field(None, description="Epochs in all.")
    train_loss: float | None = Field(None, description="Loss over the training data.")
    train_acc: float | None = Field(None, description="Accuracy over the training data, per cent.")
    val_loss: float | None = Field(None, description="Loss over the validation data.")
    val_acc: float | None = Field(None, description="Accuracy over the validation data, per cent.")
    macro_f1: float | None = Field(None, description="F1 averaged over the classes, 0 to 1.")
    micro_f1: float | None = Field(None, description="F1 over all samples, 0 to 1.")
    mAP: float | None = Field(None, description="Mean average precision, 0 to 1.")  # noqa: N815
    top1_acc: float | None = Field(None, description="First guess right, per cent.")
    top3_acc: float | None = Field(None, description="Right among the first three guesses, per cent.")
    top5_acc: float | None = Field(None, description="Right among the first five guesses, per cent.")
    macro_precision: float | None = Field(None, description="Precision averaged over the classes, 0 to 1.")
    macro_recall: float | None = Field(None, description="Recall averaged over the classes, 0 to 1.")
    micro_precision: float | None = Field(None, description="Precision over all samples, 0 to 1.")
    micro_recall: float | None = Field(None, description="Recall over all samples, 0 to 1.")
    precision: float | None = Field(None, description="The same as macro_precision.")
    recall: float | None = Field(None, description="The same as macro_recall.")
    learning_rate: float | None = Field(None, description="Learning rate of the last step.")
    best_acc: float | None = Field(None, description="Best validation accuracy of any epoch, per cent.")


class Task(Answer):
    """A task as it is now. Times are UTC and carry no zone."""

    task_id: str = Field(description="Its identity; of a job that kubectl made: namespace/name.")
    task_type: TaskType = Field(description="training or inference.")
    status: TaskStatus = Field(description="pending, queued, running, completed, failed or cancelled.")
    message: str | None = Field(None, description="Why, in a sentence.")
    progress: float | None = Field(None, description="Share done, 0 to 100.")
    device: str | None = Field(None, description="Device as it was asked for.")
    priority: int | None = Field(None, description="1 (first) to 10; null: a PriorityClass of its own.")
    created_at: Time = Field(description="When it was created.")
    updated_at: Time = Field(description="When it last changed.")
    current_epoch: int | None = Field(None, description="Epochs done.")
    total_epochs: int | None = Field(None, description="Epochs in all.")
    latest_metrics: Metrics | None = Field(None, description="Metrics of the last epoch that ended.")


class Action(Answer):
    """A task was stopped, cancelled or deleted."""

    status: Literal["success"] = Field("success", description="Always success.")
    message: str = Field(description="What was done.")
    task_id: str = Field(description="The task.")


class BatchStarted(Answer):
    """The tasks of a batch."""

    status: Literal["success"] = Field("success", description="Always success.")
    message: str = Field(description="What was done.")
    task_ids: list[str] = Field(description="One for each source, in their order.")
    total: int = Field(description="How many.")


class TaskList(Answer):
    """GET /api/v2/tasks."""

    training_tasks: list[Task] = Field(description="Trainings, the newest first.")
    inference_tasks: list[Task] = Field(description="Inferences, the newest first.")
    total_training: int = Field(description="Trainings that match, listed or not.")
    total_inference: int = Field(description="Inferences that match, listed or not.")
    next_cursor: str | None = Field(None, description="Cursor of the next page; null: this is the last one.")


class LogEntry(Answer):
    """One line of a task's log."""

    timestamp: Time = Field(description="When, UTC without a zone.")
    level: Literal["INFO", "WARNING", "ERROR"] = Field(description="INFO, WARNING or ERROR.")
    message: str = Field(description="The line.")
    metrics: dict[str, Any] | None = Field(None, description="Metrics that the line reports.")
    step: int | None = Field(None, description="Step that the line is about.")
    stage: Literal["epoch_start", "training", "validation", "epoch_end", "completed"] | None = Field(
        None, description="Part of the work that the line is about."
    )
    attempt: int | None = Field(None, description="Attempt of the task that wrote the line, from 1.")
    shard: int | None = Field(None, description="Shard that wrote the line, of an inference by several pods.")
    rank: int | None = Field(None, description="Rank that wrote the line, of a training by several pods.")


class LogEnd(Answer):
    """The last event of a stream: the end of the task."""

    status: TaskStatus = Field(description="How it ended.")
    message: str = Field(description="Why, in a sentence.")


class NotCancelled(Answer):
    """A task that could not be cancelled."""

    task_id: str = Field(description="The task.")
    message: str = Field(description="Why.")


class CancelledMany(Answer):
    """Many tasks were cancelled, or would be."""

    status: Literal["success"] = Field("success", description="Always success: failed has the others.")
    dry_run: bool = Field(description="Whether nothing was done.")
    matched: int = Field(description="How many tasks the filter means; at most 1000 are cancelled at a time.")
    task_ids: list[str] = Field(description="Those that were cancelled, or would be: the oldest first.")
    failed: list[NotCancelled] = Field(description="Those that could not be.")
    message: str = Field(description="What was done.")


class Preview(Answer):
    """When a task would start, if it were created now. Of other namespaces there are numbers alone."""

    starts_now: bool = Field(description="Whether there is room for it.")
    nodes: list[str] = Field(description="Where it would start; empty while a node has to be added.")
    position: int | None = Field(description="Its place in the queue of the pool, from 1.")
    of: int | None = Field(description="How many would wait with it.")
    estimated_start: Time | None = Field(description="About when it would start, as far as running tasks say.")
    reason: str | None = Field(description="Why it would wait, in a word.")
    message: str = Field(description="The same in a sentence.")


class Use(Answer):
    """Tasks of each type."""

    training: int = Field(description="Trainings.")
    inference: int = Field(description="Inferences.")


class ActiveTask(Answer):
    """A task on a device."""

    id: str = Field(description="The task.")
    type: TaskType = Field(description="training or inference.")
    namespace: str = Field(description="Its namespace.")


class Gpu(Answer):
    """A physical GPU of a node of the pool. What the cluster does not know is null: memory in use, utilization."""

    id: int = Field(description="Its number: by the name of its node, then on it.")
    device_name: str = Field(description="cuda:N.")
    name: str = Field(description="Its product name.")
    compute_capability: str | None = Field(None, description="As in 8.9.")
    total_memory_gb: float | None = Field(None, description="Memory, GB.")
    allocated_memory_gb: float | None = Field(None, description="Memory in use, GB.")
    cached_memory_gb: float | None = Field(None, description="Memory that processes keep, GB.")
    free_memory_gb: float | None = Field(None, description="Free memory, GB.")
    utilization: float | None = Field(None, description="Per cent.")
    current_tasks: Use = Field(
        description="Tasks that use it. The node chooses the GPU of a task; until a task reports which one it has, "
        "it is counted on the emptiest of its node."
    )
    limits: Use = Field(description="Tasks at a time.")
    node: str = Field(description="Node that it is in.")
    node_index: int = Field(description="Its number on the node, from 0.")
    schedulable: bool = Field(description="Whether its node takes new tasks.")


class Gpus(Answer):
    """GET /api/v2/resources/gpu."""

    available: bool = Field(description="Whether there is one.")
    count: int = Field(description="How many.")
    cuda_version: str | None = Field(None, description="CUDA version of the driver.")
    pytorch_version: str | None = Field(None, description="PyTorch version of the trainer.")
    devices: list[Gpu] = Field(description="Each of them.")


class Resources(Answer):
    """GET /api/v2/resources."""

    device_usage: dict[str, Use] = Field(description="Running tasks of all namespaces, by device; cpu: without GPU.")
    active_tasks: dict[str, list[ActiveTask]] = Field(description="Those of them that the caller may see, by device.")
    limits: dict[str, Use] = Field(description="Tasks at a time, by device.")
    gpu_info: Gpus = Field(description="As /api/v2/resources/gpu has it.")
    pool: str = Field(description="The GPUPool.")
    queue: Use = Field(description="Tasks of all namespaces that wait for the pool.")


class Cpu(Answer):
    """GET /api/v2/resources/cpu: all nodes of the pool together, by what pods request of them.

    The cluster does not know what is really in use, nor the clock: those are null or empty.
    """

    percent: float | None = Field(None, description="Share of the cores that pods request, per cent.")
    per_cpu_percent: list[float] = Field(description="Use of each core, per cent; empty.")
    cores: int = Field(description="Logical cores that nodes offer to pods.")
    physical_cores: int | None = Field(None, description="Physical cores; null.")
    freq_mhz: float | None = Field(None, description="Clock, MHz; null.")
    load_avg: dict[str, float] = Field(description="Load over 1, 5 and 15 minutes; empty.")
    memory_percent: float | None = Field(None, description="Share of the memory that pods request, per cent.")
    nodes: int = Field(description="Nodes of the pool.")


class ConfigChanged(Answer):
    """POST /api/v2/resources/config."""

    status: Literal["success"] = Field("success", description="Always success.")
    message: str = Field(description="What was done.")
    current_config: dict[str, Use] = Field(description="Tasks at a time of every device, as they are now.")


class ResourceStatus(Answer):
    """Whether there are GPUs; null for callers that may not list GPUPools."""

    gpu_available: bool | None = Field(description="Whether there is one.")
    gpu_count: int | None = Field(description="How many.")


class Health(Answer):
    """GET /api/v1/health. Numbers are null for callers without credentials: they are of a namespace, or of the pool."""

    status: str = Field(description="healthy.")
    timestamp: Time = Field(description="Now, UTC without a zone.")
    version: str = Field(description="Version of the gateway.")
    training_tasks: int | None = Field(description="Trainings of the namespace.")
    inference_tasks: int | None = Field(description="Inferences of the namespace.")
    active_log_streams: int | None = Field(description="Log streams that this replica serves now.")
    resource_status: ResourceStatus = Field(description="Whether there are GPUs.")


class ResourceLimits(Answer):
    """Tasks at a time, over all devices; null for callers that may not list GPUPools."""

    max_training_concurrent_gpu: int | None = Field(description="Trainings on GPUs.")
    max_inference_concurrent_gpu: int | None = Field(description="Inferences on GPUs.")
    max_training_concurrent_cpu: int | None = Field(description="Trainings on CPUs.")
    max_inference_concurrent_cpu: int | None = Field(description="Inferences on CPUs.")


class Info(Answer):
    """GET /api/v1/info."""

    app_name: str = Field(description="Name of the service.")
    version: str = Field(description="Version of the gateway.")
    environment: str = Field(description="As the settings name it.")
    supported_models: list[str] = Field(description="Networks that a training may name.")
    resource_limits: ResourceLimits = Field(description="Tasks at a time.")
    gpu_available: bool | None = Field(
        description="Whether there is a GPU; null for callers that may not list GPUPools."
    )


class Preparation(Answer):
    """A preparation of data: a split, an augmentation or a crop."""

    task_id: str = Field(description="Its identity.")
    task_type: PreparationType = Field(description="dataset_split, data_augmentation or image_crop.")
    status: TaskStatus = Field(description="pending, queued, running, completed, failed or cancelled.")
    message: str | None = Field(None, description="Why, in a sentence.")
    progress: float | None = Field(None, description="Share done, 0 to 100.")
    input_path: str = Field(description="What is read.")
    output_path: str = Field(description="Where the results go.")
    stats: dict[str, Any] | None = Field(None, description="Numbers of files.")
    created_at: Time = Field(description="When it was created.")
    updated_at: Time = Field(description="When it last changed.")
