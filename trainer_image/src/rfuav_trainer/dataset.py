"""The data of a TrainingJob: training and validation samples, their classes, and how they become pictures.

In: spec.dataset. Out: a `Dataset`, or an error that says what is missing where.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from rfuav_crds import Iq, TrainingJobSpec, parse_quantity
from rfuav_trainer import data
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.spectrogram import SpectrogramParameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rfuav_trainer.config import Job

log = structlog.get_logger()

ERROR_THRESHOLD = 0.05
"""Share of unreadable files above which a training fails."""
SHOWN = 3
"""How many of them an error names."""


@dataclass
class Dataset:
    """What a training learns from and is measured on; `unreadable` grows while files turn out to be corrupt."""

    train: list[data.Sample]
    validation: list[data.Sample]
    classes: list[str]
    preprocessing: data.Preprocessing
    unreadable: dict[str, str]
    files: int

    def pass_over(self, found: Mapping[str, str]) -> None:
        """Take note of unreadable files.

        Raises:
            InputError: they are more than the threshold's share of all files.
        """
        for name, reason in found.items():
            if name not in self.unreadable:
                self.unreadable[name] = reason
                log.warning("unreadable file passed over", file=name, problem=reason)
        check_share(self.unreadable, self.files, ERROR_THRESHOLD)


def check_share(unreadable: Mapping[str, str], files: int, threshold: float) -> None:
    """Raise InputError (TooManyUnreadable) when more than `threshold` of all files cannot be read."""
    if len(unreadable) <= threshold * files:
        return
    shown = "; ".join(f"{name}: {reason}" for name, reason in list(unreadable.items())[:SHOWN])
    raise InputError(
        f"{len(unreadable)} of {files} files cannot be read, more than {threshold:.0%}: {shown}"
        + ("; ..." if len(unreadable) > SHOWN else ""),
        reason="TooManyUnreadable",
    )


def spectrogram_parameters(iq: Iq) -> SpectrogramParameters:
    """The parameters of `iq` as plain numbers."""
    return SpectrogramParameters(
        sample_rate=float(parse_quantity(iq.sample_rate)),
        frame_seconds=iq.frame_seconds,
        fft_size=iq.fft_size,
        hop_size=iq.hop_size,
        window=iq.window,
        sample_format=iq.sample_format,
        dynamic_range=iq.dynamic_range,
        color_map=iq.color_map,
    )


def open_dataset(job: Job, spec: TrainingJobSpec) -> Dataset:
    """Find the samples of spec.dataset.

    Raises:
        InputError: folders or files are missing, or too many cannot be read.
        InvalidConfigurationError: the classes are not what the job says.
    """
    where = "dataset.train.uri"
    root = job.path(spec.dataset.train.uri, where)
    classes = data.find_classes(root, where=where)
    if spec.model.num_classes not in (None, len(classes)):
        raise InvalidConfigurationError(
            f"model.numClasses is {spec.model.num_classes}, but {root} holds {len(classes)} class folders "
            f"({', '.join(classes[:10])}{', ...' if classes[10:] else ''}): "
            "correct the number, leave it out, or correct the folders",
            reason="ClassMismatch",
        )
    _, kind = data.find_files(root, kind=spec.dataset.format, where=where)
    spectrogram = spectrogram_parameters(spec.dataset.iq) if kind == "iq" else None
    mean, std = data.SPECTROGRAM if kind == "iq" else data.IMAGENET
    preprocessing = data.Preprocessing(kind, spec.dataset.image_size, mean, std, spectrogram)
    train = data.list_labelled(root, classes, kind, spectrogram, where=where)
    if spec.dataset.validation.uri is not None:
        where = "dataset.validation.uri"
        other = job.path(spec.dataset.validation.uri, where)
        theirs = data.find_classes(other, where=where)
        if theirs != classes:
            missing, extra = sorted(set(classes) - set(theirs)), sorted(set(theirs) - set(classes))
            raise InvalidConfigurationError(
                f"the class folders of {other} differ from those of {root}: missing {', '.join(missing) or 'none'}, "
                f"unknown {', '.join(extra) or 'none'}",
                reason="ClassMismatch",
            )
        validation = data.list_labelled(other, classes, kind, spectrogram, where=where)
        unreadable = {**train.unreadable, **{f"validation/{k}": v for k, v in validation.unreadable.items()}}
        dataset = Dataset(train.samples, validation.samples, classes, preprocessing, {}, train.files + validation.files)
    else:
        fraction = spec.dataset.validation.fraction or 0.0
        parts = data.split(train.samples, classes, fraction, spec.training.seed)
        unreadable = train.unreadable
        dataset = Dataset(*parts, classes, preprocessing, {}, train.files)
    dataset.pass_over(unreadable)
    return dataset
