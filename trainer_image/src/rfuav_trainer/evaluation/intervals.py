"""How far an accuracy may be off, given the recordings that it was measured on.

In: for each recording, how many of its frames were right. Out: 95 % intervals. Frames of one recording resemble each
other, so a thousand frames of three recordings say little more than three: the bootstrap draws whole recordings.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

DRAWS = 2000
OUTSIDE = 0.025
"""Of the draws, on either side of the interval."""
TOGETHER = 4_000_000
"""Numbers drawn at once."""
SEED = 0


class Clusters:
    """Right and wrong predictions by recording."""

    def __init__(self) -> None:
        self._right: dict[str, int] = defaultdict(int)
        self._total: dict[str, int] = defaultdict(int)
        self._alone = [0, 0]  # wrong and right ones that are recordings of their own

    def add(self, recordings: Iterable[str | None], right: Iterable[bool]) -> None:
        """Count predictions, each of a recording; None: of one that no other prediction belongs to."""
        for name, one in zip(recordings, right, strict=True):
            if name is None:
                self._alone[one] += 1
            else:
                self._right[name] += one
                self._total[name] += 1

    def interval(self) -> list[float] | None:
        """The 95 % interval of the accuracy; None of fewer than two recordings, which say nothing of others."""
        names, (wrong, right) = list(self._total), self._alone
        return interval(
            [0] * wrong + [1] * right + [self._right[name] for name in names],
            [1] * (wrong + right) + [self._total[name] for name in names],
        )


def interval(right: list[int], total: list[int]) -> list[float] | None:
    """The 95 % interval of sum(right) / sum(total), by a bootstrap over recordings with a fixed seed.

    If all recordings are entirely right, or entirely wrong, the bootstrap has no spread: then the exact interval of
    that many independent outcomes is taken (for three of three: 0.29 to 1).

    Args:
        right: of each recording, how many frames were right.
        total: how many it has, at least 1.
    """
    count = len(total)
    if count < 2:  # noqa: PLR2004  (one recording has no spread)
        return None
    least = OUTSIDE ** (1 / count)
    if right == total or not any(right):
        return [round(least, 6), 1.0] if any(right) else [0.0, round(1 - least, 6)]
    # Recordings with the same numbers are drawn together: a bootstrap of a million pictures is one of two kinds.
    kinds, each = np.unique(np.stack([right, total], axis=1), axis=0, return_counts=True)
    random = np.random.default_rng(SEED)
    sums = [
        random.multinomial(count, each / count, size=some) @ kinds
        for some in _parts(DRAWS, max(1, TOGETHER // len(kinds)))
    ]
    drawn = np.concatenate(sums)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [OUTSIDE, 1 - OUTSIDE])
    return [round(float(low), 6), round(float(high), 6)]


def _parts(whole: int, most: int) -> list[int]:
    return [min(most, whole - start) for start in range(0, whole, most)]
