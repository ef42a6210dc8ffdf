"""Marks of success: the file in the output that shows that a job or shard has finished, and what it was made from.

In: a job, and the files that its result depends on. Out: `_SUCCESS`, so that a second start knows that there is nothing
to do, or what has changed since.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Self

import structlog

from rfuav_crds import reasons
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.process.clock import now
from rfuav_trainer.storage import outputs
from rfuav_trainer.storage.cache import BESIDE, OF_OTHERS
from rfuav_trainer.storage.contents import GONE, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from rfuav_trainer.job import Job
    from rfuav_trainer.storage.contents import Contents

    MadeFrom = Mapping[str, Mapping[str, Mapping[str, Any]]]
    """By field of the job, and by folder or file: number of files, and a digest of their names and contents."""

log = structlog.get_logger()

SUCCESS = "_SUCCESS"
MOST_FOLDERS = 1000
"""Of a listing with more folders, only the whole is noted."""
SHOWN = 5
"""How many differences an error names."""
READERS_BESIDE = 2
"""Files that are read at a time while the work goes on, which needs the volume and the processor more."""


def read_mark(path: Path) -> dict[str, Any] | None:
    """The mark of a finished job or shard, or None if there is no readable one."""
    with contextlib.suppress(OSError, ValueError), outputs.reading(path) as here:
        content = json.loads(here.read_bytes())
        if isinstance(content, dict):
            return content
    return None


def finished_before(path: Path, job: Job) -> dict[str, Any] | None:
    """The mark of this job at `path`, or None; None too if its settings differ and it may be overwritten.

    Raises:
        InvalidConfigurationError: the same job finished there with different settings (a job file edited on a laptop).
    """
    mark = read_mark(path)
    if mark is None or mark.get("uid") != job.uid:
        return None
    if mark.get("fingerprint") != job.fingerprint():
        if job.spec.output.overwrite:
            return None
        raise InvalidConfigurationError(
            f"{outputs.shown(path)} shows that job {job.name!r} finished there with different settings: write "
            "output.overwrite: true to run it again, or another output.uri to keep those results",
            reason=reasons.OUTPUT_IN_USE,
        )
    return mark


def holds(path: Path, mark: Mapping[str, Any], made_from: MadeFrom, job: Job) -> bool:
    """Whether the mark at `path` is of the same files as now. False if it is not and may be overwritten.

    Raises:
        InvalidConfigurationError: files were added, removed or changed since; the message names them.
    """
    then = mark.get("madeFrom")
    found = differences(then, made_from) if isinstance(then, dict) else ["the mark does not say what it was made from"]
    if not found:
        return True
    shown = "; ".join(found[:SHOWN]) + ("; ..." if len(found) > SHOWN else "")
    if job.spec.output.overwrite:
        log.warning("replacing results of other files", differences=shown)
        return False
    raise InvalidConfigurationError(
        f"{outputs.shown(path)} shows that job {job.name!r} finished there, but with other files ({shown}): write "
        "output.overwrite: true to run it again with these, or another output.uri to keep those results, or put the "
        "files back",
        reason=reasons.OUTPUT_IN_USE,
    )


def differences(then: MadeFrom, today: MadeFrom) -> list[str]:
    """What differs, in words."""
    found = []
    for where in sorted({*then, *today}):
        old, new = then.get(where, {}), today.get(where, {})
        for part in sorted({*old, *new}):
            before, after = old.get(part), new.get(part)
            what = f"{where}: {part or 'the folder itself'}"
            if before == after:
                continue
            if after is None:
                found.append(f"{what} is gone ({before and before['files']} files then)")
            elif before is None:
                found.append(f"{what} is new ({after['files']} files)")
            elif before["files"] != after["files"]:
                found.append(f"{what} has {after['files']} files, {before['files']} then")
            else:
                found.append(f"{what} has other contents")
    return found


class Sources:
    """What a result is made from, found by a thread while the work goes on: the volume is read once, and not first.

    Args:
        find: finds it.
        contents: what `find` reads with. It ends with the context of this object.
    """

    def __init__(self, find: Callable[[], MadeFrom], contents: Contents) -> None:
        self._find, self._contents = find, contents
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sources")
        self._found: Future[MadeFrom] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._contents.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def begin(self) -> None:
        """Begin to read."""
        if self._found is None:
            self._contents.readers = READERS_BESIDE
            self._found = self._pool.submit(self._find)

    def found(self) -> MadeFrom:
        """What was found, when that is complete."""
        self.begin()
        assert self._found is not None  # noqa: S101  (begun in the line above)
        return self._found.result()


def of_files(files: Mapping[str, Path], contents: Contents) -> dict[str, dict[str, Any]]:
    """What `files` (relative name to path) and the label files and metadata beside them contain, by top folder."""
    found = {**files, **_beside(files)}
    known = contents.of(found.values())
    parts: dict[str, list[str]] = {}
    for name in sorted(found):
        parts.setdefault(name.partition("/")[0] if "/" in name else "", []).append(name)
    if len(parts) > MOST_FOLDERS:
        parts = {"": sorted(found)}
    return {
        part: {"files": len(names), "digest": _digest(f"{name}\0{known[found[name]]}\n" for name in names)}
        for part, names in sorted(parts.items())
    }


def of_whole(*paths: Path) -> dict[str, dict[str, Any]]:
    """What a few files contain, each read completely; a missing one is left out."""
    found = {path.name: digest(path) for path in paths}
    return {name: {"files": 1, "digest": text} for name, text in found.items() if text != GONE}


def _digest(lines: Any) -> str:
    seen = hashlib.sha256()
    for line in lines:
        seen.update(os.fsencode(line))
    return seen.hexdigest()[:32]


def _beside(files: Mapping[str, Path]) -> dict[str, Path]:
    """The label files and SigMF metadata beside `files`, by relative name; with what describes files of other names."""
    there: dict[Path, frozenset[str]] = {}
    found: dict[str, Path] = {}
    for name, path in files.items():
        if path.parent not in there:
            with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
                names = {entry.name for entry in entries}
                there[path.parent] = frozenset(other for other in names if other.endswith(BESIDE))
                data = {PurePosixPath(other).stem for other in names if not other.endswith((*BESIDE, *OF_OTHERS))}
                for other in names:
                    if other.endswith(OF_OTHERS) and PurePosixPath(other).stem not in data:
                        found[PurePosixPath(name).with_name(other).as_posix()] = path.with_name(other)
        for suffix in BESIDE:
            other = f"{path.stem}{suffix}"
            if other in there.get(path.parent, ()):
                found[PurePosixPath(name).with_name(other).as_posix()] = path.with_name(other)
    return found


def mark_of(job: Job, **content: Any) -> dict[str, Any]:
    """The content of a mark of success."""
    return {
        "uid": job.uid,
        "name": job.name,
        "kind": job.kind,
        "fingerprint": job.fingerprint(),
        "finishedAt": now(),
        **content,
    }
