"""SigMF 1.x: what a `.sigmf-meta` file says about a recording, and a `.sigmf-collection` about several.

In: the content of the file. Out: `Metadata`, or the names of the recordings, checked. Sample indices are counted from
the first sample of the file: the format counts from `core:offset`, which is only greater than 0 in a part of a longer
recording.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfuav_trainer.errors import UnreadableFileError

METADATA = ".sigmf-meta"
DATA = ".sigmf-data"
ARCHIVE = ".sigmf"
COLLECTION = ".sigmf-collection"
MOST_BYTES = 64 * 2**20
"""Larger metadata is refused: it is read whole."""
_DATATYPE = re.compile(r"(?P<kind>[cr])(?P<type>[fiu])(?P<bits>8|16|32|64)(?P<order>_le|_be)?")


@dataclass(frozen=True)
class Segment:
    """An entry of `captures`.

    Attributes:
        begin: index of its first sample.
        header: bytes before that sample that are no samples.
        frequency_hz: centre frequency; None if it is not stated.
    """

    begin: int = 0
    header: int = 0
    frequency_hz: float | None = None


@dataclass(frozen=True)
class Annotation:
    """A labelled part of a recording.

    Attributes:
        label: of what is there.
        begin: index of its first sample.
        count: samples; None: up to the end of the capture.
        low_hz, high_hz: its band, at the frequencies of its capture; None: all of them.
    """

    label: str
    begin: int
    count: int | None = None
    low_hz: float | None = None
    high_hz: float | None = None


@dataclass(frozen=True)
class Metadata:
    """What the metadata says about a recording.

    Attributes:
        kind: type of each I and each Q.
        segments: by their first sample; at least one.
        rate_hz: samples a second; None if it is not stated.
        channels: number of recordings that are interleaved sample by sample.
        trailer: bytes after the samples that are no samples.
        dataset: name of the file with the samples; empty if it has the name of the metadata and the suffix
            `.sigmf-data`.
        metadata_only: whether there is no such file on purpose.
        annotations: as they are stored, with the offset of the recording, for `annotation`.
    """

    kind: np.dtype[Any]
    segments: tuple[Segment, ...] = (Segment(),)
    rate_hz: float | None = None
    channels: int = 1
    trailer: int = 0
    dataset: str = ""
    metadata_only: bool = False
    annotations: tuple[tuple[Any, int], ...] = ()


def parse(content: bytes, name: str) -> Metadata:
    """The metadata in `content`; `name` of its file is for messages.

    Raises:
        UnreadableFileError: it is not valid, or describes samples that are not complex.
    """
    try:
        found = json.loads(content)
        stated = found["global"]
        offset = int(stated.get("core:offset", 0))
        segments = [
            Segment(
                int(entry.get("core:sample_start", offset)) - offset,
                int(entry.get("core:header_bytes", 0)),
                _number(entry.get("core:frequency")),
            )
            for entry in found.get("captures") or [{}]
        ]
        kind = _kind(str(stated["core:datatype"]), name)
        rate = _number(stated.get("core:sample_rate"))
        channels = int(stated.get("core:num_channels", 1))
        trailer = int(stated.get("core:trailing_bytes", 0))
        dataset = str(stated.get("core:dataset") or "")
        metadata_only = stated.get("core:metadata_only") is True
        annotations = tuple((entry, offset) for entry in found.get("annotations") or ())
    except UnreadableFileError:
        raise
    except Exception as error:
        raise UnreadableFileError(f"{name} is not valid SigMF metadata: {error!r}") from error
    if min(trailer, *(min(segment.begin, segment.header) for segment in segments)) < 0:
        raise UnreadableFileError(f"{name} has a negative number of bytes or samples: write 0 or more, or leave it out")
    if channels < 1 or (rate is not None and rate <= 0):
        raise UnreadableFileError(f"{name}: core:num_channels and core:sample_rate must be positive")
    if dataset in {".", ".."} or not {"/", "\\", "\0"}.isdisjoint(dataset):
        raise UnreadableFileError(f"{name}: core:dataset {dataset[:99]!r}: write the name of a file in the same folder")
    segments.sort(key=lambda segment: segment.begin)
    return Metadata(kind, tuple(segments), rate, channels, trailer, dataset, metadata_only, annotations)


def annotation(stored: tuple[Any, int]) -> Annotation:
    """An annotation of `Metadata.annotations`.

    Raises:
        ValueError: it cannot be used; the message says why.
    """
    entry, offset = stored
    if not isinstance(entry, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004  (one kind of error for all)
    label = entry.get("core:label")
    if not isinstance(label, str) or not label.strip():
        raise ValueError("it has no core:label")
    try:
        begin = int(entry["core:sample_start"]) - offset
        count = None if entry.get("core:sample_count") is None else int(entry["core:sample_count"])
        low, high = (_number(entry.get(f"core:freq_{side}_edge")) for side in ("lower", "upper"))
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise ValueError("its samples or frequencies are not numbers") from error
    if begin < 0 or (count is not None and count < 1):
        raise ValueError("it has no samples in the recording")
    if (low is None) != (high is None):
        raise ValueError("it has one of core:freq_lower_edge and core:freq_upper_edge: write both or neither")
    if low is not None and high is not None and low >= high:
        raise ValueError("its core:freq_lower_edge is not below its core:freq_upper_edge")
    return Annotation(label, begin, count, low, high)


def streams(content: bytes, name: str) -> list[str]:
    """The recordings that a collection lists, each by its name without a suffix.

    Raises:
        UnreadableFileError: it is not a valid collection.
    """
    try:
        listed = json.loads(content)["collection"].get("core:streams") or []
        return [str(entry["name"] if isinstance(entry, dict) else entry[0]) for entry in listed]
    except Exception as error:
        raise UnreadableFileError(f"{name} is not a valid SigMF collection: {error!r}") from error


def bounded(size: int, name: str) -> None:
    """Raise UnreadableFileError if a file of `size` bytes is too large to be read whole."""
    if size > MOST_BYTES:
        raise UnreadableFileError(f"{name} has {size} bytes, {MOST_BYTES} are allowed")


def _number(value: Any) -> float | None:
    """A finite number, or None if it is not stated."""
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number


def _kind(datatype: str, name: str) -> np.dtype[Any]:
    found = _DATATYPE.fullmatch(datatype)
    if found is None or found["kind"] != "c" or (found["type"], found["bits"]) in {("f", "8"), ("f", "16")}:
        raise UnreadableFileError(
            f"{name}: core:datatype {datatype} is not supported: use a complex one, as cf32_le, ci16_le, cu8"
        )
    order = ">" if found["order"] == "_be" else "<"
    return np.dtype(f"{order}{found['type']}{int(found['bits']) // 8}")
