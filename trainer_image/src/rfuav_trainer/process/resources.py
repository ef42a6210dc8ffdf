"""What this process may use of the pod: processor cores and memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rfuav_crds import parse_quantity

if TYPE_CHECKING:
    from rfuav_trainer.job import Job

CGROUP = Path("/sys/fs/cgroup")


def processes() -> int:
    """How many processes share the cores, memory and disk of this pod: one for each GPU."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def local_rank() -> int:
    """Which of the processes of this pod this is; 0 is the first, which says what all do."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def cpus(job: Job) -> int:
    """Whole CPU cores for this process, at least 1: its share of what resources.cpu, cgroup and machine allow."""
    limits = [float(parse_quantity(job.spec.resources.cpu)), float(os.cpu_count() or 1)]
    quota = _read(CGROUP / "cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":  # noqa: PLR2004  ("quota period", cgroup v2)
        limits.append(int(quota[0]) / int(quota[1]))
    return max(1, int(min(limits)) // processes())


def memory(job: Job | None = None) -> int:
    """Bytes of memory that this process may use: its share of what the job, the cgroup and the machine allow."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    if job is not None:
        limits.append(int(parse_quantity(job.spec.resources.memory)))
    limit = _read(CGROUP / "memory.max").strip()
    if limit.isdigit():
        limits.append(int(limit))
    return min(limits) // processes()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
