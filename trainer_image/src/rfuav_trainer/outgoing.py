"""Outputs in an object store: a folder whose files go up as they are written, in an order that outlives a kill.

In: a job's output.uri. Out: a folder to write to. What is written whole below it goes to the store and leaves this
machine, and is read back with `reading`; any other folder is left as it is, so whoever writes need not know.

An object store has no rename, but an object appears whole or not at all. What holds on a disk holds there by the order
alone: what speaks for other files (a manifest, a state, a mark: `last`), and every removal, waits for all that was
written before it, and all that is written later waits for that. So whenever the process is killed, the store holds what
a disk would have held a little earlier.
"""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_trainer import scratch, stores
from rfuav_trainer.errors import InvalidConfigurationError, StoppedError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from rfuav_trainer.config import Job

log = structlog.get_logger()

SCHEME = "s3"
WRITERS = 8
"""Files that go up side by side."""
MOST_WAITING = 256
"""Files that may wait on this machine; whoever writes more waits too."""
PIECE_BYTES = 16 * 1024**2
"""A larger file goes up in pieces of this size, four at a time, which bounds the memory."""
PATIENCE_SECONDS = 300
"""How long a store may not answer before that ends the attempt; until then the work goes on."""
FAREWELL_SECONDS = 10
"""How long an attempt that failed waits for what is on its way."""


@contextmanager
def opened(job: Job) -> Iterator[Path]:
    """The folder of the job's output while it is worked on; at the end everything is where it belongs.

    Raises:
        InputError: its claim is not mounted.
        StorageError: the store does not take what was written.
    """
    uri = job.spec.output.uri
    if not uri.startswith(f"{SCHEME}://"):
        yield job.path(uri, "output.uri")
        return
    output = _Remote(uri.rstrip("/"))
    _remotes.append(output)
    try:
        yield output.folder
        output.settle()
    except StoppedError:
        output.settle()
        raise
    finally:
        _remotes.remove(output)
        output.close()


def written(path: Path, *, last: bool = False, keep: bool = False) -> None:
    """Say that the file at `path` is whole.

    Args:
        path: the file. Below a remote output it goes to the store, and is gone from here.
        last: it speaks for what was written before.
        keep: it will be written on, and stays here as well.

    Raises:
        StorageError: the store did not take an earlier file.
    """
    output = _of(path)
    if output is not None:
        output.put(path, last=last, keep=keep)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    path.unlink(missing_ok=True)
    output = _of(path)
    if output is not None:
        output.remove(path)


@contextmanager
def reading(path: Path) -> Iterator[Path]:
    """A file to read in the place of `path`: itself, or what the store has, for the time of the context.

    Raises:
        FileNotFoundError: the store has none. (For a path that is not remote, whoever opens it is told.)
    """
    output = _of(path)
    if output is None:
        yield path
        return
    here = output.fetch(path)
    try:
        yield here
    finally:
        here.unlink()


def found(folder: Path, pattern: str) -> list[Path]:
    """The files in `folder` (not below) whose names match, sorted; those in the store need not be here."""
    output = _of(folder)
    return sorted(folder.glob(pattern)) if output is None else output.found(folder, pattern)


def create(path: Path, content: bytes) -> None:
    """Make a file that must not be there yet. Of several that try, one does, if the store knows conditional writes.

    Raises:
        FileExistsError: it is there.
    """
    output = _of(path)
    if output is not None:
        output.create(path, content)
        return
    with path.open("xb") as stream:
        stream.write(content)


def settle() -> None:
    """Wait until everything is in the store.

    Raises:
        StorageError: the store did not take it.
    """
    for output in _remotes:
        output.settle()


def settled() -> bool:
    """Whether everything is in the store."""
    return all(output.settled for output in _remotes)


def is_remote(path: Path) -> bool:
    """Whether what is written to `path` goes to a store."""
    return _of(path) is not None


def shown(path: Path) -> str:
    """The path as people know it: a URI below a remote output."""
    output = _of(path)
    return str(path) if output is None else f"{SCHEME}://{output.key(path)}"


class _Remote:
    """One output in a store."""

    def __init__(self, uri: str) -> None:
        self._root = uri.removeprefix(f"{SCHEME}://")
        self._scratch = scratch.make("output")
        self.folder = self._scratch / SCHEME / self._root
        self._waiting = self._scratch / "waiting"
        for folder in (self.folder, self._waiting):
            folder.mkdir(parents=True, exist_ok=True)
        self._store = stores.client(SCHEME)
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="upload")
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(MOST_WAITING)
        self._closing = threading.Event()
        self._number = 0
        self._last: list[Future[None]] = []  # what all that comes must wait for: none or one
        self._coming: dict[str, Future[None]] = {}  # since then, the latest of every key

    def key(self, path: Path) -> str:
        """Bucket and key of a path below the folder."""
        inside = path.relative_to(self.folder).as_posix()
        return self._root if inside == "." else f"{self._root}/{inside}"

    def put(self, path: Path, *, last: bool, keep: bool) -> None:
        waiting = self._place()
        if keep:
            shutil.copyfile(path, waiting)
        else:
            path.replace(waiting)
        self._queue(path, partial(self._upload, waiting, path), last=last)

    def remove(self, path: Path) -> None:
        self._queue(path, partial(self._ask, partial(self._store.rm_file, self.key(path)), path), last=True)

    def create(self, path: Path, content: bytes) -> None:
        self.settle()
        key = self.key(path)
        if self._ask(partial(self._store.exists, key), path):  # also asked, as not every store knows the condition
            raise FileExistsError(shown(path))
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
        self.settle()
        here = self._place()
        self._ask(partial(self._store.get_file, self.key(path), str(here)), path, to="read")
        return here

    def found(self, folder: Path, pattern: str) -> list[Path]:
        self.settle()
        prefix = self.key(folder)
        try:
            listed = self._ask(partial(self._store.ls, prefix, detail=False), folder, to="read")
        except FileNotFoundError:
            return []
        names = (str(name).removeprefix(f"{prefix}/") for name in listed)
        return sorted(folder / name for name in names if "/" not in name and fnmatchcase(name, pattern))

    def settle(self) -> None:
        wait(self._under_way, return_when=FIRST_EXCEPTION)
        self._raise()

    @property
    def settled(self) -> bool:
        return all(future.done() for future in self._under_way)

    @property
    def _under_way(self) -> list[Future[None]]:
        with self._lock:
            return [*self._last, *self._coming.values()]

    def close(self) -> None:
        """Wait a little for what is on its way, when nobody has, and remove what is here."""
        _, coming = wait(self._under_way, timeout=FAREWELL_SECONDS)
        if coming:
            log.warning("not everything went up to the store", files=len(coming), output=f"{SCHEME}://{self._root}")
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
        """Do it once the others are done. They were begun before, so no thread is missing for them."""
        for other in before:
            other.result()
        action()

    def _upload(self, waiting: Path, path: Path) -> None:
        upload = partial(self._store.put_file, str(waiting), self.key(path), chunksize=PIECE_BYTES, max_concurrency=4)
        self._ask(upload, path)
        waiting.unlink()

    def _ask(self, question: Callable[[], Any], path: Path, *, to: str = "written") -> Any:
        """The store's answer, asked for again while it does not answer."""
        end, pause = time.monotonic() + PATIENCE_SECONDS, 1.0
        key = self.key(path)
        while True:
            try:
                return stores.ask(question, f"{SCHEME}://{key}", SCHEME, to=to)
            except FileNotFoundError as error:
                if to == "read":
                    raise
                bucket = key.partition("/")[0]
                raise InvalidConfigurationError(
                    f"output.uri: there is no bucket {bucket}: make it, or write another", reason="OutputNotWritable"
                ) from error
            except StorageError as error:
                if time.monotonic() + pause > end or self._closing.is_set():
                    raise
                log.warning("the store does not answer, trying again", problem=str(error), seconds=pause)
            self._closing.wait(pause)
            pause = min(30.0, pause * 2)

    def _raise(self) -> None:
        """Raise what an upload ended with."""
        for future in self._under_way:
            if future.done():
                future.result()


_remotes: list[_Remote] = []


def _of(path: Path) -> _Remote | None:
    return next((output for output in _remotes if path.is_relative_to(output.folder)), None)


def _well(future: Future[None]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
