"""Caches of decoded pictures between epochs: in memory, and on the scratch disk.

In: pictures by key. Out: homes that a `Reader` asks before it decodes a file. Both have a bound; pictures beyond it are
decoded in every epoch. No failure here can fail the job.
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
    """Keeps the first pictures, up to `limit` bytes."""

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
    """Pictures in a file that all processes of a pod share: each has a fixed slot, after a byte that marks it complete.

    Read and written, not memory-mapped: the page cache serves both, but a full disk raises an error here and would kill
    the process there. The file is closed when the object is garbage-collected: a reader that outlives the training must
    not write to another file with the same descriptor.

    Args:
        path: an empty file; it may be unlinked once all processes have opened it.
        keys: of the samples, in the same order in all processes.
        shape: of every picture.
        limit: bytes.
        left_free: fraction of the volume to leave free.
    """

    def __init__(
        self, path: Path, keys: Iterable[Key], shape: tuple[int, int, int], *, limit: int, left_free: float = 0.0
    ) -> None:
        self._shape, self._left_free, self._volume = shape, left_free, path.parent
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
        except OSError:  # the caller decodes the file instead
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
                os.pwrite(self._file, b"\1", at)  # last: other processes may read it from now on
                return True
            problem = f"{self._left_free:.0%} of the volume must stay free" if self._left_free else "the volume is full"
        except OSError as error:
            problem = str(error.strerror)
        self._full = True
        log.warning(
            "the picture cache on the scratch disk is full; the other pictures are decoded in every epoch",
            volume=str(self._volume),
            problem=problem,
            advice="for more, set TRAINER_CACHE to a folder on a larger volume, or TRAINER_PICTURES_BYTES",
        )
        return False

    def _has_room(self) -> bool:
        volume = os.fstatvfs(self._file)
        return volume.f_bavail - self._bytes // volume.f_frsize > self._left_free * volume.f_blocks
