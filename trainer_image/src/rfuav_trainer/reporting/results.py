"""Curves, confusion matrix and accuracy by SNR for the job's status, where whoever cannot read the output sees them.

In: the history of a training, counts of a confusion matrix, accuracies. Out: `status.results` within its bounds, for
any number of epochs and classes and names of any length.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from rfuav_crds.bounds import clean
from rfuav_crds.status import MOST_CLASSES, MOST_POINTS, RESULTS_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CURVES = ("trainLoss", "valLoss", "trainAccuracy", "valAccuracy", "learningRate")
NAME_LENGTHS = (253, 64, 40, 24, 12, 6, 3)
"""Characters of a class name, tried in turn."""
NAMES_BYTES = 2048
"""Of all names together: most of the rest is for the curves."""


def summary(
    *,
    history: Sequence[Mapping[str, float]] = (),
    classes: Sequence[str] = (),
    confusion: Sequence[Sequence[int]] = (),
    by_snr: Sequence[tuple[float, int, float]] = (),
) -> dict[str, Any]:
    """`status.results`, in at most `RESULTS_BYTES` of JSON.

    Args:
        history: metrics of each epoch, with its number as `epoch`. At most `MOST_POINTS` of them are shown, spread
            evenly, the last one always; a curve that one of these has no value of is left out.
        classes: names in the order of the matrix.
        confusion: counts, rows are true classes, columns predictions. Of more than `MOST_CLASSES` nothing is shown; if
            the cells do not fit, the diagonal and then the largest others stay.
        by_snr: SNR in dB, samples and accuracy, in rising order; at most `MOST_POINTS`.
    """
    many = len(classes) > MOST_CLASSES
    found: dict[str, Any] = {}
    if by_snr:
        found["bySNR"] = [
            [_short(snr), count, _short(accuracy)] for snr, count, accuracy in _spread(by_snr, MOST_POINTS)
        ]
    names, cut = ([], False) if many else _names(classes)
    if names:
        found["classes"] = names
    found["truncated"] = many or cut or len(by_snr) > MOST_POINTS
    points = MOST_POINTS
    while history and points:
        found["history"] = _curves(_spread(history, points))
        if _size(found) <= RESULTS_BYTES:
            break
        found["truncated"], points = True, points // 2
    if names and confusion:
        cells = _cells(confusion)
        kept = cells[: _fitting(cells, RESULTS_BYTES - _size({**found, "confusion": [], "truncated": False}))]
        found["truncated"] = found["truncated"] or len(kept) < len(cells)
        found["confusion"] = sorted(kept)
    return found


def _spread(rows: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the rows, evenly spread, the last one always among them."""
    if len(rows) <= most:
        return list(rows)
    last = len(rows) - 1
    return [rows[last - step * last // max(1, most - 1)] for step in reversed(range(most))]


def _curves(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    curves: dict[str, Any] = {"epochs": [int(row["epoch"]) for row in rows]}
    for name in CURVES:
        if all(name in row and math.isfinite(row[name]) for row in rows):
            curves[name] = [_short(row[name]) for row in rows]
    return curves


def _names(classes: Sequence[str]) -> tuple[list[str], bool]:
    """The names, cut so that all together are short, and whether one is."""
    plain = [clean(name) for name in classes]
    for length in NAME_LENGTHS:
        names = [name[:length] for name in plain]
        if _size(names) <= NAMES_BYTES:
            break
    return names, names != plain


def _cells(confusion: Sequence[Sequence[int]]) -> list[list[int]]:
    """Cells that are not 0 as row, column and count: the diagonal first, then the largest."""
    cells = [[r, c, int(count)] for r, row in enumerate(confusion) for c, count in enumerate(row) if count]
    return sorted(cells, key=lambda cell: (cell[0] != cell[1], -cell[2]))


def _fitting(cells: Sequence[Sequence[int]], room: int) -> int:
    """How many of the cells fit into so many bytes."""
    for number, cell in enumerate(cells):
        room -= _size(cell) + 1
        if room < 0:
            return number
    return len(cells)


def _short(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def _size(value: Any) -> int:
    """Bytes of compact JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
