"""A dry run of a training: what it would read, how much memory and time it would take. Nothing is written.

In: a TrainingJob. Out: a `Plan`. A few real steps of the network are timed on this machine.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from rfuav_crds import TrainingJobSpec
from rfuav_trainer.data import augment_signals
from rfuav_trainer.data.batches import batches, cut
from rfuav_trainer.data.dataset import open_dataset
from rfuav_trainer.data.images import Room
from rfuav_trainer.data.samples import Reader
from rfuav_trainer.distributed.process_group import World
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.networks import architectures, memory_fit
from rfuav_trainer.process import resources, runtime
from rfuav_trainer.storage import marks
from rfuav_trainer.storage.paths import local_path
from rfuav_trainer.training.auto_settings import resolve_workers
from rfuav_trainer.training.learner import Moment
from rfuav_trainer.training.setup import make_learner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from rfuav_trainer.data.dataset import Dataset
    from rfuav_trainer.data.samples import Sample
    from rfuav_trainer.job import Job
    from rfuav_trainer.training.auto_settings import Resolved

TIMED_STEPS = 3
"""The first of them is not counted: it allocates memory and chooses kernels."""
FORWARD = 1 / 3
"""Time of a forward pass as a fraction of a step."""
CHECKPOINTED = 3
"""Copies of the weights in a checkpoint with Adam."""


@dataclass(frozen=True)
class Plan:
    """What a training would do.

    Attributes:
        name: of the job.
        architecture: of the network.
        parameters: of the network.
        format: image or iq.
        shape: of a picture as the network gets it: channels, height, width.
        classes: for each class `train`, `validation` (samples), `trainRecordings`, `validationRecordings`.
        unreadable: files that cannot be read, with the reason.
        left_out: how many annotations give no sample, by the reason.
        device, precision, batch_size: as the training would resolve them.
        steps: in an epoch.
        epochs: at most.
        memory: bytes of a step on the device.
        memory_limit: bytes that it may use there.
        step_seconds, read_seconds: of one step, and of reading one sample for the first time; measured.
        seconds: of the whole training; an estimate.
        disk: bytes of the results.
        output: the folder.
        state: of the output: `new`, `finished`, or `to be continued`.
    """

    name: str
    architecture: str
    parameters: int
    format: str
    shape: tuple[int, ...]
    classes: dict[str, dict[str, int]]
    unreadable: dict[str, str]
    left_out: dict[str, int]
    device: str
    precision: str
    batch_size: int
    steps: int
    epochs: int
    memory: int
    memory_limit: int
    step_seconds: float
    read_seconds: float
    seconds: float
    disk: int
    output: str
    state: str


def check(job: Job) -> Plan:
    """Look at the data of a training, and time a few steps.

    Raises:
        JobError: what the training itself would raise before its first epoch.
    """
    spec = job.spec
    if not isinstance(spec, TrainingJobSpec):
        raise InvalidConfigurationError(f"{job.name} is a {job.kind}: check takes a TrainingJob")
    architectures.check(spec.model.architecture, spec.dataset.image_size)
    dataset = open_dataset(job, spec)
    augment_signals.check(spec.training.augment, dataset.preprocessing.format)
    device = runtime.choose_device(job)
    world = World()
    learner, resolved = make_learner(job, spec, dataset, world=world, device=device, state=None)
    reader = Reader(dataset.preprocessing, device=device, room=Room.share_of(resources.memory(job)))
    network = learner.network
    weights = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    parameters = sum(p.numel() for p in network.parameters())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    step_size = resolved.batch_size * spec.training.gradient_accumulation
    wanted = cut(_spread(dataset.train, step_size * TIMED_STEPS), resolved.batch_size)
    began = time.monotonic()
    read = [batch for batch in batches(wanted, reader) if len(batch.samples) > 1]
    reading = time.monotonic() - began
    if not read:
        raise InputError("none of the training files that were tried can be read, or there are fewer than two")
    network.train()
    times = []
    for number, batch in enumerate(read):
        began = time.monotonic()
        learner.step([batch], Moment(0, number, len(read)))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((time.monotonic() - began) / len(batch.samples))
    sample_seconds = min(times)
    read_seconds = reading / sum(len(batch.samples) for batch in read)
    memory, limit = _memory(job, spec, network, resolved, device)
    steps = math.ceil(len(dataset.train) / step_size)
    samples, checked = len(dataset.train), len(dataset.validation)
    epochs = spec.training.epochs
    epoch = sample_seconds * (samples + FORWARD * checked)
    first = read_seconds * (samples + checked) / max(1, resolve_workers(job, spec))
    folder = local_path(job, spec.output.uri, "output.uri") if not spec.output.uri.startswith("s3://") else None
    state = "new"
    if folder is not None and (marks.read_mark(folder / marks.SUCCESS) or {}).get("uid") == job.uid:
        state = "finished"
    elif folder is not None and any((folder / "checkpoints" / job.uid).glob("*.json")):
        state = "to be continued"
    return Plan(
        name=job.name,
        architecture=spec.model.architecture,
        parameters=parameters,
        format=dataset.preprocessing.format,
        shape=tuple(read[0].pictures.shape[1:]),
        classes=_classes(dataset),
        unreadable=dataset.unreadable.all(),
        left_out=dict(dataset.left_out),
        device=str(device),
        precision=resolved.precision,
        batch_size=resolved.batch_size,
        steps=steps,
        epochs=epochs,
        memory=memory,
        memory_limit=limit,
        step_seconds=sample_seconds * step_size,
        read_seconds=read_seconds,
        seconds=epochs * epoch + first,
        disk=weights * (2 + CHECKPOINTED * spec.checkpoint.keep),
        output=str(folder or spec.output.uri),
        state=state,
    )


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` samples from all over the data."""
    return list(samples[:: max(1, len(samples) // count)][:count])


def _memory(
    job: Job, spec: TrainingJobSpec, network: nn.Module, resolved: Resolved, device: torch.device
) -> tuple[int, int]:
    """Bytes that a step takes on the device, and how many there are."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
    size = spec.dataset.image_size
    with memory_fit.undisturbed(network, device):
        each = memory_fit.kept_bytes(network, 2, size, device, resolved.precision) / 2
    weights = sum(p.numel() * p.element_size() for p in network.parameters()) * memory_fit.COPIES
    return int(weights + resolved.batch_size * each), resources.memory(job)


def _classes(dataset: Dataset) -> dict[str, dict[str, Any]]:
    found = {
        name: {
            "train": 0,
            "validation": 0,
            "trainRecordings": recordings["train"],
            "validationRecordings": recordings["validation"],
        }
        for name, recordings in dataset.recordings.items()
    }
    for side, samples in (("train", dataset.train), ("validation", dataset.validation)):
        for sample in samples:
            found[dataset.classes[sample.label]][side] += 1
    return found
