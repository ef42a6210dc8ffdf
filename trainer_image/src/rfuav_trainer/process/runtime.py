"""Device, threads and allocator of the process.

In: the job. Out: settings that training and inference both need before they start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING

import structlog

from rfuav_crds import contract, reasons
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.process import resources

if TYPE_CHECKING:
    import torch

    from rfuav_trainer.job import Job

log = structlog.get_logger()

MALLOC = {"M_ARENA_MAX": (-8, 1), "M_MMAP_THRESHOLD": (-3, 2**25), "M_TRIM_THRESHOLD": (-1, 2**31 - 1)}
"""Parameters of mallopt(3) with their numbers in malloc.h: one heap, allocations of up to 32 MiB (the maximum) from it,
no trimming."""


def choose_device(job: Job) -> torch.device:
    """The GPU of this process if the job requests GPUs, else the CPU; sets torch's threads to the cores of the process.

    Raises:
        InvalidConfigurationError: there are fewer CUDA devices than resources.gpus.
    """
    import torch  # noqa: PLC0415  (seconds to import)

    torch.set_num_threads(resources.cpus(job))
    if job.spec.resources.gpus == 0:
        return torch.device("cpu")
    mine = resources.local_rank()
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found > mine:
        torch.backends.cudnn.benchmark = True
        torch.cuda.set_device(mine)
        return torch.device("cuda", mine)
    if os.environ.get(contract.ALLOW_CPU) == "1":
        log.warning("no CUDA device; using the CPU because RFUAV_ALLOW_CPU=1")
        return torch.device("cpu")
    raise InvalidConfigurationError(
        f"resources.gpus is {job.spec.resources.gpus}, but there {'are' if found else 'is'} {found or 'no'} CUDA "
        f"device{'s' * (found > 1)}: write gpus: {found} to use {'those' if found else 'the CPU'}, or check "
        "the GPU driver of the node",
        reason=reasons.NO_ACCELERATOR,
    )


def keep_memory() -> None:
    """Make glibc keep freed memory. Has no effect with another C library.

    The activations of a network are allocated and freed by the megabyte. If they go back to the kernel, it clears
    their pages at each new allocation, which takes a tenth of the time of an inference on a CPU.
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


def gpu_use(device: torch.device) -> dict[str, int]:
    """What the GPU is used for, as the operator reads it; nothing on a CPU.

    `gpuMemoryBytes`: what torch's allocator of this process holds of it, in bytes; the CUDA context comes on top, some
    hundred MiB. `gpuUtilization`: percent of the last second in which it computed, for whichever process; left out
    where NVML does not say it.
    """
    if device.type != "cuda":
        return {}
    import torch  # noqa: PLC0415

    use = {"gpuMemoryBytes": int(torch.cuda.memory_reserved(device))}
    with contextlib.suppress(Exception):  # no NVML, or a driver that does not answer: the job goes on
        use["gpuUtilization"] = min(100, max(0, int(torch.cuda.utilization(device))))
    return use
