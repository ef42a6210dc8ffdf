"""One output in a store: uploads, removals and their order, in background threads.

In: complete files. Out: objects, each whole or absent. A request marked `last` waits for all earlier ones, and all
later ones wait for it. After a failure no further request is executed.
"""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from fnmatch import fnmatchcase
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_crds import reasons
from rfuav_trainer.errors import InvalidConfigurationError, StorageError
from rfuav_trainer.storage import clients, scratch

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

log = structlog.get_logger()

WRITERS = 8
"""Parallel uploads."""
MOST_WAITING = 256
"""Files that may wait for their upload; beyond that, writers block."""
PIECE_BYTES = 16 * 1024**2
PIECES = 4
"""Larger files are uploaded in parts of this size, so many at a time, which bounds the memory."""
PATIENCE_SECONDS = 300
"""How long a store may be unreachable before the attempt fails; until then the work continues."""
FAREWELL_SECONDS = 10
"""How long a failed attempt waits for pending uploads."""


class Remote:
    """One output in a store. The functions of `outputs`, which call its methods, document them.

    Args:
        uri: SCHEME://bucket or SCHEME://bucket/prefix, of a scheme in `clients.WRITABLE`.
    """

    def __init__(self, uri: str) -> None:
        self._scheme, _, self._root = uri.partition("://")
        self._scratch = scratch.make("output")
        self.folder = self._scratch / self._scheme / self._root
        self._waiting = self._scratch / "waiting"
        for folder in (self.folder, self._waiting):
            folder.mkdir(parents=True, exist_ok=True)
        self._store = clients.client(self._scheme, WRITERS * PIECES)
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="upload")
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(MOST_WAITING)
        self._closing = threading.Event()
        self._number = 0
        self._last: list[Future[None]] = []  # what every later request waits for: none or one
        self._coming: dict[str, Future[None]] = {}  # since then, the latest request for every key

    def key(self, path: Path) -> str:
        """Bucket and key of a path below the folder."""
        inside = path.relative_to(self.folder).as_posix()
        return self._root if inside == "." else f"{self._root}/{inside}"

    def shown(self, path: Path) -> str:
        """The URI of a path below the folder."""
        return f"{self._scheme}://{self.key(path)}"

    def put(self, path: Path, *, last: bool, keep: bool) -> None:
        """Upload the file at `path`, and remove it there unless `keep`."""
        waiting = self._place()
        if keep:
            shutil.copyfile(path, waiting)
        else:
            path.replace(waiting)
        self._queue(path, partial(self._upload, waiting, path), last=last)

    def remove(self, path: Path) -> None:
        """Remove an object if it exists, after all earlier uploads."""
        self._queue(path, partial(self._ask, partial(self._store.rm_file, self.key(path)), path), last=True)

    def create(self, path: Path, content: bytes) -> None:
        """Create an object; FileExistsError if it exists."""
        self.settle()
        key = self.key(path)
        if self._ask(
            partial(self._store.exists, key), path
        ):  # checked as well, because not every store has conditional writes
            raise FileExistsError(self.shown(path))
        self._ask(partial(self._create, key, content), path)

    def _create(self, key: str, content: bytes) -> None:
        try:
            self._store.pipe_file(key, content, mode="create")
        except OSError as error:
            answer = getattr(error.__cause__, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
            if answer == HTTPStatus.PRECONDITION_FAILED:
                raise FileExistsError(key) from error
            if answer != HTTPStatus.NOT_IMPLEMENTED:
                raise
            self._store.pipe_file(key, content)

    def fetch(self, path: Path) -> Path:
        """A local copy of an object, for the caller to remove; FileNotFoundError if it does not exist."""
        self.settle()
        here = self._place()
        self._ask(partial(self._store.get_file, self.key(path), str(here)), path, to="read")
        return here

    def found(self, folder: Path, pattern: str) -> list[Path]:
        """The paths of the matching objects in a folder."""
        self.settle()
        prefix = self.key(folder)
        try:
            listed = self._ask(partial(self._store.ls, prefix, detail=False), folder, to="read")
        except FileNotFoundError:
            return []
        names = (str(name).removeprefix(f"{prefix}/") for name in listed)
        return sorted(folder / name for name in names if "/" not in name and fnmatchcase(name, pattern))

    def settle(self) -> None:
        """Wait for everything; raise the first failure."""
        wait(self._under_way, return_when=FIRST_EXCEPTION)
        self._raise()

    @property
    def settled(self) -> bool:
        """Whether nothing is pending, and nothing failed."""
        return all(map(_well, self._under_way))

    @property
    def _under_way(self) -> list[Future[None]]:
        with self._lock:
            return [*self._last, *self._coming.values()]

    def close(self) -> None:
        """Wait a short time for pending uploads, then remove the local files."""
        _, coming = wait(self._under_way, timeout=FAREWELL_SECONDS)
        if coming:
            log.warning("not all files were uploaded", files=len(coming), output=self.shown(self.folder))
        self._closing.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        scratch.remove(self._scratch)

    def _place(self) -> Path:
        with self._lock:
            self._number += 1
            return self._waiting / str(self._number)

    def _queue(self, path: Path, action: Callable[[], None], *, last: bool) -> None:
        self._raise()
        self._room.acquire()
        key = self.key(path)
        with self._lock:
            earlier = self._coming.values() if last else [self._coming[key]] if key in self._coming else []
            coming = self._pool.submit(self._after, [*self._last, *earlier], action)
            coming.add_done_callback(lambda _done: self._room.release())
            if last:
                self._last, self._coming = [coming], {}
            else:
                self._coming = {k: future for k, future in self._coming.items() if not _well(future)} | {key: coming}

    def _after(self, before: list[Future[None]], action: Callable[[], None]) -> None:
        """Execute `action` after `before`, which was submitted earlier, so that waiting cannot deadlock the pool."""
        for other in before:
            other.result()
        action()

    def _upload(self, waiting: Path, path: Path) -> None:
        upload = partial(
            self._store.put_file, str(waiting), self.key(path), chunksize=PIECE_BYTES, max_concurrency=PIECES
        )
        self._ask(upload, path)
        waiting.unlink()

    def _ask(self, question: Callable[[], Any], path: Path, *, to: str = "written") -> Any:
        """The answer of the store, with retries while it is unreachable."""
        end, pause = time.monotonic() + PATIENCE_SECONDS, 1.0
        while True:
            try:
                return clients.ask(question, self.shown(path), self._scheme, to=to)
            except FileNotFoundError as error:
                if to == "read":
                    raise
                bucket = self._root.partition("/")[0]
                raise InvalidConfigurationError(
                    f"output.uri: bucket {bucket} does not exist: create it, or write another one",
                    reason=reasons.OUTPUT_NOT_WRITABLE,
                ) from error
            except StorageError as error:
                if time.monotonic() + pause > end or self._closing.is_set():
                    raise
                log.warning("the object store does not answer, retrying", problem=str(error), seconds=pause)
            self._closing.wait(pause)
            pause = min(30.0, pause * 2)

    def _raise(self) -> None:
        """Raise the error of a failed upload."""
        for future in self._under_way:
            if future.done():
                future.result()


def _well(future: Future[None]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
