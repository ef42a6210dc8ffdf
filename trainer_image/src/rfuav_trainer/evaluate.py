"""How good the predictions are: metrics, a confusion matrix, and a table by signal-to-noise ratio.

In: prediction lines of inputs that lie in folders named after their class. Out: evaluation.json, evaluation.txt and
confusion-matrix.png in the output.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from rfuav_trainer import data, metrics
from rfuav_trainer.checkpoint import atomic_writer, write_json
from rfuav_trainer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import Tensor

CONTENT, TABLE, PICTURE = "evaluation.json", "evaluation.txt", "confusion-matrix.png"
MOST_NUMBERS = 20  # classes; beyond, counts are not written into the picture's cells


def evaluate(lines: Iterable[dict[str, Any]], classes: Sequence[str], root: Path) -> dict[str, Any]:
    """Metrics over all predictions and for each SNR.

    Args:
        lines: predictions; their `path` begins with the name of the true class. `scores` (one for each class) may be
            missing, then `top` stands in for them.
        classes: names in the order of the scores.
        root: the input folder, where a file beside a recording may tell its SNR.

    Returns:
        samples, accuracy, metrics, perClass (precision, recall, samples), confusionMatrix (rows true, columns
        predicted), and bySnr: a list in rising order with snrDb, samples, accuracy, top3, macroF1, empty when no file
        states its SNR. Without all scores the mean average precision is left out: it cannot be known.

    Raises:
        InputError: there are no predictions.
    """
    index = {name: position for position, name in enumerate(classes)}
    scores_list: list[list[float]] = []
    labels_list: list[int] = []
    snr: list[float | None] = []
    levels: dict[str, float | None] = {}
    whole = True
    for line in lines:
        name = line["path"]
        given = line.get("scores")
        if given is None:
            given = [0.0] * len(classes)
            for entry in line["top"]:
                given[index[entry["class"]]] = entry["score"]
            whole = whole and len(line["top"]) == len(classes)
        scores_list.append(given)
        labels_list.append(index[name.partition("/")[0]])
        if name not in levels:
            levels[name] = _snr(root / name)
        snr.append(levels[name])
    if not labels_list:
        raise InputError("there is nothing to evaluate: no input could be read", reason="TooManyUnreadable")
    scores, labels = torch.tensor(scores_list, dtype=torch.float32), torch.tensor(labels_list)
    matrix = metrics.confusion_matrix(scores.argmax(dim=1), labels, len(classes))
    found = metrics.compute(scores, labels, len(classes))
    if not whole:
        del found["meanAveragePrecision"]
    return {
        "samples": len(labels),
        "accuracy": found["top1"],
        "metrics": found,
        "perClass": _per_class(matrix, classes),
        "classes": list(classes),
        "confusionMatrix": matrix.tolist(),
        "bySnr": _by_snr(scores, labels, snr),
    }


def _snr(path: Path) -> float | None:
    """The SNR in dB that the file beside a recording states, or None."""
    value = data.read_label_file(path).get("snrDb")
    return float(value) if isinstance(value, int | float) else None


def _per_class(matrix: Tensor, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for position, name in enumerate(classes):
        right, true, guessed = (
            int(value) for value in (matrix[position, position], matrix[position].sum(), matrix[:, position].sum())
        )
        found[name] = {
            "samples": true,
            "precision": round(right / guessed, 6) if guessed else 0.0,
            "recall": round(right / true, 6) if true else 0.0,
        }
    return found


def _by_snr(scores: Tensor, labels: Tensor, snr: Sequence[float | None]) -> list[dict[str, float]]:
    table: list[dict[str, float]] = []
    for level in sorted({value for value in snr if value is not None}):
        rows = torch.tensor([value == level for value in snr])
        found = metrics.compute(scores[rows], labels[rows], scores.shape[1])
        row = {"snrDb": level, "samples": int(rows.sum()), "accuracy": found["top1"]}
        table.append({**row, "top3": found["top3"], "macroF1": found["macroF1"]})
    return table


def write(folder: Path, evaluation: dict[str, Any]) -> None:
    """Write evaluation.json, evaluation.txt and confusion-matrix.png; each is replaced whole."""
    write_json(folder / CONTENT, evaluation)
    with atomic_writer(folder / TABLE) as stream:
        stream.write(as_text(evaluation).encode())
    _draw_matrix(folder / PICTURE, evaluation["confusionMatrix"], evaluation["classes"])


def as_text(evaluation: dict[str, Any]) -> str:
    """The evaluation as tables for a terminal."""
    lines = [f"{evaluation['samples']} samples", ""]
    lines += [f"{name:<22}{value:8.4f}" for name, value in evaluation["metrics"].items()]
    width = max(len(name) for name in evaluation["perClass"]) + 5
    lines += ["", f"{'class':<{width}}{'samples':>9}{'precision':>11}{'recall':>9}"]
    lines += [
        f"{name:<{width}}{row['samples']:>9}{row['precision']:>11.4f}{row['recall']:>9.4f}"
        for name, row in evaluation["perClass"].items()
    ]
    lines += ["", "confusion matrix: rows are true classes, columns predicted", ""]
    lines.append(" " * width + "".join(f"{number:>6}" for number in range(len(evaluation["classes"]))))
    lines += [
        f"{number:>3} {name:<{width - 4}}" + "".join(f"{count:>6}" for count in row)
        for number, (name, row) in enumerate(zip(evaluation["classes"], evaluation["confusionMatrix"], strict=True))
    ]
    if evaluation["bySnr"]:
        lines += ["", f"{'SNR (dB)':>9}{'samples':>9}{'accuracy':>10}{'top3':>8}{'macro F1':>10}"]
        lines += [
            f"{r['snrDb']:>9g}{r['samples']:>9}{r['accuracy']:>10.4f}{r['top3']:>8.4f}{r['macroF1']:>10.4f}"
            for r in evaluation["bySnr"]
        ]
    return "\n".join(lines) + "\n"


def _draw_matrix(path: Path, matrix: list[list[int]], classes: Sequence[str]) -> None:
    """The confusion matrix as a picture: colour is the share of the true class, the number the count."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (seconds to import)

    counts = torch.tensor(matrix, dtype=torch.float64)
    share = counts / counts.sum(dim=1, keepdim=True).clamp_min(1)
    side = max(4.0, 0.45 * len(classes) + 2.5)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= MOST_NUMBERS:
        for row, values in enumerate(matrix):
            for column, count in enumerate(values):
                dark = float(share[row, column]) > 0.5  # noqa: PLR2004  (half of the colour scale)
                axes.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    figure.colorbar(image, ax=axes, label="share of the true class")
    with atomic_writer(path) as stream:
        figure.savefig(stream, format="png", dpi=100)


def read_lines(paths: Iterable[Path]) -> Iterable[dict[str, Any]]:
    """The JSON objects of several JSON Lines files, one after the other."""
    for path in paths:
        with path.open("rb") as stream:
            for line in stream:
                yield json.loads(line)
