"""What files contain, without reading all of it: to find equal files, and to notice that one was changed.

In: paths, local or of an object store. Out: a short text for each. Equal texts: equal size, and equal first and last
MiB (or the store's own digest, without a download).
"""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

T = TypeVar("T")
END = 2**20
"""Bytes that are read at each end of a file."""
BEGINNING = 2**16
"""Bytes that tell most files of equal size from each other."""
TOGETHER = 256
"""Files that are given to the readers at once: a task takes more memory than its result."""
READERS = 16
"""Parallel readers: they wait for the volume."""
READERS_BESIDE = 4
"""The same while a job reads its data."""
GONE = "gone"
"""Stands for the contents of a file that cannot be opened."""


class Contents:
    """What files contain, as `size:digest`. Each file is digested at most once."""

    def __init__(self) -> None:
        self.readers = READERS
        self._known: dict[Path, str] = {}
        self._stopped = threading.Event()

    def of(self, paths: Iterable[Path]) -> dict[Path, str]:
        """What each file contains.

        Raises:
            CancelledError: `stop` was called.
        """
        wanted = list(dict.fromkeys(paths))
        waiting = iter([path for path in wanted if path not in self._known])
        with ThreadPoolExecutor(self.readers, thread_name_prefix="digest") as pool:
            while part := list(islice(waiting, TOGETHER)):
                if self._stopped.is_set():
                    raise CancelledError
                self._known.update(zip(part, pool.map(_of, part), strict=True))
        return {path: self._known[path] for path in wanted}

    def pairs(self, some: Collection[Path], others: Collection[Path]) -> list[tuple[Path, Path]]:
        """The files of `some` that have the contents of one of the `others`, each with the first such.

        Of other sizes only the size is read, of most others the first bytes.
        """
        files = _on_both_sides(some, others, _each(_size, {*some, *others}))
        files = _on_both_sides(some, others, _each(self._beginning, files))
        known = self.of(files)
        first: dict[str, Path] = {}
        for path in others:
            if path in known:
                first.setdefault(known[path], path)
        return [(path, first[known[path]]) for path in some if known.get(path, GONE) in first]

    def stop(self) -> None:
        """End reading soon, in whichever thread."""
        self._stopped.set()

    def _beginning(self, path: Path) -> str:
        """What the file begins with. For a small file that is its contents."""
        text, whole = _looked_at(path, BEGINNING)
        if whole:
            self._known[path] = text
        return text


def digest(path: Path) -> str:
    """The SHA-256 of a whole file; GONE if it cannot be opened."""
    try:
        with inputs.opened(path) as here, here.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return GONE


def _on_both_sides(some: Iterable[Path], others: Iterable[Path], seen: Mapping[Path, T]) -> dict[Path, None]:
    """The files that have something in common with one of the other side."""
    both = {seen[path] for path in some if path in seen} & {seen[path] for path in others if path in seen}
    return {path: None for path in seen if seen[path] in both}


def _each(look: Callable[[Path], T], paths: Iterable[Path]) -> dict[Path, T]:
    """What `look` says of each file. Leaves out those that are empty or cannot be opened."""
    waiting = iter(paths)
    found: dict[Path, T] = {}
    with ThreadPoolExecutor(READERS, thread_name_prefix="look") as pool:
        while part := list(islice(waiting, TOGETHER)):
            found.update(zip(part, pool.map(look, part), strict=True))
    return {path: seen for path, seen in found.items() if seen not in {0, GONE}}


def _size(path: Path) -> int:
    try:
        return inputs.size(path)
    except OSError:
        return 0


def _of(path: Path) -> str:
    return _looked_at(path, END, END)[0]


def _looked_at(path: Path, first: int, last: int = 0) -> tuple[str, bool]:
    """The size of a file, and a digest of its first and last bytes; whether the first are all that it has."""
    known = inputs.version(path)
    if known is not None:
        return known, True
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            seen = hashlib.sha256(stream.read(first))
            if last and size > first:
                stream.seek(max(first, size - last))
                seen.update(stream.read(last))
    except OSError:
        return GONE, False
    return f"{size}:{seen.hexdigest()[:32]}", size <= first
