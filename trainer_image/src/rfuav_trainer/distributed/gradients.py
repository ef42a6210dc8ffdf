"""The gradients of all processes, summed while the backward pass is still running.

In: a network, and the last backward pass of a step. Out: in `parameter.grad`, the sums over all processes.

Gradients lie in a few flat buckets, last layer first, which is the order of the backward pass. A bucket is sent as soon
as its gradients are complete and the buckets before it are sent, so every process sends the same messages in the same
order, whatever its part of the batch was: also none, or a part that leaves some weights out. (DistributedDataParallel
needs a pass of every process, over the same weights.)
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import distributed

from rfuav_trainer.distributed.process_group import SILENCE_SECONDS, with_the_others
from rfuav_trainer.errors import InvalidConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

MOST_BYTES = 25 * 2**20
"""Of a bucket: larger messages are not faster."""
LEAST_BYTES = 2**20
PARTS = 16
"""Buckets of a network, unless they would be smaller or larger. What is sent last overlaps with nothing."""


@dataclass(eq=False)
class _Bucket:
    """Gradients that are sent in one message: `values` contains those of `parameters`, one after the other."""

    parameters: list[nn.Parameter] = field(default_factory=list)
    values: Tensor = field(default_factory=lambda: torch.empty(0))
    incomplete: set[nn.Parameter] = field(default_factory=set)

    @property
    def bytes(self) -> int:
        return sum(_bytes(parameter) for parameter in self.parameters)

    def clear(self) -> None:
        """Set all gradients to 0."""
        if not self.values.numel():
            first = self.parameters[0]
            count = sum(parameter.numel() for parameter in self.parameters)
            self.values = torch.empty(count, dtype=first.dtype, device=first.device)
        self.values.zero_()
        start = 0
        for parameter in self.parameters:
            # In the layout of its weight: fused optimizers match the two by their place in memory.
            strides = torch.empty_like(parameter, device="meta").stride()
            parameter.grad = self.values.as_strided(parameter.shape, strides, start)
            start += parameter.numel()


class Gradients:
    """The gradients of a network that several processes train.

    Args:
        network: with its weights where and as they stay: on their device, in their memory format.
    """

    def __init__(self, network: nn.Module) -> None:
        self._buckets = _cut([parameter for parameter in network.parameters() if parameter.requires_grad])
        self._next = 0
        self._sent: list[distributed.Work] = []
        self._last = False
        with with_the_others():
            # Of its own: batch norms send too during the pass, and nothing orders the two.
            group = distributed.new_group(timeout=timedelta(seconds=SILENCE_SECONDS))
            self._group = cast("distributed.ProcessGroup", group)
        for bucket in self._buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(partial(self._complete, bucket))  # type: ignore[no-untyped-call]

    def begin(self) -> None:
        """Set the gradients to 0, for the first pass of a step."""
        self._next, self._sent = 0, []
        for bucket in self._buckets:
            bucket.clear()

    @contextlib.contextmanager
    def last_pass(self) -> Iterator[None]:
        """The last backward pass of a step: what is complete is sent.

        Raises:
            PeerLostError: another process has gone.
            InvalidConfigurationError: the pass adds to a gradient after it was complete.
        """
        for bucket in self._buckets:
            bucket.incomplete = {*bucket.parameters}
        self._last = True
        try:
            yield
        finally:
            self._last = False

    def finish(self) -> None:
        """Send the rest, and wait for the sums. Every process must call it in every step.

        Raises:
            PeerLostError: another process has gone.
        """
        with with_the_others():
            while self._next < len(self._buckets):
                self._send()
            for work in self._sent:
                work.wait()

    def release(self) -> None:
        """Give up the memory."""
        for bucket in self._buckets:
            bucket.values = torch.empty(0)
            for parameter in bucket.parameters:
                parameter.grad = None

    def _complete(self, bucket: _Bucket, parameter: nn.Parameter) -> None:
        """The gradient of this process for `parameter` is complete."""
        if not self._last:
            return
        if parameter not in bucket.incomplete:
            raise InvalidConfigurationError(
                "model.custom: the network computes the gradient of a weight in several parts, which several processes "
                "cannot share: call torch.utils.checkpoint with use_reentrant=False, or write resources.gpus: 1"
            )
        bucket.incomplete.remove(parameter)
        with with_the_others():
            while self._next < len(self._buckets) and not self._buckets[self._next].incomplete:
                self._send()

    def _send(self) -> None:
        """Send the next bucket."""
        work = distributed.all_reduce(self._buckets[self._next].values, group=self._group, async_op=True)
        self._next += 1
        if work is not None:
            self._sent.append(work)


def _bytes(parameter: nn.Parameter) -> int:
    return parameter.numel() * parameter.element_size()


def _cut(parameters: list[nn.Parameter]) -> list[_Bucket]:
    """The buckets of these parameters, the last one first."""
    most = min(max(sum(map(_bytes, parameters)) // PARTS, LEAST_BYTES), MOST_BYTES)
    found: list[_Bucket] = []
    for parameter in reversed(parameters):
        same = found and (found[-1].parameters[0].dtype, found[-1].parameters[0].device) == (
            parameter.dtype,
            parameter.device,
        )
        if not same or found[-1].bytes >= most:
            found.append(_Bucket())
        found[-1].parameters.append(parameter)
    return found
