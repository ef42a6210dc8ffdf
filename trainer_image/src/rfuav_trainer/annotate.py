"""Pictures for people: the input with the network's answer written on it.

In: an image file, or the spectrogram the network saw, and its answer. Out: PNG files under output/annotated/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from rfuav_trainer import storage
from rfuav_trainer.checkpoint import atomic_writer

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from rfuav_trainer.data import Sample

COLOUR_MAP = "viridis"
SMALLEST = 384  # pixels; a smaller picture is enlarged so that the text can be read
LONGEST = 1600  # pixels; a larger one is shrunk


def annotated_name(sample: Sample) -> str:
    """Where the picture of a sample goes, below output/annotated/."""
    return f"{sample.name}.png" if sample.frame is None else f"{sample.name}/frame-{sample.frame:06d}.png"


def draw(path: Path, sample: Sample, picture: Tensor, text: str) -> None:
    """Write the picture of `sample` with `text` in a bar above it.

    Args:
        path: the PNG file to write.
        sample: an image is read again in full size; a frame is drawn from `picture`.
        picture: what the network saw: uint8, (1 or 3, size, size).
        text: one line.
    """
    if sample.frame is None:
        with storage.opened(sample.path) as here, Image.open(here) as opened:
            image = opened.convert("RGB")
    else:
        image = _coloured(picture)
    scale = max(1.0, SMALLEST / min(image.size))
    scale = min(scale, LONGEST / max(image.size)) if max(image.size) * scale > LONGEST else scale
    if scale != 1.0:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)
    font = ImageFont.load_default(size=max(12, image.width // 24))
    bar = max(18, image.width // 16)
    canvas = Image.new("RGB", (image.width, image.height + bar), "black")
    canvas.paste(image, (0, bar))
    ImageDraw.Draw(canvas).text((6, bar // 2), text, fill="white", font=font, anchor="lm")
    with atomic_writer(path) as stream:
        canvas.save(stream, format="PNG")


def _coloured(picture: Tensor) -> Image.Image:
    """A grey spectrogram in the colours of `COLOUR_MAP`."""
    from matplotlib import colormaps  # noqa: PLC0415  (only annotated recordings need it)

    rgb = colormaps[COLOUR_MAP](picture[0].numpy(), bytes=True)[:, :, :3]
    return Image.fromarray(rgb)
