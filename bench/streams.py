"""What open pages take of the REST gateway: `make bench-streams`. In this process, without an API server or sockets.

picture: the first events for one reader of 10,000 jobs, compressed as browsers get them; the first reader (rows are
encoded) and the next (they are held). load: the share of one core with 20 readers and 100 changes a second.
"""

import argparse
import asyncio
import resource
import time
from datetime import UTC, datetime
from typing import Any

from bench.machine import report

from rfuav_gateway.cluster.tasks import Tasks
from rfuav_gateway.cluster.whole import Whole
from rfuav_gateway.live.live import Live
from rfuav_gateway.tasks.sight import Sight

JOBS, READERS, CHANGES, SECONDS = 10_000, 20, 100, 10
EVERYTHING = Sight(everywhere=frozenset(("training", "inference")), quotas_everywhere=True, pools=True)
BATCH = 20  # changes a second are made so many times


def job(number: int, version: int) -> dict[str, Any]:
    """A job that runs, or waits with the words of the operator."""
    status: dict[str, Any] = {
        "phase": "Queued",
        "reason": "WaitingForQuota",
        "message": f"needs 1 GPU; namespace team-{number % 20} uses 8 of 8 in pool default (borrows 2, cohort is full)",
        "queue": {"position": number % 5000 + 1, "of": 5000, "estimatedStart": "2026-01-02T10:00:00Z"},
        "queuedAt": "2026-01-01T10:00:00Z",
    }
    if number % 2:
        status = {
            "phase": "Running",
            "message": "epoch 7 of 100",
            "progress": {"percent": version % 100, "epoch": 7, "totalEpochs": 100, "remainingSeconds": 3600},
            "metrics": dict.fromkeys(("trainLoss", "trainAccuracy", "valLoss", "valAccuracy", "macroF1"), 0.9123),
            "assignments": [{"pod": f"job-{number}-1", "node": f"node-{number % 500}", "gpus": 1}],
            "startedAt": "2026-01-01T11:00:00Z",
        }
    return {
        "metadata": {
            "name": f"job-{number}",
            "namespace": f"team-{number % 20}",
            "uid": f"7b0e8d6c-0000-4000-8000-{number:012d}",
            "resourceVersion": str(version),
            "creationTimestamp": datetime.fromtimestamp(1_767_225_600 + number, UTC).isoformat(),
            "annotations": {"rfuav.io/created-by": f"user-{number % 50}@example.org"},
        },
        "spec": {"model": {"architecture": "resnet18"}, "training": {"epochs": 100}},
        "status": status,
    }


async def look() -> Sight:
    """All of it."""
    return EVERYTHING


async def picture(live: Live, jobs: int) -> tuple[float, float, int]:
    """Seconds until a reader has everything, seconds of processor, and the bytes it gets."""
    began, used, size = time.perf_counter(), time.process_time(), 0
    async with live.follow(look, packed=True) as stream:
        for _ in range(2 + -(-jobs // 500)):  # a greeting, the start, and the pieces
            size += len(await anext(stream))
    return time.perf_counter() - began, time.process_time() - used, size


async def load(live: Live, tasks: Tasks, jobs: int) -> tuple[float, float]:
    """The share of a core, and bytes a second of one reader."""
    size = 0

    async def read() -> None:
        nonlocal size
        async with live.follow(look, packed=True) as stream:
            async for piece in stream:
                size += len(piece)

    readers = [asyncio.create_task(read()) for _ in range(READERS)]
    await asyncio.sleep(5)  # all have the picture
    began, used, size, version = time.perf_counter(), time.process_time(), 0, jobs
    for turn in range(SECONDS * CHANGES // (CHANGES // BATCH)):
        for number in range(CHANGES // BATCH):
            version += 1
            tasks.take("training", job((turn * 14 + number * 262) % jobs + 1, version))
        await asyncio.sleep(max(0.0, began + (turn + 1) / BATCH - time.perf_counter()))
    wall, cpu = time.perf_counter() - began, time.process_time() - used
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    return cpu / wall, size / wall / READERS


async def run(jobs: int) -> None:
    """All measurements."""
    tasks = Tasks()
    live = Live(tasks, Whole())
    for number in range(jobs):
        tasks.take("training", job(number, number + 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with live.follow(look, packed=False):  # rows are held as long as somebody reads
        first, used, size = await picture(live, jobs)
        again = [(await picture(live, jobs))[0] for _ in range(3)]
        share, rate = await load(live, tasks, jobs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report(
        "streams",
        {
            "jobs": jobs,
            "first picture, ms": round(first * 1000),
            "its processor, ms": round(used * 1000),
            "the same again, ms": round(min(again) * 1000),
            "its bytes": size,
            f"core with {READERS} readers and {CHANGES} changes/s": round(share, 3),
            "bytes/s of a reader": round(rate),
            "memory of rows and readers, MiB": round((peak - before) / 1024, 1),
        },
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    asyncio.run(run(parser.parse_args().jobs))


if __name__ == "__main__":
    main()
