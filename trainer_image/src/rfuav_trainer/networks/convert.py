"""Converts weights of the reference service and of other PyTorch trainings to our weights files.

In: a .pth or .pt file with the state dict of a torchvision network, read without running code from it. Out: a
safetensors file with metadata; the network computes the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rfuav_crds import reasons
from rfuav_trainer.data.samples import IMAGENET, Preprocessing, find_classes
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.networks import architectures, weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    Shapes = Mapping[str, tuple[int, ...]]

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
NORMALISATION = {"imagenet": IMAGENET, "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))}
POSITIONS = "encoder.pos_embedding"


def run(
    source: Path,
    target: Path,
    *,
    classes: Sequence[str],
    architecture: str | None = None,
    image_size: int | None = None,
    normalisation: str = "imagenet",
) -> weights.Card:
    """Convert `source` into `target`.

    Args:
        source: a state dict, plain or under a common key of a dictionary.
        target: the .safetensors file to write.
        classes: names in the order of the outputs; torchvision's ImageFolder sorts the folders.
        architecture: one of `architectures.ARCHITECTURES`; None finds the one that fits.
        image_size: side of the training pictures; known from the weights of a vision transformer. Default: 224.
        normalisation: of the training pictures (0 to 1): imagenet, or none.

    Raises:
        InputError: the file is missing, or not a plain state dict.
        InvalidConfigurationError: no architecture fits, or the number of classes differs.
    """
    if normalisation not in NORMALISATION:
        raise InvalidConfigurationError(f"--normalisation {normalisation}: write one of {', '.join(NORMALISATION)}")
    state = read(source)
    if target.suffix != ".safetensors":
        raise InvalidConfigurationError(f"{target}: write a name that ends in .safetensors")
    found, state = _fitting(state, source, [architecture] if architecture else list(architectures.ARCHITECTURES))
    outputs = _outputs(state)
    if len(classes) != outputs:
        raise InvalidConfigurationError(
            f"{source} has {outputs} classes, but {len(classes)} are named: name all, in the order of the outputs",
            reason=reasons.CLASS_MISMATCH,
        )
    size = _image_size(state, found) or image_size or 224
    if image_size not in (None, size):
        raise InvalidConfigurationError(f"{source} was trained with pictures of {size} pixels, not {image_size}")
    mean, std = NORMALISATION[normalisation]
    card = weights.Card(found, list(classes), Preprocessing("image", size, mean, std))
    network = architectures.build(found, outputs, size)
    network.load_state_dict(state)
    weights.save(target, network.state_dict(), card)
    return card


def classes(named: Sequence[str], folder: Path | None) -> list[str]:
    """The class names: `named`, or the sorted folders of `folder`.

    Raises:
        InvalidConfigurationError: both or neither are given.
    """
    if bool(named) == (folder is not None):
        raise InvalidConfigurationError("write --class for every class, or --classes-from with the training folder")
    return list(named) if folder is None else find_classes(folder, where="--classes-from")


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in `path`, without wrappers.

    Raises:
        InputError: the file is missing, needs code to be read, or contains no state dict.
    """
    if not path.is_file():
        raise InputError(f"no weights file at {path}")
    try:
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
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise InputError(f"{path} does not contain a state dict (names to tensors)", reason=reasons.WEIGHTS_UNREADABLE)
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in content)), None):
        content = {name.removeprefix(prefix): value for name, value in content.items()}
    return dict(content)


def _fitting(state: dict[str, Tensor], path: Path, candidates: Sequence[str]) -> tuple[str, dict[str, Tensor]]:
    """The candidate that has the tensors of `state`, and the state with its names."""
    nearest: tuple[int, str, str] | None = None
    for name in candidates:
        if name not in architectures.ARCHITECTURES:
            raise InvalidConfigurationError(
                f"{name!r} is not known: write one of {', '.join(architectures.ARCHITECTURES)}"
            )
        size = _image_size(state, name) or 224
        if size < architectures.ARCHITECTURES[name].smallest:
            continue
        with torch.device("meta"):
            own = {k: tuple(v.shape) for k, v in architectures.build(name, _outputs(state), size).state_dict().items()}
        renamed = _renamed_head(state, own)
        wrong = [
            key
            for key in {*own} | {*renamed}
            if key not in own or key not in renamed or own[key] != tuple(renamed[key].shape)
        ]
        if not wrong:
            return name, renamed
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
