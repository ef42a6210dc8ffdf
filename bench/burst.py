"""How fast a crowd that was held is let in: `make bench-burst`.

500 jobs wait in a pool on hold, with room for all; the hold ends. `seconds`: until the last pod was created. The
ceiling is measured after it on the same cluster: the operator's own client does one status patch and one pod create for
each of 500 other jobs, as many at a time as the operator's writer, the operator standing still.
"""

import asyncio
import signal
import time
from typing import Any

from bench.live import JOBS, OURS, PODS, POOL, Live, Object, live, pool
from bench.machine import report

from rfuav_kube.connection import MERGE_PATCH
from rfuav_operator.core.job.podspec import manifest
from rfuav_operator.core.model import Assignment, Defaults, Kind
from rfuav_operator.settings import Writes
from rfuav_operator.shell.reading import ours

COUNT = 500
NAMES = [f"held-{index:03}" for index in range(COUNT)]
NODES = 63  # of 8 slots
POOL_PATH = f"{OURS}/gpupools/{POOL}"
NOWHERE = "nowhere"  # a pool that does not exist: the operator lets its jobs wait


async def burst(run: Live) -> tuple[float, dict[str, int], dict[str, float]]:
    """Seconds from the end of the hold to the last pod created, the writes by resource, the processor by program."""
    await hold(run)
    await asyncio.sleep(2)
    run.writes()
    before = run.processor()
    seconds = await released(run, POOL_PATH)
    await asyncio.sleep(5)  # the pods are bound and start
    processor = {name: round(taken - before.get(name, 0.0), 2) for name, taken in run.processor().items()}
    counts: dict[str, int] = {}
    for write in run.writes():
        name = f"{write['verb']} {write['objectRef']['resource']}"
        counts[name] = counts.get(name, 0) + 1
    return seconds, counts, processor


async def hold(run: Live) -> None:
    """Submit the jobs, and wait until each says that it is held."""
    await run.submit(NAMES)

    async def held() -> bool:
        return [status.get("reason") for status in (await run.phases()).values()] == ["OnHold"] * COUNT

    await run.until(held, "all jobs on hold")


async def released(run: Live, path: str) -> float:
    """End the hold of the pool (or queue) at `path`: the seconds until the last pod was created."""
    began = time.monotonic()
    await run.must("PATCH", path, {"spec": {"stopPolicy": "None"}}, content_type=MERGE_PATCH)
    await run.until(lambda: _created(run, "held-") == COUNT, "all pods", seconds=300)
    last = max(at for at, kind, pod in run.seen if kind == "ADDED" and pod["metadata"]["name"].startswith("held-"))
    return last - began


def _created(run: Live, prefix: str) -> int:
    return sum(kind == "ADDED" and pod["metadata"]["name"].startswith(prefix) for _, kind, pod in run.seen)


async def ceiling(run: Live) -> float:
    """Seconds for the same two writes for each of as many jobs, and nothing else."""
    jobs = await run.submit([f"bare-{index:03}" for index in range(COUNT)], pool=NOWHERE)

    async def told() -> list[Object] | bool:
        items = (await run.must("GET", JOBS))["items"]
        mine = [item for item in items if item["metadata"]["name"].startswith("bare-")]
        return mine if all((item.get("status") or {}).get("reason") for item in mine) else False

    await run.until(told, "all jobs told")
    jobs = [item for item in (await run.must("GET", JOBS))["items"] if item["metadata"]["name"].startswith("bare-")]
    defaults = Defaults(image="example.com/trainer:1", progress_url="https://127.0.0.1:1", progress_ca="PEM" * 400)
    bodies: list[tuple[str, Object, Any]] = []
    for index, body in enumerate(jobs):
        read = ours.job(Kind.TRAINING, body)
        status = {
            **body["status"],
            "phase": "Admitted",
            "reason": "Starting",
            "attempt": 1,
            "assignments": [{"pod": f"{read.name}-1", "node": f"gpu-{index % NODES}", "gpus": 1}],
        }
        patch = {"metadata": {"resourceVersion": read.resource_version}, "status": status}
        held = Assignment(pod=f"{read.name}-1", node=f"gpu-{index % NODES}", gpus=0)
        bodies.append((read.name, patch, manifest(read, held, defaults)))
    run.operator.send_signal(signal.SIGSTOP)
    try:
        free = asyncio.Semaphore(Writes().parallel)

        async def one(name: str, patch: Object, pod: Any) -> None:
            async with free:
                await run.must("PATCH", f"{JOBS}/{name}/status", patch, content_type=MERGE_PATCH)
                await run.must("POST", PODS, pod)

        began = time.monotonic()
        await asyncio.gather(*(one(*body) for body in bodies))
        return time.monotonic() - began
    finally:
        run.operator.send_signal(signal.SIGCONT)


async def main() -> None:
    """One run of both."""
    async with live(NODES, pool(training=4, stopPolicy="Hold")) as run:
        seconds, writes, processor = await burst(run)
        bare = await ceiling(run)
    report(
        "burst",
        {
            "seconds": round(seconds, 2),
            "pods_per_s": round(COUNT / seconds, 1),
            "ceiling_seconds": round(bare, 2),
            "ceiling_pods_per_s": round(COUNT / bare, 1),
            "of_ceiling": round(bare / seconds, 3),
            "writes": writes,
            "processor_seconds": processor,
        },
    )


if __name__ == "__main__":
    asyncio.run(main())
