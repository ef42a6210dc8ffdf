"""Contact sheets: small pictures side by side, each with lines of text below it.

In: pictures as the network gets them, or samples that are read for it. Out: a JPEG.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from rfuav_trainer.data.batches import batches
from rfuav_trainer.reporting import lettering

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from rfuav_trainer.data.batches import Reads
    from rfuav_trainer.data.samples import Sample

MOST_MISTAKES = 20
"""The most confident ones are shown."""
COLUMNS = 5
SIDE, LINE, GAP = 200, 18, 12  # pixels
LETTERS = 14  # pixels
QUALITY = 90
ELLIPSIS = "..."


def of_samples(words: Mapping[Sample, Sequence[str]], reader: Reads) -> bytes | None:
    """The contact sheet of samples, each with its words and its name; None if none of them can be read."""
    tiles = [
        (picture, [*words[sample], name_of(sample)])
        for batch in batches([list(words)], reader)
        for sample, picture in zip(batch.samples, batch.pictures, strict=True)
    ]
    return sheet(tiles) if tiles else None


def mistake(predicted: str, score: float, label: str) -> list[str]:
    """The words below a picture that the network took for `predicted`, and that is of the class `label`."""
    return [f"{predicted} {score:.1%}", f"is {label}"]


def name_of(sample: Sample) -> str:
    """The name of a sample for people, with the number of its frame."""
    return sample.name if sample.frame is None else f"{sample.name} [{sample.frame}]"


def sheet(tiles: Sequence[tuple[Tensor, Sequence[str]]]) -> bytes:
    """The tiles, row by row.

    Args:
        tiles: each a picture, uint8 (1 or 3, side, side), and lines of text; the last line is grey.
    """
    columns = min(COLUMNS, max(1, len(tiles)))
    rows = -(-len(tiles) // columns)
    lines = max((len(texts) for _, texts in tiles), default=0)
    width, height = SIDE + GAP, SIDE + lines * LINE + GAP
    canvas = Image.new("RGB", (columns * width + GAP, rows * height + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (picture, texts) in enumerate(tiles):
        left, top = GAP + number % columns * width, GAP + number // columns * height
        pixels = np.ascontiguousarray(picture.cpu().expand(3, -1, -1).permute(1, 2, 0).numpy())
        canvas.paste(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR), (left, top))
        for line, text in enumerate(texts):
            font, shown = lettering.for_pillow(text, LETTERS)
            colour = "gray" if line == len(texts) - 1 else "black"
            draw.text(
                (left, top + SIDE + (line + 1) * LINE), _fitting(shown, font), fill=colour, font=font, anchor="ls"
            )
    stream = io.BytesIO()
    canvas.save(stream, format="JPEG", quality=QUALITY, subsampling=0)
    return stream.getvalue()


def _fitting(text: str, font: Any) -> str:
    """The text, if it is not wider than a picture; else its beginning and its end, between which names differ least."""
    kept = len(text)
    shown = text
    while kept and font.getlength(shown) > SIDE:
        kept -= 1
        shown = f"{text[: kept // 2]}{ELLIPSIS}{text[len(text) - (kept - kept // 2) :]}"
    return shown
