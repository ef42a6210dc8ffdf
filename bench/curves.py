"""Learning curves beside the reference service's way: `make bench-curves`.

Same files, same epochs, same recipe (Adam at 1e-4, batches of 8, the reference's and the trainer's default), same
first weights and same order of the samples for the same seed. Ours is a whole TrainingJob: its precision, its
checkpoints and saved weights are in its time. The reference's way (bench/baselines.py) trains and validates, and saves
nothing. The sides take turns, and change who begins.

What a side has reached is the mean of its last three epochs, and the sides are compared seed by seed: `mean` and `sd`
of ours minus the reference's, and the 95 % interval of the mean (Student's t). An interval that lies wholly on one
side of 0 is called better or worse, one that holds 0 alike.
- equal_epochs: both after all epochs. It must not be worse.
- equal_time: ours at its end, the reference after the epochs that it had completed by then. It must be better.

    python -m bench.curves [--models resnet18] [--seeds 9] [--epochs 6] [--threads 2] [--plot docs/img/curves.png]
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from bench import baselines, machine
from bench.train import base_spec, job_file
from matplotlib.figure import Figure
from scipy import stats

from rfuav_trainer.job import from_file
from rfuav_trainer.networks import precision
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.synthesis import synthesize
from rfuav_trainer.synthesis.emitters.catalogue import EMITTERS
from rfuav_trainer.synthesis.spec import make_spec
from rfuav_trainer.training import train
from rfuav_trainer.training.position import epoch_order

Curve = list[dict[str, float]]
"""Of each epoch: valLoss, valAccuracy, and seconds from the start of the training to its end."""

SIZE, PIXELS = 128, 448
SPLITS = {"train": 24, "val": 12}  # recordings of each class
SNR_DB = (0, 5, 10, 15)
LAST = 3  # epochs
MEASURES = {"valLoss": -1, "valAccuracy": 1}  # and which way is better


class Watch(Progress):
    """Notes when each epoch ended."""

    def __init__(self) -> None:
        super().__init__(None)
        self.ends: list[float] = []

    def update(self, status: Mapping[str, Any]) -> None:
        if status.get("rfuav", {}).get("epoch", 0) > len(self.ends):
            self.ends.append(time.perf_counter())


def job_spec(
    architecture: str, data: Path, output: Path, *, epochs: int, seed: int, threads: int, number_format: str = "auto"
) -> dict[str, Any]:
    """The TrainingJob's spec: defaults wherever there are any."""
    training = {"epochs": epochs, "seed": seed, "precision": number_format}
    gpus = int(torch.cuda.is_available())
    return base_spec(architecture, data, output, training, size=SIZE, gpus=gpus, threads=threads)


def ours(architecture: str, data: Path, **recipe: Any) -> Curve:
    """The trainer, on the job that `job_spec` makes of the recipe."""
    with tempfile.TemporaryDirectory() as name:
        output, watch = Path(name), Watch()
        job = from_file(job_file(output, job_spec(architecture, data, output, **recipe)))
        began = time.perf_counter()
        try:
            train.run(job, watch, StopSignal())
        finally:
            torch.use_deterministic_algorithms(False)  # the other's way
        rows = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    return [
        {**{name: row[name] for name in MEASURES}, "seconds": end - began}
        for row, end in zip(rows, watch.ends, strict=True)
    ]


def reference(architecture: str, data: Path, *, epochs: int, seed: int, device: torch.device) -> Curve:
    """The reference's way."""
    curve: Curve = []

    def after(network: torch.nn.Module) -> None:
        found = baselines.validate(network, data / "val", size=SIZE, device=device)
        curve.append({**found, "seconds": time.perf_counter() - began})

    torch.manual_seed(seed)
    began = time.perf_counter()
    baselines.reference(
        architecture,
        data / "train",
        classes=len(EMITTERS),
        epochs=epochs,
        size=SIZE,
        device=device,
        order=lambda count, epoch: epoch_order(count, seed, epoch),
        after=after,
    )
    return curve


def reached(curve: Curve, measure: str) -> float:
    """The mean of the last epochs."""
    return statistics.mean(row[measure] for row in curve[-LAST:])


def until(curve: Curve, seconds: float) -> Curve:
    """The epochs that were completed by then, at least the first."""
    return [row for number, row in enumerate(curve) if number == 0 or row["seconds"] <= seconds]


def difference(ours: list[Curve], reference: list[Curve], measure: str) -> dict[str, Any]:
    """Ours minus the reference's over the seeds: mean, standard deviation, 95 % interval of the mean, verdict."""
    # A history has six digits: less than that is no difference.
    found = [round(reached(a, measure) - reached(b, measure), 5) for a, b in zip(ours, reference, strict=True)]
    mean, sd = statistics.mean(found), statistics.stdev(found)
    reach = float(stats.t.ppf(0.975, len(found) - 1)) * sd / len(found) ** 0.5
    low, high = sorted(MEASURES[measure] * value for value in (mean - reach, mean + reach))
    return {
        "mean": round(mean, 4),
        "sd": round(sd, 4),
        "interval95": [round(mean - reach, 4), round(mean + reach, 4)],
        "verdict": "better" if low > 0 else "worse" if high < 0 else "alike",
    }


def compare(ours: list[Curve], reference: list[Curve]) -> dict[str, Any]:
    """Both comparisons, seconds an epoch (the median), and the mean curves."""
    sides = {"ours": ours, "reference": reference}
    in_time = [until(b, a[-1]["seconds"]) for a, b in zip(ours, reference, strict=True)]
    lasted = {
        side: statistics.median(curve[-1]["seconds"] / len(curve) for curve in curves) for side, curves in sides.items()
    }
    return {
        "equal_epochs": {measure: difference(ours, reference, measure) for measure in MEASURES},
        "equal_time": {
            "reference_epochs": round(statistics.mean(len(curve) for curve in in_time), 1),
            **{measure: difference(ours, in_time, measure) for measure in MEASURES},
        },
        "seconds_per_epoch": {
            **{side: round(value, 2) for side, value in lasted.items()},
            "ratio": round(lasted["reference"] / lasted["ours"], 2),
        },
        **{
            side: {
                name: [round(statistics.mean(row[name] for row in rows), 4) for rows in zip(*curves, strict=True)]
                for name in (*MEASURES, "seconds")
            }
            for side, curves in sides.items()
        },
    }


def holds(found: dict[str, Any]) -> bool:
    """Not worse at equal epochs, better in equal time, in both measures."""
    return all(
        found["equal_epochs"][measure]["verdict"] != "worse" and found["equal_time"][measure]["verdict"] == "better"
        for measure in MEASURES
    )


def draw(path: Path, curves: dict[str, dict[str, list[Curve]]]) -> None:
    """A row of pictures for each model: measures by epoch and by time; thin lines are seeds, thick ones their mean."""
    figure = Figure(figsize=(14, 3.2 * len(curves)), layout="constrained")
    axes = figure.subplots(len(curves), 4, squeeze=False)
    for row, (architecture, sides) in zip(axes, curves.items(), strict=True):
        views = [(measure, by) for measure in MEASURES for by in ("epoch", "seconds")]
        for axis, (measure, by) in zip(row, views, strict=True):
            for (side, runs), colour in zip(sides.items(), ("tab:blue", "tab:orange"), strict=True):
                lines = [
                    [
                        (number if by == "epoch" else epoch["seconds"], epoch[measure])
                        for number, epoch in enumerate(run, 1)
                    ]
                    for run in runs
                ]
                for line in lines:
                    axis.plot(*zip(*line, strict=True), color=colour, alpha=0.25, linewidth=0.8)
                mean = [
                    [statistics.mean(values) for values in zip(*at, strict=True)] for at in zip(*lines, strict=True)
                ]
                axis.plot(*zip(*mean, strict=True), color=colour, linewidth=2, label=side)
            axis.set(xlabel=by, ylabel=measure, title=architecture)
            axis.grid(alpha=0.3)
        row[0].legend()
    figure.savefig(path, dpi=80)


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["resnet18"])
    parser.add_argument("--seeds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds: write 2 or more, the spread over them is what a difference is judged by")
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    curves: dict[str, dict[str, list[Curve]]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        data = Path(folder)
        made = make_spec(output=data, splits=SPLITS, snr_db=SNR_DB, format="image", image_size=PIXELS)
        synthesize.synthesize(made)
        for architecture in options.models:
            sides = curves[architecture] = {"ours": list[Curve](), "reference": list[Curve]()}
            for seed in range(options.seeds):
                for side in sorted(sides, reverse=bool(seed % 2)):
                    shared: dict[str, Any] = {"epochs": options.epochs, "seed": seed}
                    if side == "ours":
                        sides[side].append(ours(architecture, data, threads=options.threads, **shared))
                    else:
                        sides[side].append(reference(architecture, data, device=device, **shared))
                    print(f"{architecture} seed {seed} {side}: {sides[side][-1][-1]}", file=sys.stderr, flush=True)
    found = {architecture: compare(**sides) for architecture, sides in curves.items()}
    if options.plot:
        draw(options.plot, curves)
    missed = [architecture for architecture, row in found.items() if not holds(row)]
    machine.report(
        "curves",
        {
            "device": machine.device(),
            "precision": precision.resolve("auto", device),
            "recordings": {split: count * len(EMITTERS) for split, count in SPLITS.items()},
            "snrDb": SNR_DB,
            "imageSize": SIZE,
            **{key: getattr(options, key) for key in ("seeds", "epochs", "threads")},
            "models": found,
            "missed": missed,
        },
    )
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
