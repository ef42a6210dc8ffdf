"""How long a GPU is idle between two jobs: `make bench-handoff`.

30 jobs of one second on two GPUs that take one training each. A hand-off: from the event that a pod has succeeded to
the event that the next was created, both as seen by one watch of the API server. The limit of the drain is 15 s.
"""

import asyncio
import statistics
import time

from bench.live import Live, Object, live, pool
from bench.machine import report

COUNT, AT_A_TIME = 30, 2
NAMES = [f"job-{index:02}" for index in range(COUNT)]
# Writes for a job; queues and pools are written now and then, regardless of the number of jobs.
OF_JOBS = {"trainingjobs", "jobs", "workloads", "pods", "events"}


async def measure(run: Live) -> dict[str, object]:
    """Submit, wait until all are done, and read off the watch."""
    run.writes()  # what came before
    await run.submit(NAMES, run_for="1s")
    await all_ended(run)

    async def told() -> bool:
        return all(status.get("phase") == "Succeeded" for status in (await run.phases()).values())

    await run.until(told, "the success of all jobs")
    await asyncio.sleep(3)  # the last events
    return {**times(run), **per_job(run.writes())}


async def all_ended(run: Live) -> None:
    """Wait until every pod has ended."""
    await run.until(lambda: len(_ends(run)) == COUNT, "the end of all pods")


def _ends(run: Live) -> dict[str, float]:
    found: dict[str, float] = {}
    for at, _, pod in run.seen:
        if pod["status"].get("phase") == "Succeeded":
            found.setdefault(pod["metadata"]["name"], at)
    return found


def times(run: Live) -> dict[str, float]:
    """The hand-offs and the drain, by the watch."""
    created = sorted(at for at, kind, _ in run.seen if kind == "ADDED")
    ended = sorted(_ends(run).values())
    handoffs = sorted(
        (start - end) * 1000 for end, start in zip(ended[: COUNT - AT_A_TIME], created[AT_A_TIME:], strict=True)
    )
    ideal = COUNT / AT_A_TIME
    drain = ended[-1] - created[0]
    return {
        "handoff_p50_ms": round(statistics.median(handoffs), 1),
        "handoff_p95_ms": round(handoffs[int(len(handoffs) * 0.95)], 1),
        "handoff_max_ms": round(handoffs[-1], 1),
        "drain_s": round(drain, 2),
        "ideal_s": ideal,
        "drain_of_ideal": round(drain / ideal, 3),
    }


def per_job(writes: list[Object]) -> dict[str, object]:
    """Writes by resource, and how many that makes for a job."""
    by_resource: dict[str, int] = {}
    for write in writes:
        about = write["objectRef"]
        name = f"{write['verb']} {about['resource']}{'/' + about['subresource'] if 'subresource' in about else ''}"
        by_resource[name] = by_resource.get(name, 0) + 1
    of_jobs = sum(n for name, n in by_resource.items() if name.split()[1].partition("/")[0] in OF_JOBS)
    return {"writes_per_job": round(of_jobs / COUNT, 2), "writes": by_resource}


async def main() -> None:
    """One run."""
    async with live(1, pool()) as run:
        await asyncio.sleep(2)
        began = time.monotonic()
        figures = await measure(run)
        report("handoff", {**figures, "run_s": round(time.monotonic() - began, 1)})


if __name__ == "__main__":
    asyncio.run(main())
