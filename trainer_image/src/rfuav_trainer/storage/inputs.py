"""Folders in object stores (s3://, hf://) as folders on this machine: all names at once, the bytes when first read.

In: a URI. Out: a local path that can be searched like any other; whoever reads a file below it opens it with `opened`.
Files that are no object's are left as they are, so whoever reads need not know. Credentials come from the environment
alone.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from rfuav_crds import parse_quantity
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.process import resources
from rfuav_trainer.storage import clients, hub, scratch
from rfuav_trainer.storage.cache import BYTES, PATIENCE_SECONDS, Cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FREE_SHARE = 0.5
"""Share of the cache volume's free space that is used when TRAINER_CACHE_BYTES does not say."""

_cache: list[Cache] = []
_starting = threading.Lock()


def path(uri: str, where: str) -> Path:
    """The local path of the remote folder or object `uri`; see `Cache.path`. `where` is the field's name.

    What a local cache of the hub has is taken from there (`hub.find`).
    """
    if uri.startswith("hf://") and (found := hub.find(uri, where)) is not None:
        return found
    with _starting:
        if not _cache:
            _cache.append(_new_cache())
    return _cache[0].path(uri, where)


def name(folder: Path, names: Iterable[str]) -> None:
    """Make known the remote files that a manifest in `folder` names; nothing to do for a local one."""
    if _cache:
        _cache[0].name(folder, names)


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """`path`, with its bytes fetched if it is a remote file's. One at a time in a thread: others may wait for room.

    Raises:
        UnreadableFileError: it was removed or replaced since it was listed.
        StorageError: the store does not answer.
    """
    if not _cache:
        yield path
        return
    with _cache[0].opened(path) as here:
        yield here


def size(path: Path) -> int:
    """Bytes of a file, remote or not, without fetching it."""
    known = _cache[0].size(path) if _cache else None
    return path.stat().st_size if known is None else known


def fetch_ahead(paths: Iterable[Path]) -> None:
    """Begin to fetch what will be read soon; nothing to do for local files."""
    if _cache:
        _cache[0].fetch_ahead(paths)


def leave(code: int) -> NoReturn:
    """End the process with this exit code, with nothing left of what was fetched."""
    while _cache:
        _cache.pop().close()
    sys.stdout.flush()
    sys.stderr.flush()
    if not clients.quiet(PATIENCE_SECONDS):
        os._exit(code)  # else Python waits for the threads that fetch, longer than a pod has to end
    raise SystemExit(code)


def _new_cache() -> Cache:
    limit = os.environ.get(BYTES)
    try:
        most = int(parse_quantity(limit)) if limit else None
    except ValueError as error:
        raise InvalidConfigurationError(f"{BYTES} is {limit!r}: write bytes, as in 20Gi") from error
    folder = scratch.make("cache")
    return Cache(folder, _share_of(folder) if most is None else most)


def _share_of(volume: Path) -> int:
    """Bytes for this process when nobody said: every process of the pod has a cache there."""
    return int(shutil.disk_usage(volume).free * FREE_SHARE) // resources.processes()
