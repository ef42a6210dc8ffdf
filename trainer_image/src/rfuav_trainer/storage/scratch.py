"""Private folders of this process: the cache of remote inputs, and outputs that wait for their upload.

In: TRAINER_CACHE, the volume. Out: a folder that is removed with the process. The next process removes the folders of a
killed one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import structlog

from rfuav_trainer.errors import InvalidConfigurationError

log = structlog.get_logger()

VOLUME = "TRAINER_CACHE"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_held: dict[Path, int] = {}


def volume() -> Path:
    """The scratch folder of this machine or pod: TRAINER_CACHE, or the temporary folder."""
    return Path(os.environ.get(VOLUME) or tempfile.gettempdir())


def make(what: str) -> Path:
    """A new folder, locked while this process lives. Removes folders without a lock first.

    Raises:
        InvalidConfigurationError: the volume cannot be written.
    """
    base = volume()
    _sweep(base)
    while True:
        try:
            base.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f"{_prefix()}{what}-", dir=base))
        except OSError as error:
            raise InvalidConfigurationError(
                f"{VOLUME} {base} cannot be written ({error.strerror}): set {VOLUME} to a folder that can be written"
            ) from error
        handle = _lock(folder)
        if handle is not None:
            _held[folder] = handle
            return folder


def remove(folder: Path) -> None:
    """Remove a folder of this process."""
    shutil.rmtree(folder, ignore_errors=True)
    handle = _held.pop(folder, None)
    if handle is not None:
        os.close(handle)


def _lock(folder: Path) -> int | None:
    """Lock a new folder; None if another starting process took it for an abandoned one."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = folder.stat().st_ino == os.fstat(handle).st_ino
    except (BlockingIOError, FileNotFoundError):
        ours = False
    except OSError:
        ours = True  # no locks on this volume: only the owner removes a folder there
    if ours:
        return handle
    os.close(handle)
    return None


def _sweep(base: Path) -> None:
    """Remove the folders of killed processes."""
    for folder in base.glob(f"{_prefix()}*"):
        with suppress(OSError):  # already removed, locked by a live process, or no permission
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                log.info("removed a folder that a killed process left", folder=str(folder))
            finally:
                os.close(handle)


def _prefix() -> str:
    """Prefix of the folders of this machine: on a shared volume, locks may not work between machines."""
    boot = _BOOT.read_text()[:8] if _BOOT.exists() else ""
    return f"rfuav-{boot}-"
