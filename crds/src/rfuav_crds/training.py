"""TrainingJob: what to train, on what, how, and where the weights go."""

import re
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field

from rfuav_crds.common import (
    READABLE,
    WRITABLE,
    Architecture,
    CustomFunction,
    DataUri,
    Format,
    InitialWeights,
    OutputUri,
    Precision,
    Spec,
)
from rfuav_crds.iq import Iq
from rfuav_crds.quantity import IntOrString, auto_or_count
from rfuav_crds.rules import ATOMIC, IMMUTABLE, SET, Rule
from rfuav_crds.running import Running, WeightsCache

Augmentation = Literal[
    "AdvancedBlur",
    "CLAHE",
    "ColorJitter",
    "GaussNoise",
    "ISONoise",
    "Sharpen",
    "AddNoise",
    "Fading",
    "FrequencyShift",
    "TimeCrop",
    "FrequencyMask",
    "TimeMask",
]
_AUGMENTATIONS = len(get_args(Augmentation))
_NOT_RE2 = re.compile(r"\(\?(?:[=!>(]|<[=!]|P=|#)|\\[1-9]|(?<!\\)[*+?}]\+")
"""What Python knows and RE2 does not: assertions, references, atomic groups, possessive quantifiers, comments."""
PATCH = {"vit_b_16": 16, "vit_l_16": 16, "vit_b_32": 32, "vit_l_32": 32, "vit_h_14": 14}  # pixels


class TrainingModel(Spec):
    """The network."""

    rules = (
        Rule(
            cel="has(self.custom) == (self.architecture == 'custom')",
            message="architecture custom and custom: module:function go together: write both, or neither",
            field=".custom",
            check=lambda m: (m.custom is not None) == (m.architecture == "custom"),
        ),
    )

    architecture: Architecture = Field(
        description="torchvision architecture to train, or custom: what your own function builds. Required."
    )
    custom: CustomFunction | None = Field(
        None,
        description="For architecture custom: module:function that the image can import (or that lies on the "
        "PYTHONPATH of podTemplate.env). Called with the number of classes and the side of the pictures, it returns a "
        "torch module that maps (n, 3, side, side) to (n, classes). Default: none.",
    )
    weights: InitialWeights = Field(
        "none",
        description="Where to start from: none (random), pretrained (ImageNet, from weightsCache), or the URI "
        "of a weights file. "
        "Default: none.",
    )
    num_classes: Annotated[int, Field(ge=2, le=10_000)] | None = Field(
        None,
        description="Number of classes, 2 to 10000. Default: as many as the dataset has folders; an error if "
        "the two disagree.",
    )


class TrainingData(Spec):
    """The training data: a folder with one folder a class, or a manifest (.jsonl, .parquet)."""

    uri: DataUri = Field(
        description="Folder with one folder a class, or a manifest (.jsonl or .parquet with path, label, snr, "
        "recording): " + READABLE + "."
    )


def _finds_recordings(pattern: str) -> bool:
    """Whether it is a regular expression, of those that RE2 and Python share, with a group named recording."""
    if _NOT_RE2.search(pattern) is not None:
        return False
    try:
        read = re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return "recording" in read.groupindex and read.groups == len(read.groupindex)


RecordingPattern = Annotated[
    str,
    Field(max_length=200),
    Rule(
        # An expression that RE2 cannot read makes the rule fail with RE2's own words.
        cel="self.contains('(?P<recording>') && (''.matches(self) ? true : true)",
        message="write a regular expression (RE2) with a group named recording, as in '(?P<recording>flight[0-9]+)', "
        "and (?:...) for other groups",
        check=_finds_recordings,
    ),
]


class Validation(Spec):
    """The validation data: a folder of their own, or a share of the training data."""

    rules = (
        Rule(
            cel="has(self.uri) != has(self.fraction)",
            message="write exactly one of uri and fraction",
            check=lambda v: (v.uri is None) != (v.fraction is None),
        ),
    )

    uri: DataUri | None = Field(
        None, description="Folder or manifest of the validation data, with the same classes as train."
    )
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Share of the training data to validate on, between 0 and 1; stratified, seeded, whole recordings.",
    )


class Dataset(Spec):
    """The labelled recordings: folders named after the classes, or annotations."""

    rules = (
        Rule(
            cel="self.labels != 'annotations' || self.format != 'image'",
            message="annotations are of raw recordings: write format: iq, or labels: folders",
            field=".labels",
            check=lambda d: d.labels != "annotations" or d.format != "image",
        ),
    )

    train: TrainingData = Field(description="The training data. Required.")
    validation: Validation = Field(
        default_factory=lambda: Validation(fraction=0.2),
        description="The validation data: uri, or fraction of the training data. Default: {fraction: 0.2}.",
    )
    image_size: Annotated[int, Field(ge=16, le=2048)] = Field(
        224, description="Side of the square pictures that the network sees, pixels, 16 to 2048. Default: 224."
    )
    format: Format = Field("auto", description="image, iq (raw recordings), or auto: by the file names. Default: auto.")
    labels: Literal["folders", "annotations"] = Field(
        "folders",
        description="Where the classes come from: folders (or the column label of a manifest), or annotations: "
        "core:label of SigMF annotations, which the samples are cut by in time and frequency; train and validation "
        "are then folders of SigMF recordings. Default: folders.",
    )
    iq: Iq = Field(default_factory=Iq, description="How raw recordings are read; images need none of it.")
    recording_pattern: RecordingPattern | None = Field(
        None,
        description="Regular expression (RE2) that finds the recording of a file in its path from the class on, as its "
        "group recording: '(?P<recording>flight[0-9]+)'. A split keeps recordings whole. Default: by packs, folders "
        "and numbered names.",
    )
    error_threshold: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05,
        description="Share of unreadable files, 0 to 1, above which the job fails; they are listed either way. "
        "Default: 0.05.",
    )


class Optimizer(Spec):
    """The optimizer and its numbers."""

    rules = (
        Rule(
            cel="!has(self.momentum) || self.name == 'sgd'",
            message="only sgd has momentum: write name: sgd, or remove momentum",
            field=".momentum",
            check=lambda o: o.momentum is None or o.name == "sgd",
        ),
    )

    name: Literal["adam", "adamw", "sgd"] = Field("adam", description="Optimizer. Default: adam.")
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        0.0001, description="Learning rate, more than 0 and at most 1. Default: 0.0001."
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="Weight decay, 0 to 1. Default: 0.")
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="Momentum of sgd, 0 to below 1. Default: 0.9."
    )


class Schedule(Spec):
    """How the learning rate changes over the epochs."""

    name: Literal["constant", "cosine", "step"] = Field(
        "constant",
        description="constant, cosine (to 0 over the training) or step (a tenth after each third). Default: constant.",
    )
    warmup_epochs: Annotated[int, Field(ge=0, le=1000)] = Field(
        0, description="Epochs of linear warm-up before it, fewer than epochs. Default: 0."
    )


class EarlyStopping(Spec):
    """When to stop before the last epoch."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    patience: Annotated[int, Field(ge=1, le=10_000)] = Field(
        10, description="Epochs without a better value before training stops, from 1. Default: 10."
    )
    metric: Literal["valLoss", "valAccuracy", "macroF1"] = Field(
        "valLoss", description="The value that is watched. Default: valLoss."
    )


class TrainingLoop(Spec):
    """The training itself; the defaults are those of the RFUAV reference service."""

    rules = (
        Rule(
            cel="self.schedule.warmupEpochs < self.epochs",
            message="the warm-up ends before training does: write fewer warmupEpochs than epochs",
            field=".schedule.warmupEpochs",
            check=lambda t: t.schedule.warmup_epochs < t.epochs,
        ),
    )

    epochs: Annotated[int, Field(ge=1, le=100_000)] = Field(
        100, description="Passes over the training data, from 1. Default: 100."
    )
    batch_size: Annotated[IntOrString, auto_or_count(1, 65_536)] = Field(
        8,
        description="Samples that pass through the network together, over all nodes, from 1, or auto: as many as fit "
        "into the memory, at most 32 on a CPU and 256 on a GPU; resolved once and kept in the checkpoint. Default: 8.",
    )
    gradient_accumulation: Annotated[int, Field(ge=1, le=4096)] = Field(
        1,
        description="Batches that make one step of the optimizer, from 1: their gradients are averaged as if they were "
        "one batch. Default: 1.",
    )
    clip_norm: Annotated[float, Field(gt=0, le=1_000_000)] | None = Field(
        None,
        description="Largest norm of all gradients together; a longer gradient is shortened to it. Default: no limit.",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of each label that is spread evenly over all classes, 0 to below 1. Default: 0."
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="Weight of the classes in the loss: none, or balanced (rare classes count more, as if every class "
        "had the same number of samples). Default: none.",
    )
    mixup: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0,
        description="Both parameters of the Beta distribution from which each batch's mixing share is drawn; 0: "
        "samples are not mixed. Default: 0.",
    )
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Decay a step of the exponential moving average of the weights, such as 0.999; the average is what "
        "is validated and saved. 0: no average. Default: 0.",
    )
    optimizer: Optimizer = Field(default_factory=Optimizer, description="The optimizer.")
    schedule: Schedule = Field(default_factory=Schedule, description="How the learning rate changes over the epochs.")
    precision: Precision = Field(
        "auto",
        description="Number format of the forward pass; auto is resolved once and kept in the checkpoint. "
        "Default: auto.",
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="Stop when the validation no longer improves. Default: train all epochs."
    )
    augment: Annotated[
        list[Augmentation],
        Field(max_length=_AUGMENTATIONS),
        SET,
    ] = Field(
        default_factory=list,
        description="Random changes made to the training data. Of any picture: AdvancedBlur, CLAHE, ColorJitter, "
        "GaussNoise, ISONoise, Sharpen, FrequencyMask, TimeMask. Of raw recordings alone: AddNoise, Fading, "
        "FrequencyShift, TimeCrop. Default: none.",
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        0, description="Seed of the split, the order, the initial weights and the augmentation. Default: 0."
    )
    workers: Annotated[IntOrString, auto_or_count(0, 64)] = Field(
        "auto", description="Processes that load data, 0 to 64, or auto: by the CPUs of the pod. Default: auto."
    )


class Checkpointing(Spec):
    """Checkpoints, in a folder of the job's UID under the output: a new job never takes an older job's state."""

    every_epochs: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1, description="Epochs between two checkpoints, from 1. Default: 1."
    )
    keep: Annotated[int, Field(ge=1, le=100)] = Field(
        2, description="How many of the newest are kept, 1 to 100. Default: 2."
    )
    resume: bool = Field(True, description="Whether a new attempt resumes from the newest. Default: true.")


class TrainingOutput(Spec):
    """Where the weights, the checkpoints and the report go."""

    uri: OutputUri = Field(description=f"Folder: {WRITABLE}.")
    overwrite: bool = Field(
        False,
        description="Whether the job runs again and replaces its results if it finished there before with other "
        "settings or files (a job file edited on a laptop); otherwise that is an error. Default: false.",
    )


def _patch_rule(patch: int) -> Rule:
    names = [name for name, side in PATCH.items() if side == patch]
    return Rule(
        cel=f"!(self.model.architecture in [{', '.join(repr(name) for name in names)}]) || "
        f"self.dataset.imageSize % {patch} == 0",
        message=f"{' and '.join(names)} cut pictures into patches of {patch} pixels: write a multiple of {patch}, "
        "such as 224",
        field=".dataset.imageSize",
        check=lambda s: s.model.architecture not in names or s.dataset.image_size % patch == 0,
    )


class TrainingJobSpec(Running):
    """What to train. Only suspend, cancel, the deadline and the TTL may change once the job exists."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *Running.rules,
        Rule(
            cel="self.model.weights != 'pretrained' || has(self.weightsCache)",
            message="pretrained weights are looked up in weightsCache and never downloaded: write "
            "weightsCache.uri, or weights: none",
            field=".model.weights",
            reason="FieldValueRequired",
            check=lambda s: s.model.weights != "pretrained" or s.weights_cache is not None,
        ),
        *(_patch_rule(patch) for patch in sorted(set(PATCH.values()))),
    )

    model: Annotated[TrainingModel, IMMUTABLE] = Field(description="The network. Required; cannot change.")
    dataset: Annotated[Dataset, IMMUTABLE] = Field(description="The labelled recordings. Required; cannot change.")
    training: Annotated[TrainingLoop, IMMUTABLE] = Field(
        default_factory=TrainingLoop, description="Epochs, optimizer and the like. Cannot change."
    )
    checkpoint: Annotated[Checkpointing, IMMUTABLE] = Field(
        default_factory=Checkpointing, description="When checkpoints are written and kept. Cannot change."
    )
    output: Annotated[TrainingOutput, IMMUTABLE] = Field(description="Where the results go. Required; cannot change.")
    weights_cache: Annotated[WeightsCache | None, IMMUTABLE] = Field(
        None, description="Where pretrained weights are looked up. Cannot change. Default: none."
    )
    nodes: Annotated[int, Field(ge=1, le=64), IMMUTABLE] = Field(
        1, description="Pods, one a node, all admitted together or not at all, 1 to 64. Cannot change. Default: 1."
    )
