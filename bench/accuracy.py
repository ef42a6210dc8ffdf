"""Every architecture, trained from scratch to a stated accuracy: `make bench-accuracy`.

Recordings of three classes are synthesized (docs/synthesized-data.md), and `rfuav-trainer train` trains on them with a
job file, one process after the other, as a user does it. What counts is the accuracy of the last epoch over recordings
that were held out: the best epoch's would be chosen by the same recordings. An architecture that misses its stated
accuracy or does not end makes the exit code 1.

    python -m bench.accuracy [--models resnet18 vit_h_14] [--threads 2] [--seed 0]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench import machine
from bench.train import base_spec, job_file

from rfuav_trainer.networks import architectures
from rfuav_trainer.synthesis import synthesize
from rfuav_trainer.synthesis.spec import make_spec

CLASSES = ("fm-video", "idle", "ofdm-20mhz-tdd")
SNR_DB = (15, 20)
SPLITS = {"train": 48, "val": 30}  # recordings of each class
SIZE = 64  # pixels
MEMORY_GIB = 20
NO_CHECKPOINT = 100_000  # epochs; bench-io measures what they cost


@dataclass(frozen=True)
class Recipe:
    """How an architecture is trained here: few steps, from random weights.

    Attributes:
        rate: the learning rate of adam at its highest, after an epoch of warm-up; a cosine ends at 0.
        epochs: passes over the training recordings.
        batch: recordings a step.
        stated: accuracy to reach, 0 to 1; chance is 1 / len(CLASSES).
        size: side of the pictures in pixels.
    """

    rate: float
    epochs: int
    batch: int = 16
    stated: float = 0.9
    size: int = SIZE


RECIPES = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), Recipe(1e-3, 8)),
    "resnet152": Recipe(3e-4, 16),
    **dict.fromkeys(("mobilenet_v3_small", "mobilenet_v3_large"), Recipe(1e-3, 12, batch=8)),
    **dict.fromkeys(("swin_v2_t", "swin_v2_s", "swin_v2_b"), Recipe(3e-4, 8)),
    **dict.fromkeys(("vit_b_16", "vit_b_32"), Recipe(1e-4, 8)),
    **dict.fromkeys(("vit_l_16", "vit_l_32"), Recipe(5e-5, 6)),
    "vit_h_14": Recipe(5e-5, 8, size=56),
}


def synthesized(root: Path, seed: int) -> None:
    """Recordings in root/train/<class> and root/val/<class>."""
    synthesize.synthesize(make_spec(output=root, splits=SPLITS, classes=CLASSES, snr_db=SNR_DB, seed=seed))


def job_spec(architecture: str, data: Path, output: Path, *, threads: int, seed: int) -> dict[str, Any]:
    """The TrainingJob's spec."""
    recipe, made = RECIPES[architecture], make_spec(output=data)
    spec = base_spec(
        architecture,
        data,
        output,
        {
            "epochs": recipe.epochs,
            "batchSize": recipe.batch,
            "optimizer": {"learningRate": recipe.rate},
            "schedule": {"name": "cosine", "warmupEpochs": 1},
            "seed": seed,
        },
        size=recipe.size,
        gpus=int(torch.cuda.is_available()),
        threads=threads,
        memory_gib=MEMORY_GIB,
    )
    spec["dataset"]["iq"] = {"sampleRate": f"{made.sample_rate / 1e6}M", "frameSeconds": made.seconds}
    spec["checkpoint"] = {"everyEpochs": NO_CHECKPOINT}
    return spec


def parameters(architecture: str) -> int:
    """Numbers that are trained."""
    with torch.device("meta"):
        network = architectures.build(architecture, len(CLASSES), RECIPES[architecture].size)
    return sum(parameter.numel() for parameter in network.parameters())


def judge(recipe: Recipe, history: list[dict[str, float]]) -> dict[str, Any]:
    """The accuracy of the last epoch, against the stated one; a training that did not end has missed it."""
    reached = history[-1]["valAccuracy"] if len(history) == recipe.epochs else None
    return {
        "accuracy": reached if reached is None else round(reached, 4),
        "stated": recipe.stated,
        "reached": reached is not None and reached >= recipe.stated,
    }


def trained(architecture: str, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One training in its own process; seconds and peak memory are those of the whole process."""
    recipe = RECIPES[architecture]
    with tempfile.TemporaryDirectory() as name:
        output = Path(name)
        spec = job_spec(architecture, data, output, threads=options.threads, seed=options.seed)
        command = [sys.executable, "-m", "rfuav_trainer.cli", "train", "-f", str(job_file(output, spec))]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        began = time.perf_counter()
        with (output / "log").open("w") as log:
            child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)  # waited for here, so that its peak is known
        history = []
        if child.returncode == 0:
            history = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
        else:
            print((output / "log").read_text()[-2000:], file=sys.stderr)
    return {
        **judge(recipe, history),
        "epochs": recipe.epochs,
        "imageSize": recipe.size,
        "seconds": round(seconds, 1),
        "peakGiB": round(used.ru_maxrss / 2**20, 2),
        "params": parameters(architecture),
    }


def main() -> None:
    """All that are named, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        synthesized(data, options.seed)
        for architecture in options.models:
            found[architecture] = trained(architecture, data, options)
            print(architecture, found[architecture], file=sys.stderr, flush=True)
    missed = [name for name, row in found.items() if not row["reached"]]
    machine.report(
        "accuracy",
        {
            "device": machine.device(),
            "classes": CLASSES,
            "chance": round(1 / len(CLASSES), 4),
            "recordings": {split: count * len(CLASSES) for split, count in SPLITS.items()},
            "snrDb": SNR_DB,
            **{key: getattr(options, key) for key in ("threads", "seed")},
            "models": found,
            "missed": missed,
        },
    )
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
