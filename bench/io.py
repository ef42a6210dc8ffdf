"""What a training costs beside its steps: `make bench-io`.

Start-up is the time from the start of the process to the end of its first step (imports included), resume the same for
a process that finds a checkpoint; both are processes of their own, as in a pod. `start_to_first_step_cpu_s` is the
processor time of the former, which what else runs on the machine hardly makes longer. The stall of a save is the time
that no step is taken; beside it the same number of bytes is written and flushed to the same folder.

    python -m bench.io [--model resnet18] [--runs 3]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.machine import report
from bench.train import write_job, write_pictures

IMAGES = 16


CHILD = """
import os, pathlib, sys, time
from rfuav_trainer.job import from_file
from rfuav_trainer.training import train
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.process.runtime import StopSignal
class First(Progress):
    def update(self, status):
        print("STEP", time.time(), time.process_time(), file=sys.stderr, flush=True)
        {after}
train.run(from_file(pathlib.Path({job!r})), First(None, interval=0), StopSignal())
"""
KILL_AFTER_TWO = "self.n = getattr(self, 'n', 0) + 1; os.getpid() if self.n < 4 else os.kill(os.getpid(), 9)"


def first_step(job: Path, after: str) -> tuple[float, float, str]:
    """Seconds and processor seconds from the start of the process to the end of its first step, and its log."""
    began = time.time()
    code = CHILD.format(job=str(job), after=after)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    steps = [line.split() for line in found.stderr.splitlines() if line.startswith("STEP")]
    if not steps:
        raise RuntimeError(found.stdout + found.stderr)
    return float(steps[0][1]) - began, float(steps[0][2]), found.stdout


def stalls(log: str) -> list[float]:
    """Seconds of every checkpoint, as the trainer's own log says."""
    return [float(line.split("seconds=")[1].split()[0]) for line in log.splitlines() if "checkpoint  " in line]


def plain_write(folder: Path, size: int) -> float:
    """Seconds to write and flush as many bytes."""
    block = os.urandom(1 << 20)
    began = time.perf_counter()
    with (folder / "plain").open("wb") as stream:
        for start in range(0, size, len(block)):
            stream.write(block[: size - start])
        stream.flush()
        os.fsync(stream.fileno())
    seconds = time.perf_counter() - began
    (folder / "plain").unlink()
    return seconds


def main() -> None:
    """Some runs, the median of each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    starts, resumes, cpu, saves, plain, size = [], [], [], [], [], 0
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_pictures(folder / "train", IMAGES)
            write_pictures(folder / "val", 4)
            (folder / "out").mkdir()
            job = write_job(folder / "out", folder, options.model, epochs=2, batch=8)  # two steps an epoch
            seconds, busy, log = first_step(
                job, KILL_AFTER_TWO
            )  # killed in the second epoch, after the first checkpoint
            starts.append(seconds)
            cpu.append(busy)
            saves += stalls(log)
            file = next((folder / "out/checkpoints/local-bench").glob("*.pt"))
            size = file.stat().st_size
            plain.append(plain_write(folder, size))
            seconds, _, log = first_step(job, "pass")
            resumes.append(seconds)
            saves += stalls(log)
    figures: dict[str, Any] = {
        "model": options.model,
        "runs": options.runs,
        "start_to_first_step_s": round(statistics.median(starts), 2),
        "start_to_first_step_cpu_s": round(statistics.median(cpu), 2),
        "resume_to_first_step_s": round(statistics.median(resumes), 2),
        "checkpoint_mb": round(size / 1e6, 1),
        "checkpoint_stall_s": round(statistics.median(saves), 3),
        "plain_write_s": round(statistics.median(plain), 3),
        "stall_of_plain_write": round(statistics.median(saves) / statistics.median(plain), 2),
    }
    report("io", figures)


if __name__ == "__main__":
    main()
