"""Splits samples into training and validation, stratified by class and SNR; recordings stay whole."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from rfuav_trainer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rfuav_trainer.data.samples import Sample


def split(
    samples: Sequence[Sample],
    classes: Sequence[str],
    fraction: float,
    seed: int,
    *,
    where: str = "dataset.validation.fraction",
) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples: about `fraction` of every class for validation, in whole recordings.

    Goes through the recordings of a class from the lowest SNR to the highest (those of equal SNR in an order that
    depends on the seed), and takes one for validation whenever half of its samples are due. So every SNR contributes.

    Raises:
        InputError: a class has a single recording, or no recording of its own in one part.
    """
    validation: set[str] = set()
    for label, name in enumerate(classes):
        sizes: dict[str, int] = {}
        levels: dict[str, float] = {}
        for sample in samples:
            if sample.label == label:
                sizes[sample.group] = sizes.get(sample.group, 0) + 1
                levels.setdefault(sample.group, float("-inf") if sample.snr is None else sample.snr)
        if len(sizes) < 2:  # noqa: PLR2004  (one for each part)
            raise InputError(
                f"{where} needs two recordings or images of every class, {name} has {len(sizes)}: "
                "add recordings, separate them (the pictures in one folder count as one recording, unless the column "
                "recording of a manifest says otherwise), or write a dataset.validation.uri",
            )
        drawn = {group: hashlib.sha256(os.fsencode(f"{seed}/{group}")).digest() for group in sizes}
        validation |= _share(sorted(sizes, key=lambda group: (levels[group], drawn[group])), sizes, fraction, drawn)
    train = [s for s in samples if s.group not in validation]
    kept = [s for s in samples if s.group in validation]
    for side, part in (("training", train), ("validation", kept)):
        without = sorted(set(range(len(classes))) - {s.label for s in part})
        if without:
            raise InputError(
                f"{where} leaves {classes[without[0]]} without {side} data, because its recordings also contain other "
                "classes: write a folder or manifest in dataset.validation.uri",
            )
    return train, kept


def _share(order: Sequence[str], sizes: dict[str, int], fraction: float, drawn: dict[str, bytes]) -> set[str]:
    """About `fraction` of the recordings, evenly over `order`: at least one, and not all."""
    taken: set[str] = set()
    owed = 0.0
    for group in order:
        owed += fraction * sizes[group]
        if owed >= sizes[group] / 2:
            taken.add(group)
            owed -= sizes[group]
    if not taken:
        taken.add(min(order, key=drawn.__getitem__))
    if len(taken) == len(order):
        taken.remove(max(order, key=drawn.__getitem__))
    return taken
