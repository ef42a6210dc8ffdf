"""Files and folders that appear whole or not at all, also on a full disk and through a power cut.

In: bytes. Out: a file under its name; in a remote output it goes to the store from there.
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

    When the body raises, the temporary file is removed and what stood at `path` is untouched. In a remote output the
    file goes to the store; `last`: it speaks for what was written before (see `outputs.written`).
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
    """Write `content` as indented JSON, whole or not at all. It may speak for what was written before."""
    with atomic_writer(path, last=True) as stream:
        stream.write(json.dumps(content, indent=2, sort_keys=False).encode() + b"\n")


def replace_folder(whole: Path, folder: Path) -> None:
    """Put a complete folder, written beside it, where it belongs; an older one goes only once the new one is whole."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    whole.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut. Network file systems without it are left alone."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        log.debug("folder cannot be synced", folder=str(folder))
    finally:
        os.close(handle)
