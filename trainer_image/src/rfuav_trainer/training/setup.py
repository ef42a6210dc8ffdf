"""The start of a training: the network with its weights, resolved settings, and the signature of checkpoints."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import structlog
import torch

from rfuav_crds import reasons
from rfuav_trainer.data.dataset import differences
from rfuav_trainer.data.files import with_sidecars
from rfuav_trainer.data.recordings import TIME
from rfuav_trainer.data.splitting import RULES
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.networks import architectures, convert, custom, weights
from rfuav_trainer.storage import marks, outputs
from rfuav_trainer.storage.paths import local_path
from rfuav_trainer.training.auto_settings import Resolved, resolve
from rfuav_trainer.training.learner import Learner
from rfuav_trainer.training.loss import balanced_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import nn

    from rfuav_crds import TrainingJobSpec
    from rfuav_trainer.data.dataset import Dataset
    from rfuav_trainer.data.samples import Preprocessing, Sample
    from rfuav_trainer.distributed.process_group import World
    from rfuav_trainer.job import Job

log = structlog.get_logger()


def make_learner(
    job: Job,
    spec: TrainingJobSpec,
    dataset: Dataset,
    *,
    world: World,
    device: torch.device,
    state: dict[str, Any] | None,
) -> tuple[Learner, Resolved]:
    """The network with its initial or restored weights, and the resolved settings.

    Args:
        job: the job.
        spec: its spec.
        dataset: training and validation data.
        world: all processes of the training.
        device: of the training.
        state: of the checkpoint to resume; None: start from the beginning.

    Raises:
        InputError: the initial weights are missing or damaged.
        InvalidConfigurationError: they do not fit the job, or the device does not support the precision.
    """
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that costs time
    torch.manual_seed(spec.training.seed)
    network = architectures.build(
        spec.model.architecture, len(dataset.classes), spec.dataset.image_size, function=spec.model.custom
    )
    if spec.model.custom is not None:
        custom.check_training(spec.model.custom, network, len(dataset.classes), spec.dataset.image_size)
    if state is None:
        _start_weights(job, spec, dataset, network)
    network.to(device)
    if state is not None:
        resolved = Resolved(**state["resolved"])
    else:
        world.share(network.state_dict().values())  # a custom network may use other random generators than torch's
        resolved = resolve(job, spec, network, device=device, world=world, samples=len(dataset.train))
    labels = [sample.label for sample in dataset.train]
    balanced = spec.training.class_weights == "balanced"
    learner = Learner(
        spec.training,
        network,
        device=device,
        number_format=resolved.precision,
        preprocessing=dataset.preprocessing,
        world=world,
        weights=balanced_weights(labels, len(dataset.classes)) if balanced else None,
    )
    if state is not None:
        learner.load(state["learner"])
    return learner, resolved


def _start_weights(job: Job, spec: TrainingJobSpec, dataset: Dataset, network: nn.Module) -> None:
    if spec.model.weights == "none":
        return
    if spec.model.weights == "pretrained":
        cache = local_path(job, spec.weights_cache.uri, "weightsCache.uri") if spec.weights_cache else None
        architectures.load_pretrained(network, spec.model.architecture, cache)
        return
    path = local_path(job, spec.model.weights, "model.weights")
    card = weights.read_card(path) if path.suffix == ".safetensors" else None
    if card is None and spec.model.custom is None:
        _start_from_reference(path, spec, dataset, network)
        return
    fresh_head = False
    if card is not None:
        if card.architecture != spec.model.architecture:
            raise InvalidConfigurationError(
                f"model.weights {path} contains a {card.architecture}, the job says {spec.model.architecture}",
                reason=reasons.WEIGHTS_MISMATCH,
            )
        fresh_head = spec.model.custom is None and _needs_head(len(card.classes), card.head, dataset)
        if not fresh_head:
            weights.check_classes(card, dataset.classes, path)
        _say_what_differs(card.preprocessing, dataset.preprocessing)
    weights.load(path, network, architecture=spec.model.architecture, fresh_head=fresh_head)


def _start_from_reference(path: Path, spec: TrainingJobSpec, dataset: Dataset, network: nn.Module) -> None:
    """Start from weights without metadata: they are taken as those of the reference service."""
    weights.check_there(path)
    found = convert.recognised(path, [spec.model.architecture])
    fresh_head = _needs_head(found.classes, found.head, dataset)
    log.warning(
        "the weights say neither their classes nor how their pictures were prepared: assuming both as in the data",
        weights=path.name,
    )
    weights.put(found.state, network, path, architecture=spec.model.architecture, fresh_head=fresh_head)


def _needs_head(classes: int, head: str, dataset: Dataset) -> bool:
    """Whether the head of the weights cannot be that of the network."""
    if classes == len(dataset.classes) and not head:
        return False
    log.warning(
        "the weights have another head or number of classes; reinitialising the head",
        weights=classes,
        data=len(dataset.classes),
    )
    return True


def _say_what_differs(theirs: Preprocessing, ours: Preprocessing) -> None:
    """Warn if the preprocessing differs from that of the weights: the training must compensate."""
    if theirs.spectrogram is None or ours.spectrogram is None:
        found = [] if theirs.format == ours.format else [f"format {theirs.format} in the weights, {ours.format} here"]
    else:
        found = differences(theirs.spectrogram, ours.spectrogram)
    for name in ("mean", "std"):
        if getattr(theirs, name) != getattr(ours, name):
            found.append(f"{name} {getattr(theirs, name)} in the weights, {getattr(ours, name)} here")
    if found:
        log.warning("the weights were trained with different preprocessing", differences=found)


def made_from(job: Job, spec: TrainingJobSpec, dataset: Dataset) -> dict[str, Any]:
    """What the weights are made from, besides the settings: the data, and the initial weights."""
    found: dict[str, Any] = {
        where: marks.of_files(with_sidecars(files), dataset.contents) for where, files in dataset.read_from.items()
    }
    if spec.model.weights == "pretrained" and spec.weights_cache is not None:
        cache = local_path(job, spec.weights_cache.uri, "weightsCache.uri")
        path = architectures.pretrained_in(spec.model.architecture, cache)
        found["weightsCache.uri"] = {} if path is None else marks.of_whole(path)
    elif spec.model.weights not in {"none", "pretrained"}:
        found["model.weights"] = marks.of_whole(local_path(job, spec.model.weights, "model.weights"))
    return found


def made(output: Path) -> dict[str, Any]:
    """The weights that a training left; nothing in a store, where reading them would be a download."""
    if outputs.is_remote(output):
        return {}
    return {"output.uri": marks.of_whole(*(output / f"{name}.safetensors" for name in ("best", "last")))}


def signature(spec: TrainingJobSpec, dataset: Dataset) -> dict[str, Any]:
    """The settings that must be equal for a checkpoint to be resumed."""
    training = spec.training.model_dump(mode="json", by_alias=True, exclude={"workers"})
    preprocessing = dataset.preprocessing.to_json()
    del preprocessing["transform"]  # a resumed training keeps that of its checkpoint
    spectrogram = preprocessing["spectrogram"]
    if spectrogram is not None and spec.dataset.iq.channel:
        spectrogram["channel"] = spec.dataset.iq.channel
    if spectrogram is not None and spec.dataset.iq.channels > 1:
        spectrogram["channels"] = spec.dataset.iq.channels
    if spectrogram is not None and spectrogram["sample_format"] == "auto":
        spectrogram["sample_format"] = "float32"  # the earlier default, which means the same for the files of then
    return {
        "architecture": spec.model.architecture,
        "custom": spec.model.custom,
        "weights": spec.model.weights,
        "classes": dataset.classes,
        "preprocessing": preprocessing,
        "training": training,
        "split": None
        if spec.dataset.validation.uri is not None
        else {
            "rules": RULES,
            "fraction": spec.dataset.validation.fraction,
            "recordingPattern": spec.dataset.recording_pattern,
        },
    }


def names_hash(samples: Sequence[Sample]) -> str:
    """SHA-256 of the samples and their labels, to detect changes of the training data."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(os.fsencode(f"{sample.name}\0{sample.frame}\0{sample.label}\n"))
    return digest.hexdigest()


def recordings_hashes(samples: Iterable[Sample]) -> list[str]:
    """A short hash of each recording (of a recording split in time: of each picture or frame), to find those again."""
    parts = {f"{s.name}\0{s.frame}" if s.recognised_by == TIME else s.group for s in samples}
    return sorted(hashlib.sha256(os.fsencode(part)).hexdigest()[:16] for part in parts)


def check_unseen(trained: Iterable[str], validation: Sequence[Sample], checkpoint: str) -> None:
    """Check that no validation sample of a changed data set is of a recording that was training data before.

    Raises:
        InvalidConfigurationError: one is.
    """
    seen = {*trained}
    known = [sample.name for sample in validation if not seen.isdisjoint(recordings_hashes([sample]))]
    if known:
        raise InvalidConfigurationError(
            f"the training data changed since the checkpoint {checkpoint}, and {len(known)} validation samples (as "
            f"{known[0]}) are now of recordings that it was trained on: put the data back, give the job another output "
            "or name, or write checkpoint.resume: false",
            reason=reasons.CHECKPOINT_MISMATCH,
        )
