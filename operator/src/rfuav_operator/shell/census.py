"""What is counted when Prometheus asks: the queue, rooms, watches and queues of this process.

In: snapshots and the index of the last turn. Out: metric families. The state of the cluster is told by the leader
alone, so that sums over replicas count everything once. Nothing here costs a turn anything.

The number of series does not depend on the number of jobs: labels are kinds, phases, reasons, pools that exist, and
the namespaces with most jobs.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from prometheus_client.core import GaugeMetricFamily

from rfuav_crds import reasons
from rfuav_kube import clock
from rfuav_operator.core.capacity.room import Room
from rfuav_operator.core.capacity.usage import Usage
from rfuav_operator.core.model import Job, Kind, Phase, Snapshot
from rfuav_operator.shell.metrics import OTHER, known

MOST_NAMESPACES = 100
"""Those with most jobs have series of their own; the others are one together, `(other)`."""

_MISSING = "(missing)"  # in the place of a pool that does not exist: anybody may write any name into a job
_FOR_ROOM = frozenset({reasons.WAITING_FOR_CAPACITY, reasons.WAITING_FOR_PREEMPTED_JOBS, reasons.UNSCHEDULABLE})
_Values = Mapping[tuple[str, ...], float]


class Gauge(NamedTuple):
    """A gauge: what it says, and its labels."""

    text: str
    labels: tuple[str, ...] = ()


OF_PROCESS = {
    "rfuav_leader": Gauge("Whether this process is the leader"),
    "rfuav_ready": Gauge("Whether the caches are full and no other release of the operator serves the cluster"),
    "rfuav_build_info": Gauge("Always 1; the version of this process", ("version",)),
    "rfuav_objects_set_aside": Gauge("Objects that could not be read or handled", ("resource",)),
    "rfuav_watch_silent_seconds": Gauge(
        "Since the API server last said something about a resource: an event, a bookmark (one a minute) or a list",
        ("resource",),
    ),
    "rfuav_writer_queues": Gauge(
        "Queues of the writer with work, one for each object: running, held_back by settings.writes, or retrying",
        ("state",),
    ),
    "rfuav_events_waiting": Gauge("Kubernetes Events that are queued"),
}
OF_CLUSTER = {
    "rfuav_jobs": Gauge("Jobs by kind and phase", ("kind", "phase")),
    "rfuav_waiting_jobs": Gauge("Jobs that wait, by pool and by why", ("pool", "kind", "reason")),
    "rfuav_longest_wait_seconds": Gauge("How long the job has waited that waits for longest", ("pool", "kind")),
    "rfuav_namespace_jobs": Gauge(
        f"Jobs that have not ended, of the {MOST_NAMESPACES} namespaces with most of them",
        ("namespace", "kind", "phase"),
    ),
    "rfuav_samples_per_second": Gauge("Samples a second, as running jobs report, in sum", ("pool", "kind")),
    "rfuav_trainer_gpu_memory_bytes": Gauge(
        "GPU memory that the reporting processes of running jobs hold, in sum", ("pool", "kind")
    ),
    "rfuav_trainer_gpu_utilization": Gauge(
        "Share of time in which the GPUs of running jobs computed, as their jobs report, mean; 0 to 1. Of the whole "
        "device: another job may share it",
        ("pool", "kind"),
    ),
    "rfuav_longest_silence_seconds": Gauge(
        "Since the last report of the running job that is silent for longest; one that never reports does not count",
        ("pool", "kind"),
    ),
    "rfuav_pool_ready": Gauge("Whether the pool is Ready, with the reason of that condition", ("pool", "reason")),
    "rfuav_pool_nodes": Gauge("Nodes, by whether they take pods", ("pool", "state")),
    "rfuav_pool_gpus": Gauge("Physical GPUs that take jobs", ("pool",)),
    "rfuav_pool_gpu_slots": Gauge("GPU slots of the GPUs that take jobs", ("pool",)),
    "rfuav_pool_gpu_slots_unusable": Gauge(
        "GPU slots that take no jobs: unhealthy, of unknown sharing, or on a node that takes no pods", ("pool",)
    ),
    "rfuav_pool_gpu_slots_free": Gauge("GPU slots that another job of the kind can have", ("pool", "kind")),
    "rfuav_pool_gpu_slots_foreign": Gauge("GPU slots of pods that belong to no job", ("pool",)),
    "rfuav_pool_gpus_idle": Gauge(
        "GPUs that take jobs and surely run none: node by node, GPUs less slots in use", ("pool",)
    ),
    "rfuav_pool_gpus_idle_while_waiting": Gauge("The same while a job waits for room for its GPUs, else 0", ("pool",)),
    "rfuav_quota_gpu_slots": Gauge(
        "Nominal share of a namespace in a pool, in GPU slots, by its GPUQuota", ("namespace", "pool")
    ),
}


class Census:
    """The present values, for the registry.

    Args:
        snapshot: the state of the cluster.
        usage: what is in use in it; None: not known.
        leading: whether this process is the leader.
        of_process: values of this process by the name of the gauge.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        usage: Callable[[], Usage | None],
        leading: Callable[[], bool],
        of_process: Callable[[], Mapping[str, _Values]],
    ) -> None:
        self._snapshot = snapshot
        self._usage = usage
        self._leading = leading
        self._of_process = of_process

    def collect(self) -> Iterator[Any]:
        """The metric families."""
        leading = self._leading()
        values: dict[str, _Values] = {**self._of_process(), "rfuav_leader": {(): float(leading)}}
        gauges = dict(OF_PROCESS)
        if leading:
            snapshot, usage = self._snapshot(), self._usage()
            values |= of_jobs(snapshot, clock.now())
            values |= of_limits(snapshot)
            if usage is not None:
                values |= of_rooms(snapshot, usage)
            gauges |= OF_CLUSTER
        for name, gauge in gauges.items():
            family = GaugeMetricFamily(name, gauge.text, labels=gauge.labels)
            for labels, value in values.get(name, {}).items():
                family.add_metric(labels, value)
            yield family


def counted(things: Iterable[str]) -> _Values:
    """How many there are of each, as values of a gauge with one label."""
    return {(thing,): count for thing, count in Counter(things).items()}


def of_jobs(snapshot: Snapshot, now: datetime) -> dict[str, _Values]:
    """Where the jobs are, and what they report."""
    phases: Counter[tuple[str, ...]] = Counter()
    waiting: Counter[tuple[str, ...]] = Counter()
    namespaces: Counter[tuple[str, ...]] = Counter()
    longest: dict[tuple[str, ...], float] = {}
    silence: dict[tuple[str, ...], float] = {}
    rates: dict[tuple[str, ...], float] = {}
    memory: dict[tuple[str, ...], float] = {}
    busy: dict[tuple[str, ...], list[int]] = {}
    for job in snapshot.jobs.values():
        kind, phase, status = job.kind, job.status.phase, job.status
        phases[kind, phase or "New"] += 1
        if phase is not None and phase.terminal:
            continue
        namespaces[job.namespace, kind, phase or "New"] += 1
        pool = job.spec.pool if job.spec.pool in snapshot.pools else _MISSING
        if phase is None or phase is Phase.QUEUED:
            waiting[pool, kind, known(status.reason) if status.reason else reasons.QUEUED] += 1
            age = (now - (status.queued_at or job.created)).total_seconds()
            longest[pool, kind] = max(age, longest.get((pool, kind), 0.0))
        elif phase is Phase.RUNNING and (progress := status.progress) is not None:
            rates[pool, kind] = rates.get((pool, kind), 0.0) + (progress.samples_per_second or 0.0)
            if progress.gpu_memory_bytes is not None:
                memory[pool, kind] = memory.get((pool, kind), 0.0) + progress.gpu_memory_bytes
            if progress.gpu_utilization is not None:
                busy.setdefault((pool, kind), []).append(progress.gpu_utilization)
            if progress.updated_at is not None:
                age = (now - progress.updated_at).total_seconds()
                silence[pool, kind] = max(age, silence.get((pool, kind), 0.0))
    return {
        "rfuav_jobs": phases,
        "rfuav_waiting_jobs": waiting,
        "rfuav_longest_wait_seconds": longest,
        "rfuav_namespace_jobs": _largest(namespaces),
        "rfuav_samples_per_second": rates,
        "rfuav_trainer_gpu_memory_bytes": memory,
        "rfuav_trainer_gpu_utilization": {where: sum(all_) / len(all_) / 100 for where, all_ in busy.items()},
        "rfuav_longest_silence_seconds": silence,
    }


def _largest(counts: Mapping[tuple[str, ...], float]) -> _Values:
    """The same with the namespaces of least, the first of the labels, as one."""
    totals: Counter[str] = Counter()
    for (namespace, *_), count in counts.items():
        totals[namespace] += int(count)
    if len(totals) <= MOST_NAMESPACES:
        return counts
    kept = {name for name, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:MOST_NAMESPACES]}
    merged: Counter[tuple[str, ...]] = Counter()
    for (namespace, *rest), count in counts.items():
        merged[(namespace if namespace in kept else OTHER, *rest)] += int(count)
    return merged


def of_limits(snapshot: Snapshot) -> dict[str, _Values]:
    """What pools and quotas say."""
    ready: dict[tuple[str, ...], float] = {}
    for name, pool in snapshot.pools.items():
        for condition in pool.status.get("conditions") or ():
            if condition.get("type") == "Ready":
                ready[name, known(str(condition.get("reason")))] = float(condition.get("status") == "True")
    shares: Counter[tuple[str, ...]] = Counter()
    for namespace, quota in snapshot.quotas.items():
        for entry in quota.spec.pools:
            if entry.name in snapshot.pools:
                shares[namespace, entry.name] += entry.gpus.nominal
    return {"rfuav_pool_ready": ready, "rfuav_quota_gpu_slots": _largest(shares)}


def of_rooms(snapshot: Snapshot, usage: Usage) -> dict[str, _Values]:
    """What the pools have, and what of it is free."""
    made: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in OF_CLUSTER if name.startswith("rfuav_pool_")}
    del made["rfuav_pool_ready"]
    wanted = {job.spec.pool for job in snapshot.jobs.values() if _wants_gpus(job)}
    for pool in snapshot.pools:
        rooms = list(usage.rooms.get(pool, {}).values())
        usable = [room for room in rooms if room.takes_gpu_jobs]
        idle = float(sum(map(_idle, usable)))
        slots = sum(room.node.gpu_slots for room in usable)
        nodes = sum(room.node.is_open for room in rooms)
        made["rfuav_pool_nodes"] |= {(pool, "open"): nodes, (pool, "closed"): len(rooms) - nodes}
        made["rfuav_pool_gpus"][pool,] = sum(room.node.gpus for room in usable)
        made["rfuav_pool_gpu_slots"][pool,] = slots
        made["rfuav_pool_gpu_slots_unusable"][pool,] = sum(room.node.gpu_capacity for room in rooms) - slots
        for kind in Kind:
            made["rfuav_pool_gpu_slots_free"][pool, kind.value] = sum(room.slots[kind].free for room in usable)
        made["rfuav_pool_gpu_slots_foreign"][pool,] = sum(room.foreign_gpus for room in rooms)
        made["rfuav_pool_gpus_idle"][pool,] = idle
        made["rfuav_pool_gpus_idle_while_waiting"][pool,] = idle if pool in wanted else 0.0
    return {**made}


def _idle(room: Room) -> int:
    """GPUs of a node that nobody uses, wherever the device plugin puts pods: each slot in use may be on another GPU."""
    used = sum(slots.used for slots in room.slots.values()) + room.foreign_gpus
    return max(0, room.node.gpus - used)


def _wants_gpus(job: Job) -> bool:
    return job.status.phase is Phase.QUEUED and job.spec.resources.gpus > 0 and job.status.reason in _FOR_ROOM
