"""Accuracy by signal-to-noise ratio in the validation.

In: which samples were classified correctly. Out: a row for each SNR that the data states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rfuav_trainer.data.samples import Sample
    from rfuav_trainer.evaluation.metrics import Counts


class BySnr:
    """Counts of samples and of correct ones, by SNR in whole dB.

    Args:
        samples: the validation samples of all processes.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._levels = sorted({round(sample.snr) for sample in samples if sample.snr is not None})
        self._rows = {level: row for row, level in enumerate(self._levels)}
        self._table: Counts = np.zeros((len(self._levels), 2), dtype=np.int64)

    @property
    def counts(self) -> tuple[Counts, ...]:
        """All counts. Their sums over several processes are the counts of all samples."""
        return (self._table,) if self._levels else ()

    def add(self, samples: Sequence[Sample], right: Sequence[bool]) -> None:
        """Count samples, and whether each was classified correctly."""
        for sample, good in zip(samples, right, strict=True):
            if sample.snr is not None:
                self._table[self._rows[round(sample.snr)]] += (1, good)

    def rows(self) -> list[tuple[float, int, float]]:
        """SNR in dB, samples and accuracy, in rising order."""
        counted = zip(self._levels, self._table.tolist(), strict=True)
        return [(level, count, right / count) for level, (count, right) in counted if count]
