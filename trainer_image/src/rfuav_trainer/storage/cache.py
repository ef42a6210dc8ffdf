"""The object cache of one process: objects are empty files until they are first read; the total size is bounded.

In: a client of a store. Out: local paths. A file is empty until it is opened with `opened`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_crds import reasons
from rfuav_trainer.errors import InputError, JobError, UnreadableFileError, disk_full
from rfuav_trainer.storage import clients, scratch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

log = structlog.get_logger()

BYTES = "TRAINER_CACHE_BYTES"
BESIDE = (".json", ".sigmf-meta")
"""Suffixes of the files that belong to a recording or picture of the same name."""
OF_OTHERS = (".sigmf-meta", ".sigmf-collection")
"""Suffixes of SigMF files that may describe files of other names in their folder."""
DESCRIBING = (*OF_OTHERS, ".xml")
"""The same, with the sidecars of packs."""
PATIENCE_SECONDS = 1
"""How long the process waits for downloads when it ends."""
READERS = 16
"""Parallel downloads: they wait for the network, not for this machine."""
ROOM = f"lower {BYTES}, or name a larger volume in {scratch.VOLUME} (podTemplate.env)"


@dataclass
class _Object:
    """One object: its location, its size, the store's digest, and whether its bytes are cached."""

    store: Any
    scheme: str
    remote: str
    size: int
    digest: str
    here: bool = False
    users: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def listed(cls, store: Any, scheme: str, name: str, details: Mapping[str, Any]) -> _Object:
        """From an entry of the store's listing."""
        lfs = details.get("lfs") or {}  # of the Hugging Face hub
        digest = details.get("ETag") or lfs.get("sha256") or details.get("blob_id") or ""
        return cls(store, scheme, name, int(details.get("size") or 0), str(digest).strip('"'))


class Cache:
    """Downloaded objects, at most `limit` bytes; the least recently used are evicted first.

    Args:
        folder: private to this process and removed with it.
        limit: bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.used = 0
        self._kept = 0  # bytes that are never evicted
        self._paths: dict[str, Path] = {}  # requested paths, by URI
        self._objects: dict[Path, _Object] = {}
        self._around: dict[Path, _Object] = {}  # folder to the single object that was requested in it
        self._here: OrderedDict[Path, _Object] = OrderedDict()
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="fetch")

    def path(self, uri: str, where: str) -> Path:
        """The local path of a remote folder or object, listed once. A single object is downloaded at once and kept.

        The files that belong to an object by name are registered too.

        Raises:
            InputError: nothing exists there, or it may not be read.
            StorageError: the store does not answer.
        """
        uri = uri.rstrip("/")
        if uri in self._paths:
            return self._paths[uri]
        scheme, _, rest = uri.partition("://")
        store = clients.client(scheme, READERS)
        try:
            listed = clients.ask(lambda: store.find(rest, detail=True), f"{where}: {uri}", scheme)
        except FileNotFoundError:  # also the answer of a private repository without access
            listed = {}
        local = self.folder / scheme / rest
        if not listed:
            raise InputError(
                f"{where}: {uri} does not exist, is empty, or is not visible with these credentials: correct the URI, "
                f"or set {clients.CREDENTIALS[scheme]}"
            )
        for name, details in listed.items():
            inside = str(name)[len(rest) :].removeprefix("/")
            self._register(_Object.listed(store, scheme, str(name), details), local, inside)
        log.info("listed", uri=uri, objects=len(listed), bytes=sum(int(d.get("size") or 0) for d in listed.values()))
        alone = self._objects.get(local)
        if alone is not None:
            self._around[local.parent] = alone
            self._hold(local, alone)
            with self._changed:
                self._kept += alone.size
            self._look_beside(alone, local)
        self._paths[uri] = local
        return local

    def _look_beside(self, alone: _Object, local: Path) -> None:
        for ending in BESIDE:
            remote = PurePosixPath(alone.remote).with_suffix(ending).as_posix()
            try:
                details = clients.ask(partial(alone.store.info, remote), remote, alone.scheme)
            except FileNotFoundError:
                continue
            if details["type"] == "file":
                found = _Object.listed(alone.store, alone.scheme, remote, details)
                self._register(found, local.with_suffix(ending), "")

    def name(self, folder: Path, names: Iterable[str]) -> None:
        """Register the files that the object in `folder` names, and what belongs to them. Lists only their folders.

        A folder with files that may describe others is registered whole: its names decide which belong together.

        Raises:
            StorageError: the store does not answer.
        """
        manifest = self._around.get(folder)
        if manifest is None:
            return
        wanted = {path for name in names for path in (name, *(f"{name.rpartition('.')[0]}{end}" for end in BESIDE))}
        root = manifest.remote.rpartition("/")[0]
        inside = sorted({name.rpartition("/")[0] for name in wanted})

        def listed(below: str) -> list[dict[str, Any]]:
            remote = f"{root}/{below}".rstrip("/")
            try:
                found = clients.ask(lambda: manifest.store.ls(remote, detail=True), remote, manifest.scheme)
            except FileNotFoundError:
                return []
            if any(details["name"].lower().endswith(DESCRIBING) for details in found):
                return [details for details in found if details["type"] == "file"]
            return [details for details in found if details["name"].removeprefix(f"{root}/") in wanted]

        for details in chain.from_iterable(self._pool.map(listed, inside)):
            name = details["name"]
            found = _Object.listed(manifest.store, manifest.scheme, name, details)
            self._register(found, folder, name.removeprefix(f"{root}/"))

    def _register(self, found: _Object, root: Path, inside: str) -> None:
        """Create the empty file for an object. Ignores an object whose name is not a valid file name."""
        path = root / inside if inside else root
        if found.remote.endswith("/") or path in self._objects:
            return
        if inside and not {"", ".", ".."}.isdisjoint(inside.split("/")):
            log.warning("ignoring object: its name is not a valid path", object=found.remote)
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except (OSError, ValueError) as error:  # too long, or `a` is both an object and a folder
            if disk_full(error):
                raise
            log.warning("ignoring object: its name is not a valid path", object=found.remote, problem=str(error))
            return
        self._objects[path] = found

    def size(self, path: Path) -> int | None:
        """Bytes of the object at `path`; None for a file that is not an object."""
        found = self._objects.get(path)
        return None if found is None else found.size

    def version(self, path: Path) -> str | None:
        """Size and digest of the object at `path` as listed; None for a file that is not an object."""
        found = self._objects.get(path)
        return None if found is None else f"{found.size}:{found.digest}"

    @contextmanager
    def opened(self, path: Path) -> Iterator[Path]:
        """`path` with its contents, which are kept while the context lasts."""
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
        """Start to download files that will be read soon."""
        for path in paths:
            found = self._objects.get(path)
            if found is not None and not found.here:
                self._pool.submit(self._fetch_quietly, path)

    def _fetch_quietly(self, path: Path) -> None:
        try:
            with self.opened(path):
                pass
        except JobError:
            log.debug("prefetch failed", file=str(path))  # the reader gets the error

    def _hold(self, path: Path, found: _Object) -> None:
        with clients.busy(), found.lock:
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
        """Evict the least recently used objects, waiting for their readers. The caller holds `_changed`."""
        if size > self.limit - self._kept:
            raise InputError(
                f"{path.name} has {size} bytes, the cache in {self.folder} may hold {self.limit - self._kept}: raise "
                f"{BYTES}, or name a larger volume in {scratch.VOLUME} (podTemplate.env)",
                reason=reasons.CACHE_TOO_SMALL,
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
            empty.replace(idle)  # never truncated: a reader may have the old contents mapped

    def _fetch(self, path: Path, found: _Object) -> None:
        temporary = _beside(path, "fetched")
        try:
            fetch = partial(found.store.get_file, found.remote, str(temporary))
            clients.ask(fetch, found.remote, found.scheme, room=ROOM)
            size = temporary.stat().st_size
            if size != found.size:
                raise UnreadableFileError(f"has {size} bytes instead of the {found.size} listed: it was replaced")
            temporary.replace(path)
        except FileNotFoundError as error:
            raise UnreadableFileError("was removed after it had been listed") from error
        finally:
            temporary.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the cache. Waits a short time for downloads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        clients.quiet(PATIENCE_SECONDS)
        scratch.remove(self.folder)


def _beside(path: Path, what: str) -> Path:
    """A temporary name in the same folder, of valid length even if the name of `path` has the maximum length."""
    return path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()}.{what}")
