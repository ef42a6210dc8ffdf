"""Raw recordings: which bytes of a file are which samples, and how they were recorded.

In: a file of interleaved I and Q, optionally with SigMF metadata (`a.sigmf-meta` for `a.sigmf-data` or `a.iq`), which
takes precedence for the sample format; without it the job states the format, or the suffix does, or the sidecar of a
pack. Out: what is known of the recording, and its frames: as recorded, memory-mapped instead of copied, or at the
sample rate of the job.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
import torch

from rfuav_trainer.errors import UnreadableFileError, as_unreadable
from rfuav_trainer.signals import resampling, sigmf
from rfuav_trainer.signals.sidecar import Pack, Sidecar
from rfuav_trainer.signals.spectrogram import FULL_SCALE, MIDDLE
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Iterator
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
METADATA = sigmf.METADATA
NO_NUMBERS = "frame {frame} contains NaN or infinite samples: is sampleFormat right?"
SAME_RATE = Fraction(1)
AS_THEY_ARE = frozenset(SAMPLE_TYPES.values())
"""Types that the transform accepts; others are converted to float32 first."""


@dataclass(frozen=True)
class Capture:
    """A contiguous part of a recording.

    Attributes:
        begin: index of its first sample in the recording.
        samples: how many it has.
        offset: byte of its first sample in the file.
        frequency_hz: centre frequency; None if nothing says it.
    """

    begin: int
    samples: int
    offset: int = 0
    frequency_hz: float | None = None


@dataclass(frozen=True)
class RecordingInfo:
    """Which bytes of a file are which samples, and how they were recorded.

    Attributes:
        file: that has the samples.
        kind: type of each I and each Q.
        captures: in the order of time; no frame crosses the border of two.
        rate_hz: samples a second; None if nothing says it.
        channels: number of recordings that are interleaved sample by sample.
        said_by: name of the file that says the rate; empty if none does.
        torn: bytes after the last whole sample, which are dropped.
        annotations: for `sigmf.annotation`.
    """

    file: Path
    kind: np.dtype[Any]
    captures: tuple[Capture, ...]
    rate_hz: float | None = None
    channels: int = 1
    said_by: str = ""
    torn: int = 0
    annotations: tuple[tuple[Any, int], ...] = field(default=(), compare=False, repr=False)

    @property
    def width(self) -> int:
        """Bytes of a sample, of all channels together."""
        return 2 * self.kind.itemsize * self.channels

    @property
    def samples(self) -> int:
        """Of all captures together."""
        return sum(capture.samples for capture in self.captures)

    def ratio(self, parameters: SpectrogramParameters) -> Fraction:
        """The sample rate of the job divided by that of the recording; 1 if nothing says the latter.

        Raises:
            UnreadableFileError: it has too large terms.
        """
        if self.rate_hz is None:
            return SAME_RATE
        try:
            return resampling.ratio(self.rate_hz, parameters.sample_rate)
        except resampling.RatioError as error:
            raise UnreadableFileError(
                f"{error} ({self.said_by} says the first, iq.sampleRate the second): write iq.sampleRate: "
                f"{self.rate_hz:.12g}, or resample the file"
            ) from error

    def frames(self, length: int, ratio: Fraction = SAME_RATE) -> int:
        """How many whole frames of `length` samples the captures contain at `ratio` times the recorded rate."""
        return sum(resampling.count(capture.samples, ratio) // length for capture in self.captures)

    def place(self, frame: int, length: int, ratio: Fraction = SAME_RATE) -> tuple[Capture, int]:
        """The capture that has a frame of `length` samples, and the index of the frame's first sample in it.

        Samples are counted at `ratio` times the recorded rate.
        """
        for capture in self.captures[:-1]:
            count = resampling.count(capture.samples, ratio) // length
            if frame < count:
                return capture, frame * length
            frame -= count
        return self.captures[-1], frame * length


def described(
    path: Path,
    sample_format: str = AUTO,
    metadata: Path | None = None,
    pack: Pack | None = None,
    *,
    channels: int = 1,
) -> RecordingInfo:
    """What the metadata says about a recording; without it, what the job, the suffix or the sidecar of its pack says.

    Args:
        path: the file with the samples.
        sample_format: iq.sampleFormat.
        metadata: a SigMF file of another name that describes it (`core:dataset`).
        pack: that it is of.
        channels: how many are interleaved, if no metadata says it.

    Raises:
        UnreadableFileError: it cannot be opened, or its metadata or suffix does not fit the job.
    """
    beside = path.with_suffix(METADATA) if metadata is None else metadata
    if metadata is None and not os.path.isfile(beside):  # noqa: PTH113  (Path.is_file raises on too long a name)
        said = Sidecar() if pack is None or pack.stated is None else pack.stated
        kind = SAMPLE_TYPES[_format_of(path, sample_format, said.sample_format)]
        segments = (sigmf.Segment(frequency_hz=said.center_frequency),)
        stated = sigmf.Metadata(kind, segments, said.sample_rate, channels)
        return laid_out(path, stated, "" if pack is None else pack.path.name, 0, _size(path, ""))
    with as_unreadable(f"{beside.name} cannot be read"), inputs.opened(beside) as here:
        sigmf.bounded(here.stat().st_size, beside.name)
        stated = sigmf.parse(here.read_bytes(), beside.name)
    if stated.dataset not in {"", path.name}:
        raise UnreadableFileError(
            f"{beside.name} describes {stated.dataset} (core:dataset), not this file: correct core:dataset, or rename "
            "the metadata"
        )
    return laid_out(path, stated, beside.name, 0, _size(path, beside.name))


def laid_out(file: Path, stated: sigmf.Metadata, said_by: str, offset: int, size: int) -> RecordingInfo:
    """Where the samples are that metadata describes, in the `size` bytes of `file` from `offset` on."""
    width = 2 * stated.kind.itemsize * stated.channels
    end = offset + size - stated.trailer
    captures = _captures(stated, width, offset, end)
    torn = max(0, end - captures[-1].offset) % width
    return RecordingInfo(
        file, stated.kind, captures, stated.rate_hz, stated.channels, said_by, torn, stated.annotations
    )


def _size(path: Path, said_by: str) -> int:
    try:
        return inputs.size(path)
    except FileNotFoundError as error:
        described_by = f", but {said_by} describes it" if said_by else ""
        raise UnreadableFileError(f"cannot be opened: {error.strerror}{described_by}") from error
    except OSError as error:
        raise UnreadableFileError(f"cannot be opened: {error.strerror}") from error


def _captures(stated: sigmf.Metadata, width: int, offset: int, end: int) -> tuple[Capture, ...]:
    """Where the samples of each segment are: they take `width` bytes each, from byte `offset` to `end`."""
    found = []
    before = 0
    ends = [*(segment.begin for segment in stated.segments[1:]), sys.maxsize]
    for segment, following in zip(stated.segments, ends, strict=True):
        offset += segment.header + (segment.begin - before) * width
        before = segment.begin
        there = max(0, end - offset) // width
        found.append(Capture(segment.begin, min(following - segment.begin, there), offset, segment.frequency_hz))
    return tuple(found)


def count_frames(info: RecordingInfo, parameters: SpectrogramParameters) -> int:
    """How many complete frames a recording contains.

    An end inside a sample, as a full disk or a broken transfer leaves it, is dropped with a warning.

    Raises:
        UnreadableFileError: it is shorter than a frame, does not have the channel of the job, or has a sample rate that
            cannot be resampled to that of the job.
    """
    if parameters.channel >= info.channels:
        number = "one channel" if info.channels == 1 else f"{info.channels} channels"
        write = "0, or how many as iq.channels" if info.channels == 1 else f"0 to {info.channels - 1}"
        raise UnreadableFileError(f"has {number}, iq.channel is {parameters.channel}: write {write}")
    if info.torn:
        width = 2 * info.kind.itemsize * info.channels
        log.warning(
            "dropping the torn last sample of a recording", file=info.file.name, bytes=info.torn, sampleBytes=width
        )
    ratio = info.ratio(parameters)
    frames = info.frames(parameters.frame_samples, ratio)
    if not frames:
        parts = f" in {len(info.captures)} captures" if info.captures[1:] else ""
        samples = resampling.count(info.samples, ratio)
        raise UnreadableFileError(
            f"shorter than one frame: {samples} samples{parts}, {parameters.frame_samples} needed "
            f"({parameters.frame_seconds} s at {parameters.sample_rate:g} samples/s)",
        )
    return frames


def first_sample(info: RecordingInfo, frame: int, parameters: SpectrogramParameters) -> tuple[Capture, float]:
    """The capture of a frame, and its first sample, counted from the beginning of the recording at the job's rate."""
    ratio = info.ratio(parameters)
    capture, begin = info.place(frame, parameters.frame_samples, ratio)
    return capture, float(capture.begin * ratio + begin)


def read_recorded(info: RecordingInfo, frame: int, parameters: SpectrogramParameters) -> Tensor:
    """The samples in the time of a frame, as recorded: float32, int16, int8 or uint8, shape (n, 2).

    The values are memory-mapped: they are read when they are used, and must not be changed.

    Raises:
        UnreadableFileError: the file is missing or became shorter.
    """
    ratio = info.ratio(parameters)
    capture, begin = info.place(frame, parameters.frame_samples, ratio)
    end = min(capture.samples, -(-(begin + parameters.frame_samples) // ratio))
    with _mapped(info, capture, frame, (begin // ratio, end), parameters.channel) as raw:
        return torch.from_numpy(raw if info.kind in AS_THEY_ARE else _as_float(raw))


def read_raw(
    info: RecordingInfo, frame: int, parameters: SpectrogramParameters, recorded: Tensor | None = None
) -> Tensor:
    """One frame at the sample rate of the job, shape (frame_samples, 2).

    As recorded if that is its rate, else resampled: float32, full scale 1. `recorded` is what `read_recorded` gave for
    the frame, if it was read already.

    Raises:
        UnreadableFileError: the file is missing or became shorter.
    """
    ratio, length = info.ratio(parameters), parameters.frame_samples
    if ratio == 1:
        return read_recorded(info, frame, parameters) if recorded is None else recorded
    capture, begin = info.place(frame, length, ratio)
    with _mapped(info, capture, frame, (0, capture.samples), parameters.channel) as samples:
        found = resampling.resampler(ratio).resample(
            lambda low, high: _as_float(samples[low:high]), capture.samples, begin, length
        )
    return torch.from_numpy(found)


@contextmanager
def _mapped(
    info: RecordingInfo, capture: Capture, frame: int, places: tuple[int, int], channel: int
) -> Iterator[np.ndarray[Any, np.dtype[Any]]]:
    """The samples of a channel of a capture from one place to another, for the frame that is being read: (n, 2)."""
    begin, end = places
    if begin >= end:
        raise UnreadableFileError(f"frame {frame} is incomplete: the file became shorter")
    offset = capture.offset + begin * 2 * info.kind.itemsize * info.channels
    with as_unreadable("cannot be read"), inputs.opened(info.file) as here:
        try:
            # Copy-on-write: torch requires writable memory, the file is not changed.
            shape = (end - begin, info.channels, 2)
            found = np.memmap(here, dtype=info.kind, mode="c", offset=offset, shape=shape)
        except ValueError as error:
            raise UnreadableFileError(f"frame {frame} is incomplete: the file became shorter") from error
        yield found[:, channel]


def read_frame(
    info: RecordingInfo, frame: int, parameters: SpectrogramParameters, recorded: Tensor | None = None
) -> Tensor:
    """One frame as complex64 samples, full scale 1, shape (frame_samples,): a copy that may be changed.

    `recorded` is as for `read_raw`.

    Raises:
        UnreadableFileError: the file is missing, became shorter, or contains non-finite values.
    """
    raw = read_raw(info, frame, parameters, recorded)
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


def _format_of(path: Path, wanted: str, sidecar: str | None) -> str:
    """The sample format of a recording without metadata: as stated, else what the suffix says, else the sidecar.

    Raises:
        UnreadableFileError: the suffix says another format than the job, or neither says any.
    """
    suffix = path.suffix.lower()
    says = SUFFIX_FORMATS.get(suffix)
    if wanted == AUTO and suffix in WITHOUT_FORMAT and sidecar is None:
        raise UnreadableFileError(f"{suffix} says nothing about the samples: write iq.sampleFormat")
    if says is not None and wanted not in {AUTO, says}:
        raise UnreadableFileError(
            f"{suffix} means {says}, iq.sampleFormat is {wanted}: write sampleFormat: auto, or rename the file"
        )
    return (says or sidecar or "float32") if wanted == AUTO else wanted
