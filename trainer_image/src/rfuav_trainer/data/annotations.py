"""Samples of SigMF annotations: cut by time and band, with `core:label` as their class.

In: recordings with SigMF metadata, in folders of any names. Out: their samples, and how many annotations were left out,
and why.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rfuav_trainer.data.files import check_text, chosen, listed
from rfuav_trainer.data.labels import conditions, in_class
from rfuav_trainer.data.recordings import NO_CLASS, Recording, recognise
from rfuav_trainer.data.samples import Listing, Sample, list_samples, read_label_file, recording_of
from rfuav_trainer.errors import InputError, UnreadableFileError
from rfuav_trainer.signals import recording, sigmf
from rfuav_trainer.signals.annotated import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rfuav_trainer.signals.spectrogram import SpectrogramParameters

MOST_SAMPLES = 1_000_000
"""Of one recording: its annotations may overlap without limit."""
MOST_LABEL = 255
"""Bytes of a label, as of the name of a folder."""


@dataclass
class Annotated:
    """The samples of annotations.

    Attributes:
        listing: the samples; `label` is the index in `classes`.
        classes: the labels, sorted.
        left_out: annotations that give no sample, by the reason.
    """

    listing: Listing
    classes: list[str]
    left_out: Counter[str] = field(default_factory=Counter)


def list_annotated(
    root: Path,
    spectrogram: SpectrogramParameters,
    *,
    where: str,
    pattern: str | None,
    found: Sequence[Path] | None = None,
) -> Annotated:
    """The samples of all annotations of the recordings in a folder.

    An annotation of a frame or more is cut into whole frames; a shorter one gives the frame around it. A frame is of
    one capture. The recordings are those of `recordings.recognise`, of the whole path: a folder may have several
    classes. `found` has the files below `root`, if they are listed already.

    Raises:
        InputError: there are no recordings, or annotations of fewer than two classes, or a label cannot be the name of
            a class.
    """
    there = listed(root, where=where) if found is None else found
    files, _ = chosen(there, root, kind="iq", where=where, sample_format=spectrogram.sample_format)
    cutter = _Cutter(spectrogram)
    listing = list_samples(files, root, spectrogram, cut=cutter.cut)
    classes = sorted(cutter.labels)
    for name in classes:
        check_text(name, where)
        if len(name.encode()) > MOST_LABEL:
            raise InputError(
                f"{where}: the label {name[:40]!r}... has more than {MOST_LABEL} bytes: write a shorter one"
            )
    if len(classes) < 2:  # noqa: PLR2004  (a classifier needs two classes)
        why = "; ".join(f"{count} left out: {reason}" for reason, count in cutter.left_out.most_common())
        broken = next((f"{name}: {reason}" for name, reason in listing.unreadable.items()), "")
        raise InputError(
            f"{where}: the annotations in {root} have {len(classes)} labels ({', '.join(classes) or 'none'}): at least "
            f"two are needed, in core:label ({'; '.join(filter(None, (why, broken))) or 'there are no others'})"
        )
    place = {cutter.labels[name]: index for index, name in enumerate(classes)}
    told = recognise({f"{NO_CLASS}/{sample.name}": None for sample in listing.samples}, "iq", pattern=pattern)
    levels: dict[Path, float | None] = {}
    samples = []
    for sample in listing.samples:
        if sample.path not in levels:
            levels[sample.path] = conditions(in_class(NO_CLASS, sample.name), read_label_file(sample.path))[0]
        own = told[f"{NO_CLASS}/{sample.name}"]
        own = recording_of(sample, Recording(own.name.removeprefix(f"{NO_CLASS}/"), own.by))
        samples.append(
            replace(sample, label=place[sample.label], group=own.name, recognised_by=own.by, snr=levels[sample.path])
        )
    return Annotated(replace(listing, samples=samples), classes, cutter.left_out)


class _Cutter:
    """Cuts recordings by their annotations. `labels` gives each label a number, in the order of appearance."""

    def __init__(self, spectrogram: SpectrogramParameters) -> None:
        self._spectrogram = spectrogram
        self.labels: dict[str, int] = {}
        self.left_out: Counter[str] = Counter()

    def cut(self, sample: Sample, info: recording.RecordingInfo) -> list[Sample]:
        """The samples of a recording, numbered in the order of time.

        Raises:
            UnreadableFileError: there are too many.
        """
        found: list[tuple[sigmf.Annotation, recording.RecordingInfo, int, Box | None]] = []
        whole = replace(info, annotations=())
        if not info.annotations:
            self.left_out["recordings without annotations"] += 1
        for entry in info.annotations:
            try:
                annotation = sigmf.annotation(entry)
                boxes = list(self._boxes(annotation, whole, MOST_SAMPLES - len(found)))
            except ValueError as error:
                self.left_out[str(error)] += 1
                continue
            found.extend((annotation, *box) for box in boxes)
        found.sort(key=lambda one: (one[1].captures[0].begin, one[2]))
        return [
            replace(
                sample,
                info=stretch,
                frame=number,
                at=at,
                box=box,
                label=self.labels.setdefault(annotation.label, len(self.labels)),
            )
            for number, (annotation, stretch, at, box) in enumerate(found)
        ]

    def _boxes(
        self, annotation: sigmf.Annotation, info: recording.RecordingInfo, most: int
    ) -> Iterator[tuple[recording.RecordingInfo, int, Box | None]]:
        """The frames of an annotation: the stretch of the recording that they are of, the number in it, and the box.

        Raises:
            ValueError: it gives no frame; the message says why.
            UnreadableFileError: it gives more than `most`.
        """
        parameters = self._spectrogram
        rate = info.rate_hz or parameters.sample_rate
        ratio = info.ratio(parameters)
        length = math.ceil(parameters.frame_samples / ratio)
        parts = []
        for capture in info.captures:
            end = capture.begin + capture.samples
            stop = end if annotation.count is None else annotation.begin + annotation.count
            begin, stop = max(annotation.begin, capture.begin), min(stop, end)
            if begin < stop and (annotation.count is not None or annotation.begin >= capture.begin):
                parts.append((stop - begin, begin, stop, capture))
        if not parts:
            raise ValueError("it has no samples in the recording")
        longest = max(parts, key=lambda part: part[0])
        for size, begin, stop, capture in parts:
            band = _band(annotation, capture.frequency_hz, min(rate, parameters.sample_rate))
            if size >= length:
                stretch = _stretch(info, capture, begin, size)
                frames = recording.count_frames(stretch, parameters)
                if frames > most:
                    raise UnreadableFileError(f"its annotations give more than {MOST_SAMPLES} frames")
                box = None if band == (None, None) else Box(0, parameters.frame_samples, *band)
                yield from ((stretch, frame, box) for frame in range(frames))
            elif longest[0] < length and (size, begin, stop, capture) == longest:
                if capture.samples < length:
                    raise ValueError("its capture is shorter than a frame")
                first = min(max((begin + stop - length) // 2, capture.begin), capture.begin + capture.samples - length)
                left, right = (min(parameters.frame_samples, round((at - first) * ratio)) for at in (begin, stop))
                yield _stretch(info, capture, first, length), 0, Box(left, right, *band)


def _stretch(
    info: recording.RecordingInfo, capture: recording.Capture, begin: int, samples: int
) -> recording.RecordingInfo:
    """A part of a capture, as a recording of its own."""
    offset = capture.offset + (begin - capture.begin) * info.width
    return replace(info, captures=(replace(capture, begin=begin, samples=samples, offset=offset),))


def _band(annotation: sigmf.Annotation, center: float | None, rate: float) -> tuple[float | None, float | None]:
    """The band relative to the centre frequency, within the frequencies of the frame; None and None for all of them.

    Raises:
        ValueError: it lies outside.
    """
    if annotation.low_hz is None or annotation.high_hz is None:
        return None, None
    low, high = annotation.low_hz - (center or 0.0), annotation.high_hz - (center or 0.0)
    if low >= rate / 2 or high <= -rate / 2:
        raise ValueError("its band lies outside that of the frames: the edges are in Hz, as core:frequency is")
    if low <= -rate / 2 and high >= rate / 2:
        return None, None
    return max(low, -rate / 2), min(high, rate / 2)
