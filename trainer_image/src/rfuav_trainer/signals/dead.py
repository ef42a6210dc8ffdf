"""Frames and pictures that hold nothing: zeros, one value, or a receiver driven to its limits.

In: samples as recorded, or an 8-bit picture. Out: why nothing can be seen in them, or None. A network would give them a
class, often with a score near 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

LOOKED_AT = 4096
"""Pairs of a frame that are looked at first; only where these are suspicious are all."""
SAME = 0.999
"""A frame in which this share of the samples has one value is dead: a glitch does not bring it to life."""
CLIPPED = 0.5
"""A frame in which more of the values are at the limits is clipped: the signal is mostly above them."""
FEW = 16
"""A quiet frame of few levels reaches the highest of them often, without being clipped."""
FULL_SCALE = 0.99
"""Of floating-point samples, which may have been 8-bit integers; integers have their own."""
FLAT = 2
"""Levels of 255 by which a picture of one colour may vary: JPEG."""
WHITE, WHITE_SHARE = 254, 0.99

MIDDLES = {"u": 128}
"""What stands for zero in unsigned samples."""

ZERO = "dead: all zero"
CONSTANT = "dead: constant"
SATURATED = "dead: clipped"


def samples(raw: Tensor) -> str | None:
    """Why a frame is dead; None if it is not, or holds NaN.

    Args:
        raw: as recorded: float32, int16, int8 or uint8, shape (n, 2).
    """
    values = raw.numpy()
    return _verdict(values) if _verdict(values[:: max(1, len(values) // LOOKED_AT)]) else None


def _verdict(values: np.ndarray[Any, np.dtype[Any]]) -> str | None:
    usual = np.sort(values, axis=0)[len(values) // 2]  # the median, which is one of the values
    if np.count_nonzero((values == usual).all(axis=1)) >= SAME * len(values):
        return ZERO if (usual == MIDDLES.get(values.dtype.kind, 0)).all() else CONSTANT
    low, high = values.min(), values.max()
    if np.count_nonzero((values == low) | (values == high)) <= CLIPPED * values.size:
        return None
    whole = np.iinfo(values.dtype) if values.dtype.kind in "iu" else None
    top, bottom = (FULL_SCALE, -FULL_SCALE) if whole is None else (whole.max, whole.min + 1)
    return SATURATED if high >= top or low <= bottom or len(np.unique(values)) > FEW else None


def picture(pixels: Tensor) -> str | None:
    """Why a picture is dead, uint8 (channels, height, width); None if it is not."""
    low, high = pixels.amin(dim=(1, 2)), pixels.amax(dim=(1, 2))
    if bool((high - low <= FLAT).all()):
        return ZERO if int(high.max()) <= FLAT else CONSTANT
    white = (pixels.amin(dim=0) >= WHITE).float().mean().item()
    return SATURATED if white > WHITE_SHARE else None
