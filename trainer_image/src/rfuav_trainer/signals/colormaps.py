"""Colour maps of spectrograms, as tables of 256 colours.

In: the name of a map. Out: the colours of 256 levels, dark to bright.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

GRAY = "gray"
"""No colours: pictures with one channel."""

# MATLAB's default, which matplotlib lacks: fifteen of its colours; the others are interpolated.
_PARULA = (
    (0.2081, 0.1663, 0.5292), (0.1959, 0.2645, 0.7279), (0.0117, 0.3875, 0.8820), (0.0498, 0.4586, 0.8641),
    (0.0793, 0.5200, 0.8312), (0.0343, 0.5966, 0.8199), (0.0231, 0.6418, 0.7913), (0.0843, 0.6928, 0.7062),
    (0.2178, 0.7250, 0.6193), (0.3953, 0.7459, 0.5244), (0.5709, 0.7485, 0.4494), (0.7184, 0.7411, 0.3904),
    (0.8525, 0.7299, 0.3361), (0.9796, 0.7628, 0.2354), (0.9763, 0.9831, 0.0538),
)  # fmt: skip
_PARULA_AT = (0, 4, 8, 12, 16, 20, 23, 28, 32, 36, 40, 44, 49, 54, 63)  # of 63


@lru_cache(maxsize=32)
def table(name: str) -> Tensor:
    """The colours of a map: uint8, shape (256, 3), red, green and blue.

    Raises:
        ValueError: matplotlib knows no such map (parula is our own).
    """
    if name == "parula":
        at = np.linspace(0, 63, 256)
        colours = [np.interp(at, _PARULA_AT, channel) for channel in zip(*_PARULA, strict=True)]
        return torch.from_numpy(np.stack(colours, axis=1) * 255).round().to(torch.uint8)
    from matplotlib import colormaps  # noqa: PLC0415  (half a second to import)

    if name not in colormaps:
        raise ValueError(f"colour map {name!r} is not known")
    return torch.from_numpy(colormaps[name](np.arange(256), bytes=True)[:, :3].copy())


def paint(pictures: Tensor, name: str) -> Tensor:
    """Pictures with one channel in the colours of a map; gray returns them unchanged.

    Args:
        pictures: uint8, shape (n, 1, height, width).
        name: of the map.

    Returns:
        uint8, shape (n, 3, height, width), or the same for gray.
    """
    if name == GRAY:
        return pictures
    return table(name).to(pictures.device)[pictures[:, 0].int()].permute(0, 3, 1, 2).contiguous()
