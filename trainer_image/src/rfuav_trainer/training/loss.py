"""The loss: cross entropy with label smoothing, class weights and mixup.

In: scores and labels of a batch. Out: a sum over the batch, so that batches and processes add up to one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Mixed:
    """A batch whose pictures were mixed with other pictures of the batch.

    Attributes:
        pictures: share * picture + (1 - share) * other.
        others: the labels of the others, shape (n,).
        share: weight of the original picture.
    """

    pictures: Tensor
    others: Tensor
    share: float


def mix(pictures: Tensor, labels: Tensor, alpha: float, random: np.random.Generator) -> Mixed:
    """Mixup (Zhang et al. 2018, arXiv 1710.09412): one share for the batch, drawn from Beta(alpha, alpha)."""
    share = float(random.beta(alpha, alpha))
    order = torch.from_numpy(random.permutation(len(labels))).to(labels.device)
    return Mixed(share * pictures + (1 - share) * pictures[order], labels[order], share)


def balanced_weights(labels: Sequence[int], classes: int) -> Tensor:
    """Weights n / (classes * n_c), scikit-learn's "balanced": their mean over the samples is 1. Float32 (classes,).

    A class without samples has weight 0.
    """
    counts = torch.bincount(torch.tensor(labels, dtype=torch.int64), minlength=classes).double()
    return torch.where(counts > 0, len(labels) / (classes * counts.clamp_min(1)), 0.0).float()


def cross_entropy(
    scores: Tensor, labels: Tensor, *, weights: Tensor | None, smoothing: float, mixed: Mixed | None
) -> Tensor:
    """The loss summed over the batch.

    Args:
        scores: float32, shape (n, classes).
        labels: int64, shape (n,).
        weights: of the classes. An epoch's mean divides by the number of samples, not by the sum of weights.
        smoothing: share of each label spread over all classes (Szegedy et al. 2016, arXiv 1512.00567).
        mixed: the labels that were mixed in.
    """

    def against(wanted: Tensor) -> Tensor:
        return functional.cross_entropy(scores, wanted, weights, reduction="sum", label_smoothing=smoothing)

    if mixed is None:
        return against(labels)
    return mixed.share * against(labels) + (1 - mixed.share) * against(mixed.others)


def correct(scores: Tensor, labels: Tensor, mixed: Mixed | None) -> Tensor:
    """Number of correct predictions; a mixed sample counts for both labels in proportion to its share."""
    guesses = scores.argmax(dim=1)
    right = (guesses == labels).sum().double()
    if mixed is None:
        return right
    return mixed.share * right + (1 - mixed.share) * (guesses == mixed.others).sum()
