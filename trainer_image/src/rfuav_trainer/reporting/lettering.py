"""Text in pictures: names of classes and jobs in any script, drawn as they are written.

In: a text. Out: the fonts of this machine that can draw it, and the text with escapes for what none of them can.
"""

from __future__ import annotations

import functools
from typing import Any

PLAIN = "DejaVu Sans"
"""Comes with matplotlib: Latin, Greek, Cyrillic and more."""
OTHERS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK TC", "Noto Sans CJK KR", "Noto Sans SC",
    "Source Han Sans SC", "Source Han Sans CN",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC",
    "Hiragino Sans GB", "Arial Unicode MS", "Unifont",
)  # fmt: skip
"""Fonts with Chinese, Japanese and Korean, used where they are installed."""


def drawable(text: str) -> str:
    """The text for a picture of matplotlib; what no font has stands as an escape, a backslash and the code point."""
    return _escaped(text, frozenset().union(*(points for _, points in _fonts().values())))


def style() -> dict[str, Any]:
    """How matplotlib is to draw names: with these fonts, and a dollar sign is a dollar sign."""
    return {"parse_math": False, "fontfamily": [*_fonts()]}


def for_pillow(text: str, size: int) -> tuple[Any, str]:
    """A font of Pillow for the text, `size` pixels high, and the text with escapes for what the font does not have."""
    path, text = (None, text) if text.isascii() else in_one_font(text)
    return _font(path, size), text


@functools.cache
def _font(path: str | None, size: int) -> Any:
    from PIL import ImageFont  # noqa: PLC0415  (plots have no use for it)

    return ImageFont.load_default(size=size) if path is None else ImageFont.truetype(path, size)


def in_one_font(text: str) -> tuple[str, str]:
    """The file of the font that has most of the text, and the text with escapes for the rest."""
    path, points = max(_fonts().values(), key=lambda font: sum(ord(letter) in font[1] for letter in text))
    return path, _escaped(text, points)


def _escaped(text: str, points: frozenset[int]) -> str:
    return "".join(c if ord(c) in points else c.encode("unicode_escape").decode() for c in text)


@functools.cache
def _fonts() -> dict[str, tuple[str, frozenset[int]]]:
    """File and code points of the fonts that are here, by name."""
    from matplotlib import font_manager  # noqa: PLC0415  (seconds to import)

    here = {font.name: font.fname for font in font_manager.fontManager.ttflist if font.name in OTHERS}
    here = {PLAIN: font_manager.findfont(PLAIN), **{name: here[name] for name in OTHERS if name in here}}
    return {name: (path, frozenset(font_manager.get_font(path).get_charmap())) for name, path in here.items()}
