"""The specification of `rfuav-trainer synthesize`: fields and limits.

In: a `kind: Synthesis` file and flags of the command line. Out: a SynthesizeSpec, or an error that says what to write.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from rfuav_crds.quantity import parse_quantity
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.signals.spectrogram import SpectrogramParameters
from rfuav_trainer.synthesis.channel import RECEIVER_SHARE
from rfuav_trainer.synthesis.emitters.catalogue import EMITTERS

if TYPE_CHECKING:
    from typing import Self

_FIXED_BYTES = 8 * 2**10  # of a parameter file and a small picture, in whole blocks

Snr = Annotated[float, Field(ge=-60, le=60)]


class _Spec(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class Split(_Spec):
    """Number of recordings of each class, and SNRs if they differ from those of the data set."""

    recordings: int = Field(ge=1, le=1_000_000, description="recordings of each class")
    snr_db: tuple[Snr, ...] | None = Field(None, min_length=1, max_length=1000, description="dB, taken in turn")


def _split(value: Any) -> Any:
    return {"recordings": value} if isinstance(value, int | str) else value


def _hertz(value: Any) -> Any:
    return float(parse_quantity(value)) if isinstance(value, int | float | str) else value


def _steps(value: Any) -> Any:
    """Expand a mapping of start, stop (included) and step to a list."""
    if not isinstance(value, dict):
        return [value] if isinstance(value, int | float) else value
    if set(value) != {"start", "stop", "step"} or not value["step"] > 0 or value["stop"] < value["start"]:
        raise ValueError("write a list of dB, or {start: -20, stop: 20, step: 2} with start <= stop and step > 0")
    return [
        value["start"] + i * value["step"]
        for i in range(1 + math.floor((value["stop"] - value["start"]) / value["step"]))
    ]


class SynthesizeSpec(_Spec):
    """The data set to make. Field names are camelCase in YAML."""

    output: Path = Field(description="folder of the data set; created when missing")
    splits: dict[
        Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")], Annotated[Split, BeforeValidator(_split)]
    ] = Field(
        default={"train": Split(recordings=48), "val": Split(recordings=12), "test": Split(recordings=12)},
        min_length=1,
        max_length=16,
        description="folder name: recordings of each class, or {recordings, snrDb}",
    )
    classes: tuple[str, ...] = Field(default=tuple(EMITTERS), min_length=1, description="which classes; all by default")
    snr_db: Annotated[tuple[Snr, ...], BeforeValidator(_steps)] = Field(
        default=(0.0, 5.0, 10.0, 15.0, 20.0),
        min_length=1,
        max_length=1000,
        description="dB, taken in turn within each class",
    )
    sample_rate: Annotated[float, BeforeValidator(_hertz)] = Field(
        30.72e6, ge=20e6, le=1e9, description="samples per second"
    )
    seconds: float = Field(0.01, gt=0, le=1, description="length of a recording")
    format: Literal["iq", "image"] = Field(
        "iq", description="float32 samples, or the pictures that the trainer makes of them"
    )
    image_size: int = Field(64, ge=16, le=1024, description="pixels, for format image")
    interference: float = Field(
        0.2, ge=0, le=1, description="probability of foreign packets in a recording, for every class"
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="the same seed gives the same recordings, in any order and selection"
    )
    overwrite: bool = Field(default=False, description="replace splits of an earlier run")

    @model_validator(mode="after")
    def _classes_exist_and_fit(self) -> Self:
        if unknown := sorted(set(self.classes) - set(EMITTERS)):
            raise ValueError(f"classes: {', '.join(unknown)} is not known; write some of {', '.join(EMITTERS)}")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: each may be named once")
        for name in self.classes:
            if EMITTERS[name].span_hz > RECEIVER_SHARE * self.sample_rate:
                needed = EMITTERS[name].span_hz / RECEIVER_SHARE
                raise ValueError(
                    f"{name} needs a sampleRate of {needed / 1e6:.1f}M: raise it, or leave the class out of classes"
                )
        if self.sample_count < self.spectrogram.fft_size:
            shortest = self.spectrogram.fft_size / self.sample_rate
            raise ValueError(f"seconds {self.seconds} gives {self.sample_count} samples: write at least {shortest:.6f}")
        return self

    @property
    def sample_count(self) -> int:
        """Samples in one recording."""
        return round(self.sample_rate * self.seconds)

    @property
    def spectrogram(self) -> SpectrogramParameters:
        """How pictures are made: the trainer's defaults, one frame a recording."""
        return SpectrogramParameters(sample_rate=self.sample_rate, frame_seconds=self.seconds)

    @property
    def total(self) -> int:
        """Recordings in all splits and classes."""
        return len(self.classes) * sum(split.recordings for split in self.splits.values())

    @property
    def byte_estimate(self) -> int:
        """Estimated bytes of all files."""
        pixels = self.image_size**2
        return self.total * (_FIXED_BYTES + (pixels if self.format == "image" else 8 * self.sample_count))


def from_options(
    file: Path | None = None,
    *,
    split: list[str] | None = None,
    snr: list[float] | None = None,
    **options: Any,
) -> SynthesizeSpec:
    """Return the spec for a command line; options that are None come from `file` or the defaults.

    Args:
        file: a `kind: Synthesis` file.
        split: as in `train=40`: folder name and recordings of each class.
        snr: dB, taken in turn.
        options: other fields of SynthesizeSpec.
    """
    fields = {name: value for name, value in options.items() if value is not None and value != []}
    if split:
        fields["splits"] = dict(_named_count(text) for text in split)
    if snr:
        fields["snr_db"] = snr
    if file is not None:
        return load_spec(file, **fields)
    if "output" not in fields:
        raise InvalidConfigurationError("write --output FOLDER, or -f FILE with a `kind: Synthesis`")
    return make_spec(**fields)


def _named_count(text: str) -> tuple[str, str]:
    name, found, count = text.partition("=")
    if not found:
        raise InvalidConfigurationError(f"--split {text}: write NAME=RECORDINGS, as in train=40")
    return name, count


def load_spec(path: Path, **changes: Any) -> SynthesizeSpec:
    """Read a `kind: Synthesis` file; `changes` (field names of SynthesizeSpec) win over it.

    Raises:
        InvalidConfigurationError: unreadable, not that kind, or a value that is not allowed; says where and what to
        write.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidConfigurationError(f"{path} cannot be read as YAML: {error}") from error
    if (
        not isinstance(document, dict)
        or document.get("kind") != "Synthesis"
        or not isinstance(document.get("spec"), dict)
    ):
        raise InvalidConfigurationError(f"{path}: write `kind: Synthesis` and a `spec:` with at least `output:`")
    return make_spec(**{**document["spec"], **{to_camel(name): value for name, value in changes.items()}})


def make_spec(**fields: Any) -> SynthesizeSpec:
    """Check `fields` (in either spelling) and return the spec, with errors a person can act on."""
    try:
        return SynthesizeSpec(**fields)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'spec'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_url=False)
        )
        raise InvalidConfigurationError(found) from error
