"""Contact sheets: small pictures side by side, each with two lines below it.

In: pictures as the network gets them. Out: a PNG.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

COLUMNS = 5
SIDE, LINE, GAP = 200, 18, 8  # pixels
LONGEST = 28
"""Characters of a line."""


def sheet(tiles: Sequence[tuple[Tensor, str, str]]) -> bytes:
    """A PNG of the tiles, row by row.

    Args:
        tiles: each a picture, uint8 (1 or 3, side, side), and two lines of text.
    """
    columns = min(COLUMNS, max(1, len(tiles)))
    rows = -(-len(tiles) // columns)
    width, height = SIDE + GAP, SIDE + 2 * LINE + GAP
    canvas = Image.new("RGB", (columns * width + GAP, rows * height + GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for number, (picture, *lines) in enumerate(tiles):
        left, top = GAP + number % columns * width, GAP + number // columns * height
        pixels = np.ascontiguousarray(picture.cpu().expand(3, -1, -1).permute(1, 2, 0).numpy())
        canvas.paste(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR), (left, top))
        for line, text in enumerate(lines):
            shown = text if len(text) <= LONGEST else f"...{text[3 - LONGEST :]}"
            draw.text((left, top + SIDE + 2 + line * LINE), shown, fill="black" if line == 0 else "gray", font=font)
    stream = io.BytesIO()
    canvas.save(stream, format="PNG")
    return stream.getvalue()
