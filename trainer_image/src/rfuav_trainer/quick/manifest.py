"""Writes the manifest of a training for a folder: the file that `rfuav-trainer train -f` and `kubectl apply` take.

In: what `folder.look` found, and a few options. Out: YAML with comments.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfuav_crds import API_VERSION
from rfuav_trainer.job import MOUNTS
from rfuav_trainer.quick.folder import DEFAULT_RATE

if TYPE_CHECKING:
    from rfuav_trainer.quick.folder import Found

ARCHITECTURE, EPOCHS, IMAGE_SIZE = "resnet18", 20, 224
LEARNING_RATES = {"resnet152": "0.0003", "swin": "0.0003", "vit_l": "0.00005", "vit_h": "0.00005", "vit": "0.0001"}
"""By the beginning of the architecture, the first that fits; 0.001 for others. With Adam and random weights."""
LONGEST_FRAME = 0.1  # seconds
BATCHES, ENOUGH_STEPS = (8, 16, 32), 40
"""Small data sets get the first batch size with fewer steps in an epoch than this, others `auto`."""
UNEVEN = 3
"""If the largest class has this many times the files of the smallest, rare classes count more."""
DATA, MODELS = "captures", "models"
"""The claims of the manifest."""
MOST_CHARACTERS = 40
"""Of the name of a job."""
GIB = 2**30


@dataclass(frozen=True)
class Options:
    """What a user may choose without writing a manifest.

    Attributes:
        arch: torchvision architecture.
        epochs: passes over the training data.
        size: side of the pictures in pixels.
        output: folder for the results.
    """

    arch: str = ARCHITECTURE
    epochs: int = EPOCHS
    size: int = IMAGE_SIZE
    output: Path = Path("runs/training")


@dataclass(frozen=True)
class Machine:
    """What this machine offers a job."""

    gpus: int
    cpus: int
    memory: int

    @classmethod
    def this(cls) -> Machine:
        """This machine. A job gets one GPU, all cores and three quarters of the memory."""
        import torch  # noqa: PLC0415  (seconds to import)

        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
        return cls(int(torch.cuda.is_available()), len(os.sched_getaffinity(0)), memory)


def name_of(folder: Path) -> str:
    """A name for a job, from the name of a folder: lower-case letters, digits and `-`."""
    words = re.sub(r"[^a-z0-9]+", "-", folder.name.lower())[:MOST_CHARACTERS]
    return words.strip("-") or "training"


def training(found: Found, options: Options, machine: Machine, *, beside: Path) -> str:
    """The manifest of a training.

    Args:
        found: the data.
        options: choices of the user.
        machine: where it should run.
        beside: the folder of the manifest; folders below it are written relative to it.
    """
    output = options.output.absolute()
    rate = next((rate for start, rate in LEARNING_RATES.items() if options.arch.startswith(start)), "0.001")
    warmup = min(1, options.epochs - 1)
    data = f"pvc://{DATA}/{found.train}".rstrip("/")
    what = "pictures" if found.kind == "image" else "recordings"
    validation = f"{{uri: pvc://{DATA}/{found.validation}}}" if found.validation else "{fraction: 0.2}"
    limits = resources(machine)
    lines = [
        f"# Trains a classifier of {len(found.files)} classes on {sum(found.files.values())} {what}.",
        "#   rfuav-trainer check -f FILE    says what it would do, and how long it would take",
        "#   rfuav-trainer train -f FILE    runs it on this machine",
        f"#   kubectl apply -f FILE          runs it in a cluster that has the claims {DATA} and {MODELS}",
        f"apiVersion: {API_VERSION}",
        "kind: TrainingJob",
        "metadata:",
        f"  name: {name_of(output)}",
        "  annotations:  # the folders that stand for the claims on this machine; a cluster ignores them",
        f"    {MOUNTS}: |",
        f"      {DATA}={_relative(found.folder, beside)}",
        f"      {MODELS}={_relative(output.parent, beside)}",
        "spec:",
        "  model:",
        f"    architecture: {options.arch}",
        "    weights: none  # random; or pretrained, with weightsCache; or the URI of a weights file",
        "  dataset:",
        f"    train: {{uri: {data}}}  # {_counts(found)}",
        f"    validation: {validation}" + ("" if found.validation else "  # of the training data, whole recordings"),
        f"    imageSize: {options.size}",
        *_iq(found),
        "  training:",
        f"    epochs: {options.epochs}",
        f"    batchSize: {_batch(found)}  # auto: as many as fit, at most 32 on a CPU and 256 on a GPU",
        f"    optimizer: {{learningRate: {rate}}}",
        f"    schedule: {{name: cosine, warmupEpochs: {warmup}}}",
        *_balance(found),
        f"  output: {{uri: {_quoted(f'pvc://{MODELS}/{output.name}')}}}",
        "  resources:",
        f"    gpus: {machine.gpus}" + ("" if machine.gpus else "  # this machine has none; in a cluster write 1"),
        f'    cpu: "{limits["cpu"]}"',
        f"    memory: {limits['memory']}",
    ]
    return "\n".join(lines) + "\n"


def resources(machine: Machine) -> dict[str, Any]:
    """The resources of a job that may use the machine."""
    return {"gpus": machine.gpus, "cpu": str(machine.cpus), "memory": f"{max(2, min(64, machine.memory // GIB))}Gi"}


def _iq(found: Found) -> list[str]:
    if found.kind == "image":
        return []
    rate = found.sample_rate or DEFAULT_RATE
    samples = int(min(LONGEST_FRAME, found.seconds or LONGEST_FRAME) * rate)
    known = "" if found.sample_rate else "  # a guess: no file says it. Write the rate of your recordings"
    return [
        "    iq:",
        f"      sampleRate: {rate:.0f}{known}",
        f"      frameSeconds: {samples / rate:.9g}",
        *([f"      sampleFormat: {found.sample_format}"] if found.sample_format else []),
    ]


def _batch(found: Found) -> int | str:
    """A batch that leaves a small data set enough steps in an epoch."""
    files = sum(found.files.values())
    return next((size for size in BATCHES if files < size * ENOUGH_STEPS), "auto")


def _balance(found: Found) -> list[str]:
    most, least = max(found.files.values()), min(found.files.values())
    return [f"    classWeights: balanced  # {least} to {most} files in a class"] if most >= UNEVEN * least else []


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _counts(found: Found, shown: int = 6) -> str:
    parts = [f"{' '.join(name.split())} {count}" for name, count in list(found.files.items())[:shown]]
    return ", ".join(parts) + (", ..." if len(found.files) > shown else "")


def _relative(folder: Path, beside: Path) -> Path:
    return folder.relative_to(beside) if folder.is_relative_to(beside) else folder
