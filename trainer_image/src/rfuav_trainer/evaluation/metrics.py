"""Streaming metrics: memory does not grow with the number of samples.

In: scores and true classes, batch by batch. Out: plain floats, by the names of `status.metrics` where the API has them.
Undefined values (a class without samples) are omitted, never NaN.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

TOP = (1, 3, 5)
CONFIDENCES = 15
"""Equal bins of the confidence from 0 to 1, as in Guo et al. 2017, arXiv 1706.04599."""
LEVELS, MOST_LEVELS = 2**14, 2**20
"""Bins of the log-odds for the average precision: for each class, and the maximum over all classes."""
REACH = 104.0
"""The bins cover log-odds from -REACH to REACH: down to a score of 1e-45, the smallest float32."""
EVEN = 4.0
"""Up to these log-odds the bins have about the same width; beyond, where scores are sparser, they grow."""

Floats = np.ndarray[Any, np.dtype[np.float64]]
Counts = np.ndarray[Any, np.dtype[np.int64]]


class Tally:
    """The counts from which all metrics are computed.

    Args:
        classes: number of classes, at least 2.

    Attributes:
        confusion: counts, int64, shape (classes, classes): rows are true classes, columns predictions.
        calibration: shape (3, CONFIDENCES): samples, sum of confidences, correct predictions by confidence.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.confusion: Counts = np.zeros((classes, classes), dtype=np.int64)
        self.calibration: Floats = np.zeros((3, CONFIDENCES))
        self._top: Counts = np.zeros(len(TOP), dtype=np.int64)
        self._levels = min(LEVELS, MOST_LEVELS // classes)
        # Untouched pages are not allocated: memory grows with the spread of the scores, up to 16 MB.
        self._all = np.zeros((classes, self._levels), dtype=np.int64)
        self._true = np.zeros((classes, self._levels), dtype=np.int64)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Fraction of correct predictions; requires samples."""
        return float(self.confusion.trace()) / self.samples

    @property
    def counts(self) -> tuple[Floats | Counts, ...]:
        """All counts. Their sums over several tallies are the counts of all samples."""
        return self.confusion, self.calibration, self._top, self._all, self._true

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Count samples.

        Args:
            scores: float, shape (n, classes): probabilities; of logits, take the softmax first.
            labels: int64, shape (n,).
        """
        if labels.numel() == 0:
            return
        order = scores.topk(min(max(TOP), self.classes), dim=1).indices.numpy()
        true, chances = labels.numpy(), scores.double().numpy()
        guesses = order[:, 0]
        np.add.at(self.confusion, (true, guesses), 1)
        found = order == true[:, None]
        self._top += [found[:, :k].sum() for k in TOP]
        confidence = chances[np.arange(len(true)), guesses]
        parts = np.minimum((confidence * CONFIDENCES).astype(np.int64), CONFIDENCES - 1)
        for row, weights in enumerate((np.ones(len(true)), confidence, guesses == true)):
            self.calibration[row] += np.bincount(parts, weights, CONFIDENCES)
        levels = steps(chances, self._levels)
        np.add.at(self._all, (np.arange(self.classes), levels), 1)
        np.add.at(self._true, (true, levels[np.arange(len(true)), true]), 1)

    def metrics(self) -> dict[str, float]:
        """F1, precision and recall (macro and micro), mean average precision, top-k accuracy, calibration error.

        Values from 0 to 1; empty without samples. With fewer than k classes, top-k is 1. Macro averages and mAP are
        over the classes that occur in the labels or the predictions (mAP: in the labels). With one label for each
        sample, micro F1, precision and recall equal the accuracy.
        """
        if not self.samples:
            return {}
        each = self.per_class()
        occurring = self.occurring()
        found: dict[str, float] = {}
        for name in ("F1", "Precision", "Recall"):
            found[f"macro{name}"] = float(np.mean([each[c][name.lower()] for c in occurring]))
            found[f"micro{name}"] = self.accuracy
        for k, count in zip(TOP, self._top, strict=True):
            found[f"top{k}"] = 1.0 if k >= self.classes else float(count) / self.samples
        precisions = [row["averagePrecision"] for row in each if "averagePrecision" in row]
        found["meanAveragePrecision"] = float(np.mean(precisions))
        found["calibrationError"] = self._calibration_error()
        return finite(found)

    def occurring(self) -> list[int]:
        """The classes in the labels or the predictions, which macro averages are over."""
        return [c for c in range(self.classes) if self.confusion[c].any() or self.confusion[:, c].any()]

    def per_class(self) -> list[dict[str, float]]:
        """For each class: samples, precision, recall, f1 (0 without predictions), averagePrecision (if defined)."""
        rows: list[dict[str, float]] = []
        for c in range(self.classes):
            right, true, guessed = self.confusion[c, c], self.confusion[c].sum(), self.confusion[:, c].sum()
            row = {
                "samples": int(true),
                "precision": float(right / guessed) if guessed else 0.0,
                "recall": float(right / true) if true else 0.0,
                "f1": float(2 * right / (true + guessed)) if true + guessed else 0.0,
            }
            if true:
                row["averagePrecision"] = self._average_precision(c)
            rows.append(row)
        return rows

    def _average_precision(self, c: int) -> float:
        """The sum of recall increments times precision over falling scores; samples of one bin count together."""
        seen, right = self._all[c, ::-1].cumsum(), self._true[c, ::-1].cumsum()
        steps = self._true[c, ::-1]
        return float((steps * right / np.maximum(seen, 1)).sum() / right[-1])

    def _calibration_error(self) -> float:
        """Expected calibration error: the mean difference between confidence and accuracy."""
        _, confidence, right = self.calibration
        return float(np.abs(confidence - right).sum() / self.samples)


def steps(chances: Floats, count: int) -> Counts:
    """The bin of the log-odds of each probability, from 0 to count - 1; monotonic."""
    with np.errstate(divide="ignore"):
        odds = np.clip(np.log(chances) - np.log1p(-chances), -REACH, REACH)
    end = np.arcsinh(REACH / EVEN)
    found: Counts = ((np.arcsinh(odds / EVEN) + end) * (count / (2 * end))).astype(np.int64)
    return np.minimum(found, count - 1)


def finite(values: dict[str, float]) -> dict[str, float]:
    """The finite values, rounded to six significant digits."""
    return {name: float(f"{value:.6g}") for name, value in values.items() if math.isfinite(value)}
