"""What outages of the control plane cost: `make bench-outage`.

150 jobs of 12 s on ten GPUs, some 180 s undisturbed. Every 8 to 15 s the API server is killed and stays away for 5 s,
or it or etcd is frozen for 5 s; the operator's lease is 5 s. After each outage a job is submitted when the API
server's /readyz is answered: its first status is the first decision. Printed: how long that took, how many jobs were
done when, how often the operator's process ended (it would be restarted), and its log lines for each outage.
"""

import asyncio
import json
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter

from bench.live import JOBS, POOL, Live, job, live, pool
from bench.machine import report

from localcluster import api, processes
from localcluster.state import Layout
from rfuav_kube.connection import ConnectionProblem

COUNT, RUN_FOR, NODES = 150, 12, 5
AWAY, BETWEEN = 5.0, (8.0, 15.0)  # seconds
LEASE_SECONDS = 5
LONGEST = 900.0  # seconds, for all
LOOK = 0.05  # seconds
KINDS = ("api server killed", "api server stopped", "etcd stopped")
NAMES = [f"job-{index:03}" for index in range(COUNT)]


class Outages:
    """Makes them, and measures what follows."""

    def __init__(self, run: Live) -> None:
        self._run = run
        self._layout = Layout.of(run.cluster.name)
        self._chance = random.Random(7)
        self.decided: list[float] = []  # seconds from /readyz to the first decision
        self.kinds: Counter[str] = Counter()
        self.away = 0.0  # seconds without /readyz, all together

    async def go_on(self) -> None:
        """One outage after the other, until cancelled."""
        while True:
            await asyncio.sleep(self._chance.uniform(*BETWEEN))
            kind = KINDS[self.kinds.total() % len(KINDS)]
            await self._one(kind)
            self.kinds[kind] += 1

    async def _one(self, kind: str) -> None:
        component = "etcd" if kind.startswith("etcd") else "kube-apiserver"
        number = signal.SIGKILL if kind.endswith("killed") else signal.SIGSTOP
        began = time.monotonic()
        hit = [process.pid for process in processes.running(self._layout) if process.component == component]
        for pid in hit:
            os.kill(pid, number)
        await asyncio.sleep(AWAY)
        restarting = None
        if number == signal.SIGSTOP:
            for pid in hit:
                os.kill(pid, signal.SIGCONT)
        else:
            restarting = asyncio.create_task(asyncio.to_thread(api.up, self._run.cluster.name, "api"))
        ready_at = await self._ready()
        self.away += ready_at - began
        await self._first_decision(f"after-{self.kinds.total()}", ready_at)
        if restarting is not None:
            await restarting

    async def _ready(self) -> float:
        while True:
            try:
                if (await self._run.connection.request("GET", "/readyz", timeout=1)).ok:
                    return time.monotonic()
            except ConnectionProblem:
                pass
            await asyncio.sleep(LOOK)

    async def _first_decision(self, name: str, ready_at: float) -> None:
        made = False
        while True:
            try:
                if not made:
                    answer = await self._run.connection.request("POST", JOBS, job(name, POOL, "1s"))
                    made = answer.ok or answer.reason == "AlreadyExists"
                answer = await self._run.connection.request("GET", f"{JOBS}/{name}")
                if answer.ok and (answer.body.get("status") or {}).get("phase"):
                    self.decided.append(time.monotonic() - ready_at)
                    return
            except ConnectionProblem:
                pass
            await asyncio.sleep(LOOK)


async def measure(run: Live) -> dict[str, object]:
    """Submit, disturb, and wait until all are done."""
    began = time.monotonic()
    await run.submit(NAMES, run_for=f"{RUN_FOR}s")
    outages = Outages(run)
    disturbing = asyncio.create_task(outages.go_on())
    done, ends, at_500 = 0, 0, None
    while done < COUNT and time.monotonic() - began < LONGEST and not disturbing.done():
        await asyncio.sleep(1)
        if run.operator.poll() is not None:
            ends += 1
            run.start_operator()
        try:
            found = await run.phases()
        except (ConnectionProblem, RuntimeError):
            continue
        done = sum(found.get(name, {}).get("phase") == "Succeeded" for name in NAMES)
        if at_500 is None and time.monotonic() - began >= 500:
            at_500 = done
    took = time.monotonic() - began
    disturbing.cancel()
    problems = await asyncio.gather(disturbing, return_exceptions=True)
    print(*problems, file=sys.stderr)
    decided = sorted(outages.decided)
    return {
        "jobs": COUNT,
        "ideal_s": COUNT * RUN_FOR // (2 * NODES),
        "done": done,
        "done_after_500_s": done if at_500 is None else at_500,
        "took_s": round(took, 1),
        "outages": dict(outages.kinds),
        "away_s": round(outages.away, 1),
        "process_ends": ends,
        "decided_p50_s": round(statistics.median(decided), 2) if decided else None,
        "decided_max_s": round(decided[-1], 2) if decided else None,
        "log_lines_per_outage": round(_lines(run) / max(outages.kinds.total(), 1), 1),
        "lease_s": LEASE_SECONDS,
    }


def _lines(run: Live) -> int:
    """What the operator said at level warning and above."""
    said = run.operator_log.read_text().splitlines()
    told = Counter(_event(line) for line in said)
    print(json.dumps(told.most_common(20)), file=sys.stderr)
    return sum(count for event, count in told.items() if not event.startswith("info: "))


def _event(line: str) -> str:
    try:
        read = json.loads(line)
    except ValueError:
        return line[:80]
    return f"{read.get('level')}: {read.get('event')}"[:80]


async def main() -> None:
    """One run."""
    async with live(NODES, pool(), lease_seconds=LEASE_SECONDS) as run:
        await asyncio.sleep(2)
        report("outage", await measure(run))


if __name__ == "__main__":
    asyncio.run(main())
