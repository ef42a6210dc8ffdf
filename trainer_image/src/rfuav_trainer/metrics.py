"""The numbers of one evaluation, by the names of the API's `status.metrics`.

In: scores and true classes of all samples. Out: plain floats; what cannot be computed (a class without samples) is left
out, never NaN.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

TOP = (1, 3, 5)


def compute(scores: Tensor, labels: Tensor, classes: int) -> dict[str, float]:
    """Accuracy, F1, precision and recall (macro and micro), mean average precision and top-k accuracy.

    Args:
        scores: float, shape (n, classes); the higher the likelier, softmax or logits alike.
        labels: int64, shape (n,).
        classes: number of classes, at least 2.

    Returns:
        Values from 0 to 1. With fewer than k classes, top-k is 1: every class is among the guesses. Macro averages and
        mAP run over
        the classes that occur in the labels or the guesses (mAP: in the labels).
    """
    from torchmetrics.functional import classification as tm  # noqa: PLC0415  (seconds to import)

    if labels.numel() == 0:
        return {}
    guesses = scores.argmax(dim=1)
    found: dict[str, Tensor] = {}
    for name, function in (
        ("F1", tm.multiclass_f1_score),
        ("Precision", tm.multiclass_precision),
        ("Recall", tm.multiclass_recall),
    ):
        for average in ("macro", "micro"):
            found[f"{average}{name}"] = function(guesses, labels, num_classes=classes, average=average)
    for k in TOP:
        found[f"top{k}"] = (
            torch.tensor(1.0)
            if k >= classes
            else tm.multiclass_accuracy(scores, labels, num_classes=classes, average="micro", top_k=k)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of classes without samples, which are left out of the mean here
        precisions = tm.multiclass_average_precision(scores, labels, num_classes=classes, average="none")
    found["meanAveragePrecision"] = precisions[labels.unique()].mean()  # type: ignore[no-untyped-call]
    return finite({name: float(value) for name, value in found.items()})


def confusion_matrix(guesses: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts, int64, shape (classes, classes): rows are true classes, columns are guesses."""
    return torch.bincount(labels * classes + guesses, minlength=classes * classes).reshape(classes, classes)


def finite(values: dict[str, float]) -> dict[str, float]:
    """The values that are numbers, rounded to six significant digits."""
    return {name: float(f"{value:.6g}") for name, value in values.items() if math.isfinite(value)}
