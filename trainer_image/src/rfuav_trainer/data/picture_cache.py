"""Decoded pictures, kept from one epoch to the next: in the memory, and on the scratch disk what does not fit there.

In: the samples of a training and what this pod may use. Out: homes that a `Reader` asks before it decodes anything.
Either has a bound; what finds no room is decoded in every epoch, and nothing about it can fail the job.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import structlog
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor

    from rfuav_trainer.data.samples import Key


log = structlog.get_logger()


class Memory:
    """The first pictures that come, up to `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._pictures: dict[Key, Tensor] = {}
        self._changing = threading.Lock()

    def holds(self, key: Key) -> bool:  # noqa: D102  (Home)
        return key in self._pictures

    def get(self, key: Key) -> Tensor | None:  # noqa: D102
        return self._pictures.get(key)

    def put(self, key: Key, picture: Tensor) -> bool:  # noqa: D102
        with self._changing:
            if picture.nbytes > self._left:
                return False
            self._left -= picture.nbytes
            self._pictures[key] = picture
            return True


class Disk:
    """Pictures in a file that all processes of a pod share: each has its place, behind a byte that says it is whole.

    Read and written, not mapped: the page cache serves both alike, but a full disk is an error here and would kill the
    process there. The file is closed when nobody has the object any more: a reader for whom the end of a training did
    not wait must not write to another file that was given the same number.

    Args:
        path: an empty file; it may be unlinked once it is open everywhere.
        keys: of the samples, in an order that is the same in all processes.
        shape: of every picture.
        limit: bytes.
        left_free: share of the volume that is left free.
    """

    def __init__(
        self, path: Path, keys: Iterable[Key], shape: tuple[int, int, int], *, limit: int, left_free: float = 0.0
    ) -> None:
        self._shape, self._left_free = shape, left_free
        self._bytes = math.prod(shape)
        self._places = {key: place for place, key in enumerate(islice(keys, limit // (1 + self._bytes)))}
        self._file = os.open(path, os.O_RDWR)
        weakref.finalize(self, os.close, self._file).atexit = False
        self._full = False

    def holds(self, key: Key) -> bool:  # noqa: D102  (Home)
        place = self._places.get(key)
        if place is None:
            return False
        try:
            return os.pread(self._file, 1, place * (1 + self._bytes)) == b"\1"
        except OSError:  # who asks can decode
            return False

    def get(self, key: Key) -> Tensor | None:  # noqa: D102
        if not self.holds(key):
            return None
        picture = np.empty(self._shape, dtype=np.uint8)
        try:
            read = os.preadv(self._file, [picture.data], self._places[key] * (1 + self._bytes) + 1)
        except OSError:
            return None
        return torch.from_numpy(picture) if read == self._bytes else None

    def put(self, key: Key, picture: Tensor) -> bool:  # noqa: D102
        place = self._places.get(key)
        if self._full or place is None or tuple(picture.shape) != self._shape:
            return False
        at = place * (1 + self._bytes)
        try:
            whole = self._has_room() and os.pwrite(self._file, picture.numpy().data, at + 1) == self._bytes
            if whole:
                os.pwrite(self._file, b"\1", at)  # only now: others may read it already
                return True
            problem = "no more space may be used"
        except OSError as error:
            problem = str(error.strerror)
        self._full = True
        log.warning(
            "the picture cache on the scratch disk is full; the other pictures are decoded in every epoch",
            problem=problem,
        )
        return False

    def _has_room(self) -> bool:
        volume = os.fstatvfs(self._file)
        return volume.f_bavail - self._bytes // volume.f_frsize > self._left_free * volume.f_blocks
