"""How many pictures fit into memory: for batchSize auto, and for the advice after running out of memory.

In: a network on its device. Out: the largest power of two that fits, found by trial on a GPU and by estimation on a
CPU, where running out of memory would kill the process.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from rfuav_trainer.networks import precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

MOST = {"cpu": 32, "cuda": 256}
"""Larger batches are hardly faster and learn less per epoch."""
SHARE = 0.5
"""Fraction of the memory of a CPU job for a step; the rest is for data, libraries and the cache of pictures."""
COPIES = 5
"""Copies of the weights, at most: weights, gradients, two moments of Adam, moving average."""


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest power of two up to `most` for which it and all smaller ones fit; 0 if not even 1 does."""
    found, size = 0, 1
    while size <= most and fits(size):
        found, size = size, size * 2
    return found


def batch_size(network: nn.Module, image_size: int, device: torch.device, number_format: str, memory: int) -> int:
    """The batch size for `auto`, at least 1. Does not change weights, running statistics and random state.

    Args:
        network: as it will be trained, on `device`.
        image_size: side of the pictures in pixels.
        device: CPU or GPU.
        number_format: fp32, bf16 or fp16.
        memory: bytes that the process may use (CPU).
    """
    with undisturbed(network, device):
        if device.type == "cuda":
            found = largest(lambda n: step_fits(network, n, image_size, device, number_format), MOST["cuda"])
        else:
            weights = sum(p.numel() * p.element_size() for p in network.parameters()) * COPIES
            each = kept_bytes(network, 2, image_size, device, number_format) / 2
            found = largest(lambda n: weights + n * each <= SHARE * memory, MOST["cpu"])
    return max(1, found)


@contextlib.contextmanager
def undisturbed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Restores the network and the random state afterwards."""
    before = {name: value.detach().to("cpu", copy=True) for name, value in network.state_dict().items()}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    network.zero_grad(set_to_none=True)
    network.load_state_dict(before)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def step_fits(network: nn.Module, count: int, image_size: int, device: torch.device, number_format: str) -> bool:
    """Whether a step over `count` pictures, with gradients and two moments, fits into memory."""
    try:
        optimizer = torch.optim.Adam(network.parameters(), lr=0.0)
        _forward(network, count, image_size, device, number_format).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    except torch.OutOfMemoryError:
        return False
    except ValueError:
        if count > 1:  # a batch norm after the last pooling needs two pictures
            raise
    finally:
        network.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def kept_bytes(network: nn.Module, count: int, image_size: int, device: torch.device, number_format: str) -> int:
    """Bytes that a forward pass over `count` pictures saves for the backward pass."""
    kept: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _forward(network, count, image_size, device, number_format)
    return sum(kept.values())


def _forward(network: nn.Module, count: int, image_size: int, device: torch.device, number_format: str) -> Tensor:
    network.train()
    pictures = torch.zeros(count, 3, image_size, image_size, device=device)
    with precision.passing(number_format, device):
        scores: Tensor = network(pictures).float()
    return scores.logsumexp(dim=1).mean()
