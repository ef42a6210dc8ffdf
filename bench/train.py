"""Pictures a second in training, from JPEG files: `make bench-train`.

Ours is the trainer itself, running a TrainingJob; its epochs are taken from the first read to the last step. Against
it, on the same files in the same run: the reference service's way, and tuned plain PyTorch (bench/baselines.py). The
sides take turns, so that what else runs on the machine disturbs them alike. `limit` is the network alone (forward,
backward, optimizer) on pictures in memory. On a GPU each model also has `matmul` (its matrix products against the best
of the GPU), `gpuIdle` and `compileSeconds`.

    python -m bench.train [--models resnet18 vit_b_16] [--images 48] [--epochs 3] [--rounds 1] [--batch 8] [--threads 2]
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import baselines, gpu, machine
from PIL import Image

from rfuav_crds import contract
from rfuav_trainer.job import from_file
from rfuav_trainer.networks import precision
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.training import train

DEFAULTS = {"cpu": {"images": 48, "batch": 8}, "cuda": {"images": 2048, "batch": 128}}
"""A GPU needs more to have something to do."""
CLASSES, SIZE, PIXELS = 4, 224, 640
MODELS = ("resnet18", "swin_v2_t", "vit_b_16")


def write_pictures(root: Path, count: int) -> None:
    """JPEG pictures of 640 by 640 pixels: noise with a band that shows the class, like spectrograms."""
    random = np.random.default_rng(0)
    for number in range(count):
        label = number % CLASSES
        folder = root / f"class-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.normal(70, 25, (PIXELS, PIXELS, 3))
        pixels[label * 150 + 20 : label * 150 + 70] += 110
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=90)


def write_job(
    output: Path, data: Path, architecture: str, *, epochs: int, batch: int, gpus: int = 0, every: int = 1
) -> Path:
    """A job with a checkpoint after `every` epochs, in `output`, where its results go too."""
    training = {"epochs": epochs, "batchSize": batch}
    spec = base_spec(architecture, data, output, training, size=SIZE, gpus=gpus, threads=torch.get_num_threads())
    return job_file(output, {**spec, "checkpoint": {"everyEpochs": every}})


def base_spec(
    architecture: str,
    data: Path,
    output: Path,
    training: dict[str, Any],
    *,
    size: int,
    gpus: int,
    threads: int,
    memory_gib: int = 8,
) -> dict[str, Any]:
    """A TrainingJob's spec: `training`, on data/train and data/val; defaults for the rest."""
    return {
        "model": {"architecture": architecture},
        "dataset": {
            "train": {"uri": f"file://{data}/train"},
            "validation": {"uri": f"file://{data}/val"},
            "imageSize": size,
        },
        "training": training,
        "output": {"uri": f"file://{output}"},
        "resources": {"gpus": gpus, "cpu": str(threads), "memory": f"{memory_gib}Gi"},
    }


def job_file(output: Path, spec: dict[str, Any]) -> Path:
    """A TrainingJob's file in `output`."""
    path = output / "job.yaml"
    job = {"apiVersion": contract.API_VERSION, "kind": "TrainingJob", "metadata": {"name": "bench"}, "spec": spec}
    path.write_text(json.dumps(job))
    return path


def ours(
    architecture: str,
    data: Path,
    *,
    epochs: int,
    batch: int,
    gpus: int,
    measure: Callable[[Callable[[], object]], Any] = machine.seconds,
) -> list[Any]:
    """Seconds (or another `measure`) of every epoch's training in a job.

    Validating and saving, which the others do not do, are left out.
    """
    with tempfile.TemporaryDirectory() as output:
        path = write_job(Path(output), data, architecture, epochs=epochs, batch=batch, gpus=gpus, every=epochs)
        measured: list[Any] = []
        run_epoch = train.Training._train_epoch  # noqa: SLF001  (what the others do as well)

        def watched(training: train.Training) -> dict[str, float]:
            found: dict[str, float] = {}
            measured.append(measure(lambda: found.update(run_epoch(training))))
            return found

        train.Training._train_epoch = watched  # noqa: SLF001
        try:
            train.run(from_file(path), Progress(None), StopSignal())
        finally:
            train.Training._train_epoch = run_epoch  # noqa: SLF001
            torch.use_deterministic_algorithms(False)  # the others' way
        return measured


def compare(architecture: str, data: Path, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """All sides in turn."""
    half = precision.resolve("auto", device) == "bf16"
    shared = {"classes": CLASSES, "size": SIZE, "device": device}
    root, epochs, batch = data / "train", options.epochs, options.batch
    workers = min(8, os.cpu_count() or 1)
    gpus = int(device.type == "cuda")
    compiling: list[float] = []
    sides: dict[str, Callable[[], list[float]]] = {
        "ours": lambda: ours(architecture, data, epochs=epochs, batch=batch, gpus=gpus),
        "reference": lambda: baselines.reference(architecture, root, epochs=epochs, **shared),
        "tuned": lambda: baselines.tuned(
            architecture,
            root,
            epochs=epochs,
            batch=batch,
            workers=workers,
            half=half,
            compiled=compiling.append,
            **shared,
        ),
    }
    seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
    limits = []
    for turn in range(options.rounds):
        for name, side in sides.items():
            torch.manual_seed(0)
            torch.backends.cudnn.benchmark = name != "reference"  # ours turns it on, the reference never does
            seconds[name].append(side())
            print(f"{architecture} {turn} {name}: {[round(s, 2) for s in seconds[name][-1]]} s", file=sys.stderr)
        steps = max(2, options.images // batch)
        limits.append(baselines.limit(architecture, batch=batch, half=half, steps=steps, **shared))
    whole = {name: options.images * epochs / statistics.median(sum(s) for s in runs) for name, runs in seconds.items()}
    later = {name: options.images / statistics.median(t for s in runs for t in s[1:]) for name, runs in seconds.items()}
    limit = statistics.median(limits)
    found = {
        **{name: round(value, 2) for name, value in whole.items()},
        "ratio": round(whole["ours"] / whole["reference"], 2),
        "to_tuned": round(whole["ours"] / whole["tuned"], 2),
        "after_first_epoch": {name: round(value, 2) for name, value in later.items()},
        "limit": round(limit, 2),
        "of_limit": round(later["ours"] / limit, 2),
    }
    if not gpus:
        return found
    # A job of its own: a profile costs time. Of its two epochs the first decodes, and starts the profiler.
    profiled = ours(architecture, data, epochs=2, batch=batch, gpus=gpus, measure=gpu.idle)[-1]
    operations = gpu.flops(architecture, CLASSES, SIZE)
    return {
        **found,
        "matmul": gpu.against_matmul(later["ours"], operations, gpu.matmul_rate()),
        "gpuIdle": None if profiled is None else round(profiled, 3),
        "compileSeconds": round(compiling[0], 1),
    }


def main() -> None:
    """One run."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--images", type=int, default=DEFAULTS[device.type]["images"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch", type=int, default=DEFAULTS[device.type]["batch"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("--epochs: write 2 or more, the first is told apart from the later")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        data = Path(folder)
        write_pictures(data / "train", options.images)
        write_pictures(data / "val", CLASSES)
        found = {name: compare(name, data, options, device) for name in options.models}
    machine.report(
        "train",
        {
            "unit": "pictures/s",
            "device": machine.device(),
            "limit_is": "forward, backward and optimizer on pictures in memory, same batch and precision",
            **{key: getattr(options, key) for key in ("images", "epochs", "rounds", "batch", "threads")},
            "models": found,
        },
    )


if __name__ == "__main__":
    main()
