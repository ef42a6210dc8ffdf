"""`rfuav-trainer synthesize`: writes data sets of artificial recordings, labelled by folder, for tests and first steps.

In: a SynthesizeSpec. Out: OUTPUT/<split>/<class>/<name>.iq or .png, and beside each a .json of all that was drawn for
it.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
import yaml
from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from rich.progress import Progress

from rfuav_crds.quantity import parse_quantity
from rfuav_trainer.channel import RECEIVER_SHARE, Recording, receive
from rfuav_trainer.emitters import EMITTERS
from rfuav_trainer.errors import DiskFullError, InvalidConfigurationError, JobError
from rfuav_trainer.spectrogram import SpectrogramParameters, picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

VERSION = 1  # of the generator: raised when the same seed gives other recordings
_MARK = ".synthesis.json"  # lies in each split's folder and says that it may be replaced
_ROOM_TO_SPARE = 64 * 2**20  # bytes that must stay free on the volume
_FIXED_BYTES = 8 * 2**10  # of a file of parameters and a small picture, in whole blocks

Snr = Annotated[float, Field(ge=-60, le=60)]


class _Spec(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class Split(_Spec):
    """How many recordings of each class, and at which SNRs when not those of the whole set."""

    recordings: int = Field(ge=1, le=1_000_000, description="recordings of each class")
    snr_db: tuple[Snr, ...] | None = Field(None, min_length=1, max_length=1000, description="dB, taken in turn")


def _split(value: Any) -> Any:
    return {"recordings": value} if isinstance(value, int | str) else value


def _hertz(value: Any) -> Any:
    return float(parse_quantity(value)) if isinstance(value, int | float | str) else value


def _steps(value: Any) -> Any:
    """A mapping of start, stop (included) and step becomes the list it stands for."""
    if not isinstance(value, dict):
        return [value] if isinstance(value, int | float) else value
    if set(value) != {"start", "stop", "step"} or not value["step"] > 0 or value["stop"] < value["start"]:
        raise ValueError("write a list of dB, or {start: -20, stop: 20, step: 2} with start <= stop and step > 0")
    return [
        value["start"] + i * value["step"]
        for i in range(1 + math.floor((value["stop"] - value["start"]) / value["step"]))
    ]


class SynthesizeSpec(_Spec):
    """What to make. Field names are camelCase in YAML."""

    output: Path = Field(description="folder of the data set; made when missing")
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
        "iq", description="float32 samples, or pictures as the trainer would make of them"
    )
    image_size: int = Field(64, ge=16, le=1024, description="pixels, for format image")
    interference: float = Field(
        0.2, ge=0, le=1, description="chance of somebody else's packets in a recording, any class"
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="the same seed gives the same recordings, in any order and selection"
    )
    overwrite: bool = Field(default=False, description="replace splits that an earlier run has made")

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
                    f"{name} needs a sampleRate of {needed / 1e6:.1f}M; raise it, or leave the class out of classes"
                )
        if self.sample_count < self.spectrogram.fft_size:
            shortest = self.spectrogram.fft_size / self.sample_rate
            raise ValueError(f"seconds {self.seconds} holds {self.sample_count} samples; write at least {shortest:.6f}")
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
        """Bytes that all files will take."""
        pixels = self.image_size**2
        return self.total * (_FIXED_BYTES + (pixels if self.format == "image" else 8 * self.sample_count))


@dataclass(frozen=True, slots=True)
class SynthesizeReport:
    """What was made: recordings, bytes, seconds it took, and where."""

    output: Path
    recordings: int
    bytes: int
    seconds: float


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


def recording(spec: SynthesizeSpec, split: str, class_name: str, index: int) -> tuple[Recording, dict[str, object]]:
    """Make one recording and its parameters; depends on nothing but the arguments."""
    own = spec.splits[split].snr_db or spec.snr_db
    snr_db = own[index % len(own)]
    words = np.frombuffer(sha256(f"{VERSION}/{spec.seed}/{split}/{class_name}/{index}".encode()).digest(), dtype="<u4")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words.tolist())))
    emitter = EMITTERS[class_name]
    emission = emitter.emit(rng, spec.sample_count, spec.sample_rate)
    received = receive(
        rng,
        emission,
        sample_rate=spec.sample_rate,
        span_hz=emitter.span_hz,
        snr_db=snr_db,
        interference=spec.interference,
    )
    parameters: dict[str, object] = {
        "class": class_name,
        "snrDb": snr_db,
        "sampleRate": spec.sample_rate,
        "seconds": spec.seconds,
        "sampleFormat": "float32",
        "onAirShare": float(emission.active.mean()),
        **emission.drawn,
        **received.drawn,
        "split": split,
        "index": index,
        "seed": spec.seed,
        "generator": "rfuav-trainer synthesize",
        "version": VERSION,
    }
    return received, parameters


def synthesize(spec: SynthesizeSpec) -> SynthesizeReport:
    """Write the whole data set. A split's folder appears when it is complete, or not at all.

    Raises:
        InvalidConfigurationError: a split is there already and may not be replaced.
        DiskFullError: the volume has too little room; found before anything is written.
        JobError: the output cannot be written.
    """
    started = time.monotonic()
    _check_output(spec)
    written = 0
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        shown = progress.add_task("recordings", total=spec.total)
        for split in spec.splits:
            staging = spec.output / f".{split}.partial"
            shutil.rmtree(staging, ignore_errors=True)
            for size in _write_split(spec, split, staging):
                written += size
                progress.advance(shown)
            _publish(staging, spec.output / split)
    return SynthesizeReport(spec.output, spec.total, written, time.monotonic() - started)


def run(spec: SynthesizeSpec) -> int:
    """Synthesize and say what was made; the process's exit code."""
    report = synthesize(spec)
    print(f"{report.recordings} recordings, {report.bytes / 1e6:.1f} MB, in {report.output} ({report.seconds:.1f} s)")
    return 0


def _check_output(spec: SynthesizeSpec) -> None:
    try:
        spec.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(
            f"{spec.output} cannot be made: {error.strerror}; write another output", reason="OutputNotWritable"
        ) from error
    for split in spec.splits:
        folder = spec.output / split
        if not folder.exists():
            continue
        if not spec.overwrite:
            raise InvalidConfigurationError(
                f"{folder} exists: give overwrite (--overwrite) to replace it, or another output"
            )
        if not (folder / _MARK).is_file():
            raise InvalidConfigurationError(
                f"{folder} was not made by synthesize and is left alone: remove it, or write another output"
            )
    free = shutil.disk_usage(spec.output).free
    if free < spec.byte_estimate + _ROOM_TO_SPARE:
        raise DiskFullError(
            f"{spec.output} has {free / 1e6:.0f} MB free; {spec.total} recordings take {spec.byte_estimate / 1e6:.0f},"
            f" and {_ROOM_TO_SPARE / 1e6:.0f} MB must stay: write fewer or shorter recordings, or format image"
        )


def _write_split(spec: SynthesizeSpec, split: str, folder: Path) -> Iterator[int]:
    """Write one split into `folder`; yields the bytes of each recording."""
    for class_name in spec.classes:
        (folder / class_name).mkdir(parents=True)
        for index in range(spec.splits[split].recordings):
            received, parameters = recording(spec, split, class_name, index)
            stem = folder / class_name / f"{class_name}-{index:05d}"
            if spec.format == "iq":
                data = stem.with_suffix(".iq")
                data.write_bytes(received.samples.astype("<c8").tobytes())
            else:
                data = stem.with_suffix(".png")
                pixels = picture(torch.from_numpy(received.samples), spec.spectrogram, spec.image_size)
                Image.fromarray(pixels[0].numpy()).save(data, optimize=False)
            text = json.dumps(parameters, indent=1)
            stem.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
            yield data.stat().st_size + len(text)
    (folder / _MARK).write_text(
        spec.model_dump_json(by_alias=True, exclude={"output", "overwrite"}, indent=1), encoding="utf-8"
    )


def _publish(staging: Path, folder: Path) -> None:
    """Put a complete split where it belongs; an older one goes only once the new one is whole."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    staging.replace(folder)
    shutil.rmtree(old, ignore_errors=True)
