"""Small builders of the core's values: every test names only what it is about."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rfuav_operator.core.model import (
    Claim,
    CreatePod,
    Defaults,
    GpuShare,
    GpuTier,
    Job,
    JobSpec,
    JobStatus,
    Kind,
    ModelSource,
    Namespace,
    Node,
    NodeName,
    NodeTerm,
    PatchStatus,
    PerNodeCpu,
    Pod,
    PodPhase,
    Pool,
    PoolQuota,
    PoolSpec,
    Preemption,
    PriorityAccess,
    PriorityClass,
    Quota,
    QuotaSpec,
    Report,
    Requirement,
    ResourceQuota,
    Resources,
    Snapshot,
    Uid,
    Volume,
)
from rfuav_operator.core.quantity import Amounts
from rfuav_operator.core.scheduler import Turn, turn

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)
DEFAULTS = Defaults(image="trainer:1", progress_url="https://progress.rfuav:8443", progress_ca="PEM")
GPU_RESOURCES = Resources(gpus=1, cpu="1", memory="1Gi")


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def job(
    name: str = "a",
    *,
    kind: Kind = Kind.TRAINING,
    namespace: str = "team",
    uid: str = "",
    created: datetime = T0,
    generation: int = 1,
    deleting: bool = False,
    status: JobStatus | None = None,
    resources: Resources = GPU_RESOURCES,
    raw: dict[str, Any] | None = None,
    problems: tuple[str, ...] = (),
    source: str = "",
    claims: tuple[str, ...] = (),
    **spec: Any,
) -> Job:
    document = {"output": {"uri": f"pvc://models/{name}"}} if raw is None else raw
    return Job(
        kind=kind,
        namespace=namespace,
        name=name,
        uid=Uid(uid or f"uid-{name}"),
        resource_version="1",
        generation=generation,
        created=created,
        deleting=deleting,
        spec=JobSpec(resources=resources, model=ModelSource(from_training_job=source), **spec),
        raw_spec=document,
        status=status or JobStatus(),
        problems=problems,
        claims=claims,
    )


def node(
    name: str = "n1", *, gpus: int = 2, slots: int = 8, memory_mib: int | None = 24000, cpu: int = 32, **rest: Any
) -> Node:
    """Of `gpus` healthy GPUs; without `memory_mib` it has no labels of GPU feature discovery."""
    known = memory_mib is not None or slots == 0
    return Node(
        name=NodeName(name),
        labels=rest.pop("labels", {}),
        gpu_capacity=rest.pop("capacity", slots),
        gpus=gpus if known else 0,
        gpu_replicas=rest.pop("gpu_replicas", max(1, slots // gpus) if known and gpus else 0),
        gpu_memory_mib=memory_mib,
        gpu_unknown="" if known else "no labels nvidia.com/gpu.*",
        allocatable=Amounts(
            slots=slots, cpu_milli=cpu * 1000, memory=rest.pop("memory_gi", 128) * 2**30, pods=rest.pop("pods", 110)
        ),
        **rest,
    )


def pool(name: str = "default", *, problems: tuple[str, ...] = (), **spec: Any) -> Pool:
    spec.setdefault(
        "per_gpu",
        (
            GpuTier(min_memory="22Gi", training=1, inference=3),
            GpuTier(min_memory="11Gi", training=1, inference=2),
            GpuTier(min_memory=0, training=1, inference=1),
        ),
    )
    spec.setdefault("per_node_cpu", PerNodeCpu())
    spec.setdefault("priority_classes", (PriorityAccess(ceiling=2**31 - 1),))
    return Pool(
        name=name,
        uid=Uid(f"pool-{name}"),
        resource_version="1",
        generation=1,
        spec=PoolSpec(**spec),
        problems=problems,
    )


def whole(name: str = "n1", *, gpus: int = 4, **rest: Any) -> Node:
    """A node that does not share its GPUs: one slot each."""
    return node(name, gpus=gpus, slots=gpus, **rest)


PREEMPTION = Preemption(within_pool="LowerPriority", min_runtime_seconds=60)
RECLAIM = Preemption(reclaim_borrowed="Any", min_runtime_seconds=60)
CLASSES = {name: PriorityClass(name=name, value=value) for name, value in (("low", 10), ("mid", 500), ("high", 9000))}


def quota(
    namespace: str = "team",
    nominal: int = 0,
    *,
    pool: str = "default",
    borrow: int | None = None,
    lend: int | None = None,
    training: int | None = None,
    inference: int | None = None,
    **spec: Any,
) -> Quota:
    entry = PoolQuota(
        name=pool,
        gpus=GpuShare(nominal=nominal, borrowing_limit=borrow, lending_limit=lend),
        max_training_jobs=training,
        max_inference_jobs=inference,
    )
    return Quota(
        namespace=namespace,
        uid=Uid(f"quota-{namespace}"),
        resource_version="1",
        generation=1,
        spec=QuotaSpec(pools=(entry,), **spec),
    )


def resource_quota(namespace: str = "team", *, used: dict[str, int] | None = None, **hard: int) -> ResourceQuota:
    """`hard` and `used` by the short names gpus, cpu (millicores), memory (bytes) and pods."""
    keys = {"gpus": "requests.nvidia.com/gpu", "cpu": "requests.cpu", "memory": "requests.memory", "pods": "pods"}
    keys["limits"] = "limits.cpu"
    return ResourceQuota(
        namespace=namespace,
        name="rq",
        hard={keys[name]: value for name, value in hard.items()},
        used=dict.fromkeys((keys[name] for name in hard), 0) | {keys[n]: value for n, value in (used or {}).items()},
    )


def claim(name: str = "data", mode: str = "ReadWriteMany", volume: str = "", **changes: Any) -> Claim:
    """A claim of namespace team, bound if it names a volume."""
    values: dict[str, Any] = {"namespace": "team", "phase": "Bound" if volume else "Pending"} | changes
    return Claim(name=name, modes=frozenset([mode]), volume=volume, **values)


def volume(name: str, *nodes: str, **zones: str) -> Volume:
    """A volume that these nodes can mount, or those of the zone and region named; without either: all."""
    wanted = Requirement(key="kubernetes.io/hostname", operator="In", values=nodes)
    return Volume(
        name=name,
        terms=(NodeTerm(match_expressions=(wanted,)),) if nodes else None,
        zones=tuple((f"topology.kubernetes.io/{key}", frozenset(v.split("__"))) for key, v in zones.items()),
    )


def pod_of(owner: Job, *, at: int = 0, **changes: Any) -> Pod:
    """The pod of the job's assignment `at`, pending and not bound unless `changes` say otherwise."""
    held = owner.status.assignments[at]
    values: dict[str, Any] = {
        "namespace": owner.namespace,
        "name": held.pod,
        "uid": Uid(f"pod-{held.pod}"),
        "kind": owner.kind,
        "job_uid": owner.uid,
        "attempt": owner.status.attempt,
        "index": held.shard or 0,
        "wanted_node": NodeName(held.node),
        "created": T0,
        "requests": Amounts(slots=held.gpus, cpu_milli=1000, memory=2**30, pods=1),
    }
    values |= changes
    if values.get("phase") in (PodPhase.RUNNING, PodPhase.SUCCEEDED, PodPhase.FAILED):
        values.setdefault("node", NodeName(held.node))
        values.setdefault("started_at", T0)
    return Pod(**values)


def foreign_pod(
    name: str,
    on: str,
    *,
    gpus: int = 0,
    cpu: int = 0,
    memory_gi: int = 0,
    namespace: str = "other",
    claims: tuple[str, ...] = (),
    **changes: Any,
) -> Pod:
    values: dict[str, Any] = {"node": NodeName(on), "created": T0, "phase": PodPhase.RUNNING}
    return Pod(
        namespace=namespace,
        claims=claims,
        name=name,
        uid=Uid(f"pod-{name}"),
        requests=Amounts(slots=gpus, cpu_milli=cpu * 1000, memory=memory_gi * 2**30, pods=1),
        **values | changes,
    )


def orphan(name: str, on: str, **changes: Any) -> Pod:
    """A pod with our label and without an owner, made for a node and not bound to it."""
    wanted = {"node": None, "wanted_node": NodeName(on), "kind": Kind.TRAINING, "phase": PodPhase.PENDING}
    return foreign_pod(name, on, gpus=changes.pop("gpus", 1), **wanted | changes)


def snapshot(
    jobs: Iterable[Job] = (),
    *,
    pods: Iterable[Pod] = (),
    foreign: Iterable[Pod] = (),
    nodes: Iterable[Node] | None = None,
    pools: Iterable[Pool] | None = None,
    quotas: Iterable[Quota] = (),
    resource_quotas: Iterable[ResourceQuota] = (),
    namespaces: Iterable[Namespace] = (),
    claims: Iterable[Claim] | None = None,
    volumes: Iterable[Volume] = (),
    **rest: Any,
) -> Snapshot:
    pods_of: dict[Uid, dict[str, Pod]] = {}
    for p in pods:
        assert p.job_uid is not None
        pods_of.setdefault(p.job_uid, {})[p.name] = p
    others: dict[NodeName, tuple[Pod, ...]] = {}
    for p in foreign:
        on = p.node or p.wanted_node
        assert on is not None
        others[on] = (*others.get(on, ()), p)
    rest.setdefault("creating", {})
    rest.setdefault("priority_classes", CLASSES)
    rest.setdefault("defaults", DEFAULTS)
    return Snapshot(
        jobs={j.uid: j for j in jobs},
        pods_of=pods_of,
        foreign=others,
        nodes={n.name: n for n in ([node()] if nodes is None else nodes)},
        pools={p.name: p for p in ([pool()] if pools is None else pools)},
        quotas={q.namespace: q for q in quotas},
        resource_quotas={q.namespace: {q.name: q} for q in resource_quotas},
        namespaces={n.name: n for n in namespaces},
        claims={(c.namespace, c.name): c for c in ([claim("m"), claim("models")] if claims is None else claims)},
        volumes={v.name: v for v in volumes},
        **rest,
    )


def run(
    seen: Snapshot, *, now: datetime = T0, reports: Sequence[Report] = (), plan: bool = True, dirty: Any = None
) -> Turn:
    """One turn with every job dirty."""
    return turn(seen, changed=list(seen.jobs) if dirty is None else dirty, reports=reports, now=now, plan=plan)


def of_type(done: Turn, kind: type) -> list[Any]:
    return [a for a in done.actions if isinstance(a, kind)]


def statuses(done: Turn) -> dict[str, JobStatus]:
    """The statuses that the turn writes, by job name."""
    return {a.job.name: a.status for a in of_type(done, PatchStatus)}


def created(done: Turn) -> list[str]:
    return [a.name for a in of_type(done, CreatePod)]


def admitted(*jobs: Job, now: datetime = T0, **snap: Any) -> list[Job]:
    """The jobs as a first turn leaves them."""
    from msgspec.structs import replace

    wrote = statuses(run(snapshot(jobs, **snap), now=now))
    return [replace(j, status=wrote.get(j.name, j.status)) for j in jobs]
