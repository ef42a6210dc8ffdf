"""Folders in object stores (s3://, hf://) as folders on this machine: all names at once, the bytes when first read.

In: a URI. Out: a local path that can be searched like any other; whoever reads a file below it opens it with `opened`.
Until then it is an empty file, so that reading past `opened` fails loudly. Credentials come from the environment alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

from rfuav_crds import parse_quantity
from rfuav_trainer import runtime, scratch, stores
from rfuav_trainer.errors import InputError, InvalidConfigurationError, JobError, UnreadableFileError, disk_full

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

log = structlog.get_logger()

MANIFESTS = (".jsonl", ".parquet")
CACHE_BYTES = "TRAINER_CACHE_BYTES"
FREE_SHARE = 0.5
"""Share of the cache volume's free space that is used when TRAINER_CACHE_BYTES does not say."""
PATIENCE_SECONDS = 1
"""How long the end of a process waits for objects on their way."""
READERS = 16
"""Objects fetched side by side: they wait for the network, not for this machine."""
ROOM = f"lower {CACHE_BYTES}, or name a larger volume in {scratch.VOLUME} (podTemplate.env)"


@dataclass
class _Object:
    """One object: where it is, how large, and whether its bytes are here."""

    store: Any
    scheme: str
    remote: str
    size: int
    here: bool = False
    users: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Cache:
    """What has been fetched, at most `limit` bytes of it: what was not read for longest goes first.

    Args:
        folder: where; it is this process' own and removed with it.
        limit: bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.used = 0
        self._kept = 0  # bytes that stay to the end
        self._objects: dict[Path, _Object] = {}
        self._here: OrderedDict[Path, _Object] = OrderedDict()
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="fetch")

    def path(self, uri: str, where: str) -> Path:
        """The local path of a remote folder or object. An object is fetched at once, and stays.

        Raises:
            InputError: there is nothing, or it may not be read.
            StorageError: the store does not answer.
        """
        scheme, _, rest = uri.rstrip("/").partition("://")
        if rest.endswith(MANIFESTS):
            return self.path(uri.rpartition("/")[0], where) / rest.rpartition("/")[2]
        store = stores.client(scheme)
        try:
            listed = stores.ask(lambda: store.find(rest, detail=True), f"{where}: {uri}", scheme)
        except FileNotFoundError:  # also what a private repository answers to strangers
            listed = {}
        local = self.folder / scheme / rest
        if not listed:
            raise InputError(f"{where}: {uri} does not exist, is empty, or is not shown to these credentials")
        for name, details in listed.items():
            inside = str(name)[len(rest) :].removeprefix("/")
            self._register(_Object(store, scheme, str(name), int(details.get("size") or 0)), local, inside)
        log.info("listed", uri=uri, objects=len(listed), bytes=sum(int(d.get("size") or 0) for d in listed.values()))
        if local in self._objects:
            self._hold(local, self._objects[local])
            with self._changed:
                self._kept += self._objects[local].size
        return local

    def _register(self, found: _Object, root: Path, inside: str) -> None:
        """Let an empty file stand for an object; one whose name cannot be a file's here is left out."""
        path = root / inside if inside else root
        if found.remote.endswith("/") or path in self._objects:
            return
        if inside and not {"", ".", ".."}.isdisjoint(inside.split("/")):
            log.warning("object left out: its name cannot be a path", object=found.remote)
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except (OSError, ValueError) as error:  # too long, or `a` is an object and a folder
            if disk_full(error):
                raise
            log.warning("object left out: its name cannot be a path", object=found.remote, problem=str(error))
            return
        self._objects[path] = found

    def size(self, path: Path) -> int | None:
        """Bytes of the object that the empty file at `path` stands for; None for everybody else's files."""
        found = self._objects.get(path)
        return None if found is None else found.size

    @contextmanager
    def opened(self, path: Path) -> Iterator[Path]:
        """`path` with its bytes, which stay while the context lasts."""
        found = self._objects.get(path)
        if found is None:
            yield path
            return
        self._hold(path, found)
        try:
            yield path
        finally:
            with self._changed:
                found.users -= 1
                self._changed.notify_all()

    def fetch_ahead(self, paths: Iterable[Path]) -> None:
        """Begin to fetch what will be read soon."""
        for path in paths:
            found = self._objects.get(path)
            if found is not None and not found.here:
                self._pool.submit(self._fetch_quietly, path)

    def _fetch_quietly(self, path: Path) -> None:
        try:
            with self.opened(path):
                pass
        except JobError:
            log.debug("not fetched ahead", file=str(path))  # who reads it will be told why

    def _hold(self, path: Path, found: _Object) -> None:
        with stores.busy(), found.lock:
            with self._changed:
                if found.here:
                    found.users += 1
                    self._here.move_to_end(path)
                    return
                self._make_room(path, found.size)
                self.used += found.size
                found.users += 1
            try:
                self._fetch(path, found)
            except BaseException:
                with self._changed:
                    self.used -= found.size
                    found.users -= 1
                    self._changed.notify_all()
                raise
            with self._changed:
                found.here = True
                self._here[path] = found

    def _make_room(self, path: Path, size: int) -> None:
        """Let go of what was not read for longest, waiting for others to be through with it; `_changed` is held."""
        if size > self.limit - self._kept:
            raise InputError(
                f"{path.name} has {size} bytes, the cache in {self.folder} may hold {self.limit - self._kept}: raise "
                f"{CACHE_BYTES}, or name a larger volume in {scratch.VOLUME} (podTemplate.env)",
                reason="CacheTooSmall",
            )
        while self.used + size > self.limit:
            idle = next((p for p, o in self._here.items() if not o.users), None)
            if idle is None:
                self._changed.wait()
                continue
            gone = self._here.pop(idle)
            gone.here = False
            self.used -= gone.size
            empty = _beside(idle, "empty")
            empty.touch()
            empty.replace(idle)  # never truncated: somebody may have the old bytes mapped

    def _fetch(self, path: Path, found: _Object) -> None:
        temporary = _beside(path, "fetched")
        try:
            fetch = partial(found.store.get_file, found.remote, str(temporary))
            stores.ask(fetch, found.remote, found.scheme, room=ROOM)
            size = temporary.stat().st_size
            if size != found.size:
                raise UnreadableFileError(f"has {size} bytes, had {found.size} when it was listed: it was replaced")
            temporary.replace(path)
        except FileNotFoundError as error:
            raise UnreadableFileError("was removed after it had been listed") from error
        finally:
            temporary.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove all of it; what is on its way is waited for, but not for long."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        stores.quiet(PATIENCE_SECONDS)
        scratch.remove(self.folder)


_cache: list[Cache] = []
_starting = threading.Lock()


def path(uri: str, where: str) -> Path:
    """The local path of the remote folder or object `uri`; see `Cache.path`. `where` is the field's name."""
    with _starting:
        if not _cache:
            _cache.append(_new_cache())
    return _cache[0].path(uri, where)


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
    if not stores.quiet(PATIENCE_SECONDS):
        os._exit(code)  # else Python waits for the threads that fetch, longer than a pod has to end
    raise SystemExit(code)


def _new_cache() -> Cache:
    limit = os.environ.get(CACHE_BYTES)
    try:
        most = int(parse_quantity(limit)) if limit else None
    except ValueError as error:
        raise InvalidConfigurationError(f"{CACHE_BYTES} is {limit!r}: write bytes, as in 20Gi") from error
    folder = scratch.make("cache")
    return Cache(folder, _share_of(folder) if most is None else most)


def _share_of(volume: Path) -> int:
    """Bytes for this process when nobody said: every process of the pod has a cache there."""
    return int(shutil.disk_usage(volume).free * FREE_SHARE) // runtime.processes()


def _beside(path: Path, what: str) -> Path:
    """A name in the same folder that is no longer than a name may be, however long that of `path` is."""
    return path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()}.{what}")
