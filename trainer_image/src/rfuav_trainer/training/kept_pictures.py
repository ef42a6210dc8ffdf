"""How much memory and disk a training uses to cache decoded pictures between epochs.

In: the samples of a training and the limits of the pod. Out: homes that a `Reader` asks before it decodes a file.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from rfuav_crds import TrainingJobSpec, contract, parse_quantity
from rfuav_trainer.data.picture_cache import Disk, Memory
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.process import resources
from rfuav_trainer.signals import colormaps
from rfuav_trainer.storage import scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rfuav_trainer.data.dataset import Dataset
    from rfuav_trainer.data.samples import Home, Preprocessing
    from rfuav_trainer.distributed.process_group import World
    from rfuav_trainer.job import Job

log = structlog.get_logger()

MEMORY_SHARE = 0.25
"""Fraction of the memory of the job for decoded pictures."""
DISK_BYTES = "TRAINER_PICTURES_BYTES"
DISK_DEFAULT = 10 * 1024**3
"""Bytes on the scratch disk for all processes of a pod if TRAINER_PICTURES_BYTES is not set."""
DISK_SHARE = 0.25
"""Maximum fraction of the ephemeral-storage limit of the container in that case."""
LEFT_FREE = 0.2
"""Fraction of the volume to leave free in that case: below 10 % a node evicts pods, below 15 % it removes images."""


@contextlib.contextmanager
def homes(job: Job, dataset: Dataset, world: World) -> Iterator[list[Home]]:
    """The caches of a training, in order of preference. All processes call it together.

    A single process fills its memory first. Several processes of a pod read different samples in every epoch, so they
    fill the disk first, which they share. The file is unlinked once all have opened it, so that nothing is left behind.

    Raises:
        InvalidConfigurationError: TRAINER_PICTURES_BYTES is not a number of bytes.
    """
    assert isinstance(job.spec, TrainingJobSpec)  # noqa: S101  (only a training reads samples repeatedly)
    samples = [*dataset.train, *dataset.validation]
    shape = _shape(dataset.preprocessing)
    memory = int(resources.memory(job) * MEMORY_SHARE)
    limit, left_free = _disk_limit()
    local, alone = resources.local_rank(), resources.processes() == 1
    wanted = job.spec.training.epochs > 1 and (not alone or len(samples) * math.prod(shape) > memory)
    made = _make_file(limit) if local == 0 and wanted else None
    path = world.gather(made)[world.rank - local]
    disk = None
    try:
        if path is not None:
            keys = (sample.key for sample in samples)
            with contextlib.suppress(OSError):  # without the disk cache, then
                disk = Disk(path, keys, shape, limit=limit, left_free=left_free)
        world.wait()
    finally:
        if made is not None:
            made.unlink(missing_ok=True)
    if disk is None:
        yield [Memory(memory)]
        return
    log.info("caching decoded pictures", pictures=len(samples), bytesEach=math.prod(shape), memory=memory, disk=limit)
    yield [Memory(memory), disk] if alone else [disk, Memory(memory)]


def _shape(preprocessing: Preprocessing) -> tuple[int, int, int]:
    grey = preprocessing.spectrogram is not None and preprocessing.spectrogram.color_map == colormaps.GRAY
    return 1 if grey else 3, preprocessing.image_size, preprocessing.image_size


def _disk_limit() -> tuple[int, float]:
    """Bytes that may be used, and the fraction of the volume to leave free: 0 if TRAINER_PICTURES_BYTES is set."""
    stated = os.environ.get(DISK_BYTES)
    if stated:
        try:
            return int(parse_quantity(stated)), 0.0
        except ValueError as error:
            raise InvalidConfigurationError(
                f"{DISK_BYTES} is {stated!r}: write bytes, as in 20Gi, or 0 to cache nothing on disk"
            ) from error
    if _in_memory(scratch.volume()):
        return 0, LEFT_FREE
    whole = os.environ.get(contract.EPHEMERAL_STORAGE, "")
    return min(DISK_DEFAULT, int(int(whole) * DISK_SHARE) if whole.isdigit() else DISK_DEFAULT), LEFT_FREE


def _in_memory(folder: Path) -> bool:
    """Whether a folder is on a tmpfs, whose files count as memory of the pod."""
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
        log.warning("not caching pictures on the scratch disk", folder=str(scratch.volume()), problem=error.strerror)
        return None
    os.close(handle)
    return Path(name)
