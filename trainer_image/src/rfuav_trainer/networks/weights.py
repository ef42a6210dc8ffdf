"""Weights files: safetensors with all metadata needed to use them, and without code.

In: a trained network. Out: best.safetensors and last.safetensors; and back, for inference or to start a training.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from rfuav_crds import reasons
from rfuav_trainer.data.images import TRANSFORM
from rfuav_trainer.data.samples import Preprocessing
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.networks import architectures
from rfuav_trainer.storage.files import atomic_writer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

KEY = "rfuav"
MADE_FROM = "madeFrom"
TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64", torch.complex64: "C64",
    torch.float8_e5m2: "F8_E5M2", torch.float8_e4m3fn: "F8_E4M3",
}  # fmt: skip
"""What safetensors calls them."""


@dataclass(frozen=True)
class Card:
    """The metadata of a weights file.

    Attributes:
        architecture: one of `architectures.ARCHITECTURES`.
        classes: names, in the order of the network's outputs.
        preprocessing: from a file to the input of the network.
        metrics: of its epoch.
        job: UID of the job that trained it.
        epoch: epochs completed.
        version: of the trainer that wrote it.
        head: one of `architectures.heads`.
    """

    architecture: str
    classes: list[str]
    preprocessing: Preprocessing
    metrics: dict[str, float] = field(default_factory=dict)
    job: str = ""
    epoch: int = 0
    version: str = version("rfuav-trainer")
    head: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values. Without a head of its own, older trainers can read it."""
        content = {**self.__dict__, "preprocessing": self.preprocessing.to_json()}
        return content if self.head else {key: value for key, value in content.items() if key != "head"}


def save(path: Path, state: Mapping[str, Tensor], card: Card, *, made_from: Mapping[str, Any] | None = None) -> None:
    """Write a state dict as a weights file, atomically; of its tensors at most one at a time is copied.

    The library would serialise everything in memory, beside a copy of every tensor.

    Args:
        path: the file.
        state: the tensors.
        card: its metadata.
        made_from: of a file that was converted: from what. `read_made_from` returns it.
    """
    # As the library orders them: large types first, so that every tensor is aligned, then by name.
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))
    metadata = {KEY: json.dumps(card.to_json())}
    if made_from is not None:
        metadata[MADE_FROM] = json.dumps(made_from, sort_keys=True)
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in names:
        tensor = state[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_writer(path) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            stream.write(memoryview(_bytes(state[name])))


def _bytes(tensor: Tensor) -> Any:
    """The bytes of a tensor in the order of its indices: a NumPy array, copied only if they lie in another order."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def digest(network: nn.Module) -> str:
    """SHA-256 of the weights of a network, which distinguishes results with the same file name."""
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        found.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\n".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def read_card(path: Path) -> Card | None:
    """The metadata of the file; None for a safetensors file of another program.

    Raises:
        InputError: the file is missing or damaged, or a newer trainer prepared its pictures in another way.
    """
    metadata = _metadata(path)
    if KEY not in metadata:
        return None
    try:
        content = json.loads(metadata[KEY])
        content["preprocessing"] = preprocessing = Preprocessing.from_json(content["preprocessing"])
        if not 1 <= preprocessing.transform <= TRANSFORM:
            raise InputError(
                f"{path} was trained on pictures of version {preprocessing.transform} of the transform; this trainer "
                f"knows those up to {TRANSFORM}: use the image of trainer {content.get('version', 'that wrote it')}",
                reason=reasons.WEIGHTS_UNREADABLE,
            )
        return Card(**content)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the metadata of {path} cannot be read ({error!r}): another version of the trainer wrote it",
            reason=reasons.WEIGHTS_UNREADABLE,
        ) from error


def read_made_from(path: Path) -> Any:
    """What the file was converted from, as `save` got it; None if it was not, or its metadata cannot be read.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return json.loads(_metadata(path).get(MADE_FROM, "null"))
    except ValueError:
        return None


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    check_there(path)
    try:
        with safe_open(path, framework="pt") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a complete safetensors file: {error}", reason=reasons.WEIGHTS_UNREADABLE
        ) from error


def describe(path: Path) -> dict[str, Any]:
    """The content of a weights file in plain values: card, number of weights (parameters and buffers), size.

    Raises:
        InputError: the file is missing, damaged, or has no metadata.
    """
    from safetensors import safe_open  # noqa: PLC0415

    card = read_card(path)
    if card is None:
        raise InputError(
            f"{path} has no metadata: another program wrote it (rfuav-trainer convert adds it)",
            reason=reasons.WEIGHTS_UNREADABLE,
        )
    with safe_open(path, framework="pt") as opened:
        count = sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118  (no mapping)
    return {**card.to_json(), "weights": count, "bytes": path.stat().st_size}


def load(path: Path, network: nn.Module, *, architecture: str, fresh_head: bool = False) -> None:
    """Load a weights file into `network`; see `put`.

    Raises:
        InputError: the file is missing or damaged.
        InvalidConfigurationError: it belongs to another architecture, image size, or number of classes.
    """
    # Copied, because another program may overwrite the file.
    put(read(path), network, path, architecture=architecture, fresh_head=fresh_head, copy=True)


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors or .pt/.pth file.

    Raises:
        InputError: the file is missing or damaged.
    """
    check_there(path)
    return read_safetensors(path) if path.suffix == ".safetensors" else architectures.read_state_dict(path)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, whatever its name.

    Raises:
        InputError: the file is damaged.
    """
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a complete safetensors file: {error}", reason=reasons.WEIGHTS_UNREADABLE
        ) from error


def put(
    state: Mapping[str, Tensor],
    network: nn.Module,
    path: Path,
    *,
    architecture: str,
    fresh_head: bool = False,
    copy: bool = False,
) -> None:
    """Put the state dict of the file `path` into `network`, which may be on the meta device.

    With `fresh_head` the network keeps the parameters of its head whose shape differs from the file. A network on the
    meta device takes the tensors themselves unless `copy`.

    Raises:
        InvalidConfigurationError: it belongs to another architecture, image size, or number of classes.
    """
    own = network.state_dict()
    state = dict(state)
    if fresh_head:
        state |= {
            k: v
            for k, v in own.items()
            if k.startswith(architectures.HEADS) and k in state and state[k].shape != v.shape
        }
    wrong = sorted({*own} ^ {*state}) or [k for k in own if own[k].shape != state[k].shape]
    if wrong:
        raise InvalidConfigurationError(
            f"{path} does not fit {architecture}: {len(wrong)} tensors are missing or differ (the first: {wrong[0]}); "
            "write the architecture, image size and classes that it was trained with",
            reason=reasons.WEIGHTS_MISMATCH,
        )
    empty = any(tensor.is_meta for tensor in own.values())
    if empty:
        state = {name: tensor.to(own[name].dtype, copy=copy) for name, tensor in state.items()}
    with torch.no_grad():
        network.load_state_dict(state, assign=empty)


def check_there(path: Path) -> None:
    """Raise InputError if there is no weights file at `path`."""
    if not path.is_file():
        raise InputError(f"no weights file at {path}: correct model.weights, or train first")


def check_classes(card: Card, classes: list[str], path: Path) -> None:
    """Raise InvalidConfigurationError if the classes of the weights differ from `classes`."""
    if card.classes == classes:
        return
    missing, extra = sorted(set(classes) - set(card.classes)), sorted(set(card.classes) - set(classes))
    raise InvalidConfigurationError(
        f"{path} was trained on other classes ({len(card.classes)}, here {len(classes)}): "
        f"not in the weights: {', '.join(missing) or 'none'}; not in the data: {', '.join(extra) or 'none'}",
        reason=reasons.CLASS_MISMATCH,
    )
