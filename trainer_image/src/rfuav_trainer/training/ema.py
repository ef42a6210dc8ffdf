"""The moving average of the weights, which is validated and saved if training.emaDecay is set.

In: the network after each step. Out: its averaged state dict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


class Average:
    """An exponential moving average of weights and running statistics (Polyak & Juditsky 1992).

    The decay grows with the steps, min(decay, (1 + step) / (10 + step)), so the random start is soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state: dict[str, Tensor] = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Include the network after `step` (from 0)."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - keep)
            else:
                self.state[name].copy_(value)

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore a saved average."""
        for name, value in self.state.items():
            value.copy_(state[name])
