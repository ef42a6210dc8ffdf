"""What came out: the evaluations and predictions, read from the claims, kept in .demo/ and shown.

In: the claims, through the pod `results`. Out: files in .demo/ and tables.
"""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from demo import tables
from demo.kube import Kube

POD = "results"
FILES = {
    "confusion-matrix.png": "/mnt/results/test-10db/confusion-matrix.png",
    "test-10db.json": "/mnt/results/test-10db/evaluation.json",
    "sweep.json": "/mnt/results/test-sweep/evaluation.json",
    "flight-1.jsonl": "/mnt/results/flight-1/predictions-0.jsonl",
    "learning-curves.png": "/mnt/models/drones-resnet18/learning-curves.png",
}
_SHOWN = 6


def show(kube: Kube, folder: Path, console: Console) -> None:
    """Copy the results out of the claims into `folder`, and print them."""
    folder.mkdir(exist_ok=True)
    for name, path in FILES.items():
        (folder / name).write_bytes(kube.read(path, POD))
    console.print(tables.confusion(_json(folder / "test-10db.json")))
    console.print(tables.by_snr(_json(folder / "sweep.json")))
    lines = [json.loads(line) for line in (folder / "flight-1.jsonl").read_text(encoding="utf-8").splitlines()]
    console.print(tables.predictions(lines[:_SHOWN]))
    console.print(f"pictures: {folder.name}/confusion-matrix.png, {folder.name}/learning-curves.png", highlight=False)


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
