"""The log of a job in its output, for when its pods are gone: `log.jsonl`, appended over attempts, bounded in size.

In: the lines that this process logs for machines. Out: the same lines in a file of the output, after a first line with
the UID of the job, by which another job starts over. It never delays or fails a job: lines of other threads are written
with the next line of the job's own, and a file that cannot be written is given up with one warning.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import traceback
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from rfuav_crds import InferenceJobSpec, contract
from rfuav_trainer import errors
from rfuav_trainer.process import logs
from rfuav_trainer.storage import outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rfuav_trainer.job import Job

log = structlog.get_logger()

MOST_BYTES = 4 * 1024**2
"""Of the file; beyond that the older half goes."""
WRITE_SECONDS = 5.0
"""Lines are written together, so often at most."""
UPLOAD_SECONDS = 60.0
"""The file goes to an object store so often at most, and at the end."""
LONGEST_LINE = 64 * 1024
_WAITING_BYTES = 1024**2
_WELL = frozenset({contract.EXIT_STOPPED, errors.EXIT_INTERRUPTED})


def name(job: Job) -> str:
    """The name of the file: of several shards, each has its own."""
    sharded = isinstance(job.spec, InferenceJobSpec) and job.spec.shards > 1
    return contract.LOG.replace(".", f"-{job.shard}.", 1) if sharded else contract.LOG


@contextmanager
def kept(output: Path, job: Job) -> Iterator[None]:
    """Keep what this process logs in the output, which the job must own; also how the body failed, if it does."""
    if not logs.keeping():
        yield
        return
    keeper = _Keeper(output / name(job), job)
    with logs.kept_by(keeper.add):
        try:
            yield
        except BaseException as error:
            keeper.add(_last_line(error))
            raise
        finally:
            keeper.close()


def _last_line(error: BaseException) -> str:
    """What the process logs when it ends, which is after the output is closed."""
    failure = errors.describe(error)
    line = {
        **structlog.contextvars.get_contextvars(),
        "reason": failure.reason,
        "exitCode": failure.exit_code,
        "event": failure.message,
        "level": "info" if failure.exit_code in _WELL else "error",
        "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    }
    if not isinstance(error, errors.JobError) and failure.exit_code == contract.EXIT_FAILED:
        line["exception"] = "".join(traceback.format_exception(error))
    return json.dumps(line, default=str)


class _Keeper:
    """Writes lines to one file."""

    def __init__(self, path: Path, job: Job) -> None:
        self._path = path
        self._head = json.dumps({"event": "log", "level": "info", "job": job.name, "uid": job.uid}).encode() + b"\n"
        self._writer = threading.get_ident()
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._size = 0  # of the file
        self._written = time.monotonic()
        self._uploaded = float("-inf")
        self._given_up = False
        self._try(self._begin)

    def add(self, line: str) -> None:
        """Keep a line; the thread that made this object writes it in time."""
        data = line.encode(errors="replace")[:LONGEST_LINE] + b"\n"
        with self._lock:
            if self._given_up or self._waiting_bytes > _WAITING_BYTES:
                return
            self._waiting.append(data)
            self._waiting_bytes += len(data)
        if threading.get_ident() == self._writer and time.monotonic() - self._written >= WRITE_SECONDS:
            self._try(self._write)

    def close(self) -> None:
        """Write what waits."""
        self._uploaded = float("-inf")
        self._try(self._write)
        self._given_up = True

    def _try(self, action: Callable[[], None]) -> None:
        if self._given_up:
            return
        try:
            action()
        except (OSError, errors.StorageError) as error:
            self._given_up = True
            log.warning("the log is not kept in the output", file=outputs.shown(self._path), problem=str(error))

    def _begin(self) -> None:
        """Write the first line and what earlier attempts left."""
        content = self._head + self._earlier()
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(content)
        temporary.replace(self._path)
        self._size = len(content)

    def _earlier(self) -> bytes:
        """The lines of earlier attempts of this job, the newer half of what fits."""
        with contextlib.suppress(FileNotFoundError):
            here = contextlib.nullcontext(self._path) if self._path.exists() else outputs.reading(self._path)
            with here as path, path.open("rb") as stream:
                if stream.read(len(self._head)) != self._head:
                    return b""
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(len(self._head), size - MOST_BYTES // 2) - 1)
                stream.readline()  # the rest of a line
                found = stream.read(MOST_BYTES)
                return found if found.endswith(b"\n") or not found else found + b"\n"  # torn by a kill
        return b""

    def _write(self) -> None:
        with self._lock:
            data, self._waiting, self._waiting_bytes = b"".join(self._waiting), [], 0
        self._written = time.monotonic()
        if self._size + len(data) > MOST_BYTES:
            self._begin()
        with self._path.open("ab") as stream:
            stream.write(data)
        self._size += len(data)
        if outputs.is_remote(self._path) and self._written - self._uploaded >= UPLOAD_SECONDS:
            self._uploaded = self._written
            outputs.written(self._path, keep=True)
