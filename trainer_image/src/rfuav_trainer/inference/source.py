"""The weights of an inference: a file of ours, or one of the reference service, which is converted.

In: spec.model of an InferenceJob. Out: tensors with their metadata. What was converted is kept below the output, for
the other shards, later attempts, and whoever wants to use it; the original is only read.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_crds import InferenceJobSpec, reasons
from rfuav_trainer.data.samples import UNCHANGED, Preprocessing
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.networks import architectures, convert, reference_config, weights
from rfuav_trainer.networks.convert import DEFAULT_IMAGE_SIZE
from rfuav_trainer.storage import marks, outputs
from rfuav_trainer.storage.files import fitting
from rfuav_trainer.storage.paths import local_path

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from rfuav_trainer.job import Job
    from rfuav_trainer.networks.reference_config import Config

log = structlog.get_logger()

WEIGHTS = "model.weights"
CONFIG = "model.config"
FOLDER = "converted"


@dataclass(frozen=True)
class Source:
    """Weights.

    Attributes:
        path: their file, as the job names it.
        card: their metadata.
        own_card: whether the file has it; what it does not say was assumed.
        state: the tensors; None: read the file.
        made_from: what they were converted from just now; None: there is nothing to keep.
    """

    path: Path
    card: weights.Card
    own_card: bool = True
    state: dict[str, Tensor] | None = field(default=None, repr=False)
    made_from: dict[str, Any] | None = None

    def keep(self, output: Path) -> None:
        """Write what was converted below the output. Shards may do so at the same time: each file is whole."""
        if self.state is None or self.made_from is None:
            return
        path = _kept(self.path, output)
        weights.save(path, self.state, self.card, made_from=self.made_from)
        log.info("weights converted", weights=self.path.name, converted=outputs.shown(path))


def read(job: Job, spec: InferenceJobSpec, output: Path | None = None) -> Source:
    """The weights of the job.

    Args:
        job: the job.
        spec: its spec.
        output: where an earlier attempt or another shard may have kept them converted.

    Raises:
        InputError: a file is missing or damaged.
        InvalidConfigurationError: the files do not match each other or the job, or do not say enough.
    """
    if spec.model.weights is None:
        raise InvalidConfigurationError(
            "only the operator resolves model.fromTrainingJob: outside a cluster write "
            "model: {weights: pvc://CLAIM/.../best.safetensors}",
        )
    path = local_path(job, spec.model.weights, WEIGHTS)
    config = None
    if spec.model.config is not None:
        config = reference_config.read(local_path(job, spec.model.config, CONFIG), CONFIG)
    card = weights.read_card(path) if path.suffix == ".safetensors" else None
    if card is not None:
        _agree(spec, config, card, path)
        return Source(path, card)
    if spec.model.architecture == architectures.CUSTOM:
        return Source(path, _custom_card(spec, path), own_card=False)
    weights.check_there(path)
    made_from = made_from_files(job, spec) | {
        "model": {"architecture": spec.model.architecture, "classes": list(spec.model.classes)},
        "version": version("rfuav-trainer"),
    }
    return _found(path, output, made_from) or _converted(spec, config, path, made_from)


def made_from_files(job: Job, spec: InferenceJobSpec) -> dict[str, Any]:
    """The files that the network is made from, for marks."""
    fields = {WEIGHTS: spec.model.weights, CONFIG: spec.model.config}
    return {where: marks.of_whole(local_path(job, uri, where)) for where, uri in fields.items() if uri is not None}


def _kept(path: Path, output: Path) -> Path:
    return output / FOLDER / fitting(path.stem, ".safetensors")


def _found(path: Path, output: Path | None, made_from: dict[str, Any]) -> Source | None:
    """The weights as they were kept before, made from the same files."""
    if output is None:
        return None
    with suppress(OSError, InputError), outputs.reading(_kept(path, output)) as here:
        card = weights.read_card(here)
        if card is not None and weights.read_made_from(here) == made_from:
            state = {name: tensor.clone() for name, tensor in weights.read_safetensors(here).items()}
            log.info("using converted weights", weights=path.name, converted=outputs.shown(_kept(path, output)))
            return Source(path, card, own_card=False, state=state)
    return None


def _converted(spec: InferenceJobSpec, config: Config | None, path: Path, made_from: dict[str, Any]) -> Source:
    architecture = _one(spec.model.architecture, config and config.architecture, "architecture", config)
    classes = _one(list(spec.model.classes), config and list(config.classes), "classes", config)
    if not classes:
        raise InvalidConfigurationError(
            f"{path} has no metadata: write model.classes (in output order), or as model.config the YAML file that it "
            "was trained with, with class_names in it",
            reason=reasons.WEIGHTS_MISMATCH,
        )
    found = convert.recognised(path, [architecture] if architecture else None)
    size = config.image_size if config is not None else None
    if config is not None and size is not None:
        architectures.check(found.architecture, size, f"{config.where}: image_size")
    card = convert.card_of(found, path, classes=classes, image_size=size)
    say = log.info if config is not None else log.warning
    say(
        "the weights do not say how their pictures were prepared: assuming levels from 0 to 1 without normalisation, "
        "as in the reference service; rfuav-trainer convert stores and checks this",
        weights=path.name,
        architecture=card.architecture,
        imageSize=card.preprocessing.image_size,
    )
    return Source(path, card, own_card=False, state=found.state, made_from=made_from)


def _one(asked: Any, stated: Any, name: str, config: Config | None) -> Any:
    """What the job or the config file says; they may not contradict each other."""
    if asked and stated and asked != stated and config is not None:
        raise InvalidConfigurationError(
            f"model.{name} differs from {config.where}: leave model.{name} out, or correct the file",
            reason=reasons.WEIGHTS_MISMATCH,
        )
    return asked or stated


def _custom_card(spec: InferenceJobSpec, path: Path) -> weights.Card:
    """The metadata of weights without any for a user's own network."""
    if not spec.model.classes:
        raise InvalidConfigurationError(
            f"{path} has no metadata: write model.classes (in output order)", reason=reasons.WEIGHTS_MISMATCH
        )
    if spec.model.config is not None:
        raise InvalidConfigurationError(
            "model.config is of torchvision's networks, and model.architecture is custom: remove one of the two"
        )
    log.warning(
        "the weights do not say how their pictures were prepared: assuming levels from 0 to 1 without normalisation",
        weights=path.name,
        imageSize=DEFAULT_IMAGE_SIZE,
    )
    preprocessing = Preprocessing("image", DEFAULT_IMAGE_SIZE, *UNCHANGED, transform=1)
    return weights.Card(architectures.CUSTOM, list(spec.model.classes), preprocessing)


def _agree(spec: InferenceJobSpec, config: Config | None, card: weights.Card, path: Path) -> None:
    stated: dict[str, str | None] = {"model.architecture": spec.model.architecture}
    if config is not None:
        stated[f"{config.where}: model"] = config.architecture
    for where, architecture in stated.items():
        if architecture not in (None, card.architecture):
            raise InvalidConfigurationError(
                f"{path} contains a {card.architecture}, {where} says {architecture}: leave that out",
                reason=reasons.WEIGHTS_MISMATCH,
            )
    for classes in (spec.model.classes, config.classes if config is not None else ()):
        if classes:
            weights.check_classes(card, list(classes), path)
