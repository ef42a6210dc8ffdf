"""The process around a job: the stop signal, the device, threads, seeds, and the mark of a finished job.

In: the job. Out: what training and inference alike need before they begin.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_crds import InferenceJobSpec
from rfuav_trainer.errors import InvalidConfigurationError, StoppedError
from rfuav_trainer.reporting.progress import now
from rfuav_trainer.storage import outputs

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    import torch

    from rfuav_trainer.job import Job

log = structlog.get_logger()

SUCCESS = "_SUCCESS"
MALLOC = {"M_ARENA_MAX": (-8, 1), "M_MMAP_THRESHOLD": (-3, 2**25), "M_TRIM_THRESHOLD": (-1, 2**31 - 1)}
"""Settings of mallopt(3) by their numbers in malloc.h: one heap, allocations up to 32 MiB (its most) from it, no end of
it given back."""


class StopSignal:
    """Remembers that SIGTERM arrived; the work looks at it between two steps."""

    def __init__(self) -> None:
        self._requested = threading.Event()

    def install(self) -> None:
        """Catch SIGTERM from now on (main thread only)."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._requested.set()

    def request(self) -> None:
        """Ask for the stop from within, as the signal does."""
        self._requested.set()

    @property
    def requested(self) -> bool:
        """Whether the work shall stop after the step at hand."""
        return self._requested.is_set()

    def check(self) -> None:
        """Raise StoppedError when a stop is wanted and there is nothing to save."""
        if self.requested:
            raise StoppedError("stopped by SIGTERM before there was anything to save")


def choose_device(job: Job) -> torch.device:
    """This process' GPU when the job asks for some, else the CPU; sets torch's threads to the process' CPUs.

    Raises:
        InvalidConfigurationError: there are fewer CUDA devices than resources.gpus.
    """
    import torch  # noqa: PLC0415  (seconds to import)

    torch.set_num_threads(job.cpus)
    if job.spec.resources.gpus == 0:
        return torch.device("cpu")
    mine = int(os.environ.get("LOCAL_RANK", "0"))
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found > mine:
        torch.backends.cudnn.benchmark = True
        torch.cuda.set_device(mine)
        return torch.device("cuda", mine)
    if os.environ.get("RFUAV_ALLOW_CPU") == "1":
        log.warning("no CUDA device; RFUAV_ALLOW_CPU=1, so the CPU does the work")
        return torch.device("cpu")
    raise InvalidConfigurationError(
        f"resources.gpus is {job.spec.resources.gpus}, but there {'are' if found else 'is'} {found or 'no'} CUDA "
        f"device{'s' * (found > 1)}: write gpus: {found} to use {'what is there' if found else 'the CPU'}, or look at "
        "the node's GPU driver",
        reason="NoAccelerator",
    )


def keep_memory() -> None:
    """Have glibc keep what this process frees; another C library stays as it is.

    The values between a network's layers come and go by megabytes. Given back and asked for anew, the kernel clears
    each of their pages each time: a tenth of an inference on a CPU.
    """
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        for number, value in MALLOC.values():
            library.mallopt(number, value)


def processes() -> int:
    """How many processes share this pod's processors, memory and disk: one for each GPU."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def gpu_uuid(device: torch.device) -> str:
    """The UUID of the physical GPU as nvidia-smi prints it; empty on a CPU."""
    if device.type != "cuda":
        return ""
    import torch  # noqa: PLC0415

    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def prepare_output(folder: Path, where: str) -> None:
    """Make the output folder, and find out before hours of work whether it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.write_bytes(b"")
        outputs.written(probe)
        outputs.remove(probe)
        outputs.settle()
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise InvalidConfigurationError(
            f"{where}: {folder} cannot be written ({error.strerror}): name a folder that the job may write to",
            reason="OutputNotWritable",
        ) from error
    except OSError as error:
        if error.errno == 30:  # noqa: PLR2004  (EROFS, read-only file system)
            raise InvalidConfigurationError(
                f"{where}: {folder} is on a read-only volume: name a claim that is mounted for writing",
                reason="OutputNotWritable",
            ) from error
        raise


def read_mark(path: Path) -> dict[str, Any] | None:
    """The mark of a finished job or shard, or None when there is none that can be read."""
    with contextlib.suppress(OSError, ValueError), outputs.reading(path) as here:
        content = json.loads(here.read_bytes())
        if isinstance(content, dict):
            return content
    return None


def finished_before(path: Path, job: Job) -> dict[str, Any] | None:
    """This job's own mark of success at `path`, or None; also when it is to be overwritten, being of other settings.

    Raises:
        InvalidConfigurationError: the same job finished there with other settings (a job file edited on a laptop).
    """
    mark = read_mark(path)
    if mark is None or mark.get("uid") != job.uid:
        return None
    if mark.get("fingerprint") != job.fingerprint():
        if isinstance(job.spec, InferenceJobSpec) and job.spec.output.overwrite:
            return None
        raise InvalidConfigurationError(
            f"{outputs.shown(path)} says that job {job.name!r} finished there with other settings: choose another "
            "name or output, remove that file, or, for an InferenceJob, write output.overwrite: true",
            reason="OutputInUse",
        )
    return mark


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
