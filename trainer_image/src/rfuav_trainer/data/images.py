"""Pictures from image files, whatever is in them.

In: a file, and the memory that decoding may take. Out: an 8-bit picture, or UnreadableFileError. Training, inference
and preparation decode here and nowhere else. The header is read first, so a small file of very many pixels is refused
before it takes the memory of the job.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import structlog
import torch
from PIL import Image, ImageOps, TiffImagePlugin, WebPImagePlugin  # the last two are registered when imported
from torch.nn import functional

from rfuav_trainer.errors import UnreadableFileError, as_unreadable
from rfuav_trainer.process import resources
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

log = structlog.get_logger()

TRANSFORM = 2
"""The version of the way from a file to a picture; weights carry theirs, so old ones see what they were trained on.
1: orientation ignored; float levels up to 1 became black and white. 2: turned upright; such levels are scaled."""
FORMATS = ("PNG", "JPEG", "BMP", "GIF", TiffImagePlugin.TiffImageFile.format, WebPImagePlugin.WebPImageFile.format)
"""What a file may contain, whatever its suffix: Pillow's other decoders are rarely used, and some start programs."""
SHARE = 0.25
"""Share of the memory of the process in which pictures may be decoded."""
TURNED = ("exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp")
"""Where a file may say that it is to be turned."""


class Room:
    """The memory in which the readers of a process decode. A picture waits until it fits beside the others.

    Args:
        limit: bytes; a picture that needs more is unreadable, however many readers there are.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._changed = threading.Condition()

    @classmethod
    def share_of(cls, memory: int) -> Room:
        """The room in a process that may use `memory` bytes."""
        return cls(int(memory * SHARE))

    @contextmanager
    def held(self, wanted: int) -> Iterator[None]:
        """Hold `wanted` bytes; raises UnreadableFileError if there can never be as many."""
        if wanted > self.limit:
            raise UnreadableFileError(
                f"too large: decoding takes about {wanted / 2**20:.0f} MiB, {self.limit / 2**20:.0f} MiB are left for "
                "it: store it smaller or raise resources.memory"
            )
        with self._changed:
            self._changed.wait_for(lambda: self._used + wanted <= self.limit)
            self._used += wanted
        try:
            yield
        finally:
            with self._changed:
                self._used -= wanted
                self._changed.notify_all()


def whole_machine() -> Room:
    """The room of a process without a job."""
    return Room.share_of(resources.memory())


@contextmanager
def decoded(path: Path, room: Room, *, size: int | None = None, transform: int = TRANSFORM) -> Iterator[Image.Image]:
    """The picture in a file, upright; in the context its memory is held.

    Args:
        path: the file.
        room: where it is decoded.
        size: a JPEG may come at 1/2, 1/4 or 1/8 as long as it is at least `size` pixels wide and high.
        transform: version of the transform.

    Raises:
        UnreadableFileError: whatever the decoder, or the body, raises.
    """
    with (
        as_unreadable("not a readable image"),
        inputs.opened(path) as here,
        here.open("rb") as stream,  # Pillow would map a named file, and a file that shrinks would kill the process
        Image.open(stream, formats=FORMATS) as image,
    ):
        full = image.width * image.height
        if size is not None:
            image.draft("RGB", (size, size))
        with room.held(_needed(image, full)):
            image.load()
            yield _upright(image) if transform > 1 else image


def read_picture(path: Path, size: int, *, room: Room | None = None, transform: int = TRANSFORM) -> Tensor:
    """An image resized to size x size: uint8, shape (3, size, size).

    Raises:
        UnreadableFileError: it is corrupt, truncated, too large, or missing.
    """
    with decoded(path, room or whole_machine(), size=size, transform=transform) as image:
        coloured = image if image.mode == "RGB" else in_colours(image, transform)  # conversion copies
        pixels = torch.from_numpy(np.array(coloured)).permute(2, 0, 1)
        # Equals Pillow's resizing to within 1 of 255, in a third of the time.
        return functional.interpolate(pixels[None], (size, size), mode="bilinear", antialias=True)[0].contiguous()


def in_colours(image: Image.Image, transform: int = TRANSFORM) -> Image.Image:
    """The image as 8-bit RGB. Scales grey levels of more bits, which Pillow would clip.

    Divides 16-bit levels (modes I;16) by their range, 65535. 32-bit levels (I, F) are taken as 8-bit levels up to 255
    and else divided by their maximum; floats (F) up to 1 are taken as 0 to 1.

    Raises:
        ValueError: 32-bit levels are negative or not finite, so black and white are undefined.
    """
    if not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    levels = np.asarray(image)
    if image.mode.startswith("I;16"):
        table = np.round(np.arange(65536) * (255.0 / 65535.0)).astype(np.uint8)
        return Image.fromarray(table[levels]).convert("RGB")
    if not (np.isfinite(levels).all() and (levels >= 0).all()):
        raise ValueError(f"negative or non-finite levels in mode {image.mode}: store 8 or 16 bits per level")
    highest = float(levels.max(initial=0))
    top = 1.0 if image.mode == "F" and transform > 1 and highest <= 1 else max(255.0, highest)
    return Image.fromarray(np.round(levels * np.float64(255.0 / top)).astype(np.uint8)).convert("RGB")


def _needed(image: Image.Image, full: int) -> int:
    """Bytes that decoding takes at most, by the header. `full`: pixels before a JPEG is reduced."""
    stored = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}.get(image.mode, 4)
    # The picture as stored, once more in the decoder, in colours, as an array, and while it is resized.
    each = 2 * stored + 10
    each += {1: 0, 2: 8, 4: 16 if image.mode in {"I", "F"} else 0}[stored]  # scaled by a table, or as float64
    # A progressive JPEG is kept as coefficients of the full picture: 2 bytes each, up to 4 channels.
    return image.width * image.height * each + (8 * full if image.info.get("progressive") else 0)


def _upright(image: Image.Image) -> Image.Image:
    """The image, turned as its EXIF says. An orientation that cannot be read is none."""
    if not any(name in image.info for name in TURNED):
        return image
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # noqa: BLE001  (the picture itself is readable)
        log.debug("ignoring the orientation of a picture", problem=repr(error))
        return image
