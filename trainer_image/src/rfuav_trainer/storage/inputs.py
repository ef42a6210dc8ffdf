"""Folders in object stores (s3://, hf://) as local folders: listed once, downloaded file by file when first read.

In: a URI. Out: a local path that can be searched like any other. Readers open each file with `opened`, which leaves
local files alone, so readers treat both alike. Credentials come from the environment only.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
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
"""Share of the free space of the cache volume that is used if TRAINER_CACHE_BYTES is not set."""

_cache: list[Cache] = []
_starting = threading.Lock()


def path(uri: str, where: str) -> Path:
    """The local path of the remote folder or object `uri`; see `Cache.path`. `where` is the field's name.

    Files in the local cache of the hub are used from there (`hub.find`).
    """
    if uri.startswith("hf://") and (found := hub.find(uri, where)) is not None:
        return found
    with _starting:
        if not _cache:
            _cache.append(_new_cache())
    return _cache[0].path(uri, where)


def name(folder: Path, names: Iterable[str]) -> None:
    """Register the remote files that a manifest in `folder` names, or a recording that is the only input there.

    Does nothing for local files.
    """
    if _cache:
        _cache[0].name(folder, names)


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """`path`, downloaded first if it is remote. A thread opens one at a time: others may be waiting for space.

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
    """Bytes of a file, remote or local, without downloading it."""
    known = _cache[0].size(path) if _cache else None
    return path.stat().st_size if known is None else known


def version(path: Path) -> str | None:
    """Size and digest of a remote file as its store lists them; None for a local file."""
    return _cache[0].version(path) if _cache else None


def fetch_ahead(paths: Iterable[Path]) -> None:
    """Start to download files that will be read soon. Does nothing for local files."""
    if _cache:
        _cache[0].fetch_ahead(paths)


def leave(code: int) -> NoReturn:
    """End the process with this exit code, and remove the cache."""
    while _cache:
        _cache.pop().close()
    sys.stdout.flush()
    sys.stderr.flush()
    if not (clients.quiet(PATIENCE_SECONDS) and _alone(PATIENCE_SECONDS)):
        os._exit(code)  # else Python waits for downloads and readers, longer than the grace period of a pod
    raise SystemExit(code)


def _alone(seconds: float) -> bool:
    """Whether no thread that Python would wait for is left after at most `seconds`: a reader may hang in a read."""
    end = time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                return False
    return True


def _new_cache() -> Cache:
    limit = os.environ.get(BYTES)
    try:
        most = int(parse_quantity(limit)) if limit else None
    except ValueError as error:
        raise InvalidConfigurationError(f"{BYTES} is {limit!r}: write bytes, as in 20Gi") from error
    folder = scratch.make("cache")
    return Cache(folder, _share_of(folder) if most is None else most)


def _share_of(volume: Path) -> int:
    """The default limit in bytes: all processes of the pod have a cache on the volume."""
    return int(shutil.disk_usage(volume).free * FREE_SHARE) // resources.processes()
