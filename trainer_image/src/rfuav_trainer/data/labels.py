"""Conditions of an input, from its path and its label file.

In: a path that begins with its class. Out: SNR and colour map, and what is left of a name without them.
"""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

log = structlog.get_logger()

LEVELS = ("agc", "amp", "att", "atten", "attenuation", "gain", "level", "lna", "loss", "noise", "power", "pwr", "vga")
"""What else is given in dB: `gain_40dB` is no SNR."""
_NO_LEVEL = "".join(rf"(?<!{word}[\s_=])" for word in LEVELS)
SNR = re.compile(
    r"(?<![a-z])snr[_=]*(?P<named>[+-]?\d+(?:\.\d+)?)"
    # Before the number stands nothing, or what cannot be its sign: `flight2-10dB` may be the tenth part of a flight.
    rf"|(?<![^\s_/=,()\[\]]){_NO_LEVEL}"
    r"(?P<unit>[+-]?\d+(?:\.\d+)?)[\s_]?db(?![a-z0-9])",
    re.IGNORECASE,
)
COLOUR_MAPS = {"autumn", "bone", "cividis", "cool", "copper", "gray", "grey", "hot", "hsv", "inferno", "jet", "magma"}
COLOUR_MAPS |= {"parula", "pink", "plasma", "rainbow", "spring", "summer", "turbo", "viridis", "winter"}
COLOUR_WORDS = re.compile(rf"(?<![a-z])(?:{'|'.join(sorted(COLOUR_MAPS))})(?![a-z])", re.IGNORECASE)


def conditions(name: str, beside: dict[str, Any], otherwise: float | None = None) -> tuple[float | None, str | None]:
    """SNR and colour map of an input.

    Args:
        name: its path, which begins with its class.
        beside: the content of its label file; `snrDb` and `colorMap` in it take precedence over the name.
        otherwise: the SNR if neither says it, as the sidecar of a pack does.

    Returns:
        The SNR in whole dB, from `snr_-10`, `SNR10`, or `-10dB` at the beginning of a part of the name, and the colour
        map, from a word such as jet. None if unknown.
    """
    below = PurePosixPath(*PurePosixPath(name).parts[1:]).as_posix()  # a class may be called hot or 10dB
    snr = beside.get("snrDb")
    if isinstance(snr, bool) or not isinstance(snr, int | float) or not math.isfinite(snr):
        if snr is not None:
            log.warning("ignoring snrDb: not a finite number", file=name, snrDb=repr(snr))
        found = [match.groupdict() for match in SNR.finditer(below)]
        # A named one first: in `rec_3dB_snr10` the other may be anything.
        snr = next((each[kind] for kind in ("named", "unit") for each in found if each[kind] is not None), otherwise)
    colours = beside.get("colorMap")
    if not isinstance(colours, str):
        colours = next((word for word in re.split(r"[^a-z]+", below.lower()) if word in COLOUR_MAPS), None)
    return None if snr is None else float(round(float(snr))), colours


def first_folder(path: str) -> str:
    """The first folder of a relative path, which is the class; empty for a file in no folder."""
    return path.partition("/")[0] if "/" in path else ""


def label_of(line: Mapping[str, Any]) -> str:
    """The true class of the input of a prediction line: as it is stated, else the first folder; empty if unknown."""
    stated: str | None = line.get("label")
    return first_folder(line["path"]) if stated is None else stated


def in_class(label: str, path: str) -> str:
    """A path that begins with its class, as `conditions` expects, for a file anywhere."""
    return path if first_folder(path) == label else f"{label}/{path}"


def without_conditions(part: str) -> str:
    """A component of a path without the conditions in it and the separators around them."""
    left = COLOUR_WORDS.sub("", SNR.sub("", part))
    return part if left == part else left.strip(" _-.=")
