"""How long the core plans: `make bench-plan`.

10,000 pending jobs of 50 shapes in 20 namespaces with quotas, on 1,000 nodes of 8 slots. `full_plan_s`: the index is
built from nothing and admission planned (ordered, placed, recorded, and why the others wait). `full_turn_s`: all of a
first turn, in which every job is stepped and every manifest made too. `cycle_*`: one pod has ended, and what follows is
decided: step, index, plan, records, manifests. `by_pending`: the same for 1,000 to 20,000 pending jobs.

`many_shapes`: the same with 1,200 shapes on 300 nodes.

`preemption`: the same cluster with three priorities and a pool whose jobs stop for higher ones and give back what they
borrow. Every tenth cycle an urgent job comes instead of an end; a stopped pod is gone with the next cycle.
"""

import argparse
import gc
import random
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from bench.machine import report
from msgspec.structs import replace

from rfuav_operator.app import GC_THRESHOLDS
from rfuav_operator.core.admission.index import Admission
from rfuav_operator.core.job import lifecycle
from rfuav_operator.core.model import (
    CreatePod,
    Defaults,
    DeletePod,
    GpuShare,
    GpuTier,
    Job,
    JobSpec,
    JobStatus,
    Kind,
    Node,
    NodeName,
    PatchStatus,
    Pod,
    PodPhase,
    PodTemplate,
    Pool,
    PoolQuota,
    PoolSpec,
    Preemption,
    PriorityClass,
    Quota,
    QuotaSpec,
    Resources,
    Snapshot,
    Uid,
)
from rfuav_operator.core.quantity import Amounts
from rfuav_operator.core.scheduler import Changes, Jobs, Scheduler

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAMESPACES, SHAPES, NODES = 20, 50, 1000
CYCLES = 1000
LONG_AGO = NOW - timedelta(hours=1)  # when pods started: nothing is too young to be stopped


PRIORITIES = {"low": 0, "normal": 100, "urgent": 1000}


def cluster(
    pending: int, nodes: int, *, preemption: bool = False, count: int = SHAPES, seed: int = 1
) -> tuple[dict[str, Any], dict[Uid, Job]]:
    """The world, and its jobs: the maps that a snapshot shows."""
    chance = random.Random(seed)
    shapes = [
        (
            chance.choice(list(Kind)),
            Resources(
                gpus=1,
                cpu=str(chance.choice([1, 2, 4])),
                memory=f"{chance.choice([4, 8, 16]) + index / max(100, 2 * count):.4f}Gi",
                gpu_memory=chance.choice([None, "8Gi", "20Gi"]),
            ),
            PodTemplate(node_selector={"zone": chance.choice("abc")} if chance.random() < 0.2 else {}),
        )
        for index in range(count)
    ]
    jobs = {}
    for index in range(pending):
        kind, resources, template = shapes[index % count]
        uid = Uid(f"uid-{index:05}")
        jobs[uid] = Job(
            kind=kind,
            namespace=f"team-{chance.randrange(NAMESPACES):02}",
            name=f"job-{index:05}",
            uid=uid,
            resource_version="1",
            generation=1,
            created=NOW - timedelta(seconds=pending - index),
            deleting=False,
            spec=JobSpec(
                resources=resources,
                pod_template=template,
                priority_class_name=chance.choices(list(PRIORITIES), (6, 3, 1))[0] if preemption else "",
            ),
            raw_spec={
                "model": {"architecture": "resnet18", "weights": "none"},
                "dataset": {"train": {"uri": "pvc://captures/train"}, "validation": {"fraction": 0.2}},
                "output": {"uri": f"pvc://models/{uid}"},
            },
            status=JobStatus(),
        )
    held = {
        NodeName(f"node-{index:04}"): Node(
            name=NodeName(f"node-{index:04}"),
            labels={"zone": "abc"[index % 3]},
            gpus=2,
            gpu_capacity=8,
            gpu_replicas=4,
            gpu_memory_mib=24576,
            allocatable=Amounts(slots=8, cpu_milli=64_000, memory=256 * 2**30, pods=110),
        )
        for index in range(nodes)
    }
    tiers = (GpuTier(min_memory="22Gi", training=1, inference=3), GpuTier(min_memory=0, training=1, inference=1))
    policy = Preemption(within_pool="LowerPriority", reclaim_borrowed="Any") if preemption else Preemption()
    spec = PoolSpec(per_gpu=tiers, preemption=policy)
    pool = Pool(name="default", uid=Uid("pool"), resource_version="1", generation=1, spec=spec)
    share = nodes * 8 // NAMESPACES
    quotas = {
        f"team-{index:02}": Quota(
            namespace=f"team-{index:02}",
            uid=Uid(f"quota-{index}"),
            resource_version="1",
            generation=1,
            spec=QuotaSpec(
                pools=(PoolQuota(name="default", gpus=GpuShare(nominal=share // (1 + index % 2))),),
                weight=1 + index % 3,
            ),
        )
        for index in range(NAMESPACES)
    }
    world = {
        "pods_of": {},
        "foreign": {},
        "creating": {},
        "nodes": held,
        "pools": {"default": pool},
        "quotas": quotas,
        "priority_classes": {name: PriorityClass(name=name, value=value) for name, value in PRIORITIES.items()},
        "defaults": Defaults(image="trainer:1", progress_url="https://progress:8443", progress_ca="PEM"),
    }
    return world, jobs


def run(pending: int, nodes: int, cycles: int, *, preemption: bool = False, count: int = SHAPES) -> dict[str, Any]:
    """One full plan and so many cycles; seconds and milliseconds."""
    world, jobs = cluster(pending, nodes, preemption=preemption, count=count)
    gc.set_threshold(*GC_THRESHOLDS)  # as the operator does
    gc.collect()
    gc.freeze()
    stepped = {uid: replace(job, status=lifecycle.step(job, _facts(world)).status) for uid, job in jobs.items()}
    snapshot, now_jobs = Snapshot(jobs=stepped, **world), Jobs(stepped)
    began = time.perf_counter()
    Admission(snapshot, now_jobs, NOW).plan(snapshot, now_jobs, NOW, everyone=True)
    plan = time.perf_counter() - began
    del stepped, snapshot, now_jobs
    scheduler = Scheduler()
    began = time.perf_counter()
    first = scheduler.turn(
        Snapshot(jobs=jobs, **world), Changes(jobs=list(jobs), plan=True, everything=True), reports=[], now=NOW
    )
    full = time.perf_counter() - began
    chance = random.Random(2)
    running = sorted(_apply(first.actions, world, jobs).created)
    started = Changes(jobs=[uid for uid, _ in running])  # nobody is stopped before he was seen to run
    seen = scheduler.turn(Snapshot(jobs=jobs, **world), started, reports=[], now=NOW)
    admitted, now, times, stopped = len(running), NOW, [], 0
    done = _apply(seen.actions, world, jobs)
    for number in range(cycles):
        now += timedelta(milliseconds=50)
        changed = {uid for uid, _ in done.created + done.deleted}
        for uid, name in done.deleted:
            del world["pods_of"][uid][name]
        if preemption and number % 10 == 0:
            changed.add(_arrives(number, jobs, now))
        else:
            changed.add(_ends(running, world, chance, now))
        began = time.perf_counter()
        turn = scheduler.turn(Snapshot(jobs=jobs, **world), Changes(jobs=changed, plan=True), reports=[], now=now)
        times.append((time.perf_counter() - began) * 1000)
        done = _apply(turn.actions, world, jobs)
        gone = set(done.deleted)
        running = [pod for pod in running if pod not in gone] if gone else running
        running += done.created
        stopped += len(gone)
    times.sort()
    return {
        "full_plan_s": round(plan, 3),
        "full_turn_s": round(full, 3),
        "admitted": admitted,
        "cycle_p50_ms": round(statistics.median(times), 2),
        "cycle_p99_ms": round(times[int(len(times) * 0.99)], 2),
        "cycle_max_ms": round(times[-1], 2),
        "peak_mb": round(_peak_mb()),
        **({"preempted": stopped} if preemption else {}),
    }


def _ends(running: list[tuple[Uid, str]], world: dict[str, Any], chance: random.Random, now: datetime) -> Uid:
    """One of the pods has done its work."""
    at = chance.randrange(len(running))
    running[at], running[-1] = running[-1], running[at]
    uid, name = running.pop()
    pod = world["pods_of"][uid][name]
    world["pods_of"][uid][name] = replace(pod, phase=PodPhase.SUCCEEDED, exit_code=0, finished_at=now)
    return uid


def _arrives(number: int, jobs: dict[Uid, Job], now: datetime) -> Uid:
    """One more urgent job, like an existing one."""
    uid = Uid(f"uid-urgent-{number:05}")
    like = jobs[Uid(f"uid-{number:05}")]
    jobs[uid] = replace(
        like,
        uid=uid,
        name=f"urgent-{number:05}",
        created=now,
        spec=replace(like.spec, priority_class_name="urgent"),
        status=JobStatus(),
    )
    return uid


def _facts(world: dict[str, Any]) -> lifecycle.Facts:
    pool = world["pools"]["default"].spec
    return lifecycle.Facts(now=NOW, pods={}, creating=(), nodes=world["nodes"], pool=pool, defaults=world["defaults"])


class _Done(NamedTuple):
    created: list[tuple[Uid, str]]
    deleted: list[tuple[Uid, str]]


def _apply(actions: Any, world: dict[str, Any], jobs: dict[Uid, Job]) -> _Done:
    """Do what was decided, at once: the pods that were created, running, and those that leave."""
    done = _Done([], [])
    for action in actions:
        if isinstance(action, PatchStatus):
            jobs[action.job.uid] = replace(jobs[action.job.uid], status=action.status)
        elif isinstance(action, DeletePod):
            done.deleted.append((action.job_uid, action.name))
        elif isinstance(action, CreatePod):
            job = jobs[action.job_uid]
            node = next(a.node for a in job.status.assignments if a.pod == action.name)
            orjson.dumps(action.manifest)
            world["pods_of"].setdefault(action.job_uid, {})[action.name] = Pod(
                namespace=job.namespace,
                name=action.name,
                uid=Uid(f"pod-{action.name}"),
                kind=job.kind,
                job_uid=job.uid,
                attempt=job.status.attempt,
                node=NodeName(node),
                wanted_node=NodeName(node),
                phase=PodPhase.RUNNING,
                created=LONG_AGO,
                started_at=LONG_AGO,
                requests=Amounts(slots=1, cpu_milli=int(job.spec.resources.cpu or 0) * 1000, memory=8 * 2**30, pods=1),
            )
            done.created.append((action.job_uid, action.name))
    return done


def _peak_mb() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    """Each size in a process of its own, so that its peak memory is its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pending", type=int)
    parser.add_argument("--preemption", action="store_true")
    parser.add_argument("--shapes", type=int, default=SHAPES)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--cycles", type=int, default=CYCLES)
    asked = parser.parse_args()
    if asked.pending:
        done = run(asked.pending, asked.nodes, asked.cycles, preemption=asked.preemption, count=asked.shapes)
        print(orjson.dumps(done).decode())
        return
    sizes = {pending: _alone(pending, asked.cycles) for pending in (1000, 2000, 5000, 10_000, 20_000)}
    preempting = _alone(10_000, asked.cycles, "--preemption")
    various = _alone(10_000, asked.cycles, "--shapes", "1200", "--nodes", "300")
    more = {"by_pending": sizes, "preemption": preempting, "many_shapes": various}
    report("plan", {**sizes[10_000], "nodes": asked.nodes, **more})


def _alone(pending: int, cycles: int, *flags: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.plan", "--pending", str(pending), "--cycles", str(cycles), *flags]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = orjson.loads(done.stdout)
    print(f"{pending} pending {' '.join(flags)}: {found}", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
