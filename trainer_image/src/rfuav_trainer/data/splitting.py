"""Splits samples into training and validation, stratified by class and SNR; recordings stay whole.

In: samples with their recordings. Out: those of each side. A class of a single recording is split in blocks of time.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_trainer.data import recordings
from rfuav_trainer.data.labels import without_conditions
from rfuav_trainer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rfuav_trainer.data.samples import Sample

log = structlog.get_logger()

RULES = 2
"""Version of the rules by which recordings are recognised and split. A checkpoint of other rules is not resumed: its
training may have seen what is validation data now."""
GAP = 0.02
"""Part of a recording that is left out on each side of a validation block, because neighbours may overlap."""
FAR_OFF = 2
"""A class whose validation data is more or less than wanted by this factor is warned of."""


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
    A class of a single recording gives a block of its time, with a gap before and after it that is on neither side.

    Raises:
        InputError: a class has a single picture or frame, or no recording of its own in one part.
    """
    labels: dict[str, set[int]] = {}
    for sample in samples:
        labels.setdefault(sample.group, set()).add(sample.label)
    validation: set[str] = set()
    blocks: dict[str, dict[tuple[str, int | None], str]] = {}
    for label, name in enumerate(classes):
        sizes: dict[str, int] = {}
        levels: dict[str, float] = {}
        own = [sample for sample in samples if sample.label == label]
        for sample in own:
            sizes[sample.group] = sizes.get(sample.group, 0) + 1
            levels.setdefault(sample.group, float("-inf") if sample.snr is None else sample.snr)
        if len(sizes) < 2:  # noqa: PLR2004  (one for each part)
            sides = _in_time(own, fraction, seed) if len(sizes) == 1 and labels[own[0].group] == {label} else {}
            if not sides:
                raise InputError(
                    f"{where} needs two recordings or images of every class, {name} has {len(sizes)}: "
                    "add recordings, separate them (a folder for each, or the column recording of a manifest), or "
                    "write a dataset.validation.uri",
                )
            blocks[own[0].group] = sides
            log.warning(
                "a class has a single recording, so a block of its time is the validation data; a recording of another "
                "day says more: add one, or name the recordings with folders or dataset.recordingPattern",
                **{"class": name, "recording": own[0].group},
            )
            continue
        drawn = {group: hashlib.sha256(os.fsencode(f"{seed}/{group}")).digest() for group in sizes}
        order = sorted(sizes, key=lambda group: (levels[group], drawn[group]))
        chosen = _share(order, sizes, fraction, drawn, validation)
        validation |= chosen
        taken, all_of_it = sum(sizes[group] for group in chosen), sum(sizes.values())
        if not fraction / FAR_OFF <= taken / all_of_it <= fraction * FAR_OFF and len(own) > len(sizes):
            log.warning(
                "recordings stay whole, so the validation data of a class is far from the fraction",
                **{"class": name, "validation": taken, "samples": all_of_it, "recordings": len(sizes)},
            )
    train = [s for s in samples if s.group not in validation and s.group not in blocks]
    kept = [s for s in samples if s.group in validation]
    for part, side in ((train, "training"), (kept, "validation")):
        part.extend(
            replace(s, group=f"{s.group} ({side} block)", recognised_by=recordings.TIME)
            for s in samples
            if s.group in blocks and blocks[s.group].get((s.name, s.frame)) == side
        )
        without = sorted(set(range(len(classes))) - {s.label for s in part})
        if without:
            raise InputError(
                f"{where} leaves {classes[without[0]]} without {side} data, because its recordings also contain other "
                "classes: write a folder or manifest in dataset.validation.uri",
            )
    return train, kept


def _share(
    order: Sequence[str], sizes: dict[str, int], fraction: float, drawn: dict[str, bytes], others: set[str]
) -> set[str]:
    """About `fraction` of the recordings, evenly over `order`: at least one, and not all.

    Those of `others`, which other classes have chosen already, are among them.
    """
    taken = others & sizes.keys()
    owed = sum((fraction - 1) * sizes[group] for group in taken)
    for group in order:
        if group in taken:
            continue
        owed += fraction * sizes[group]
        if owed >= sizes[group] / 2:
            taken.add(group)
            owed -= sizes[group]
    if not taken:
        taken.add(min(order, key=lambda group: (sizes[group], drawn[group])))
    free = [group for group in order if group not in others]
    if len(taken) == len(order) and free:
        taken.remove(max(free, key=lambda group: (sizes[group], drawn[group])))
    return taken


def _in_time(samples: Sequence[Sample], fraction: float, seed: int) -> dict[tuple[str, int | None], str]:
    """The side (training or validation) of the samples of one recording, by name and frame; those in a gap have none.

    What was recorded at one time stays together: a file where there are several, else a frame. One block in time of
    each SNR is for validation, all at the same place in the recording.

    Returns:
        Nothing if the recording has only one moment.
    """
    several = len({sample.name for sample in samples}) > 1
    when = _moments(samples)
    moments: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        moments.setdefault((*_time_of(sample.name), None if several else when(sample)), []).append(sample)
    order = [moments[key] for key in sorted(moments, key=_sortable)]
    if len(order) < 2:  # noqa: PLR2004  (one for each part)
        return {}
    strata: dict[tuple[float, ...], list[int]] = {}
    for place, moment in enumerate(order):
        levels = tuple(sorted({float("-inf") if sample.snr is None else sample.snr for sample in moment}))
        strata.setdefault(levels, []).append(place)
    parts = [*strata.values()] if all(len(part) > 1 for part in strata.values()) else [[*range(len(order))]]
    drawn = int.from_bytes(hashlib.sha256(os.fsencode(f"{seed}/{samples[0].group}")).digest()[:8]) / 2**64
    chosen: set[int] = set()
    for part in parts:
        count = min(max(1, round(fraction * len(part))), len(part) - 1)
        begin = int(drawn * (len(part) - count + 1))
        chosen.update(part[begin : begin + count])
    for gap in (max(1, math.ceil(GAP * len(order))), 0):
        near = {place + step for place in chosen for step in range(-gap, gap + 1)}
        if all(not near.issuperset(part) for part in parts) and (not gap or len(order) > 2 * len(near - chosen)):
            break
    return {
        (sample.name, sample.frame): "validation" if place in chosen else "training"
        for place, moment in enumerate(order)
        if place in chosen or place not in near
        for sample in moment
    }


def _moments(samples: Sequence[Sample]) -> Callable[[Sample], int | None]:
    """The number of the moment of a frame: annotations that overlap are of one moment."""
    found: dict[int | None, int | None] = {}
    end, number = 0, -1
    for sample in samples:  # in the order of time
        if sample.at is None or sample.info is None:
            found[sample.frame] = sample.frame
            continue
        (stretch,) = sample.info.captures
        if number < 0 or stretch.begin >= end:
            number += 1
        end = max(end, stretch.begin + stretch.samples)
        found[sample.frame] = number
    return lambda sample: found[sample.frame]


def _time_of(name: str) -> tuple[str, ...]:
    """What orders the files of a recording in time: the parts of the path without conditions, numbers by value."""
    *parents, file = name.split("/")
    parts = [without_conditions(part) for part in (*parents[1:], file.rpartition(".")[0] or file)]
    return tuple(piece for piece in re.split(r"(\d+)", "/".join(filter(None, parts)).casefold()) if piece)


def _sortable(key: tuple[object, ...]) -> tuple[tuple[int, int, str], ...]:
    return tuple(
        (0, int(piece), "")
        if isinstance(piece, int) or (isinstance(piece, str) and piece.isdecimal())
        else (1, 0, str(piece))
        for piece in key
    )


def table(train: Iterable[Sample], validation: Iterable[Sample], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each class: how many recordings are on each side, and how many were recognised by what."""
    sides: dict[str, dict[int, dict[str, str]]] = {
        "train": {label: {} for label in range(len(classes))},
        "validation": {label: {} for label in range(len(classes))},
    }
    for side, samples in (("train", train), ("validation", validation)):
        for sample in samples:
            sides[side][sample.label][sample.group] = sample.recognised_by
    return {
        name: {
            **{side: len(found[label]) for side, found in sides.items()},
            "recognisedBy": dict(sorted(Counter(v for found in sides.values() for v in found[label].values()).items())),
        }
        for label, name in enumerate(classes)
    }


def doubtful(samples: Iterable[Sample], classes: Sequence[str]) -> Mapping[str, int]:
    """By class, how many pictures count as a recording each because their names do not say what they were cut from."""
    found = Counter(
        sample.label for sample in samples if sample.frame is None and sample.recognised_by in recordings.ALONE
    )
    return {classes[label]: found[label] for label in sorted(found)}
