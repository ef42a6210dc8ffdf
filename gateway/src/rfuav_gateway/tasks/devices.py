"""The nodes of a pool as the devices of one machine, as the model service had them: cuda:0, cuda:1, ..., and cpu.

In: a snapshot of the cluster. Out: every physical GPU with its node, its limits and the tasks on it; sums of the CPUs.

Physical GPUs are numbered by the name of their node, then on it. The device plugin chooses which GPU of its node a task
uses: tasks whose processes reported the same GPU share a device here, and the others fill the devices of their node in
turn. Sums over a node are always right.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from rfuav_crds.contract import GPU
from rfuav_gateway.tasks.bodies import CPU, TaskType
from rfuav_operator.core.capacity import gpus
from rfuav_operator.core.capacity.room import pool_of, tier_of
from rfuav_operator.core.model import GpuTier, Job, Kind, Node, Phase, Pool, Snapshot, is_active, may_live

_MIB_OF_A_GIB = 1024
_SHARED = "-SHARED"  # GPU feature discovery adds it to the product's name


@dataclass(frozen=True)
class Counts:
    """Tasks, or places for tasks, of each type."""

    training: int = 0
    inference: int = 0


@dataclass(frozen=True)
class OnDevice:
    """A task on a device."""

    type: TaskType
    namespace: str
    job: str


@dataclass(frozen=True)
class Device:
    """A physical GPU."""

    number: int
    node: str
    index: int
    """On its node, from 0."""
    product: str
    compute_capability: str | None
    memory_gib: float | None
    open: bool
    """Whether its node takes new tasks."""
    min_memory: str | int
    """Of the tier of the pool that its limits are those of."""
    limits: Counts
    tasks: tuple[OnDevice, ...]

    @property
    def name(self) -> str:
        """Its name in the interface."""
        return f"cuda:{self.number}"


@dataclass(frozen=True)
class Cpus:
    """The processors and the memory of all nodes together, and the tasks without GPU."""

    nodes: int = 0
    milli: int = 0
    requested_milli: int = 0
    memory: int = 0
    requested_memory: int = 0
    limits: Counts = Counts()
    tasks: tuple[OnDevice, ...] = ()


@dataclass(frozen=True)
class Fleet:
    """A pool."""

    pool: str
    exists: bool = False
    devices: tuple[Device, ...] = ()
    cpu: Cpus = Cpus()
    waiting: Counts = Counts()
    cuda_version: str | None = None

    def limits(self) -> dict[str, Counts]:
        """Tasks at a time, by device."""
        return {**{one.name: one.limits for one in self.devices}, CPU: self.cpu.limits}

    def tasks(self) -> dict[str, tuple[OnDevice, ...]]:
        """What runs, by device."""
        return {**{one.name: one.tasks for one in self.devices}, CPU: self.cpu.tasks}


def count(tasks: Iterable[OnDevice]) -> Counts:
    """How many of each type."""
    trainings = inferences = 0
    for one in tasks:
        if one.type == "training":
            trainings += 1
        else:
            inferences += 1
    return Counts(trainings, inferences)


def fleet(snapshot: Snapshot, pool_name: str) -> Fleet:
    """The devices of a pool, their use, and how many tasks wait."""
    pool = snapshot.pools.get(pool_name)
    if pool is None:
        return Fleet(pool_name)
    pools = snapshot.pools.values()
    nodes = [node for _, node in sorted(snapshot.nodes.items()) if pool_of(node, pools) == pool_name]
    on_node = _tasks_by_node(snapshot)
    devices: list[Device] = []
    without_gpu: list[OnDevice] = []
    for node in nodes:
        units = on_node.get(node.name, ())
        without_gpu += [unit.held for unit in units if unit.gpus == 0]
        devices += _devices_of(gpus.in_pool(node, pool.spec), pool, [unit for unit in units if unit.gpus], len(devices))
    return Fleet(
        pool=pool_name,
        exists=True,
        devices=tuple(devices),
        cpu=_cpus(nodes, pool, snapshot, without_gpu),
        waiting=_waiting(snapshot.jobs.values(), pool_name),
        cuda_version=min(filter(None, map(_cuda, nodes)), key=_by_number, default=None),
    )


# --- tasks


@dataclass(frozen=True)
class _Unit:
    """One pod of a task."""

    held: OnDevice
    gpus: int
    uuid: str


def _tasks_by_node(snapshot: Snapshot) -> Mapping[str, list[_Unit]]:
    found: defaultdict[str, list[_Unit]] = defaultdict(list)
    for job in snapshot.jobs.values():
        if is_active(job):
            held = OnDevice(_type(job), job.namespace, job.name)
            for a in job.status.assignments:
                found[a.node].append(_Unit(held, a.gpus, a.gpu_uuid))
    for units in found.values():
        units.sort(key=lambda unit: (unit.held.namespace, unit.held.job))
    return found


def _type(job: Job) -> TaskType:
    return "training" if job.kind is Kind.TRAINING else "inference"


def _waiting(jobs: Iterable[Job], pool: str) -> Counts:
    trainings = inferences = 0
    for job in jobs:
        if job.spec.pool == pool and job.status.phase in (None, Phase.QUEUED) and not job.spec.cancel:
            if job.kind is Kind.TRAINING:
                trainings += 1
            else:
                inferences += 1
    return Counts(trainings, inferences)


# --- GPUs


def _devices_of(node: Node, pool: Pool, units: Iterable[_Unit], first: int) -> Iterator[Device]:
    number = 0 if node.gpu_unknown or not node.gpu_replicas else node.gpu_capacity // node.gpu_replicas
    if not number:
        return
    tier = tier_of(node, pool.spec.per_gpu)
    slots = _slots(tier, node.gpu_replicas)
    placed = _spread(units, number)
    for index in range(number):
        yield Device(
            number=first + index,
            node=node.name,
            index=index,
            product=node.labels.get(f"{GPU}.product", "").removesuffix(_SHARED),
            compute_capability=_compute_capability(node),
            memory_gib=None if node.gpu_memory_mib is None else round(node.gpu_memory_mib / _MIB_OF_A_GIB, 2),
            open=node.is_open,
            min_memory=tier.min_memory,
            limits=slots,
            tasks=tuple(placed[index]),
        )


def _slots(tier: GpuTier, replicas: int) -> Counts:
    """A GPU that is not shared takes one task, whatever the pool allows."""
    return Counts(min(tier.training, replicas), min(tier.inference, replicas))


def _spread(units: Iterable[_Unit], number: int) -> list[list[OnDevice]]:
    """The tasks of each of a node's devices."""
    placed: list[list[OnDevice]] = [[] for _ in range(number)]
    together: dict[str, list[_Unit]] = {}
    alone: list[list[_Unit]] = []
    for unit in units:
        if unit.uuid and unit.gpus == 1:
            together.setdefault(unit.uuid, []).append(unit)
        else:
            alone.append([unit])
    for group in (*(together[uuid] for uuid in sorted(together)), *alone):
        kind = group[0].held.type
        emptiest = sorted(range(number), key=_load(placed, kind))
        for index in emptiest[: max(unit.gpus for unit in group)]:
            placed[index] += [unit.held for unit in group]
    return placed


def _load(placed: list[list[OnDevice]], kind: TaskType) -> Callable[[int], tuple[int, int, int]]:
    return lambda index: (sum(one.type == kind for one in placed[index]), len(placed[index]), index)


def _compute_capability(node: Node) -> str | None:
    major, minor = (node.labels.get(f"{GPU}.compute.{part}") for part in ("major", "minor"))
    return f"{major}.{minor}" if major and minor else None


def _cuda(node: Node) -> str | None:
    major, minor = (node.labels.get(f"nvidia.com/cuda.runtime.{part}") for part in ("major", "minor"))
    return f"{major}.{minor}" if major and minor else None


def _by_number(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))


# --- CPUs


def _cpus(nodes: Iterable[Node], pool: Pool, snapshot: Snapshot, tasks: Iterable[OnDevice]) -> Cpus:
    here = {node.name: node for node in nodes}
    of_jobs = (pod for pods in snapshot.pods_of.values() for pod in pods.values())
    of_others = (pod for name in here for pod in snapshot.foreign.get(name, ()))
    milli = memory = 0
    for pod in (*of_jobs, *of_others):
        if pod.node in here and may_live(pod, snapshot.nodes):
            milli += pod.requests.cpu_milli
            memory += pod.requests.memory
    per_node = pool.spec.per_node_cpu
    return Cpus(
        nodes=len(here),
        milli=sum(node.allocatable.cpu_milli for node in here.values()),
        requested_milli=milli,
        memory=sum(node.allocatable.memory for node in here.values()),
        requested_memory=memory,
        limits=Counts(per_node.training * len(here), per_node.inference * len(here)),
        tasks=tuple(tasks),
    )
