"""Networks: torchvision's architectures with a head for the classes of the job, or a network of the user.

In: the name of an architecture, the number of classes, the image size. Out: a torch module that maps
(n, 3, size, size) to (n, classes).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models as zoo
from torchvision.models.swin_transformer import SwinTransformerBlockV2

from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.networks import custom
from rfuav_trainer.storage import inputs


@dataclass(frozen=True)
class Architecture:
    """Requirements of an architecture: torchvision's weights enum, the smallest image size, and the size's divisor."""

    weights: str
    smallest: int = 64
    multiple: int = 1


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture("ResNet18_Weights"),
    "resnet34": Architecture("ResNet34_Weights"),
    "resnet50": Architecture("ResNet50_Weights"),
    "resnet101": Architecture("ResNet101_Weights"),
    "resnet152": Architecture("ResNet152_Weights"),
    "vit_b_16": Architecture("ViT_B_16_Weights", 32, 16),
    "vit_b_32": Architecture("ViT_B_32_Weights", 32, 32),
    "vit_l_16": Architecture("ViT_L_16_Weights", 32, 16),
    "vit_l_32": Architecture("ViT_L_32_Weights", 32, 32),
    "vit_h_14": Architecture("ViT_H_14_Weights", 28, 14),
    "swin_v2_t": Architecture("Swin_V2_T_Weights"),
    "swin_v2_s": Architecture("Swin_V2_S_Weights"),
    "swin_v2_b": Architecture("Swin_V2_B_Weights"),
    "mobilenet_v3_small": Architecture("MobileNet_V3_Small_Weights"),
    "mobilenet_v3_large": Architecture("MobileNet_V3_Large_Weights"),
}


BATCH_NORM_MOMENTUM = 0.1  # PyTorch's own default


CUSTOM = "custom"
HEADS = ("fc.", "heads.", "head.", "classifier.")
"""Prefixes of the parameters of the classification head, over all architectures."""
REFERENCE_HEAD = "reference"
"""The head that the reference service gives a MobileNet instead of torchvision's."""
REFERENCE_HIDDEN = 512


def check(architecture: str, image_size: int, where: str = "dataset.imageSize") -> None:
    """Raise InvalidConfigurationError if the architecture is unknown or does not support the image size (`where`)."""
    if architecture == CUSTOM:
        return
    known = ARCHITECTURES.get(architecture)
    if known is None:
        raise InvalidConfigurationError(
            f"model.architecture {architecture!r} is not known: write one of {', '.join(ARCHITECTURES)}",
        )
    if image_size < known.smallest or image_size % known.multiple:
        fitting = max(known.smallest, round(image_size / known.multiple) * known.multiple)
        raise InvalidConfigurationError(
            f"{where} {image_size} does not suit {architecture}, which takes multiples of {known.multiple} "
            f"from {known.smallest} up: write {fitting}",
        )


def build(
    architecture: str, classes: int, image_size: int, *, function: str | None = None, head: str = ""
) -> nn.Module:
    """The network with fresh weights, drawn from torch's current random state.

    Args:
        architecture: one of `ARCHITECTURES`, or custom.
        classes: outputs of the head.
        image_size: side of the pictures in pixels.
        function: module:function, only for custom.
        head: one of `heads(architecture)`.

    Raises:
        InvalidConfigurationError: unknown architecture, unsupported image size, or a function that does not build a
            network.
    """
    check(architecture, image_size)
    if architecture == CUSTOM:
        if function is None:
            raise InvalidConfigurationError(
                "model.architecture custom needs model.custom: write model.custom: module:function"
            )
        return custom.build(function, classes, image_size)
    if function is not None:
        raise InvalidConfigurationError(
            f"model.custom is only for architecture custom, and this is {architecture}: remove model.custom"
        )
    arguments: dict[str, Any] = {"weights": None, "num_classes": classes}
    if architecture.startswith("vit"):
        arguments["image_size"] = image_size
    network: nn.Module = getattr(zoo, architecture)(**arguments)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # torchvision's MobileNetV3 uses 0.01, for millions of steps. With hundreds of steps, the running
            # statistics stay near their start, and evaluation stays at chance while the training loss falls.
            module.momentum = max(module.momentum or 0.0, BATCH_NORM_MOMENTUM)
        if isinstance(module, SwinTransformerBlockV2):
            # As the authors initialise it (Liu et al. 2022, arXiv 2111.09883, and their code): every block starts as
            # the identity. With torchvision's ones, the noise of a dozen blocks delays learning considerably.
            nn.init.zeros_(module.norm1.weight)
            nn.init.zeros_(module.norm2.weight)
    if head == REFERENCE_HEAD:
        replaced: Any = network.classifier
        hidden = nn.Linear(replaced[0].in_features, REFERENCE_HIDDEN)
        network.classifier = nn.Sequential(hidden, nn.ReLU(), nn.Dropout(0.2), nn.Linear(REFERENCE_HIDDEN, classes))
    return network


def heads(architecture: str) -> list[str]:
    """The heads that weights of the architecture may have; torchvision's, the empty name, first."""
    return ["", REFERENCE_HEAD] if architecture.startswith("mobilenet") else [""]


def pretrained_file(architecture: str) -> str:
    """The file name under which torchvision publishes the ImageNet weights of `architecture`."""
    enum = getattr(zoo, ARCHITECTURES[architecture].weights)
    return Path(enum.DEFAULT.url).name


def pretrained_in(architecture: str, cache: Path) -> Path | None:
    """The file of ImageNet weights in the cache folder, if there is one."""
    entries = getattr(zoo, ARCHITECTURES[architecture].weights) if architecture != CUSTOM else ()
    names = [pretrained_file(architecture), *(Path(entry.url).name for entry in entries)] if entries else []
    return next((cache / name for name in names if (cache / name).is_file()), None)


def load_pretrained(network: nn.Module, architecture: str, cache: Path | None) -> None:
    """Load the ImageNet weights from the cache folder, except for the head, which keeps its new weights.

    Nothing is downloaded. The position embedding of a vision transformer is interpolated if the image size differs.

    Raises:
        InvalidConfigurationError: no cache folder is set.
        InputError: the file is missing or does not fit.
    """
    if cache is None:
        raise InvalidConfigurationError(
            "model.weights is pretrained, but weightsCache is empty: write weightsCache: {uri: pvc://CLAIM/FOLDER}, "
            f"a folder that contains {pretrained_file(architecture)}, or weights: none",
        )
    if architecture == CUSTOM:
        raise InvalidConfigurationError(
            "model.weights: there are no ImageNet weights for a custom network: write none, or a weights file's URI"
        )
    enum = getattr(zoo, ARCHITECTURES[architecture].weights)
    found = pretrained_in(architecture, cache)
    if found is None:
        url = enum.DEFAULT.url
        raise InputError(
            f"no ImageNet weights for {architecture} in {cache}: they are not downloaded, so put {url} there "
            f"as {Path(url).name}, or write model.weights: none",
        )
    with inputs.opened(found) as here:
        state = read_state_dict(here)
    own = network.state_dict()
    embedding = "encoder.pos_embedding"
    if embedding in state and embedding in own and state[embedding].shape != own[embedding].shape:
        state[embedding] = _resize_embedding(state[embedding], own[embedding].shape[1])
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    missing = [k for k in own if k not in fitting]
    if any(not key.startswith(HEADS) for key in missing):
        raise InputError(f"{found} does not contain weights of {architecture}: replace that file")
    network.load_state_dict(fitting, strict=False)


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """A plain PyTorch state dict, read without running any code from the file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types here; all mean the same to the user
        raise InputError(f"{path} is not a readable PyTorch weights file: {type(error).__name__}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} does not contain a plain state dict (names to tensors)")
    return state


def _resize_embedding(embedding: torch.Tensor, length: int) -> torch.Tensor:
    """Position embedding (1, 1 + a*a, d) interpolated to (1, length, d); keeps that of the class token."""
    token, grid = embedding[:, :1], embedding[:, 1:]
    old, new = round(grid.shape[1] ** 0.5), round((length - 1) ** 0.5)
    square = grid.transpose(1, 2).reshape(1, -1, old, old)
    square = torch.nn.functional.interpolate(square, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([token, square.reshape(1, grid.shape[2], new * new).transpose(1, 2)], dim=1)
