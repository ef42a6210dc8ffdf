"""Recordings at another sample rate: polyphase filters for rational ratios.

In: the samples of a recording, by position, and the ratio of two rates. Out: any stretch of the recording at the other
rate. A sample of the result depends on the samples around its time alone, and is computed in the same way whatever
else is asked for: frames can be read in any order, and give the same bits.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Floats = np.ndarray[Any, np.dtype[np.float32]]

MOST_TERM = 1000
"""Of the numerator and of the denominator of a ratio in lowest terms: they are the size of the filter."""
SAME = Fraction(1, 1_000_000)
"""Rates whose ratio differs by less are the same: the clock of a receiver is not better."""
PASSED = 0.8
"""Share of the narrower band that passes unchanged; from its edge on everything is attenuated."""
ATTENUATION = 90.0
"""Of what would be an alias or an image, in dB: below the 80 dB that a picture shows by default."""
PRODUCT = 2**18
"""Operations in one product of matrices: up to there BLAS uses one thread."""


class RatioError(ValueError):
    """A ratio of two sample rates has too large terms."""


@lru_cache(maxsize=256)
def ratio(recorded: float, wanted: float) -> Fraction:
    """The ratio of the wanted sample rate to that of a recording, in lowest terms; 1 if they are the same.

    Raises:
        RatioError: a term is larger than MOST_TERM.
    """
    exact = Fraction(wanted) / Fraction(recorded)
    found = exact.limit_denominator(MOST_TERM)
    if found.numerator > MOST_TERM or abs(found - exact) > SAME * exact:
        raise RatioError(
            f"{recorded:.12g} samples/s cannot be resampled to {wanted:.12g}: their ratio is not one of whole numbers "
            f"up to {MOST_TERM}"
        )
    return found


def design(up: int, down: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The taps of the low pass at `up` times the recorded rate: float64, odd in number, symmetric, their sum `up`.

    A sinc in a Kaiser window. It passes PASSED of the narrower band, and attenuates what lies beyond its edge by
    ATTENUATION.
    """
    widest = max(up, down)
    transition = (1 - PASSED) * math.pi / widest
    half = math.ceil((ATTENUATION - 7.95) / (2.285 * transition) / 2)
    places = np.arange(-half, half + 1)
    cutoff = (1 + PASSED) / 2 / widest
    taps = np.sinc(cutoff * places) * np.kaiser(2 * half + 1, 0.1102 * (ATTENUATION - 8.7))
    found: np.ndarray[Any, np.dtype[np.float64]] = taps * (up / taps.sum())
    return found


class Resampler:
    """Changes the sample rate by up / down. Results are made in tiles at fixed places, as products of matrices.

    Rows of the recording, `_row` samples each, are multiplied with the taps: a row and its successor give the results
    of one row's time.

    Args:
        up: numerator of the ratio, in lowest terms.
        down: denominator.
    """

    def __init__(self, up: int, down: int) -> None:
        self.up, self.down = up, down
        taps = design(up, down).astype(np.float32)
        half = len(taps) // 2
        self.lead = half // up
        """How many samples before the time of a result, and at most how many after it, the result depends on."""
        hops = max(1, -(-(self.lead + max(0, (half - down) // up + 1)) // down))
        self._row, self._columns = hops * down, hops * up
        self._parts = self._cut(taps, half)
        largest = max(weights.size for *_, weights in self._parts)
        self._rows = max(4, PRODUCT // largest)

    def _cut(self, taps: Floats, half: int) -> list[tuple[int, slice, slice, Floats]]:
        """The taps as matrices: which row (0 or 1), which of its samples, which results, and the weights.

        Results that are near in time share a matrix, so that few of its elements are zero.
        """
        together = max(1, (2 * half + 1) // self.down)
        found = []
        for first in range(0, self._columns, together):
            last = min(self._columns, first + together)
            columns = np.arange(first, last)
            begin = -((half - first * self.down) // self.up) + self.lead
            end = ((last - 1) * self.down + half) // self.up + self.lead + 1
            for row in (0, 1):
                low, high = max(begin, row * self._row), min(end, (row + 1) * self._row)
                if low >= high:
                    continue
                places = columns * self.down - (np.arange(low, high)[:, None] - self.lead) * self.up + half
                weights = np.where((places >= 0) & (places <= 2 * half), taps[np.clip(places, 0, 2 * half)], 0)
                samples = slice(low - row * self._row, high - row * self._row)
                found.append((row, samples, slice(first, last), np.ascontiguousarray(weights, np.float32)))
        return found

    def resample(self, read: Callable[[int, int], Floats], samples: int, begin: int, count: int) -> Floats:
        """A stretch of the recording at the other rate.

        Args:
            read: the samples from one place up to another, float32, (n, 2).
            samples: of the recording; before and after them is silence.
            begin: the first result that is wanted.
            count: how many are.

        Returns:
            float32, shape (count, 2).
        """
        found = np.empty((count, 2), np.float32)
        each = self._rows * self._columns
        for tile in range(begin // each, -(-(begin + count) // each)):
            made = self._tile(read, samples, tile)
            low, high = max(begin, tile * each), min(begin + count, (tile + 1) * each)
            found[low - begin : high - begin] = made[low - tile * each : high - tile * each]
        return found

    def _tile(self, read: Callable[[int, int], Floats], samples: int, tile: int) -> Floats:
        first = tile * self._rows * self._row - self.lead
        length = (self._rows + 1) * self._row
        taken = np.zeros((2, length), np.float32)
        low, high = max(0, first), min(samples, first + length)
        if low < high:
            taken[:, low - first : high - first] = read(low, high).T
        rows = taken.reshape(2, self._rows + 1, self._row)
        made = np.zeros((2, self._rows, self._columns), np.float32)
        for row, places, columns, weights in self._parts:
            made[:, :, columns] += np.matmul(rows[:, row : row + self._rows, places], weights)
        return made.reshape(2, -1).T


def count(samples: int, ratio: Fraction) -> int:
    """How many samples a recording of so many has at `ratio` times its rate."""
    return -(-samples * ratio.numerator // ratio.denominator)


@lru_cache(maxsize=8)
def resampler(found: Fraction) -> Resampler:
    """The resampler for a ratio."""
    return Resampler(found.numerator, found.denominator)
