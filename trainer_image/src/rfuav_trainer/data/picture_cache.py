"""Decoded pictures, kept from one epoch to the next: in the memory, and on the scratch disk what does not fit there.

In: the samples of a training and what this pod may use. Out: homes that a `Reader` asks before it decodes anything.
Either has a bound; what finds no room is decoded in every epoch, and nothing about it can fail the job.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import threading
import weakref
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import structlog
import torch

from rfuav_crds import TrainingJobSpec, parse_quantity
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.process import runtime
from rfuav_trainer.signals import colormaps
from rfuav_trainer.storage import scratch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from rfuav_trainer.data.dataset import Dataset
    from rfuav_trainer.data.samples import Preprocessing
    from rfuav_trainer.distributed.process_group import World
    from rfuav_trainer.job import Job

    Key = tuple[Path, int | None]
    """A file, and the frame of a recording."""

log = structlog.get_logger()

MEMORY_SHARE = 0.25
"""Share of the job's memory that may hold decoded pictures."""
DISK_BYTES = "TRAINER_PICTURES_BYTES"
DISK_DEFAULT = 10 * 1024**3
"""Bytes on the scratch disk for all processes of a pod when TRAINER_PICTURES_BYTES does not say."""
DISK_SHARE = 0.25
"""Share of the container's ephemeral-storage limit that is not exceeded then."""
LEFT_FREE = 0.2
"""Share of the volume that is left free then: at a tenth a node begins to evict pods, at 15 % to remove images."""
STORAGE_LIMIT = "RFUAV_EPHEMERAL_STORAGE"
"""Set by the operator: the container's limit of ephemeral storage in bytes, the node's where it has none."""


class Home(Protocol):
    """A place for pictures; several threads use it."""

    def holds(self, key: Key) -> bool:
        """Whether the picture is there."""

    def get(self, key: Key) -> Tensor | None:
        """The picture, as it was put; not to be changed."""

    def put(self, key: Key, picture: Tensor) -> bool:
        """Keep it; False when there is no room."""


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
            problem = "there is no more room that may be taken"
        except OSError as error:
            problem = str(error.strerror)
        self._full = True
        log.warning("no more pictures are kept on the scratch disk; the others are decoded anew", problem=problem)
        return False

    def _has_room(self) -> bool:
        volume = os.fstatvfs(self._file)
        return volume.f_bavail - self._bytes // volume.f_frsize > self._left_free * volume.f_blocks


@contextlib.contextmanager
def homes(job: Job, dataset: Dataset, world: World) -> Iterator[list[Home]]:
    """Where a training's pictures are kept, in the order in which they are asked. All processes call it together.

    A process alone fills its memory first. Several of a pod read other samples in every epoch, so they fill the disk
    first, which they share. The file has no name once all have opened it: whatever ends them, nothing is left.

    Raises:
        InvalidConfigurationError: TRAINER_PICTURES_BYTES is no number of bytes.
    """
    assert isinstance(job.spec, TrainingJobSpec)  # noqa: S101  (only a training reads anything twice)
    samples = [*dataset.train, *dataset.validation]
    shape = _shape(dataset.preprocessing)
    memory = int(job.memory * MEMORY_SHARE)
    limit, left_free = _disk_limit()
    local, alone = int(os.environ.get("LOCAL_RANK", "0")), runtime.processes() == 1
    wanted = job.spec.training.epochs > 1 and (not alone or len(samples) * math.prod(shape) > memory)
    made = _make_file(limit) if local == 0 and wanted else None
    path = world.gather(made)[world.rank - local]
    disk = None
    try:
        if path is not None:
            keys = ((sample.path, sample.frame) for sample in samples)
            with contextlib.suppress(OSError):  # it goes without
                disk = Disk(path, keys, shape, limit=limit, left_free=left_free)
        world.wait()
    finally:
        if made is not None:
            made.unlink(missing_ok=True)
    if disk is None:
        yield [Memory(memory)]
        return
    log.info("decoded pictures are kept", pictures=len(samples), bytesEach=math.prod(shape), memory=memory, disk=limit)
    yield [Memory(memory), disk] if alone else [disk, Memory(memory)]


def _shape(preprocessing: Preprocessing) -> tuple[int, int, int]:
    grey = preprocessing.spectrogram is not None and preprocessing.spectrogram.color_map == colormaps.GRAY
    return 1 if grey else 3, preprocessing.image_size, preprocessing.image_size


def _disk_limit() -> tuple[int, float]:
    """Bytes that may be used, and the share of the volume to leave free: none of it where somebody said how much."""
    stated = os.environ.get(DISK_BYTES)
    if stated:
        try:
            return int(parse_quantity(stated)), 0.0
        except ValueError as error:
            raise InvalidConfigurationError(
                f"{DISK_BYTES} is {stated!r}: write bytes, as in 20Gi, or 0 to keep nothing on the disk"
            ) from error
    if _in_memory(scratch.volume()):
        return 0, LEFT_FREE
    whole = os.environ.get(STORAGE_LIMIT, "")
    return min(DISK_DEFAULT, int(int(whole) * DISK_SHARE) if whole.isdigit() else DISK_DEFAULT), LEFT_FREE


def _in_memory(folder: Path) -> bool:
    """Whether a folder is on a tmpfs, whose files count as the pod's memory."""
    with contextlib.suppress(OSError):
        device = folder.stat().st_dev
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            fields, _, kind = line.partition(" - ")
            if fields.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                return kind.split()[0] in {"tmpfs", "ramfs"}
    return False


def _make_file(limit: int) -> Path | None:
    if limit <= 0:
        return None
    try:
        handle, name = tempfile.mkstemp(prefix="rfuav-pictures-", dir=scratch.volume())
    except OSError as error:
        log.warning("no pictures are kept on the scratch disk", folder=str(scratch.volume()), problem=error.strerror)
        return None
    os.close(handle)
    return Path(name)
