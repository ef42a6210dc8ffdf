"""Results of a training for people: the history of the epochs, the learning curves, and a report.

In: one dict of metrics for each epoch, and pictures. Out: history.jsonl, learning-curves.png, report.json, report.html.
"""

from __future__ import annotations

import html
import io
import json
from typing import TYPE_CHECKING, Any

from rfuav_trainer.evaluation import report
from rfuav_trainer.reporting import lettering
from rfuav_trainer.storage.files import atomic_writer, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Row = dict[str, float]


def write_history(path: Path, history: Sequence[Row]) -> None:
    """Write one JSON object per line for each epoch. Replaces the whole file, so a resumed epoch appears only once."""
    with atomic_writer(path) as stream:
        for row in history:
            stream.write(json.dumps(row).encode() + b"\n")


def write_curves(path: Path, history: Sequence[Row], title: str) -> bytes:
    """Plot loss, accuracy and learning rate over the epochs to a PNG; returns it."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (seconds to import)

    figure = Figure(figsize=(14, 4), layout="constrained")
    figure.suptitle(lettering.drawable(title), **lettering.style())
    epochs = [row["epoch"] for row in history]
    *parts, rates = figure.subplots(1, 3)
    rates.semilogy(epochs, [row.get("learningRate") or float("nan") for row in history], marker=".", color="grey")
    rates.set(xlabel="epoch", ylabel="learning rate")
    rates.grid(alpha=0.3)
    rates.xaxis.get_major_locator().set_params(integer=True)
    for axes, name in zip(parts, ("Loss", "Accuracy"), strict=True):
        for side in ("train", "val"):
            axes.plot(epochs, [row.get(f"{side}{name}", float("nan")) for row in history], marker=".", label=side)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel(name.lower())
        axes.grid(alpha=0.3)
        axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    with atomic_writer(path) as stream:
        stream.write(picture.getvalue())
    return picture.getvalue()


def write_report(path: Path, **content: Any) -> None:
    """Write the report of the training: settings, results, and skipped files."""
    write_json(path, content)


def write_page(path: Path, title: str, best: Row | None, pictures: Mapping[str, bytes | None]) -> None:
    """Write a self-contained page.

    Args:
        path: of the page.
        title: its heading.
        best: metrics of the best epoch.
        pictures: PNG or JPEG by heading; None if there is none.
    """
    rows = [f"<tr><td>{html.escape(name)}</td><td>{value:g}</td></tr>" for name, value in (best or {}).items()]
    parts = [f"<h1>{html.escape(title)}</h1>", "<h2>Best epoch</h2>", f"<table>{''.join(rows)}</table>"]
    for heading, picture in pictures.items():
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        parts.append("<p>None.</p>" if picture is None else report.image(picture, heading))
    with atomic_writer(path) as stream:
        stream.write(report.page(title, parts).encode())
