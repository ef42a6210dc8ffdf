"""How many pictures fit into the memory together: what batchSize auto means, and what to write after running out of it.

In: a network on its device. Out: the largest power of two that fits, found by trying on a GPU and by counting on a CPU,
where running out would end the process.
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
"""Beyond these, larger batches are hardly faster and learn less from each epoch."""
SHARE = 0.5
"""Of the memory of a CPU job, what a step may take; the rest is for data, libraries and the cache of pictures."""
COPIES = 5
"""Of the weights, at most: themselves, gradients, two moments of Adam, the moving average."""


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest power of two up to `most` that fits when all below it do; 0 when not even 1 does."""
    found, size = 0, 1
    while size <= most and fits(size):
        found, size = size, size * 2
    return found


def batch_size(network: nn.Module, image_size: int, device: torch.device, number_format: str, memory: int) -> int:
    """The batch size for `auto`, at least 1. Leaves weights, running statistics and random state as they were.

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
    """What is tried out in here leaves no trace in the network and in the random state."""
    before = {name: value.detach().to("cpu", copy=True) for name, value in network.state_dict().items()}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    network.zero_grad(set_to_none=True)
    network.load_state_dict(before)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def step_fits(network: nn.Module, count: int, image_size: int, device: torch.device, number_format: str) -> bool:
    """Whether a step over `count` pictures, gradients and two moments included, ends without running out of memory."""
    try:
        optimizer = torch.optim.Adam(network.parameters(), lr=0.0)
        _forward(network, count, image_size, device, number_format).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    except torch.OutOfMemoryError:
        return False
    except ValueError:
        if count > 1:  # a batch norm after the last pooling wants two pictures
            raise
    finally:
        network.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def kept_bytes(network: nn.Module, count: int, image_size: int, device: torch.device, number_format: str) -> int:
    """Bytes that a forward pass over `count` pictures keeps for the backward pass."""
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
