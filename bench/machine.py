"""What every benchmark prints beside its figures: the machine, and the one JSON line."""

import contextlib
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Processor, cores, memory and versions of this machine."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memoryGiB": round(memory / 2**30),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def device() -> str:
    """The name of the GPU that a training takes, or `cpu`."""
    import torch  # noqa: PLC0415  (the operator's benchmarks have none)

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def apart(names: Iterable[str], prepare: Callable[[], object]) -> Iterator[dict[str, ProcessPoolExecutor]]:
    """A process for each name, `prepare`d: what one side sets of threads and memory is not the others'."""
    with contextlib.ExitStack() as stack:
        start = multiprocessing.get_context("spawn")
        made = {
            name: ProcessPoolExecutor(1, mp_context=start, initializer=_begin, initargs=(prepare,)) for name in names
        }
        yield {name: stack.enter_context(executor) for name, executor in made.items()}


def _begin(prepare: Callable[[], object]) -> None:
    # Start method of a DataLoader's workers: in a spawned process they would be spawned too, and import torch again.
    multiprocessing.set_start_method("fork", force=True)
    prepare()


def seconds(act: Callable[[], object]) -> float:
    """How long `act` takes, with what it leaves to a GPU."""
    began = clock()
    act()
    return clock() - began


def clock() -> float:
    """Seconds, read when the GPU, where there is one, has done what it was given."""
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def report(name: str, figures: dict[str, Any]) -> None:
    """Print the one line; everything else a benchmark says goes to stderr."""
    print(json.dumps({"benchmark": name, **figures, "machine": machine()}))
    sys.stdout.flush()
