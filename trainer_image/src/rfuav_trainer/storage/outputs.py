"""Outputs in an object store: a local folder whose files are uploaded as they are written, in a crash-safe order.

In: output.uri of a job. Out: a folder to write to. Complete files below it are uploaded and removed from this machine;
`reading` reads them back. Other folders are left alone, so writers treat both alike.

An object store has no rename, but an object appears whole or not at all. The guarantees of a disk follow from the order
alone: a file that refers to others (a manifest, a state, a mark: `last`) and every removal wait for all earlier writes,
and all later writes wait for them. When the process is killed, the store is therefore in a state that a disk would have
had a little earlier.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rfuav_crds import reasons
from rfuav_trainer.errors import InvalidConfigurationError, StoppedError
from rfuav_trainer.storage.clients import REMOTE, WRITABLE
from rfuav_trainer.storage.paths import local_path
from rfuav_trainer.storage.uploads import Remote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rfuav_trainer.job import Job

_remotes: list[Remote] = []


@contextmanager
def opened(job: Job) -> Iterator[Path]:
    """The output folder of the job. At the end of the context everything is uploaded.

    Raises:
        InputError: its claim is not mounted.
        StorageError: an upload failed.
    """
    uri = job.spec.output.uri
    if uri.partition("://")[0] not in WRITABLE:
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
    """Create the output folder, and check that it is writable before hours of work."""
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
            reason=reasons.OUTPUT_NOT_WRITABLE,
        ) from error
    except OSError as error:
        if error.errno == 30:  # noqa: PLR2004  (EROFS, read-only file system)
            raise InvalidConfigurationError(
                f"{where}: {folder} is on a read-only volume: write a claim that is mounted read-write",
                reason=reasons.OUTPUT_NOT_WRITABLE,
            ) from error
        raise


def check_apart(job: Job, uri: str, where: str) -> None:
    """Check that the job does not read its own output: output.uri is neither the folder `uri` nor below it.

    Raises:
        InputError: a claim is not mounted.
        InvalidConfigurationError: the output is in the input.
    """
    output = job.spec.output.uri
    if any(one.partition("://")[0] in REMOTE for one in (output, uri)):
        inside = f"{output.rstrip('/')}/".startswith(f"{uri.rstrip('/')}/")  # a location in a store has one name
    else:
        folder = local_path(job, uri, where).resolve()
        inside = folder.is_dir() and local_path(job, output, "output.uri").resolve().is_relative_to(folder)
    if inside:
        raise InvalidConfigurationError(
            f"output.uri {output} is inside {where} {uri}, so the job would read its own output: write an output.uri "
            f"outside that folder, or move the data of {where} to a folder of its own"
        )


def written(path: Path, *, last: bool = False, keep: bool = False) -> None:
    """Declare the file at `path` complete.

    Args:
        path: the file. Below a remote output it is uploaded and removed from this machine.
        last: it refers to files written earlier.
        keep: it will be appended to, so it stays on this machine as well.

    Raises:
        StorageError: an earlier upload failed.
    """
    output = _of(path)
    if output is not None:
        output.put(path, last=last, keep=keep)


def remove(path: Path) -> None:
    """Remove a file if it exists."""
    path.unlink(missing_ok=True)
    output = _of(path)
    if output is not None:
        output.remove(path)


@contextmanager
def reading(path: Path) -> Iterator[Path]:
    """The file to read for `path`: itself, or a copy from the store that exists during the context.

    Raises:
        FileNotFoundError: the store does not have it. (A missing local file fails when it is opened.)
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
    """The matching files in `folder` (not below it), sorted; they may exist only in the store."""
    output = _of(folder)
    return sorted(folder.glob(pattern)) if output is None else output.found(folder, pattern)


def create(path: Path, content: bytes) -> None:
    """Create a file that must not exist. Of several writers one succeeds, if the store has conditional writes.

    Raises:
        FileExistsError: it exists.
    """
    output = _of(path)
    if output is not None:
        output.create(path, content)
        return
    with path.open("xb") as stream:
        stream.write(content)


def settle() -> None:
    """Wait until everything is uploaded.

    Raises:
        StorageError: an upload failed.
    """
    for output in _remotes:
        output.settle()


def settled() -> bool:
    """Whether everything is uploaded."""
    return all(output.settled for output in _remotes)


def is_remote(path: Path) -> bool:
    """Whether `path` is uploaded to a store."""
    return _of(path) is not None


def shown(path: Path) -> str:
    """The path to show to people: a URI below a remote output."""
    output = _of(path)
    return str(path) if output is None else output.shown(path)


def _of(path: Path) -> Remote | None:
    return next((output for output in _remotes if path.is_relative_to(output.folder)), None)
