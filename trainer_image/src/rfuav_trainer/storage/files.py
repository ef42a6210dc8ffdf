"""Atomic writes: files and folders that appear whole or not at all, even on a full disk or after a power cut.

In: bytes. Out: a file under its final name; in a remote output it is uploaded from there.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import structlog

from rfuav_trainer.storage import outputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = structlog.get_logger()


@contextmanager
def atomic_writer(path: Path, *, last: bool = False) -> Iterator[IO[bytes]]:
    """A file that appears under `path` whole or not at all: temporary file, fsync, rename, fsync of the folder.

    If the body raises, the temporary file is removed and `path` is unchanged. In a remote output the file is uploaded;
    `last`: it refers to files written earlier (see `outputs.written`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    outputs.written(path, last=last)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically. It may refer to files written earlier."""
    with atomic_writer(path, last=True) as stream:
        stream.write(json.dumps(content, indent=2, sort_keys=False).encode() + b"\n")


def replace_folder(whole: Path, folder: Path) -> None:
    """Move the complete folder `whole` to `folder`, which it replaces."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    whole.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable. Ignores network file systems that cannot do that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        log.debug("folder cannot be synced", folder=str(folder))
    finally:
        os.close(handle)
