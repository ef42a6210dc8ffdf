"""The status of a job: what the operator writes and people and tools read back.

The operator's core has its own structs for speed; a test keeps their field names the same as these.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from rfuav_crds.common import Model
from rfuav_crds.rules import listed_by

Count = Annotated[int, Field(ge=0, le=2**53)]
LONGEST_ESTIMATE = 315_360_000
"""Ten years, in seconds: a longer estimate means nothing."""
Estimate = Annotated[int, Field(ge=0, le=LONGEST_ESTIMATE)]
Name = Annotated[str, Field(max_length=253)]
Message = Annotated[str, Field(max_length=32_768)]
Uri = Annotated[str, Field(max_length=2048)]
Ranges = Annotated[str, Field(max_length=8192)]
_SHARDS = 1000


class KubeCondition(Model):
    """One aspect of the object's state, as Kubernetes writes it."""

    type: Annotated[str, Field(max_length=316)] = Field(description="Name of the aspect, such as Admitted or Complete.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds: True, False or Unknown.")
    reason: Annotated[str, Field(max_length=1024)] = Field(description="Why, in one CamelCase word.")
    message: Message = Field("", description="Why, in a sentence for people.")
    last_transition_time: datetime = Field(description="When status last changed.")
    observed_generation: Count = Field(0, description="Generation of the spec that this condition describes.")


Conditions = Annotated[list[KubeCondition], Field(max_length=16), listed_by("type")]


class Assignment(Model):
    """Where one pod of the job runs or will run; its room is held until the pod cannot run any more."""

    pod: Name = Field(description="Name of the pod.")
    node: Name = Field("", description="Node chosen for it; empty: the scheduler chooses.")
    gpus: Count = Field(0, description="GPU slots it holds.")
    shard: Count | None = Field(None, description="Shard that it works on (InferenceJob).")
    shards: Ranges = Field(
        "",
        description="One entry for the pods of these shards, as ranges: 0-3,7. Their names are `pod` followed by the "
        "shard (InferenceJob of more than 64 shards).",
    )
    rank: Count | None = Field(None, description="Its rank (TrainingJob of several nodes).")
    started_at: datetime | None = Field(None, description="When its container was seen running.")
    stuck_since: datetime | None = Field(None, description="Since when one of its containers cannot start.")
    provisional: bool = Field(
        False,
        description="Its node was added for it (scaleUp) and its GPUs are not known yet: whether the node suits is "
        "decided when they are.",
    )
    gpu_uuid: Name = Field("", alias="gpuUUID", description="Physical GPU that its process reports.")
    stopping: Message = Field("", description="Why it is being removed; its room is held until it is gone.")
    stopping_for: Name = Field("", description="UID of the job that gets its room.")


class Queue(Model):
    """Place in the queue of the pool."""

    position: Count = Field(description="Place, from 1.")
    of: Count = Field(description="How many jobs wait.")
    estimated_start: datetime | None = Field(None, description="Estimated start.")


class Progress(Model):
    """What the pods last reported; shards are summed."""

    percent: Annotated[int, Field(ge=0, le=100)] | None = Field(None, description="Share done, 0 to 100.")
    epoch: Count | None = Field(None, description="Epochs done (TrainingJob).")
    total_epochs: Count | None = Field(None, description="Epochs in all (TrainingJob).")
    step: Count | None = Field(None, description="Steps done in this epoch (TrainingJob).")
    total_steps: Count | None = Field(None, description="Steps of an epoch (TrainingJob).")
    processed: Count | None = Field(None, description="Inputs classified (InferenceJob).")
    failed: Count | None = Field(None, description="Inputs that could not be read (InferenceJob).")
    total: Count | None = Field(None, description="Inputs in all (InferenceJob).")
    samples_per_second: Annotated[float, Field(ge=0, le=1e15)] | None = Field(
        None, description="Speed, samples a second."
    )
    gpu_memory_bytes: Count | None = Field(
        None, description="GPU memory that the reporting process holds, bytes; shards are summed."
    )
    gpu_utilization: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None,
        description="Share of the last second in which the GPU computed, percent, for whomever: others may share it. "
        "Of several shards the mean.",
    )
    remaining_seconds: Estimate | None = Field(None, description="Estimated time left, seconds.")
    sequence: Count | None = Field(None, description="Sequence number of the report.")
    updated_at: datetime | None = Field(None, description="When the operator received it.")


class CustomMetric(Model):
    """A metric that a framework reports under a name of its own."""

    name: Name = Field(description="Name.")
    value: Name = Field(description="Value, as reported.")


class Checkpoint(Model):
    """The newest checkpoint that the trainer reported."""

    uri: Uri = Field(description="Where it is.")
    epoch: Count | None = Field(None, description="Epochs done when it was saved.")
    step: Count | None = Field(None, description="Steps done when it was saved, those of all epochs.")
    saved_at: datetime | None = Field(None, description="When it was saved.")


class Failure(Model):
    """Why one pod did not succeed."""

    attempt: Count = Field(description="Attempt of the job or shard, from 1.")
    pod: Name = Field(description="Name of the pod.")
    node: Name = Field("", description="Node it ran on; empty: none.")
    reason: Annotated[str, Field(max_length=1024)] = Field(description="Why, in one CamelCase word.")
    exit_code: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] | None = Field(
        None, description="Exit code of the container."
    )
    message: Message = Field("", description="Why, for people.")
    finished_at: datetime = Field(description="When it ended.")
    counted: bool = Field(False, description="Whether it counts against backoffLimit.")
    shard: Count | None = Field(None, description="Shard that it worked on (InferenceJob).")


_PerShard = Annotated[dict[str, Count], Field(max_length=_SHARDS)]


class ShardCounts(Model):
    """Numbers for each shard of an InferenceJob. Keys are shard indices as strings; sets are ranges like `0-3,7`."""

    total: Count = Field(1, description="Number of shards.")
    completed: Ranges = Field("", description="Shards that are done, as ranges: 0-3,7.")
    finished: Progress | None = Field(None, description="Sums of the shards that are done.")
    attempts: _PerShard = Field(default_factory=dict, description="Attempts begun, by shard.")
    retries: _PerShard = Field(
        default_factory=dict,
        description="Failures, by shard: counted ones, and uncounted ones since its last progress.",
    )
    counted_failures: _PerShard = Field(
        default_factory=dict, description="Failures counted against backoffLimit, by shard."
    )
    furthest: _PerShard = Field(
        default_factory=dict,
        description="Inputs that were done when uncounted failures began to count, by shard.",
    )
    not_before: Annotated[dict[str, datetime], Field(max_length=_SHARDS)] = Field(
        default_factory=dict, description="End of the backoff, by shard."
    )
    progress: Annotated[dict[str, Progress], Field(max_length=_SHARDS)] = Field(
        default_factory=dict, description="What each shard last reported."
    )
    packed: Annotated[dict[str, Annotated[dict[str, Ranges], Field(max_length=_SHARDS)]], Field(max_length=8)] = Field(
        default_factory=dict,
        description="The same for a job of more than 64 shards, by value: attempts, retries, countedFailures, "
        "notBefore, and node and startedAt of their pods, each with the shards that have a value, as ranges; and "
        "progress, by shard, as `[percent ]processed/failed/total sequence`.",
    )


class Source(Model):
    """The TrainingJob that an InferenceJob takes its weights from, as resolved when it completed."""

    name: Name = Field(description="Name of the TrainingJob.")
    uid: Name = Field(description="Its UID.")
    weights: Uri = Field(description="URI of its best weights.")


class Metrics(Model):
    """Numbers of four significant digits, as last reported."""

    train_loss: float | None = Field(None, description="Loss over the training data in the last epoch.")
    train_accuracy: float | None = Field(None, description="Accuracy over the training data in the last epoch, 0 to 1.")
    val_loss: float | None = Field(None, description="Loss over the validation data.")
    val_accuracy: float | None = Field(None, description="Accuracy over the validation data, 0 to 1.")
    best_val_accuracy: float | None = Field(None, description="Best validation accuracy of any epoch so far, 0 to 1.")
    macro_f1: float | None = Field(None, alias="macroF1", description="F1 averaged over the classes, 0 to 1.")
    micro_f1: float | None = Field(None, alias="microF1", description="F1 over all samples, 0 to 1.")
    mean_average_precision: float | None = Field(
        None, description="Mean over the classes of the average precision, 0 to 1."
    )
    top1: float | None = Field(
        None, alias="top1", description="Share of samples whose class is the first guess, 0 to 1."
    )
    top3: float | None = Field(
        None, alias="top3", description="Share of samples whose class is among the first three guesses, 0 to 1."
    )
    top5: float | None = Field(
        None, alias="top5", description="Share of samples whose class is among the first five guesses, 0 to 1."
    )
    macro_precision: float | None = Field(None, description="Precision averaged over the classes, 0 to 1.")
    macro_recall: float | None = Field(None, description="Recall averaged over the classes, 0 to 1.")
    micro_precision: float | None = Field(None, description="Precision over all samples, 0 to 1.")
    micro_recall: float | None = Field(None, description="Recall over all samples, 0 to 1.")
    learning_rate: float | None = Field(None, description="Learning rate of the last step.")
    recording_accuracy: float | None = Field(
        None, description="Share of recordings whose class is right when their samples vote, 0 to 1."
    )
    recording_macro_f1: float | None = Field(
        None, alias="recordingMacroF1", description="F1 of the votes of recordings, averaged over the classes, 0 to 1."
    )
    recordings: Annotated[float, Field(ge=0, le=2**53)] | None = Field(
        None, description="Recordings that were classified (InferenceJob)."
    )
    dead: Annotated[float, Field(ge=0, le=2**53)] | None = Field(
        None, description="Inputs that can be read and hold nothing (InferenceJob)."
    )


METRICS = tuple(str(field.alias) for field in Metrics.model_fields.values())
"""The named metrics of `status.metrics`; every other one goes to `customMetrics`."""


RESULTS_BYTES = 8192
"""Most bytes of `status.results` as compact JSON in UTF-8."""
MOST_POINTS = 64
"""Epochs of `status.results.history`, and rows of `bySNR`, at most."""
MOST_CLASSES = 64
"""Classes of `status.results`; a model with more has neither their names nor a confusion matrix there."""
_MOST_CELLS = 2048
"""No more cells fit into `RESULTS_BYTES`."""
_Index = Annotated[int, Field(ge=0, le=2**53)]
_Curve = Annotated[list[float], Field(max_length=MOST_POINTS)]
_Cell = Annotated[list[_Index], Field(min_length=3, max_length=3)]
_Level = Annotated[list[float], Field(min_length=3, max_length=3)]


class History(Model):
    """Curves of a training: one value for each of the epochs shown. A curve that is not known is left out."""

    epochs: Annotated[list[_Index], Field(max_length=MOST_POINTS)] = Field(
        default_factory=list, description="Epochs that are shown, from 1, rising; the last one is always among them."
    )
    train_loss: _Curve = Field(default_factory=list, description="Loss over the training data.")
    val_loss: _Curve = Field(default_factory=list, description="Loss over the validation data.")
    train_accuracy: _Curve = Field(default_factory=list, description="Accuracy over the training data, 0 to 1.")
    val_accuracy: _Curve = Field(default_factory=list, description="Accuracy over the validation data, 0 to 1.")
    learning_rate: _Curve = Field(default_factory=list, description="Learning rate of the last step of the epoch.")


class Results(Model):
    """Curves and tables of a job, for those who cannot read its output."""

    history: History | None = Field(None, description="Curves over the epochs (TrainingJob).")
    classes: Annotated[list[Name], Field(max_length=MOST_CLASSES)] = Field(
        default_factory=list, description="Names of the classes, in the order of rows and columns; long ones are cut."
    )
    confusion: Annotated[list[_Cell], Field(max_length=_MOST_CELLS)] = Field(
        default_factory=list,
        description="Confusion matrix, as [row, column, count] of cells that are not 0: rows are true classes, "
        "columns predicted ones. Of the validation after the newest epoch (TrainingJob), or of the evaluation "
        "(InferenceJob).",
    )
    by_snr: Annotated[list[_Level], Field(max_length=MOST_POINTS)] = Field(
        default_factory=list,
        alias="bySNR",
        description="[signal-to-noise ratio in dB, samples, accuracy from 0 to 1], in rising order.",
    )
    truncated: bool = Field(
        False, description="Whether something was left out to fit: small cells, ends of names, or all classes."
    )


class JobStatus(Model):
    """What the operator writes about a job; `phase` is for people, machines read the conditions."""

    observed_generation: Count = Field(0, description="Generation of the spec that this status describes.")
    phase: Literal["Queued", "Admitted", "Running", "Suspended", "Succeeded", "Failed", "Cancelled"] | None = Field(
        None, description="Queued, Admitted, Running, Suspended, Succeeded, Failed or Cancelled."
    )
    reason: Annotated[str, Field(max_length=1024)] = Field(
        "", description="Why it is in this phase, in one CamelCase word."
    )
    message: Message = Field("", description="Why, with the numbers, in a sentence for people.")
    conditions: Conditions = Field(
        default_factory=list,
        description="Admitted, PodsReady, Evicted, Suspended, Complete, Failed, GPUShared, Reconciling, Stalled.",
    )
    attempt: Count = Field(0, description="Attempts begun, from 1.")
    priority: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] | None = Field(
        None, description="Value of its PriorityClass when it was last admitted, which counts while it runs."
    )
    assignments: Annotated[list[Assignment], Field(max_length=_SHARDS)] = Field(
        default_factory=list, description="Pods of the job and their nodes."
    )
    queue: Queue | None = Field(None, description="Place in the queue, while it waits.")
    progress: Progress | None = Field(None, description="What the pods last reported.")
    metrics: Metrics | None = Field(None, description="Metrics last reported.")
    custom_metrics: Annotated[list[CustomMetric], Field(max_length=32)] = Field(
        default_factory=list, description="Metrics under other names, at most 32."
    )
    checkpoint: Checkpoint | None = Field(None, description="The newest checkpoint.")
    outputs: Annotated[dict[str, Uri], Field(max_length=32)] = Field(
        default_factory=dict, description="URIs of results by name: bestWeights, lastWeights, report, predictions, ..."
    )
    failures: Annotated[list[Failure], Field(max_length=16)] = Field(
        default_factory=list, description="The last five failures of pods."
    )
    counted_failures: Count = Field(0, description="Failures counted against backoffLimit.")
    uncounted_failures: Count = Field(
        0, description="Evictions, lost nodes and the like since the last progress of the checkpoint."
    )
    furthest: Count = Field(
        0, description="Steps (or epochs) of the checkpoint from which uncountedFailures counts (TrainingJob)."
    )
    rejections: Count = Field(
        0, description="Attempts in a row that the cluster did not let start: pod refused, no new node, no registry."
    )
    not_before: datetime | None = Field(None, description="End of the backoff.")
    avoided_nodes: Annotated[dict[str, datetime], Field(max_length=256)] = Field(
        default_factory=dict, description="Nodes that are not tried before the given time."
    )
    vetoes: Annotated[dict[str, Count], Field(max_length=256)] = Field(
        default_factory=dict, description="How often the scheduler refused a node since the job last ran, by node."
    )
    running_seconds: Count = Field(0, description="Running time of finished runs, seconds.")
    running_since: datetime | None = Field(None, description="Start of the current run.")
    shards: ShardCounts | None = Field(None, description="Numbers for each shard (InferenceJob).")
    source: Source | None = Field(None, description="Where the weights come from (InferenceJob with fromTrainingJob).")
    results: Results | None = Field(
        None, description="Curves, confusion matrix and accuracy by SNR, at most 8 kB; the output has all of it."
    )
    queued_at: datetime | None = Field(None, description="When it first queued; suspension does not change it.")
    admitted_at: datetime | None = Field(None, description="When it was last admitted.")
    started_at: datetime | None = Field(None, description="When its first pod ran.")
    finished_at: datetime | None = Field(None, description="When it ended.")
