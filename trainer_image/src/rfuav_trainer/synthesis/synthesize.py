"""`rfuav-trainer synthesize`: writes data sets of artificial recordings, labelled by folder, for tests and first steps.

In: a SynthesizeSpec. Out: OUTPUT/<split>/<class>/<name>.iq or .png, each with a .json of its random parameters.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from rfuav_crds import reasons
from rfuav_trainer.errors import DiskFullError, InvalidConfigurationError, JobError
from rfuav_trainer.signals.spectrogram import picture
from rfuav_trainer.storage.files import replace_folder
from rfuav_trainer.synthesis.channel import Recording, receive
from rfuav_trainer.synthesis.emitters.catalogue import EMITTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rfuav_trainer.reporting.progress import Progress
    from rfuav_trainer.synthesis.spec import SynthesizeSpec

VERSION = 1  # of the generator: increased when a seed gives different recordings
_MARK = ".synthesis.json"  # in the folder of each split: shows that it may be replaced
_ROOM_TO_SPARE = 64 * 2**20  # bytes that must stay free on the volume


@dataclass(frozen=True, slots=True)
class SynthesizeReport:
    """The result: folder, number of recordings, bytes, and duration in seconds."""

    output: Path
    recordings: int
    bytes: int
    seconds: float


def recording(spec: SynthesizeSpec, split: str, class_name: str, index: int) -> tuple[Recording, dict[str, object]]:
    """Make one recording and its parameters. A pure function of the arguments."""
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


def synthesize(spec: SynthesizeSpec, told: Callable[[int], None] | None = None) -> SynthesizeReport:
    """Write the whole data set. The folder of a split appears when it is complete.

    Args:
        spec: what to write.
        told: called with the number of recordings after each.

    Raises:
        InvalidConfigurationError: a split exists and may not be replaced.
        DiskFullError: the volume has too little space; checked before anything is written.
        JobError: the output cannot be written.
    """
    started = time.monotonic()
    _check_output(spec)
    written = 0
    done = 0
    for split in spec.splits:
        staging = spec.output / f".{split}.partial"
        shutil.rmtree(staging, ignore_errors=True)
        for size in _write_split(spec, split, staging):
            written, done = written + size, done + 1
            if told is not None:
                told(done)
        replace_folder(staging, spec.output / split)
    return SynthesizeReport(spec.output, spec.total, written, time.monotonic() - started)


def run(spec: SynthesizeSpec, progress: Progress) -> None:
    """Synthesize and print a summary."""

    def tell(done: int) -> None:
        progress.update(
            {"progressPercentage": 100 * done // spec.total, "rfuav": {"processed": done, "total": spec.total}}
        )

    report = synthesize(spec, tell)
    print(f"{report.recordings} recordings, {report.bytes / 1e6:.1f} MB, in {report.output} ({report.seconds:.1f} s)")


def _check_output(spec: SynthesizeSpec) -> None:
    try:
        spec.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(
            f"{spec.output} cannot be created: {error.strerror}; write another output",
            reason=reasons.OUTPUT_NOT_WRITABLE,
        ) from error
    for split in spec.splits:
        folder = spec.output / split
        if not folder.exists():
            continue
        if not spec.overwrite:
            raise InvalidConfigurationError(
                f"{folder} exists: write overwrite (--overwrite) to replace it, or another output"
            )
        if not (folder / _MARK).is_file():
            raise InvalidConfigurationError(
                f"{folder} was not created by synthesize: remove it, or write another output"
            )
    free = shutil.disk_usage(spec.output).free
    if free < spec.byte_estimate + _ROOM_TO_SPARE:
        raise DiskFullError(
            f"{spec.output} has {free / 1e6:.0f} MB free; {spec.total} recordings take {spec.byte_estimate / 1e6:.0f},"
            f" and {_ROOM_TO_SPARE / 1e6:.0f} MB must stay free: write fewer or shorter recordings, or format image"
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
