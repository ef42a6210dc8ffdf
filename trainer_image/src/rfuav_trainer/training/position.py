"""The position of a training between two steps, and the order of its samples.

In: seed and epoch. Out: the part of a checkpoint that is not the network.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Position:
    """The position of a training. The checkpoint stores it with weights, optimizer and random state.

    Attributes:
        epoch: epochs completed.
        step: steps taken in the current epoch.
        totals: float64 (summed loss, correct predictions, samples) of the current epoch.
        history: metrics of each completed epoch.
        best: the epoch with the best validation accuracy (on a tie, the lower loss).
        watched: best value so far of the metric of early stopping; higher is better.
        stale: epochs since its last improvement.
        seconds: running time of all attempts so far.
    """

    epoch: int = 0
    step: int = 0
    totals: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] | None = None
    watched: float | None = None
    stale: int = 0
    seconds: float = 0.0


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of the samples in an epoch: a permutation that depends on seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator).tolist()
