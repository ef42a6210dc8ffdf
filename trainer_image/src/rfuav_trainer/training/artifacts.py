"""Results of a training for people: the history of the epochs, the learning curves, and a report.

In: one dict of metrics for each epoch. Out: history.jsonl, learning-curves.png, report.json.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rfuav_trainer.reporting import lettering
from rfuav_trainer.storage.files import atomic_writer, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Row = dict[str, float]


def write_history(path: Path, history: Sequence[Row]) -> None:
    """Write one JSON object per line for each epoch. Replaces the whole file, so a resumed epoch appears only once."""
    with atomic_writer(path) as stream:
        for row in history:
            stream.write(json.dumps(row).encode() + b"\n")


def write_curves(path: Path, history: Sequence[Row], title: str) -> None:
    """Plot loss and accuracy of training and validation over the epochs to a PNG."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (seconds to import)

    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(lettering.drawable(title), **lettering.style())
    epochs = [row["epoch"] for row in history]
    for axes, name in zip(figure.subplots(1, 2), ("Loss", "Accuracy"), strict=True):
        for side in ("train", "val"):
            axes.plot(epochs, [row.get(f"{side}{name}", float("nan")) for row in history], marker=".", label=side)
        axes.set_xlabel("epoch")
        axes.set_ylabel(name.lower())
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_writer(path) as stream:
        figure.savefig(stream, format="png", dpi=100)


def write_report(path: Path, **content: Any) -> None:
    """Write the report of the training: settings, results, and skipped files."""
    write_json(path, content)
