"""The lock on an output folder: one job at a time writes there, with all of its pods and processes.

In: the folder and the job. Out: a lock on a small file there that names the job, held while the process lives. Two jobs
with the same output.uri would mix their weights, and so would a job and its deleted predecessor that still saves.
Object stores and volumes without file locks are not protected.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_crds import reasons
from rfuav_trainer.errors import JobError
from rfuav_trainer.process.clock import now
from rfuav_trainer.storage.files import sweep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rfuav_trainer.job import Job
    from rfuav_trainer.process.stop import StopSignal

log = structlog.get_logger()

WRITER = ".writer.json"
PATIENCE_SECONDS = 60.0
"""How long to wait for another job that may be stopping."""
PAUSE_SECONDS = 0.5
_LARGEST = 4096


@contextmanager
def held(folder: Path, job: Job, stop: StopSignal) -> Iterator[None]:
    """Lock the output folder for the job. The last process of the job removes the file.

    Raises:
        JobError: another job writes there.
        StoppedError: SIGTERM arrived while waiting for that job.
    """
    path = folder / WRITER
    end = time.monotonic() + PATIENCE_SECONDS
    while isinstance(found := _take(path, job), dict):
        stop.check()
        if time.monotonic() > end:
            raise JobError(
                f"output.uri: {folder} is in use by {_name(found)}: delete that job, wait until it has ended, or write "
                "another output.uri",
                reason=reasons.OUTPUT_BUSY,
            )
        time.sleep(PAUSE_SECONDS)
    try:
        yield
    finally:
        if found is not None:
            _leave(found, path)


def _take(path: Path, job: Job) -> int | dict[str, Any] | None:
    """The handle of the locked file, or the current holder. None: locking is impossible, as on a read-only volume."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
    except OSError as error:
        _warn_no_locks(error)
        return None
    holder = _lock(handle, path, job)
    if holder is None:
        return handle
    os.close(handle)
    return holder


def _lock(handle: int, path: Path, job: Job) -> dict[str, Any] | None:
    """Lock the file. Returns the holder if that fails, which may be a process of this job that is about to share it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    except BlockingIOError:
        holder, alone = _read(handle), False
        if holder.get("uid") != job.uid:
            return holder
    except OSError as error:
        _warn_no_locks(error)
        return None
    mine = {"kind": job.kind, "namespace": job.namespace, "name": job.name, "uid": job.uid}
    if alone:
        sweep(path.parent)
        content = json.dumps({**mine, "pod": socket.gethostname(), "since": now()}).encode()
        with suppress(OSError):  # on a full volume the file stays empty; the lock works all the same
            os.ftruncate(handle, 0)
            os.pwrite(handle, content, 0)
    try:
        fcntl.flock(
            handle, fcntl.LOCK_SH | fcntl.LOCK_NB
        )  # shared with the other shards, pods and processes of the job
        there = os.fstat(handle).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        there = False  # another process was faster, or the last holder removed the file
    return None if there else mine


def _warn_no_locks(error: OSError) -> None:
    log.warning(
        "the volume of the output has no file locks: make sure that no other job writes there", problem=error.strerror
    )


def _leave(handle: int, path: Path) -> None:
    """Release the lock; the last holder removes the file."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    os.close(handle)


def _read(handle: int) -> dict[str, Any]:
    with suppress(ValueError):
        content = json.loads(os.pread(handle, _LARGEST, 0))
        if isinstance(content, dict):
            return content
    return {}


def _name(holder: dict[str, Any]) -> str:
    if not holder.get("name"):
        return "another job"
    place = f"{holder['namespace']}/" if holder.get("namespace") else ""
    return (
        f"{holder.get('kind', 'the job')} {place}{holder['name']} (UID {holder.get('uid')}, pod {holder.get('pod')}, "
        f"since {holder.get('since')})"
    )
