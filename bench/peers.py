"""Kueue and the operator under the same loads, one after the other: `make bench-peers`.

Both run as a process beside the same control plane, scheduler and simulated nodes, started again for each load. The
loads are those of `bench.handoff` (30 jobs of a second under a limit of 2) and `bench.burst` (500 held jobs let go,
room for all). Kueue gets batch/v1 Jobs, whose pods the Job controller makes: `writes_per_job` counts what both write,
`writes_per_job_manager` what Kueue alone does. `ratios`: how many times less the operator takes.
"""

import asyncio
import os
import sys
from typing import Any

from bench import burst, handoff
from bench import kueue as peer
from bench.live import live, pool
from bench.machine import report

Figures = dict[str, Any]


async def kueues() -> Figures:
    """Both loads through Kueue."""
    async with peer.kueue(1, gpus=handoff.AT_A_TIME) as run:
        await asyncio.sleep(2)
        run.writes()
        await peer.submit(run, handoff.NAMES, run_for="1s")
        await handoff.all_ended(run)

        async def told() -> bool:
            finished = [w for w in await peer.workloads(run) if _finished(w)]
            return len(finished) == handoff.COUNT

        await run.until(told, "the end of all workloads")
        await asyncio.sleep(3)  # the last events
        writes = run.writes(peer.by_kueue)
        figures = _drain(handoff.times(run)) | handoff.per_job(writes)
        alone = handoff.per_job([write for write in writes if peer.by_the_manager(write)])
        figures["writes_per_job_manager"] = alone["writes_per_job"]
        _tell(figures)
    async with peer.kueue(burst.NODES, gpus=burst.COUNT, stop_policy="Hold") as run:
        await peer.submit(run, burst.NAMES)

        async def all_known() -> bool:
            return len(await peer.workloads(run)) == burst.COUNT

        await run.until(all_known, "all workloads")
        await asyncio.sleep(5)
        return figures | _burst(await burst.released(run, peer.CLUSTER_QUEUE))


async def ours() -> Figures:
    """Both loads through the operator."""
    async with live(1, pool()) as run:
        await asyncio.sleep(2)
        figures = _drain(await handoff.measure(run))
        _tell(figures)
    async with live(burst.NODES, pool(training=4, stopPolicy="Hold")) as run:
        await burst.hold(run)
        await asyncio.sleep(5)
        return figures | _burst(await burst.released(run, burst.POOL_PATH))


def _finished(workload: dict[str, Any]) -> bool:
    conditions = (workload.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Finished" and c["status"] == "True" for c in conditions)


def _drain(figures: Figures) -> Figures:
    kept = {key: value for key, value in figures.items() if not key.startswith(("ideal", "drain_of", "handoff_max"))}
    return kept | {"drain_load": _load()}


def _tell(figures: Figures) -> None:
    print(figures, file=sys.stderr, flush=True)


def _burst(seconds: float) -> Figures:
    return {"burst_s": round(seconds, 2), "pods_per_s": round(burst.COUNT / seconds, 1), "burst_load": _load()}


def _load() -> float:
    """Of the last minute: the two sides are measured one after the other, and a machine is seldom as busy twice."""
    return round(os.getloadavg()[0], 1)


async def main() -> None:
    """One run of both."""
    before = _load()
    theirs, mine = await kueues(), await ours()
    compared = ("handoff_p50_ms", "handoff_p95_ms", "drain_s", "burst_s", "writes_per_job")
    ratios = {key.removesuffix("_ms").removesuffix("_s"): round(theirs[key] / mine[key], 1) for key in compared}
    report("peers", {"kueue": theirs, "ours": mine, "ratios": ratios, "load_before": before})


if __name__ == "__main__":
    asyncio.run(main())
