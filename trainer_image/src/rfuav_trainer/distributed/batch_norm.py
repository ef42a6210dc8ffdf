"""Batch norm over the batch of all processes, not over the part of each.

In: a network. Out: the same with synchronised batch norms, and back. The moments are those of the whole batch, so the
step is that of one process. Every process must take part in every pass, also one whose part of a batch is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rfuav_trainer.distributed.process_group import summed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def synchronised(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with synchronised batch norms: torch's own on GPUs, which has no other.

    Parameters and buffers stay the same tensors under the same names.
    """
    if device.type == "cuda":
        found: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return found
    return _replaced(network, BatchNormOfAll)


def alone(network: nn.Module) -> nn.Module:
    """The network with batch norms that see this process only: for a trial that the others do not take part in."""
    return _replaced(network, BatchNormOfOne)


def has_batch_norm(network: nn.Module) -> bool:
    """Whether processes that train the network depend on each other in every pass."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


class BatchNormOfOne(_BatchNorm):
    """Batch norm of an input of any dimensions."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  (torch's name)
        """Accept all."""


class BatchNormOfAll(BatchNormOfOne):
    """Batch norm over the inputs of all processes. Without a kernel of its own: torch's needs a GPU."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """The normalised input, shape (n, channels, ...); n may be 0 in some processes.

        Raises:
            ValueError: there is only one value per channel in all processes.
        """
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        values = input.float()
        over = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        own = values.new_tensor([values.numel() // max(1, values.shape[1])])
        first = _Summed.apply(torch.cat([values.sum(dim=over), own]))
        count = first[-1].detach()
        if count <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
        mean = first[:-1] / count
        centred = values - mean.view(shape)
        variance = _Summed.apply(centred.square().sum(dim=over)) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        result: Tensor = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics, as torch's batch norm does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _Summed(torch.autograd.Function):
    """The sum over all processes. A process's loss depends on the values of all, so gradients are summed too."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        return summed(value.clone())

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return summed(gradient.clone())


def _replaced(module: nn.Module, kind: Callable[..., _BatchNorm]) -> nn.Module:
    """The module, with every batch norm in it made one of `kind`."""
    if isinstance(module, _BatchNorm):
        found = kind(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
        found.weight, found.bias = module.weight, module.bias
        found.running_mean, found.running_var = module.running_mean, module.running_var
        found.num_batches_tracked = module.num_batches_tracked
        found.training = module.training
        return found
    for name, child in module.named_children():
        setattr(module, name, _replaced(child, kind))
    return module
