"""Converts weights of the reference service and of other PyTorch trainings to our weights files.

In: a .pth or .pt file with the state dict of a torchvision network, read without running code from it. Out: a
safetensors file with metadata; the network computes the same. What a state dict does not say is assumed, and said, and
can be checked with the scores of one picture.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
import torch
from numpy._core.multiarray import _reconstruct, scalar  # what NumPy pickles by

from rfuav_crds import reasons
from rfuav_trainer.data.files import find_classes
from rfuav_trainer.data.samples import IMAGENET, UNCHANGED, Preprocessing, Reader, Sample
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.networks import architectures, weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    Shapes = Mapping[str, tuple[int, ...]]

log = structlog.get_logger()

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
COUNTERS = ("total_ops", "total_params")
"""What a profiler (thop) leaves in every module of a state dict."""
NORMALISATION = {"none": UNCHANGED, "imagenet": IMAGENET}
"""The reference service's first: it scales pictures to 0 to 1 and does nothing else."""
TOLERANCE = 0.02
"""How far scores may differ: as probabilities, or as a fraction of the range of logits. Decoders and resizing differ by
a level of 255 or two."""
HARMLESS: list[Any] = [
    *(
        (call, f"numpy.{core}.multiarray.{call.__name__}")
        for call in (scalar, _reconstruct)
        for core in ("core", "_core")
    ),
    np.ndarray,
    np.dtype,
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    argparse.Namespace,
    PosixPath,
]
"""What trainers keep beside the weights (accuracies as NumPy's numbers, options), and cannot run code."""
POSITIONS = "encoder.pos_embedding"
DEFAULT_IMAGE_SIZE = 224
"""Of the reference service, and of torchvision."""


def run(
    source: Path,
    target: Path,
    *,
    classes: Sequence[str],
    architecture: str | None = None,
    image_size: int | None = None,
    normalisation: str | None = None,
    check: tuple[Path, Path] | None = None,
) -> weights.Card:
    """Convert `source` into `target`. What is assumed is logged.

    Args:
        source: a state dict, plain or under a common key of a dictionary.
        target: the .safetensors file to write.
        classes: names in the order of the outputs; torchvision's ImageFolder sorts the folders.
        architecture: one of `architectures.ARCHITECTURES`; None finds the one that fits.
        image_size: side of the training pictures; known from the weights of a vision transformer. Default: 224.
        normalisation: of the training pictures (0 to 1): imagenet, or none. Default: the one that `check` shows, else
            none, as in the reference service.
        check: a picture, and a JSON file of its scores (or logits) in the order of the outputs or by class. Nothing is
            written if the converted network gives others.

    Raises:
        InputError: a file is missing, or not a plain state dict.
        InvalidConfigurationError: no architecture fits, the number of classes differs, or the scores do.
    """
    if normalisation not in (None, *NORMALISATION):
        raise InvalidConfigurationError(f"--normalisation {normalisation}: write one of {', '.join(NORMALISATION)}")
    if target.suffix != ".safetensors":
        raise InvalidConfigurationError(f"{target}: write a name that ends in .safetensors")
    found = recognised(source, [architecture] if architecture else None)
    card = card_of(found, source, classes=classes, image_size=image_size)
    network = architectures.build(card.architecture, len(card.classes), card.preprocessing.image_size, head=card.head)
    network.eval().load_state_dict(found.state)
    candidates = [normalisation] if normalisation else list(NORMALISATION)
    ways = {
        name: replace(card.preprocessing, mean=mean, std=std)
        for name, (mean, std) in NORMALISATION.items()
        if name in candidates
    }
    chosen = candidates[0] if check is None else _as_checked(network, ways, list(classes), *check)
    _say_assumed(
        size=found.image_size or image_size, head=found.head, normalisation=normalisation or (chosen if check else None)
    )
    card = replace(card, preprocessing=ways[chosen])
    weights.save(target, network.state_dict(), card)
    return card


@dataclass(frozen=True)
class Recognised:
    """A state dict with the names of our network.

    Attributes:
        architecture: one of `architectures.ARCHITECTURES`.
        head: one of `architectures.heads`.
        classes: number of outputs.
        image_size: side of the training pictures, if the weights say it.
        state: the tensors.
    """

    architecture: str
    head: str
    classes: int
    image_size: int | None
    state: dict[str, Tensor]


def recognised(source: Path, candidates: Sequence[str] | None = None) -> Recognised:
    """The state dict in `source`, without wrappers, and the network that it belongs to.

    Args:
        source: a .pth, .pt or .safetensors file.
        candidates: the architectures that it may have; None: all.

    Raises:
        InputError: the file is missing, or not a plain state dict.
        InvalidConfigurationError: no architecture fits.
    """
    state = read(source)
    found, head, state = _fitting(state, source, candidates or list(architectures.ARCHITECTURES))
    return Recognised(found, head, _outputs(state), _image_size(state, found), state)


def card_of(found: Recognised, source: Path, *, classes: Sequence[str], image_size: int | None = None) -> weights.Card:
    """The metadata of weights of the reference service: pictures are scaled to 0 to 1 and not normalised.

    Args:
        found: the weights.
        source: their file, for messages.
        classes: names in the order of the outputs.
        image_size: side of the training pictures. Default: as the weights say, else 224.

    Raises:
        InvalidConfigurationError: the number of classes or the image size differs from that of the weights.
    """
    if len(classes) != found.classes:
        raise InvalidConfigurationError(
            f"{source} has {found.classes} classes, but {len(classes)} are named: name all, in the order of the "
            "outputs",
            reason=reasons.CLASS_MISMATCH,
        )
    size = found.image_size or image_size or DEFAULT_IMAGE_SIZE
    if image_size not in (None, size):
        raise InvalidConfigurationError(f"{source} was trained with pictures of {size} pixels, not {image_size}")
    # The first transform, which takes files as Pillow reads them, as the reference service does.
    preprocessing = Preprocessing("image", size, *NORMALISATION["none"], transform=1)
    return weights.Card(found.architecture, list(classes), preprocessing, head=found.head)


def _say_assumed(*, size: int | None, head: str, normalisation: str | None) -> None:
    """Log what neither the weights nor the user said; `size` and `normalisation` are None if they were assumed."""
    assumed = []
    if normalisation is None:
        assumed.append("pictures are scaled to 0 to 1 and not normalised (--normalisation)")
    if size is None:
        assumed.append("pictures have 224 pixels (--image-size)")
    if head:
        assumed.append("the hidden layer of the head has a ReLU, as in the reference service")
    if assumed:
        log.warning("the weights do not say all: compare the scores of a picture with --check", assumed=assumed)


def _as_checked(
    network: torch.nn.Module, ways: Mapping[str, Preprocessing], classes: Sequence[str], picture: Path, scores: Path
) -> str:
    """The way to prepare pictures with which the network gives the stored scores of a picture.

    Raises:
        InputError: the picture or the scores cannot be read.
        InvalidConfigurationError: no way gives those scores.
    """
    wanted = _stored_scores(scores, classes)
    chances = bool((wanted >= 0).all()) and math.isclose(float(wanted.sum()), 1.0, abs_tol=1e-2)
    allowed = TOLERANCE if chances else TOLERANCE * float(wanted.max() - wanted.min())
    differences: dict[str, float] = {}
    for name, preprocessing in ways.items():
        pixels = Reader(preprocessing).read(Sample(picture, picture.name))
        with torch.inference_mode():
            given = network(preprocessing.normalise(pixels[None]))[0].double()
        differences[name] = float(((given.softmax(dim=0) if chances else given) - wanted).abs().max())
    best = min(differences, key=differences.__getitem__)
    shown = ", ".join(f"{value:.2g} with normalisation {name}" for name, value in differences.items())
    if not differences[best] <= allowed:
        raise InvalidConfigurationError(
            f"the scores of {picture} differ from those in {scores} by {shown}; {allowed:.2g} may be rounding: check "
            "--image-size, the order of the classes, and that both are of these weights",
            reason=reasons.WEIGHTS_MISMATCH,
        )
    log.info("checked", picture=str(picture), normalisation=best, differences=differences, allowed=allowed)
    return best


def _stored_scores(path: Path, classes: Sequence[str]) -> Tensor:
    """Scores from a JSON file, in the order of `classes`: float64."""
    try:
        content: Any = json.loads(path.read_bytes())
        if isinstance(content, dict):
            content = [content[name] for name in classes] if {*content} == {*classes} else None
        values = np.asarray(content, dtype=np.float64).reshape(-1)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"--check: {path} cannot be read as JSON with one number for each class: {error}") from error
    if values.shape != (len(classes),) or not np.isfinite(values).all():
        raise InputError(f"--check: {path} does not have one finite number for each of the {len(classes)} classes")
    return torch.from_numpy(values)


def classes(named: Sequence[str], folder: Path | None) -> list[str]:
    """The class names: `named`, or the sorted folders of `folder`.

    Raises:
        InvalidConfigurationError: both or neither are given.
    """
    if bool(named) == (folder is not None):
        raise InvalidConfigurationError("write --class for every class, or --classes-from with the training folder")
    return list(named) if folder is None else find_classes(folder, where="--classes-from")


def pair(text: str) -> tuple[Path, Path]:
    """The picture and the scores of --check PICTURE=SCORES.json."""
    picture, equals, scores = text.rpartition("=")
    if not equals:
        raise InvalidConfigurationError(f"--check {text}: write PICTURE=SCORES.json")
    return Path(picture), Path(scores)


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in `path`, without wrappers.

    Raises:
        InputError: the file is missing, needs code to be read, or contains no state dict.
    """
    if not path.is_file():
        raise InputError(f"no weights file at {path}")
    if path.suffix == ".safetensors":
        return weights.read(path)
    try:
        with torch.serialization.safe_globals(HARMLESS):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types here; all mean the same to the user
        raise InputError(
            f"{path} is not a PyTorch file, or cannot be read without running code from it ({type(error).__name__}): "
            "save it with torch.save(model.state_dict(), path) where it was trained, and convert that file",
            reason=reasons.WEIGHTS_UNREADABLE,
        ) from error
    for name in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if isinstance(content, dict):
        content = {name: value for name, value in content.items() if str(name).rpartition(".")[2] not in COUNTERS}
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise InputError(f"{path} does not contain a state dict (names to tensors)", reason=reasons.WEIGHTS_UNREADABLE)
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in content)), None):
        content = {name.removeprefix(prefix): value for name, value in content.items()}
    return dict(content)


def _fitting(state: dict[str, Tensor], path: Path, candidates: Sequence[str]) -> tuple[str, str, dict[str, Tensor]]:
    """The candidate that has the tensors of `state`, its head, and the state with its names."""
    nearest: tuple[int, str, str] | None = None
    for name in candidates:
        if name not in architectures.ARCHITECTURES:
            raise InvalidConfigurationError(
                f"{name!r} is not known: write one of {', '.join(architectures.ARCHITECTURES)}"
            )
        size = _image_size(state, name) or DEFAULT_IMAGE_SIZE
        if size < architectures.ARCHITECTURES[name].smallest:
            continue
        for head in architectures.heads(name):
            with torch.device("meta"):
                network = architectures.build(name, _outputs(state), size, head=head)
            own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
            renamed = _renamed_head(state, own)
            wrong = [
                key
                for key in {*own} | {*renamed}
                if key not in own or key not in renamed or own[key] != tuple(renamed[key].shape)
            ]
            if not wrong:
                return name, head, renamed
            if nearest is None or len(wrong) < nearest[0]:
                nearest = (len(wrong), name, min(wrong))
    near = (
        f"; nearest is {nearest[1]}: {nearest[0]} tensors are missing or differ, such as {nearest[2]}"
        if nearest
        else ""
    )
    raise InvalidConfigurationError(
        f"{path} fits none of {', '.join(candidates)}{near}", reason=reasons.WEIGHTS_MISMATCH
    )


def _renamed_head(state: dict[str, Tensor], own: Shapes) -> dict[str, Tensor]:
    """The state with the head renamed to ours: other trainers replace the head (`heads`, `fc.1`, ...)."""
    theirs, ours = sorted({*state} - {*own}), sorted({*own} - {*state})
    pair = ["bias", "weight"]
    if [key.rpartition(".")[2] for key in theirs] != pair or [key.rpartition(".")[2] for key in ours] != pair:
        return state
    names = dict(zip(theirs, ours, strict=True))
    return {names.get(key, key): value for key, value in state.items()}


def _outputs(state: Mapping[str, Tensor]) -> int:
    """Rows of the last matrix: the head is the last layer of torchvision's networks."""
    matrices = [value for value in state.values() if value.ndim == 2]  # noqa: PLR2004  (a matrix)
    if not matrices:
        raise InvalidConfigurationError(
            "the weights contain no linear layer, so they are not a classifier", reason=reasons.WEIGHTS_MISMATCH
        )
    return int(matrices[-1].shape[0])


def _image_size(state: Mapping[str, Tensor], architecture: str) -> int | None:
    """The side of the pictures, from the position embedding of a vision transformer; None for other networks."""
    if POSITIONS not in state or not architecture.startswith("vit"):
        return None
    side: int = round((state[POSITIONS].shape[1] - 1) ** 0.5)
    return side * architectures.ARCHITECTURES[architecture].multiple
