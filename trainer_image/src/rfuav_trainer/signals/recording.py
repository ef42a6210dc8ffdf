"""Raw recordings: which bytes of a file are which samples.

In: a file of interleaved I and Q, optionally with SigMF metadata (`a.sigmf-meta` for `a.sigmf-data` or `a.iq`), which
takes precedence for the sample format; without it the job states the format, or the suffix does. Out: frames as
recorded, memory-mapped instead of copied.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
import torch

from rfuav_trainer.errors import JobError, UnreadableFileError, as_unreadable
from rfuav_trainer.signals.spectrogram import FULL_SCALE, MIDDLE
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from rfuav_trainer.signals.spectrogram import SpectrogramParameters

log = structlog.get_logger()

SAMPLE_TYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
}
AUTO = "auto"
SUFFIX_FORMATS = {".cfile": "float32", ".cf32": "float32", ".cs16": "int16", ".cs8": "int8", ".cu8": "uint8"}
"""What the suffixes of SDR programs say about the samples; others say float32, as the reference service writes them."""
WITHOUT_FORMAT = frozenset({".bin"})
"""Suffixes that mean anything: their sample format has to be stated."""
METADATA = ".sigmf-meta"
DATATYPE = re.compile(r"(?P<kind>[cr])(?P<type>[fiu])(?P<bits>8|16|32|64)(?P<order>_le|_be)?")
NO_NUMBERS = "frame {frame} contains NaN or infinite samples: is sampleFormat right?"
AS_THEY_ARE = frozenset(SAMPLE_TYPES.values())
"""Types that the transform accepts; others are converted to float32 first."""


@dataclass(frozen=True)
class Layout:
    """Layout of the samples in a recording.

    Attributes:
        kind: type of each I and each Q.
        header, trailer: bytes before and after the samples.
        captures: index of the first sample of each contiguous capture, in rising order.
    """

    kind: np.dtype[Any]
    header: int = 0
    trailer: int = 0
    captures: tuple[int, ...] = (0,)

    def counts(self, length: int, samples: int) -> list[int]:
        """How many frames of `length` each capture contains, given the total number of samples."""
        ends = [min(end, samples) for end in (*self.captures[1:], samples)]
        return [max(0, end - begin) // length for begin, end in zip(self.captures, ends, strict=True)]

    def begin(self, frame: int, length: int) -> int:
        """The first sample of a frame of `length`. No frame crosses the border of two captures."""
        *before, last = zip(self.captures, self.counts(length, sys.maxsize), strict=True)
        for begin, count in before:
            if frame < count:
                return begin + frame * length
            frame -= count
        return last[0] + frame * length


def count_frames(path: Path, parameters: SpectrogramParameters) -> int:
    """How many complete frames a recording contains.

    An end inside a sample, as a full disk or a broken transfer leaves it, is dropped with a warning.

    Raises:
        UnreadableFileError: it is shorter than a frame, or its metadata or suffix does not fit the job.
    """
    layout = _layout(path, parameters.sample_format, parameters.sample_rate)
    width = 2 * layout.kind.itemsize
    try:
        size = inputs.size(path) - layout.header - layout.trailer
    except OSError as error:
        raise UnreadableFileError(f"cannot be opened: {error.strerror}") from error
    torn = max(size, 0) % width
    if torn:
        log.warning("dropping the torn last sample of a recording", file=path.name, bytes=torn, sampleBytes=width)
    frames = sum(layout.counts(parameters.frame_samples, size // width))
    if not frames:
        parts = f" in {len(layout.captures)} captures" if layout.captures[1:] else ""
        raise UnreadableFileError(
            f"shorter than one frame: {size // width} samples{parts}, {parameters.frame_samples} needed "
            f"({parameters.frame_seconds} s at {parameters.sample_rate:g} samples/s)",
        )
    return frames


def first_sample(path: Path, frame: int, parameters: SpectrogramParameters) -> int:
    """Index of the first sample of a frame.

    Raises:
        UnreadableFileError: the metadata has changed and is no longer valid.
    """
    return _layout(path, parameters.sample_format, parameters.sample_rate).begin(frame, parameters.frame_samples)


def read_raw(path: Path, frame: int, parameters: SpectrogramParameters) -> Tensor:
    """One frame as recorded: float32, int16, int8 or uint8, shape (frame_samples, 2).

    The values are memory-mapped: they are read when they are used, and must not be changed.

    Raises:
        UnreadableFileError: the file is missing or became shorter.
    """
    layout = _layout(path, parameters.sample_format, parameters.sample_rate)
    offset = layout.header + layout.begin(frame, parameters.frame_samples) * 2 * layout.kind.itemsize
    with as_unreadable("cannot be read"), inputs.opened(path) as here:
        try:
            # Copy-on-write: torch requires writable memory, the file is not changed.
            raw = np.memmap(here, dtype=layout.kind, mode="c", offset=offset, shape=(parameters.frame_samples, 2))
        except ValueError as error:
            raise UnreadableFileError(f"frame {frame} is incomplete: the file became shorter") from error
    return torch.from_numpy(raw if layout.kind in AS_THEY_ARE else _as_float(raw))


def read_frame(path: Path, frame: int, parameters: SpectrogramParameters) -> Tensor:
    """One frame as complex64 samples, full scale 1, shape (frame_samples,): a copy that may be changed.

    Raises:
        UnreadableFileError: the file is missing, became shorter, or contains non-finite values.
    """
    raw = read_raw(path, frame, parameters)
    values = raw.to(torch.float32, copy=True).sub_(MIDDLE.get(raw.dtype, 0.0)).contiguous()
    samples = torch.view_as_complex(values).div_(FULL_SCALE[raw.dtype])
    if not torch.isfinite(torch.view_as_real(samples)).all():
        raise UnreadableFileError(NO_NUMBERS.format(frame=frame))
    return samples


def _as_float(raw: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Values of any type as float32, full scale 1; unsigned ones are centred on the middle of their range."""
    if raw.dtype.kind == "f":
        return raw.astype(np.float32)
    scale = np.float32(2.0 ** (8 * raw.dtype.itemsize - 1))
    middle = scale if raw.dtype.kind == "u" else np.float32(0)
    return (raw.astype(np.float32) - middle) / scale


def _format_of(path: Path, wanted: str) -> str:
    """The sample format of a recording without metadata: as stated, else what the suffix says.

    Raises:
        UnreadableFileError: the suffix says another format than the job, or neither says any.
    """
    suffix = path.suffix.lower()
    says = SUFFIX_FORMATS.get(suffix)
    if wanted == AUTO and suffix in WITHOUT_FORMAT:
        raise UnreadableFileError(f"{suffix} says nothing about the samples: write iq.sampleFormat")
    if says is not None and wanted not in {AUTO, says}:
        raise UnreadableFileError(
            f"{suffix} means {says}, iq.sampleFormat is {wanted}: write sampleFormat: auto, or rename the file"
        )
    return (says or "float32") if wanted == AUTO else wanted


@lru_cache(maxsize=4096)
def _layout(path: Path, sample_format: str, sample_rate: float) -> Layout:
    """The layout from the metadata, else from the job.

    Raises:
        UnreadableFileError: the metadata is invalid, or has another sample rate than the job.
    """
    metadata = path.with_suffix(METADATA)
    if not os.path.isfile(metadata):  # noqa: PTH113  (Path.is_file raises on too long a name)
        return Layout(SAMPLE_TYPES[_format_of(path, sample_format)])
    try:
        with inputs.opened(metadata) as here:
            content = json.loads(here.read_bytes())
        stated = content["global"]
        captures = content.get("captures") or [{}]
        headers = [int(capture.get("core:header_bytes", 0)) for capture in captures]
        skipped = int(stated.get("core:offset", 0))
        begins = sorted({int(capture.get("core:sample_start", skipped)) - skipped for capture in captures})
        datatype = str(stated["core:datatype"])
        rate = None if stated.get("core:sample_rate") is None else float(stated["core:sample_rate"])
        trailer = int(stated.get("core:trailing_bytes", 0))
        channels = int(stated.get("core:num_channels", 1))
    except JobError:
        raise
    except Exception as error:
        raise UnreadableFileError(f"{metadata.name} is not valid SigMF metadata: {error!r}") from error
    found = DATATYPE.fullmatch(datatype)
    if found is None or found["kind"] != "c" or (found["type"], found["bits"]) in {("f", "8"), ("f", "16")}:
        raise UnreadableFileError(
            f"{metadata.name}: core:datatype {datatype} is not supported: use a complex one, as cf32_le, ci16_le, cu8"
        )
    if min(*headers, *begins, trailer) < 0:
        raise UnreadableFileError(
            f"{metadata.name} has a negative number of bytes or samples: write 0 or more, or leave it out"
        )
    if channels != 1 or any(headers[1:]):
        raise UnreadableFileError(
            f"{metadata.name} describes several channels or headers: store one recording in each file"
        )
    if rate is not None and not np.isclose(rate, sample_rate, rtol=1e-6):
        raise UnreadableFileError(
            f"recorded at {rate:g} samples/s according to {metadata.name}, iq.sampleRate is {sample_rate:g}"
        )
    order = ">" if found["order"] == "_be" else "<"
    kind = np.dtype(f"{order}{found['type']}{int(found['bits']) // 8}")
    return Layout(kind, headers[0], trailer, tuple(begins))
