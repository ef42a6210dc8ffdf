"""Atomic writes: files and folders that appear whole or not at all, even on a full disk or after a power cut.

In: bytes. Out: a file under its final name; in a remote output it is uploaded from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import structlog

from rfuav_trainer.storage import outputs

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger()

LONGEST_NAME = 255
"""Bytes in the name of a file."""
TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
"""Names of the temporary files of `atomic_writer`."""


def fitting(name: str, ending: str) -> str:
    """`name` and `ending` as the name of a file; a longer one than file systems take is cut and told by a digest."""
    encoded, end = os.fsencode(name), os.fsencode(ending)
    if len(encoded) + len(end) <= LONGEST_NAME:
        return name + ending
    digest = f"~{hashlib.sha256(encoded).hexdigest()[:16]}".encode()
    kept = encoded[: LONGEST_NAME - len(end) - len(digest)].decode(errors="ignore")  # whole characters
    return os.fsdecode(os.fsencode(kept) + digest + end)


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed process left in an output. Nobody may be writing there."""
    drawn = (Path(path) for name in ("annotated", "overview") for path, _, _ in os.walk(folder / name))
    below = [folder, *folder.glob("checkpoints/*"), *drawn]
    for place in below:
        with suppress(OSError):  # another user's, or no folder
            for name in os.listdir(place):  # noqa: PTH208  (only the few names that match become paths)
                if TEMPORARY.fullmatch(name):
                    (place / name).unlink()
                    log.info("removed a file that a killed process left", file=str(place / name))


@contextmanager
def atomic_writer(path: Path, *, last: bool = False) -> Iterator[IO[bytes]]:
    """A file that appears under `path` whole or not at all: temporary file, fsync, rename, fsync of the folder.

    If the body raises, the temporary file is removed and `path` is unchanged. In a remote output the file is uploaded;
    `last`: it refers to files written earlier (see `outputs.written`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several pods may have the same number.
    temporary = path.with_name(fitting(f".{path.name}", f".{socket.gethostname()}.{os.getpid()}.tmp"))
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
