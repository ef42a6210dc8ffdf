"""Pictures of the inputs with the prediction as text.

In: an image file, or the spectrogram that the network saw, and a line of text. Out: a picture, or a JPEG: a PNG of
noise is five times as large and takes twenty times as long.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from rfuav_trainer.data.images import Room, decoded, in_colours, whole_machine
from rfuav_trainer.reporting import lettering
from rfuav_trainer.storage.files import atomic_writer

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

COLOUR_MAP = "viridis"
SMALLEST = 384  # pixels; smaller pictures are enlarged so that the text is readable
LONGEST = 1600  # pixels; larger ones are shrunk
QUALITY = 90


def draw_image(path: Path, source: Path, text: str, room: Room | None = None) -> None:
    """Write the image `source` to the JPEG file `path`, with `text` (one line) in a bar above it.

    Raises:
        UnreadableFileError: it cannot be read, or it is too large in full.
    """
    with decoded(source, room or whole_machine(), size=LONGEST) as opened:
        image = in_colours(opened)
    longest = max(image.size)
    if longest > LONGEST:
        image = image.resize(_scaled(image, LONGEST / longest), Image.Resampling.BILINEAR)
    _save(path, with_bar(_enlarged(image), text))


def draw_picture(path: Path, picture: Tensor, text: str) -> None:
    """Write a picture, uint8 (1 or 3, size, size), to the JPEG file `path`, with `text` in a bar above it."""
    _save(path, annotated(picture, text))


def annotated(picture: Tensor, text: str) -> Image.Image:
    """A picture, uint8 (1 or 3, size, size), with `text` above it. Grey pictures get a colour map."""
    pixels = _colours()[picture[0].numpy()] if len(picture) == 1 else picture.permute(1, 2, 0).numpy()
    return with_bar(_enlarged(Image.fromarray(np.ascontiguousarray(pixels))), text)


def with_bar(image: Image.Image, text: str) -> Image.Image:
    """The image below a black bar with `text`; its sides are even, as H.264 requires."""
    bar = max(18, image.width // 16)
    width, height = (image.width + 1) // 2 * 2, (image.height + bar + 1) // 2 * 2
    canvas = Image.new("RGB", (width, height), "black")
    canvas.paste(image, (0, height - image.height))
    font, text = lettering.for_pillow(text, max(12, image.width // 24))
    ImageDraw.Draw(canvas).text((6, bar // 2), text, fill="white", font=font, anchor="lm")
    return canvas


def _save(path: Path, image: Image.Image) -> None:
    with atomic_writer(path) as stream:
        image.save(stream, format="JPEG", quality=QUALITY)


def _enlarged(image: Image.Image) -> Image.Image:
    """The image; a small one is enlarged by an integer factor, up to LONGEST."""
    factor = min(-(-SMALLEST // min(image.size)), LONGEST // max(image.size))
    return image if factor <= 1 else image.resize(_scaled(image, factor), Image.Resampling.NEAREST)


def _scaled(image: Image.Image, factor: float) -> tuple[int, int]:
    return max(1, round(image.width * factor)), max(1, round(image.height * factor))


@functools.cache
def _colours() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The colour map as a table: uint8, (256, 3)."""
    from matplotlib import colormaps  # noqa: PLC0415  (only annotated recordings need it)

    found: np.ndarray[Any, np.dtype[np.uint8]] = colormaps[COLOUR_MAP](np.arange(256), bytes=True)[:, :3]
    return found
