"""The data set of a TrainingJob: training and validation samples, classes, and preprocessing.

In: spec.dataset. Out: a `Dataset`, or an error that says what is missing where.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_crds import Iq, TrainingJobSpec, reasons
from rfuav_trainer.data import manifest, recordings
from rfuav_trainer.data.annotations import list_annotated
from rfuav_trainer.data.files import SUFFIXES, chosen, find_classes, listed, of_kind
from rfuav_trainer.data.samples import (
    IMAGENET,
    SPECTROGRAM,
    Listing,
    Preprocessing,
    Sample,
    list_labelled,
    usual_rate,
)
from rfuav_trainer.data.splitting import doubtful, split, table
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.signals.spectrogram import SpectrogramParameters
from rfuav_trainer.storage import outputs
from rfuav_trainer.storage.contents import Contents
from rfuav_trainer.storage.paths import local_path

if TYPE_CHECKING:
    from pathlib import Path

    from rfuav_crds.training import Dataset as DatasetSpec
    from rfuav_trainer.data.batches import Batch
    from rfuav_trainer.job import Job

log = structlog.get_logger()

SHOWN = 3
"""How many files an error names, and how many dead ones the log."""


@dataclass
class Unreadable:
    """Unreadable files (or pictures) and frames of recordings, with the reasons.

    `dead` has those that hold nothing; no threshold counts them.
    """

    files: dict[str, str] = field(default_factory=dict)
    frames: dict[str, str] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, frame: int | None, reason: str, *, dead: bool = False) -> bool:
        """Add one; whether it is new."""
        noted, key = (self.files, name) if frame is None else (self.frames, f"{name}, frame {frame}")
        noted = self.dead if dead else noted
        new = key not in noted
        noted.setdefault(key, reason)
        return new

    def merge(self, other: Unreadable) -> None:
        """Add those of another process."""
        self.files.update(other.files)
        self.frames.update(other.frames)
        self.dead.update(other.dead)

    def __len__(self) -> int:
        return len(self.files) + len(self.frames)

    def all(self) -> dict[str, str]:
        """Files and frames, by name."""
        return {**self.files, **self.frames}

    def check(self, threshold: float, *, files: int, frames: int) -> None:
        """Raise InputError (TooManyUnreadable) if more than `threshold` of all files or frames are unreadable."""
        for found, total, what in ((self.files, files, "files"), (self.frames, frames, "frames")):
            if len(found) > threshold * total:
                shown = "; ".join(f"{name}: {reason}" for name, reason in list(found.items())[:SHOWN])
                raise InputError(
                    f"{len(found)} of {total} {what} cannot be read, more than {threshold:.0%}: {shown}"
                    + ("; ..." if len(found) > SHOWN else ""),
                    reason=reasons.TOO_MANY_UNREADABLE,
                )


@dataclass
class Dataset:
    """Training and validation data; `unreadable` grows when corrupt files are found."""

    train: list[Sample]
    validation: list[Sample]
    classes: list[str]
    preprocessing: Preprocessing
    unreadable: Unreadable
    files: int
    error_threshold: float
    read_from: dict[str, dict[str, Path]] = field(default_factory=dict)
    """The files of each field of the job, by relative name."""
    contents: Contents = field(default_factory=Contents)
    """What is known of them."""
    packs: Counter[str] = field(default_factory=Counter)
    """How many packs there are, and what is wrong with them (`pack_checks`)."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Annotations that give no sample, by the reason."""

    def pass_over(self, batch: Batch, folder: str = "") -> None:
        """Record the unreadable and the dead samples of a batch; `folder` is prepended to their names.

        Raises:
            InputError: they exceed the error threshold.
        """
        before = len(self.unreadable)
        for sample, reason in batch.dead:
            new = self.unreadable.add(folder + sample.name, sample.frame, reason, dead=True)
            if new and len(self.unreadable.dead) <= SHOWN:
                log.warning("leaving out what holds nothing", file=folder + sample.name, frame=sample.frame, why=reason)
        for sample, reason in batch.unreadable:
            if self.unreadable.add(folder + sample.name, sample.frame, reason):
                log.warning("skipping unreadable file", file=folder + sample.name, problem=reason)
        if len(self.unreadable) > before:
            self.check()

    def check(self) -> None:
        """Raise InputError if the unreadable samples exceed the error threshold."""
        self.unreadable.check(self.error_threshold, files=self.files, frames=self._frames)

    @cached_property
    def recordings(self) -> dict[str, dict[str, Any]]:
        """For each class: recordings on each side, and how they were recognised."""
        return table(self.train, self.validation, self.classes)

    @cached_property
    def _frames(self) -> int:
        """Number of frames of all recordings."""
        return sum(sample.frame is not None for part in (self.train, self.validation) for sample in part)


def spectrogram_parameters(iq: Iq, otherwise: float | None = None) -> SpectrogramParameters:
    """The parameters of `iq` as plain numbers; `otherwise` is the sample rate if it has none, by default 100 MHz.

    Raises:
        InvalidConfigurationError: at that rate a frame is shorter than a transform.
    """
    rate = otherwise if iq.sample_rate is None and otherwise is not None else iq.rate
    found = SpectrogramParameters(
        sample_rate=rate,
        frame_seconds=iq.frame_seconds,
        fft_size=iq.fft_size,
        hop_size=iq.hop_size,
        window=iq.window,
        sample_format=iq.sample_format,
        dynamic_range=iq.dynamic_range,
        color_map=iq.color_map,
        channel=iq.channel,
        channels=iq.channels,
    )
    if found.frame_samples < found.fft_size:
        raise InvalidConfigurationError(
            f"iq.frameSeconds: {iq.frame_seconds:g} s at the {rate:.12g} samples/s of the recordings are "
            f"{found.frame_samples} samples, fftSize is {found.fft_size}: raise frameSeconds or lower fftSize"
        )
    return found


def as_written(parameters: SpectrogramParameters) -> dict[str, Any]:
    """The parameters in the form of the field `iq` of a job."""
    found = {str(field.alias): getattr(parameters, name) for name, field in Iq.model_fields.items()}
    rate = parameters.sample_rate
    return {**found, "sampleRate": int(rate) if rate.is_integer() else rate}


def differences(weights: SpectrogramParameters, job: SpectrogramParameters) -> list[str]:
    """The differences that affect the picture of a frame, in words. Sample format and channels do not."""
    theirs, ours = as_written(weights), as_written(job)
    return [
        f"{name} {value} in the weights, {ours[name]} in the job"
        for name, value in theirs.items()
        if name not in {"sampleFormat", "channel", "channels"} and value != ours[name]
    ]


class _Source:
    """The folder or manifest of a data set; `where` is the name of its field.

    Attributes:
        where, path: the field, and the local path.
        left_out: annotations that give no sample, by the reason.
    """

    def __init__(self, job: Job, uri: str, where: str) -> None:
        self.where, self.left_out = where, Counter[str]()
        self.path = local_path(job, uri, where)
        self.rows = manifest.read(self.path, where=where) if manifest.is_manifest(self.path) else None

    def classes(self) -> list[str]:
        if self.rows is None:
            return find_classes(self.path, where=self.where)
        return manifest.classes(self.rows, where=self.where)

    def kind(self, wanted: str, sample_format: str) -> str:
        if self.rows is None:
            return chosen(self._found, self.path, kind=wanted, where=self.where, sample_format=sample_format)[1]
        return manifest.kind_of(self.rows, wanted, where=self.where)

    def samples(
        self, classes: list[str], kind: str, spectrogram: SpectrogramParameters | None, pattern: str | None
    ) -> Listing:
        if self.rows is None:
            return list_labelled(
                self.path, classes, kind, spectrogram, where=self.where, pattern=pattern, found=self._found
            )
        return manifest.list_rows(self.path, self.rows, classes, kind, spectrogram, where=self.where, pattern=pattern)

    def usual_rate(self, sample_format: str) -> float | None:
        """The sample rate that most of the recordings state, in Hz; None if none states one."""
        if self.rows is None:
            return usual_rate(of_kind(self._found, "iq", sample_format), sample_format)
        paths = (self.path.parent / row.path for row in self.rows if manifest.suffix(row) in SUFFIXES["iq"])
        return usual_rate(paths, sample_format)

    @cached_property
    def _found(self) -> list[Path]:
        """All files of the folder."""
        return listed(self.path, where=self.where)

    def files(self, listing: Listing) -> dict[str, Path]:
        """All files by relative name, unreadable ones and the manifest too."""
        root = self.path if self.rows is None else self.path.parent
        found = {name: root / name for name in listing.unreadable} | {s.name: s.path for s in listing.samples}
        return found if self.rows is None else {self.path.name: self.path, **found}


class _Annotations(_Source):
    """The folder of a data set whose classes are those of SigMF annotations. Its frames are those of `spectrogram`."""

    def __init__(
        self, job: Job, uri: str, where: str, data: DatasetSpec, spectrogram: SpectrogramParameters | None
    ) -> None:
        super().__init__(job, uri, where)
        if self.rows is not None:
            raise InvalidConfigurationError(
                f"{where}: {uri} is a manifest, which states labels itself: with dataset.labels: annotations write the "
                "folder of the recordings"
            )
        found = list_annotated(
            self.path,
            spectrogram or _spectrogram(data.iq, self),
            where=where,
            pattern=data.recording_pattern,
            found=self._found,
        )
        self._listing, self._classes, self.left_out = found.listing, found.classes, found.left_out
        if self.left_out:
            log.warning("leaving out annotations", field=where, why=dict(self.left_out.most_common()))

    def classes(self) -> list[str]:
        return self._classes

    def kind(self, wanted: str, sample_format: str) -> str:
        del wanted, sample_format
        return "iq"

    def samples(
        self, classes: list[str], kind: str, spectrogram: SpectrogramParameters | None, pattern: str | None
    ) -> Listing:
        del classes, kind, spectrogram, pattern
        return self._listing


def _source(
    job: Job, spec: TrainingJobSpec, uri: str, where: str, spectrogram: SpectrogramParameters | None = None
) -> _Source:
    if spec.dataset.labels == "annotations":
        return _Annotations(job, uri, where, spec.dataset, spectrogram)
    return _Source(job, uri, where)


def open_dataset(job: Job, spec: TrainingJobSpec) -> Dataset:
    """Find the samples of spec.dataset.

    Raises:
        InputError: folders, manifests or files are missing, or too many cannot be read.
        InvalidConfigurationError: the classes do not match the job, its output is inside its data, or its validation
            data contains training data.
    """
    outputs.check_apart(job, spec.dataset.train.uri, "dataset.train.uri")
    if spec.dataset.validation.uri is not None:
        outputs.check_apart(job, spec.dataset.validation.uri, "dataset.validation.uri")
    source = _source(job, spec, spec.dataset.train.uri, "dataset.train.uri")
    classes = source.classes()
    if spec.model.num_classes not in (None, len(classes)):
        raise InvalidConfigurationError(
            f"model.numClasses is {spec.model.num_classes}, but {source.path} has {len(classes)} classes "
            f"({', '.join(classes[:10])}{', ...' if classes[10:] else ''}): "
            "correct the number, leave it out, or correct the data",
            reason=reasons.CLASS_MISMATCH,
        )
    kind = source.kind(spec.dataset.format, spec.dataset.iq.sample_format)
    spectrogram = _spectrogram(spec.dataset.iq, source) if kind == "iq" else None
    mean, std = SPECTROGRAM if kind == "iq" else IMAGENET
    preprocessing = Preprocessing(kind, spec.dataset.image_size, mean, std, spectrogram)
    pattern = spec.dataset.recording_pattern
    train, contents = source.samples(classes, kind, spectrogram, pattern), Contents()
    read_from, packs, left_out = {source.where: source.files(train)}, train.packs, source.left_out
    if spec.dataset.validation.uri is not None:
        other = _source(job, spec, spec.dataset.validation.uri, "dataset.validation.uri", spectrogram)
        left_out += other.left_out
        _same_classes(source, classes, other, other.classes())
        theirs = other.samples(classes, kind, spectrogram, pattern)
        _check_apart(source, train.samples, other, theirs.samples, contents)
        parts, files = (train.samples, theirs.samples), train.files + theirs.files
        read_from[other.where] = other.files(theirs)
        packs = packs + theirs.packs
        unreadable = {**train.unreadable, **{f"validation/{k}": v for k, v in theirs.unreadable.items()}}
    else:
        alone = doubtful(train.samples, classes)
        if alone:
            log.warning(
                "each picture counts as a recording, because its name does not say what it is cut from; if several are "
                "of one recording, the validation looks better than it is: write a folder for each recording, or "
                "dataset.recordingPattern",
                pictures=alone,
            )
        parts = split(train.samples, classes, spec.dataset.validation.fraction or 0.0, spec.training.seed)
        parts = (parts[0], _without_copies(*parts, classes, contents))
        files, unreadable = train.files, train.unreadable
    for name, reason in unreadable.items():
        log.warning("skipping unreadable file", file=name, problem=reason)
    dataset = Dataset(
        *parts,
        classes,
        preprocessing,
        Unreadable(unreadable),
        files,
        spec.dataset.error_threshold,
        read_from,
        contents,
        packs,
        left_out=left_out,
    )
    dataset.check()
    log.info("recordings", classes=dataset.recordings)  # in a field of its own: a class may be called event
    return dataset


def _spectrogram(iq: Iq, source: _Source) -> SpectrogramParameters:
    """The parameters of a job, with the usual sample rate of its training data if it states none."""
    if iq.sample_rate is not None:
        return spectrogram_parameters(iq)
    found = spectrogram_parameters(iq, source.usual_rate(iq.sample_format))
    log.info("iq.sampleRate is not stated: taking that of most recordings, or 100M", sampleRate=found.sample_rate)
    return found


def _check_apart(
    source: _Source, train: list[Sample], other: _Source, validation: list[Sample], contents: Contents
) -> None:
    """Check that no file of the validation data is training data too; warn if they have recordings of the same name.

    Raises:
        InvalidConfigurationError: they share files.
    """
    own, theirs = {s.path: s for s in train}, {s.path: s for s in validation}
    shared = contents.pairs([*theirs], [*own])
    if shared:
        shown = ", ".join(
            f"{other.path.name}/{theirs[there].name} is {source.path.name}/{own[here].name}"
            for there, here in shared[:SHOWN]
        )
        raise InvalidConfigurationError(
            f"{other.where}: {len(shared)} of its {len(theirs)} files are also in {source.where} ({shown}"
            f"{', ...' if len(shared) > SHOWN else ''}), so the validation would repeat what was learned: remove them "
            "from one of the two, or write validation: {fraction: 0.2} instead"
        )
    named = [{s.group for s in part if s.recognised_by not in recordings.ALONE} for part in (train, validation)]
    both = sorted(named[0] & named[1])
    if both:
        log.warning(
            "training and validation data contain recordings of the same names; if they are the same recordings, the "
            "validation looks better than it is: move each to one side, or write validation: {fraction: 0.2}",
            recordings=both[:SHOWN],
            count=len(both),
        )


def _without_copies(
    train: list[Sample], validation: list[Sample], classes: list[str], contents: Contents
) -> list[Sample]:
    """The validation samples whose files are not copies of training files.

    Raises:
        InputError: a class has none.
    """
    own = dict.fromkeys(sample.path for sample in train)
    found = dict(contents.pairs([path for path in {s.path: None for s in validation} if path not in own], [*own]))
    if not found:
        return validation
    kept = [sample for sample in validation if sample.path not in found]
    here, there = next(iter(found.items()))
    log.warning(
        "some files are copies of others; those in the validation data are left out",
        count=len(found),
        example=f"{here} is {there}",
    )
    without = sorted(set(range(len(classes))) - {sample.label for sample in kept})
    if without:
        raise InputError(
            f"dataset.train.uri: all validation data of {classes[without[0]]} are copies of training files (as {here} "
            f"is of {there}): remove the copies, or write a dataset.validation.uri"
        )
    return kept


def _same_classes(source: _Source, classes: list[str], other: _Source, theirs: list[str]) -> None:
    if theirs == classes:
        return
    missing, extra = sorted(set(classes) - set(theirs)), sorted(set(theirs) - set(classes))
    raise InvalidConfigurationError(
        f"the classes of {other.path} differ from those of {source.path}: missing {', '.join(missing) or 'none'}, "
        f"unknown {', '.join(extra) or 'none'}",
        reason=reasons.CLASS_MISMATCH,
    )
