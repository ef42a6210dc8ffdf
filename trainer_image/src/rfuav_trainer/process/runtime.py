"""The process around a job: the stop signal, the device, threads, seeds, and the mark of a finished job.

In: the job. Out: what training and inference alike need before they begin.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING

import structlog

from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.process import resources

if TYPE_CHECKING:
    import torch

    from rfuav_trainer.job import Job

log = structlog.get_logger()

MALLOC = {"M_ARENA_MAX": (-8, 1), "M_MMAP_THRESHOLD": (-3, 2**25), "M_TRIM_THRESHOLD": (-1, 2**31 - 1)}
"""Settings of mallopt(3) by their numbers in malloc.h: one heap, allocations up to 32 MiB (its most) from it, no end of
it given back."""


def choose_device(job: Job) -> torch.device:
    """This process' GPU when the job asks for some, else the CPU; sets torch's threads to the process' CPUs.

    Raises:
        InvalidConfigurationError: there are fewer CUDA devices than resources.gpus.
    """
    import torch  # noqa: PLC0415  (seconds to import)

    torch.set_num_threads(resources.cpus(job))
    if job.spec.resources.gpus == 0:
        return torch.device("cpu")
    mine = int(os.environ.get("LOCAL_RANK", "0"))
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found > mine:
        torch.backends.cudnn.benchmark = True
        torch.cuda.set_device(mine)
        return torch.device("cuda", mine)
    if os.environ.get("RFUAV_ALLOW_CPU") == "1":
        log.warning("no CUDA device; using the CPU because RFUAV_ALLOW_CPU=1")
        return torch.device("cpu")
    raise InvalidConfigurationError(
        f"resources.gpus is {job.spec.resources.gpus}, but there {'are' if found else 'is'} {found or 'no'} CUDA "
        f"device{'s' * (found > 1)}: write gpus: {found} to use {'those' if found else 'the CPU'}, or check "
        "the GPU driver of the node",
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


def gpu_uuid(device: torch.device) -> str:
    """The UUID of the physical GPU as nvidia-smi prints it; empty on a CPU."""
    if device.type != "cuda":
        return ""
    import torch  # noqa: PLC0415

    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"
