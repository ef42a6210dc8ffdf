"""InferenceJob: which weights, on which recordings, and where the predictions go."""

import re
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field

from rfuav_crds.common import (
    READABLE,
    WRITABLE,
    Architecture,
    CustomFunction,
    DataUri,
    Format,
    JobName,
    OutputUri,
    Precision,
    Spec,
    WeightsUri,
)
from rfuav_crds.iq import Iq
from rfuav_crds.quantity import IntOrString, auto_or_count
from rfuav_crds.rules import ATOMIC, IMMUTABLE, SET, Rule
from rfuav_crds.running import Running

_MANIFEST = "[.](?i:jsonl|parquet)$"


class InferenceModel(Spec):
    """The trained network."""

    rules = (
        Rule(
            cel="has(self.fromTrainingJob) != has(self.weights)",
            message="write exactly one of fromTrainingJob (a TrainingJob of this namespace) and weights (the "
            "URI of a weights file)",
            check=lambda m: (m.from_training_job is None) != (m.weights is None),
        ),
        Rule(
            cel="!has(self.fromTrainingJob) || (!has(self.architecture) && size(self.classes) == 0)",
            message="the weights of a TrainingJob carry their architecture and classes: remove both",
            field=".fromTrainingJob",
            check=lambda m: m.from_training_job is None or (m.architecture is None and not m.classes),
        ),
        Rule(
            cel="!has(self.config) || has(self.weights)",
            message="config describes a weights file: write its URI as weights, or remove config",
            field=".config",
            check=lambda m: m.config is None or m.weights is not None,
        ),
        Rule(
            cel="!has(self.architecture) || has(self.custom) == (self.architecture == 'custom')",
            message="architecture custom and custom: module:function go together: write both, or leave architecture "
            "out, which the weights of a training carry",
            field=".custom",
            check=lambda m: m.architecture is None or (m.custom is not None) == (m.architecture == "custom"),
        ),
    )

    from_training_job: JobName | None = Field(
        None,
        description="TrainingJob of the same namespace whose best weights are used; the job waits for it. "
        "Default: none.",
    )
    weights: WeightsUri | None = Field(
        None, description="URI of a weights file, as in pvc://models/best.safetensors. Default: none."
    )
    config: DataUri | None = Field(
        None,
        description="URI of the YAML file of a training of the reference service, for weights files that do not carry "
        "what it says: model, class_names, image_size. Default: none.",
    )
    architecture: Architecture | None = Field(
        None, description="Architecture, for weights files that do not carry it. Default: as the file says."
    )
    custom: CustomFunction | None = Field(
        None,
        description="For weights of architecture custom: the module:function that builds the network, as in the "
        "TrainingJob. Weights never name code to run by themselves. Default: none.",
    )
    classes: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=1000), SET] = Field(
        default_factory=list,
        description="Class names in order, for weights files that do not carry them. Default: as the file says.",
    )


class InferenceInput(Spec):
    """The recordings or pictures to classify."""

    rules = (
        Rule(
            cel=f"self.pattern == '**/*' || !self.uri.matches(r'{_MANIFEST}')",
            message="a manifest lists its files itself: remove pattern, or write the folder as uri",
            field=".pattern",
            check=lambda i: i.pattern == "**/*" or re.search(_MANIFEST, i.uri) is None,
        ),
    )

    uri: DataUri = Field(
        description="Folder, file, or manifest (.jsonl or .parquet with path, and perhaps label and snr): "
        + READABLE
        + "."
    )
    pattern: Annotated[
        str,
        Field(min_length=1, max_length=256),
        Rule(
            cel="!self.startsWith('/') && !self.matches(r'(^|/)[.][.](/|$)')",
            message='write a pattern relative to uri, without "..", such as "**/*.iq"',
            check=lambda v: not v.startswith("/") and ".." not in v.split("/"),
        ),
    ] = Field("**/*", description="Which files below uri, as a glob; files of other kinds are skipped. Default: **/*.")
    format: Format = Field("auto", description="image, iq (raw recordings), or auto: by the file names. Default: auto.")


class Annotate(StrEnum):
    """Which pictures are written beside the predictions."""

    DEFAULT = "default"
    ALL = "all"
    NONE = "none"


def _of_a_boolean(value: object) -> object:
    """What a boolean meant, which the field was: jobs and files that have one go on working."""
    return {True: Annotate.ALL, False: Annotate.NONE}[value] if isinstance(value, bool) else value


class InferenceOutput(Spec):
    """Where predictions, annotated pictures and videos go."""

    uri: OutputUri = Field(description=f"Folder: {WRITABLE}.")
    annotate: Annotated[Annotate, BeforeValidator(_of_a_boolean)] = Field(
        Annotate.DEFAULT,
        strict=False,  # a manifest has its text
        description="Pictures beside the predictions. default: a contact sheet, the 20 least certain inputs and, where "
        "labels are known, the 20 most confident mistakes; all: each input too (of a recording: a video); none. "
        "Default: default.",
    )
    overwrite: bool = Field(
        False,
        description="Whether results of another job in the folder may be replaced; otherwise they are an error. "
        "Default: false.",
    )


class Evaluation(Spec):
    """If present, folders or a manifest give the inputs' classes; metrics and a confusion matrix are written."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)


class InferenceJobSpec(Running):
    """What to classify. Only suspend, cancel, parallelism, the deadline and the TTL may change once the job exists."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *Running.rules,
        Rule(
            cel="self.parallelism <= self.shards",
            message="parallelism is the number of shards that run at a time: write at most as many as shards, "
            "or raise shards",
            field=".parallelism",
            check=lambda s: s.parallelism <= s.shards,
        ),
    )

    model: Annotated[InferenceModel, IMMUTABLE] = Field(description="The trained network. Required; cannot change.")
    input: Annotated[InferenceInput, IMMUTABLE] = Field(description="What is classified. Required; cannot change.")
    iq: Annotated[Iq | None, IMMUTABLE] = Field(
        None,
        description="How raw recordings are read. Cannot change. Default: as the weights say, else the defaults below.",
    )
    output: Annotated[InferenceOutput, IMMUTABLE] = Field(description="Where the results go. Required; cannot change.")
    evaluation: Annotated[Evaluation | None, IMMUTABLE] = Field(
        None,
        description="{}: the inputs are labelled by folder or manifest, metrics are computed. Cannot change. "
        "Default: no evaluation.",
    )
    batch_size: Annotated[IntOrString, auto_or_count(1, 65_536), IMMUTABLE] = Field(
        "auto", description="Pictures per step, from 1, or auto: by the memory. Cannot change. Default: auto."
    )
    precision: Annotated[Precision, IMMUTABLE] = Field(
        "auto", description="Number format of the forward pass. Cannot change. Default: auto."
    )
    shards: Annotated[int, Field(ge=1, le=1000), IMMUTABLE] = Field(
        1,
        description="Parts that the input is split into by a stable rule, one pod each, 1 to 1000. Cannot "
        "change. Default: 1.",
    )
    parallelism: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="Most shards that run at a time, 1 to shards. May change. Default: 1."
    )
    error_threshold: Annotated[float, Field(ge=0, le=1), IMMUTABLE] = Field(
        0.05,
        description="Share of unreadable inputs, 0 to 1, above which the job fails; they are listed either way. "
        "Cannot change. "
        "Default: 0.05.",
    )
