"""What files contain, without reading all of it: to find equal files, and to notice that one was changed.

In: paths, local or of an object store. Out: a short text for each. Equal texts: equal size, and equal first and last
MiB (or the store's own digest, without a download).
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

END = 2**20
"""Bytes that are read at each end of a file."""
TOGETHER = 256
"""Files that are given to the readers at once: a task takes more memory than its result."""
READERS = 16
"""Parallel readers: they wait for the volume."""
GONE = "gone"
"""Stands for the contents of a file that cannot be opened."""


def of(paths: Iterable[Path]) -> dict[Path, str]:
    """What each file contains, as `size:digest`."""
    waiting = iter(dict.fromkeys(paths))
    found: dict[Path, str] = {}
    with ThreadPoolExecutor(READERS, thread_name_prefix="digest") as pool:
        while part := list(islice(waiting, TOGETHER)):
            found.update(zip(part, pool.map(_of, part), strict=True))
    return found


def pairs(some: Collection[Path], others: Collection[Path]) -> list[tuple[Path, Path]]:
    """The files of `some` that have the contents of one of the `others`, each with the first such. Reads few others."""
    sizes = {path: _size(path) for path in {*some, *others}}
    common = {sizes[path] for path in some} & {sizes[path] for path in others} - {0, None}
    found = of(path for path in (*some, *others) if sizes[path] in common)
    first: dict[str, Path] = {}
    for path in others:
        if path in found:
            first.setdefault(found[path], path)
    return [(path, first[found[path]]) for path in some if found.get(path, GONE) in first]


def digest(path: Path) -> str:
    """The SHA-256 of a whole file; GONE if it cannot be opened."""
    try:
        with inputs.opened(path) as here, here.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return GONE


def _size(path: Path) -> int | None:
    try:
        return inputs.size(path)
    except OSError:
        return None


def _of(path: Path) -> str:
    known = inputs.version(path)
    if known is not None:
        return known
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            seen = hashlib.sha256(stream.read(END))
            if size > END:
                stream.seek(max(END, size - END))
                seen.update(stream.read(END))
    except OSError:
        return GONE
    return f"{size}:{seen.hexdigest()[:32]}"
