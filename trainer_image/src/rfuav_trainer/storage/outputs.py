"""Outputs in an object store: a folder whose files go up as they are written, in an order that outlives a kill.

In: a job's output.uri. Out: a folder to write to. What is written whole below it goes to the store and leaves this
machine, and is read back with `reading`; any other folder is left as it is, so whoever writes need not know.

An object store has no rename, but an object appears whole or not at all. What holds on a disk holds there by the order
alone: what speaks for other files (a manifest, a state, a mark: `last`), and every removal, waits for all that was
written before it, and all that is written later waits for that. So whenever the process is killed, the store holds what
a disk would have held a little earlier.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rfuav_trainer.errors import InvalidConfigurationError, StoppedError
from rfuav_trainer.storage.clients import REMOTE
from rfuav_trainer.storage.paths import local_path
from rfuav_trainer.storage.uploads import SCHEME, Remote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rfuav_trainer.job import Job

_remotes: list[Remote] = []


@contextmanager
def opened(job: Job) -> Iterator[Path]:
    """The folder of the job's output while it is worked on; at the end everything is where it belongs.

    Raises:
        InputError: its claim is not mounted.
        StorageError: the store does not take what was written.
    """
    uri = job.spec.output.uri
    if not uri.startswith(f"{SCHEME}://"):
        yield local_path(job, uri, "output.uri")
        return
    output = Remote(uri.rstrip("/"))
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


def prepare(folder: Path, where: str) -> None:
    """Make the output folder, and find out before hours of work whether it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.write_bytes(b"")
        written(probe)
        remove(probe)
        settle()
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise InvalidConfigurationError(
            f"{where}: {folder} cannot be written ({error.strerror}): write a folder that the job may write to",
            reason="OutputNotWritable",
        ) from error
    except OSError as error:
        if error.errno == 30:  # noqa: PLR2004  (EROFS, read-only file system)
            raise InvalidConfigurationError(
                f"{where}: {folder} is on a read-only volume: write a claim that is mounted read-write",
                reason="OutputNotWritable",
            ) from error
        raise


def check_apart(job: Job, uri: str, where: str) -> None:
    """See to it that the job does not read what it writes: its output is not the folder `uri`, nor below it.

    Raises:
        InputError: a claim is not mounted.
        InvalidConfigurationError: it is.
    """
    output = job.spec.output.uri
    if output.startswith(f"{SCHEME}://") or uri.partition("://")[0] in REMOTE:
        inside = f"{output.rstrip('/')}/".startswith(f"{uri.rstrip('/')}/")  # a place in a store has one name
    else:
        folder = local_path(job, uri, where).resolve()
        inside = folder.is_dir() and local_path(job, output, "output.uri").resolve().is_relative_to(folder)
    if inside:
        raise InvalidConfigurationError(
            f"output.uri {output} is inside {where} {uri}, so the job would read its own output: write an output.uri "
            f"outside that folder, or move the data of {where} to a folder of its own"
        )


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
    return str(path) if output is None else output.shown(path)


def _of(path: Path) -> Remote | None:
    return next((output for output in _remotes if path.is_relative_to(output.folder)), None)
