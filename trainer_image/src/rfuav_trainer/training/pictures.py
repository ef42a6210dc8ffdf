"""Pictures of a training for its report: what the network sees, and its most confident mistakes.

In: samples, and what the network took them for. Out: contact sheets as JPEG.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from rfuav_trainer.data import augment_pictures, augment_signals
from rfuav_trainer.data.batches import batches
from rfuav_trainer.evaluation.sheet import MOST_MISTAKES, mistake, name_of, of_samples, sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from rfuav_crds.training import TrainingLoop
    from rfuav_trainer.data.dataset import Dataset
    from rfuav_trainer.data.samples import Reader, Sample

MOST_SEEN = 30


@dataclass(frozen=True, order=True)
class Mistake:
    """A sample that the network took for the class `predicted`, with this score."""

    score: float
    name: str
    frame: int
    sample: Sample
    predicted: int


def worst(known: Sequence[Mistake], samples: Sequence[Sample], scores: Tensor, labels: Tensor) -> list[Mistake]:
    """The most confident mistakes among the known ones and those of a batch, the worst first.

    Args:
        known: of the batches before.
        samples: of the batch.
        scores: probabilities, (n, classes).
        labels: true classes, (n,).
    """
    best, guesses = scores.max(dim=1)
    new = [
        Mistake(float(best[row]), samples[row].name, samples[row].frame or 0, samples[row], int(guesses[row]))
        for row in (guesses != labels).nonzero().flatten().tolist()
    ]
    return heapq.nlargest(MOST_MISTAKES, [*known, *new])


def of_mistakes(mistakes: Sequence[Mistake], dataset: Dataset, reader: Reader) -> bytes | None:
    """The contact sheet of mistakes; None without any."""
    classes = dataset.classes
    words = {one.sample: mistake(classes[one.predicted], one.score, classes[one.sample.label]) for one in mistakes}
    return of_samples(words, reader)


def of_training(dataset: Dataset, reader: Reader, training: TrainingLoop) -> bytes | None:
    """The contact sheet of training pictures of all classes, augmented as in an epoch."""
    each = max(1, MOST_SEEN // len(dataset.classes))
    chosen: list[Sample] = []
    for label in range(min(len(dataset.classes), MOST_SEEN)):
        own = [sample for sample in dataset.train if sample.label == label]
        chosen += own[:: max(1, len(own) // each)][:each]
    changing = augment_signals.ChangingReader(reader, training.augment, seed=training.seed, epoch=0)
    tiles = []
    for batch in batches([chosen], changing):
        if batch.samples:
            with torch.random.fork_rng():
                seen = augment_pictures.apply(batch.pictures, training.augment, np.random.default_rng(training.seed))
            for sample, picture in zip(batch.samples, seen, strict=True):
                levels = picture.round().clamp(0, 255).to(torch.uint8)  # augmentation gives floats of the same scale
                tiles.append((levels, [dataset.classes[sample.label], name_of(sample)]))
    return sheet(tiles) if tiles else None
