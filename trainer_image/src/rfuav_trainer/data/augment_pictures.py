"""Augmentation of pictures during training, batch by batch on the training device.

In: 8-bit pictures, the list of the job, a random generator. Out: pictures of the same shape as floats from 0 to 255.
Each augmentation applies to each picture with a probability of one half and its own parameters. All numbers come from
the generator, which depends on seed, epoch and step, so a resumed training draws the same ones.
`augment_signals` changes recordings before they become pictures.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from torch import Tensor

PROBABILITY = 0.5
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
BLUR = 7  # pixels
TILES = 8  # a side, of CLAHE
MASK = 0.15  # largest share of rows or columns that a mask hides


def apply(pictures: Tensor, names: Sequence[str], random: np.random.Generator) -> Tensor:
    """Apply the augmentations in `names` that work on pictures, in the order of `PICTURES`.

    Args:
        pictures: uint8, shape (n, 1 or 3, height, width).
        names: training.augment.
        random: source of all random numbers.

    Returns:
        `pictures` itself if there is nothing to do; else float32 from 0 to 255, with three channels if colours change.
    """
    wanted = [name for name in PICTURES if name in names]
    if not wanted:
        return pictures
    changed = pictures.float() / 255
    if changed.shape[1] == 1 and not COLOURED.isdisjoint(wanted):
        changed = changed.expand(-1, 3, -1, -1)
    for name in wanted:
        chosen = torch.from_numpy(random.random(len(changed)) < PROBABILITY).to(changed.device)
        other = PICTURES[name](changed, random).clamp(0, 1)
        changed = torch.where(chosen.view(-1, 1, 1, 1), other, changed)
    return changed * 255


def _draw(pictures: Tensor, random: np.random.Generator, low: float, high: float) -> Tensor:
    """A number for each picture, shape (n, 1, 1, 1)."""
    numbers = torch.from_numpy(random.uniform(low, high, len(pictures))).float()
    return numbers.view(-1, 1, 1, 1).to(pictures.device)


def _normal(like: Tensor, random: np.random.Generator) -> Tensor:
    """Gaussian numbers in the shape and on the device of `like`."""
    generator = torch.Generator(like.device).manual_seed(int(random.integers(2**62)))
    return torch.randn(like.shape, generator=generator, device=like.device)


def luma(pictures: Tensor) -> Tensor:
    """Brightness, shape (n, 1, height, width)."""
    if pictures.shape[1] == 1:
        return pictures
    weights = torch.tensor(LUMA, device=pictures.device).view(1, 3, 1, 1)
    return (pictures * weights).sum(dim=1, keepdim=True)


def colour_jitter(pictures: Tensor, random: np.random.Generator) -> Tensor:
    """Brightness, contrast and saturation by 0.8 to 1.2, hue by up to a twentieth of the circle, in that order.

    The first three as in torchvision's ColorJitter; the hue rotates around the grey axis of YIQ (ITU-R BT.601).
    """
    factors = [_draw(pictures, random, 0.8, 1.2) for _ in range(3)]
    turn = _draw(pictures, random, -0.05, 0.05)
    changed = (pictures * factors[0]).clamp(0, 1)
    changed = (factors[1] * changed + (1 - factors[1]) * luma(changed).mean(dim=(2, 3), keepdim=True)).clamp(0, 1)
    changed = (factors[2] * changed + (1 - factors[2]) * luma(changed)).clamp(0, 1)
    return turn_hue(changed, turn.flatten())


def turn_hue(pictures: Tensor, turns: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) with the chroma of YIQ rotated by `turns` (n,) of the circle; greys are unchanged."""
    to_yiq = torch.tensor(
        [LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)], dtype=torch.float64
    )
    angles = 2 * math.pi * turns.double().cpu()
    rotation = torch.zeros(len(turns), 3, 3, dtype=torch.float64)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = angles.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = -angles.sin(), angles.sin()
    matrices = (torch.linalg.inv(to_yiq) @ rotation @ to_yiq).to(pictures)
    return torch.bmm(matrices, pictures.flatten(2)).view_as(pictures)


def gauss_noise(pictures: Tensor, random: np.random.Generator) -> Tensor:
    """Gaussian noise of a standard deviation from 0.01 to 0.1 of the scale."""
    return pictures + _draw(pictures, random, 0.01, 0.1) * _normal(pictures, random)


def iso_noise(pictures: Tensor, random: np.random.Generator) -> Tensor:
    """A camera's noise: of brightness, growing with its root (0.02 to 0.1 at white), and of colour (0.01 to 0.05)."""
    light = luma(pictures)
    shot = _draw(pictures, random, 0.02, 0.1) * light.clamp_min(0).sqrt() * _normal(light, random)
    return pictures + shot + _draw(pictures, random, 0.01, 0.05) * _normal(pictures, random)


def sharpen(pictures: Tensor, random: np.random.Generator) -> Tensor:
    """Mixed, by 0.2 to 0.5, with its filter by [-1 -1 -1; -1 8+light -1; -1 -1 -1], light 0.5 to 1 (Albumentations)."""
    share, lightness = _draw(pictures, random, 0.2, 0.5), _draw(pictures, random, 0.5, 1.0)
    around = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="reflect"), 3, stride=1) * 9
    return (1 - share) * pictures + share * ((9 + lightness) * pictures - around)


def blur(pictures: Tensor, random: np.random.Generator) -> Tensor:
    """A rotated generalised Gaussian kernel of 7 pixels with two widths and noise (Wang et al., arXiv 2107.10833).

    exp(-(r^T S^-1 r / 2)^beta) with deviations of 0.2 to 1 pixels, beta from 0.5 to 4, weights times 0.9 to 1.1.
    """
    count = len(pictures)
    reach = BLUR // 2
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle, wide, high, beta = (
        torch.from_numpy(random.uniform(low, top, count)).view(-1, 1, 1)
        for low, top in ((-math.pi / 2, math.pi / 2), (0.2, 1.0), (0.2, 1.0), (0.5, 4.0))
    )
    along = (x * angle.cos() + y * angle.sin()) / wide
    across = (y * angle.cos() - x * angle.sin()) / high
    kernels = torch.exp(-(((along**2 + across**2) / 2) ** beta))
    kernels = kernels * torch.from_numpy(random.uniform(0.9, 1.1, kernels.shape))
    kernels = (kernels / kernels.sum(dim=(1, 2), keepdim=True)).to(pictures)
    channels = pictures.shape[1]
    padded = functional.pad(pictures, (reach,) * 4, mode="reflect")
    flat = padded.reshape(1, count * channels, *padded.shape[2:])
    weights = kernels.repeat_interleave(channels, dim=0).unsqueeze(1)
    return functional.conv2d(flat, weights, groups=count * channels).view_as(pictures)


def clahe(pictures: Tensor, random: np.random.Generator) -> Tensor:
    """Contrast-limited adaptive histogram equalisation of the brightness, 8 by 8 tiles, clip limit 1 to 4."""
    light = luma(pictures)
    limits = torch.from_numpy(random.uniform(1, 4, len(pictures))).float().to(pictures.device)
    equal = equalise((light * 255).round().clamp(0, 255).to(torch.uint8), limits).float() / 255
    return pictures * (equal / light.clamp_min(1 / 255))


def equalise(grey: Tensor, limits: Tensor) -> Tensor:
    """CLAHE (Zuiderveld, Graphics Gems IV, 1994).

    The histogram of each tile is clipped at limit * pixels / 256, the excess is spread evenly, and the cumulative sum
    is the table of the tile. A pixel is interpolated between the tables of the four nearest tiles.

    Args:
        grey: uint8, shape (n, 1, height, width).
        limits: clip limit of each picture, shape (n,).
    """
    count, _, height, width = grey.shape
    down, right = -height % TILES, -width % TILES
    padded = functional.pad(grey.float(), (0, right, 0, down), mode="reflect").long()[:, 0]
    tall, wide = padded.shape[1] // TILES, padded.shape[2] // TILES
    tiles = padded.view(count, TILES, tall, TILES, wide).permute(0, 1, 3, 2, 4).reshape(count * TILES**2, tall * wide)
    offsets = torch.arange(count * TILES**2, device=grey.device).unsqueeze(1) * 256
    histograms = torch.bincount((tiles + offsets).flatten(), minlength=count * TILES**2 * 256)
    histograms = histograms.view(count, TILES**2, 256).float()
    limit = (limits * tall * wide / 256).clamp_min(1).view(-1, 1, 1)
    excess = (histograms - limit).clamp_min(0).sum(dim=2, keepdim=True)
    tables = (torch.minimum(histograms, limit) + excess / 256).cumsum(dim=2) * (255 / (tall * wide))
    tables = tables.view(count, TILES, TILES, 256)
    above, below, low = _neighbours(height, tall, grey.device)
    left, beside, near = _neighbours(width, wide, grey.device)
    picture, value = torch.arange(count, device=grey.device).view(-1, 1, 1), grey[:, 0].long()

    def looked_up(rows: Tensor, columns: Tensor) -> Tensor:
        return tables[picture, rows.view(1, -1, 1), columns.view(1, 1, -1), value]

    low, near = low.view(1, -1, 1), near.view(1, 1, -1)
    top = (1 - near) * looked_up(above, left) + near * looked_up(above, beside)
    bottom = (1 - near) * looked_up(below, left) + near * looked_up(below, beside)
    return ((1 - low) * top + low * bottom).round().clamp(0, 255).to(torch.uint8).unsqueeze(1)


def _neighbours(length: int, tile: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel of an axis: the tiles before and after it, and its relative position between their centres."""
    place = torch.arange(length, device=device) / tile - 0.5
    first = place.floor()
    return first.long().clamp(0, TILES - 1), (first.long() + 1).clamp(0, TILES - 1), place - first


def _mask(axis: int) -> Callable[[Tensor, np.random.Generator], Tensor]:
    """Hide up to 15 % of the rows (axis 2, frequencies) or columns (3, times) behind the picture's mean.

    SpecAugment (Park et al. 2019, arXiv 1904.08779).
    """

    def masked(pictures: Tensor, random: np.random.Generator) -> Tensor:
        length = pictures.shape[axis]
        widths = random.integers(1, max(1, int(MASK * length)) + 1, len(pictures))
        starts = random.integers(0, length - widths + 1)
        shape = [1, 1, 1, 1]
        shape[axis] = length
        place = torch.arange(length, device=pictures.device).view(shape)
        start, end = (torch.from_numpy(v).to(pictures.device).view(-1, 1, 1, 1) for v in (starts, starts + widths))
        hidden = (place >= start) & (place < end)
        return torch.where(hidden, pictures.mean(dim=(1, 2, 3), keepdim=True), pictures)

    return masked


MASKS = frozenset({"FrequencyMask", "TimeMask"})
COLOURED = frozenset({"ColorJitter", "ISONoise"})
PICTURES: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "AdvancedBlur": blur,
    "CLAHE": clahe,
    "ColorJitter": colour_jitter,
    "GaussNoise": gauss_noise,
    "ISONoise": iso_noise,
    "Sharpen": sharpen,
    "FrequencyMask": _mask(2),
    "TimeMask": _mask(3),
}
