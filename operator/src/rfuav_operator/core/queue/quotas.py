"""What a namespace may use of a pool: GPUQuota with borrowing and lending, and the plain ResourceQuotas.

In: the current usage. Out: whether one more pod may be admitted, with the numbers if not.

A namespace may always use its nominal share. Beyond it, it borrows what is idle: the capacity minus what others hold or
reserve (the part of their nominal share above their lendingLimit), up to its borrowingLimit.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

from rfuav_crds import reasons
from rfuav_operator.core import quantity
from rfuav_operator.core.capacity.explain import Reason, needs
from rfuav_operator.core.capacity.room import Allocation, Room, Shape
from rfuav_operator.core.capacity.usage import Usage, planned
from rfuav_operator.core.model import GpuShare, Job, Kind, PoolQuota, Snapshot
from rfuav_operator.core.quantity import Amounts

_NONE = PoolQuota()
_MOST = 1_000_000  # GPU slots, more than any pool has
_CPU_LIMIT = "limits.cpu"  # the one limit that is not the request
_FIELDS = {key: field for field, resource in quantity.RESOURCES.items() for key in resource.quota_keys}
HONOURED = {key: quantity.RESOURCES[field] for key, field in _FIELDS.items()} | {
    _CPU_LIMIT: quantity.RESOURCES["cpu_milli"]
}
"""What of a ResourceQuota is honoured before a pod is created; the rest is left to the API server."""


def entry_of(namespace: str, pool: str, snapshot: Snapshot) -> PoolQuota:
    """What a namespace may use of a pool: its GPUQuota's entry, else the pool's default.

    Without either: nothing of its own, and no limit.
    """
    quota, held = snapshot.quotas.get(namespace), snapshot.pools.get(pool)
    entries = () if quota is None else quota.spec.pools
    default = held.spec.default_quota if held is not None else None
    found = next((entry for entry in entries if entry.name == pool), default or _NONE)
    return _unreadable(found) if quota is not None and quota.unreadable else found


def _unreadable(before: PoolQuota) -> PoolQuota:
    """An unreadable quota: what the namespace holds is not borrowed, and its last known reserve stays reserved."""
    return PoolQuota(name=before.name, gpus=GpuShare(nominal=_MOST, lending_limit=_MOST - before.gpus.reserved))


class Quotas:
    """The quotas of one pool during one plan.

    Args:
        pool: its name.
        snapshot: the state of now.
        usage: who holds which room.
        rooms: of the pool's nodes.
        waiting: namespaces with jobs that wait for the pool.
    """

    def __init__(
        self, pool: str, snapshot: Snapshot, usage: Usage, rooms: Iterable[Room], waiting: Iterable[str] = ()
    ) -> None:
        self._pool = pool
        self._snapshot = snapshot
        self._usage = usage
        at_work = self._at_work(waiting)
        self._entries = {ns: entry_of(ns, pool, snapshot) for ns in {*snapshot.quotas, *at_work}}
        self._keeping = {
            ns: entry.gpus.reserved
            for ns, entry in self._entries.items()
            if entry.gpus.reserved > 0 and (entry.name or ns in at_work)
        }
        self._capacity = (
            sum(r.node.gpu_slots - r.foreign_gpus for r in rooms if r.takes_gpu_jobs) if self._keeping else 0
        )
        self._promised: dict[str, list[Allocation]] = defaultdict(list)  # by namespace
        self._promised_jobs: Counter[tuple[str, Kind]] = Counter()

    def _at_work(self, waiting: Iterable[str]) -> set[str]:
        """Namespaces with jobs in the pool: for the others, the pool's default keeps nothing back."""
        holding = {ns for (pool, ns), share in self._usage.shares.items() if pool == self._pool and share.gpus > 0}
        return holding.union(waiting)

    def promise(self, job: Job, shape: Shape) -> None:
        """Count a blocked job that room is kept for as if it ran: what it will use is not given to others."""
        self._promised[job.namespace] += [planned(job, shape, "")] * shape.nodes
        self._promised_jobs[job.namespace, job.kind] += not job.status.assignments

    def _gpus(self, namespace: str) -> int:
        """GPU slots that it holds or that are promised to it."""
        promised = sum(held.gpus for held in self._promised.get(namespace, ()))
        return self._usage.share(self._pool, namespace).gpus + promised

    def entry(self, namespace: str) -> PoolQuota:
        """What the namespace may use of this pool."""
        found = self._entries.get(namespace)
        if found is None:
            found = self._entries[namespace] = entry_of(namespace, self._pool, self._snapshot)
        return found

    def borrowed(self, namespace: str) -> int:
        """GPU slots that it holds beyond its nominal share."""
        return max(0, self._usage.share(self._pool, namespace).gpus - self.entry(namespace).gpus.nominal)

    def is_nominal(self, namespace: str, shape: Shape) -> bool:
        """Whether the namespace would stay within its nominal share with this job."""
        return self._gpus(namespace) + shape.total_gpus <= self.entry(namespace).gpus.nominal

    def share(self, namespace: str, gpu: bool, *, more: int = 0) -> float:
        """The namespace's weighted share, which orders the queue: smallest first.

        Within its nominal share: the used fraction, below 1. Beyond it: 1 plus what it borrows, divided by its weight.
        Jobs without GPU: their number, divided by the weight. `more`: slots or pods to add to those held.
        """
        held, quota = self._usage.share(self._pool, namespace), self._snapshot.quotas.get(namespace)
        weight = quota.spec.weight if quota is not None else 1
        if not gpu:
            return (held.cpu_pods + more) / weight
        nominal, used = self.entry(namespace).gpus.nominal, held.gpus + more
        return used / nominal if used < nominal else 1 + (used - nominal) / weight

    def never(self, namespace: str, shape: Shape) -> Reason | None:
        """Why the namespace may never run this shape, however idle the pool; None: it may."""
        return never(self._pool, namespace, shape, self._snapshot)

    def refuses(self, namespace: str, shape: Shape, *, started: bool) -> Reason | None:
        """Why the namespace may not start this shape now; None: it may. `started`: the job has an admitted pod."""
        return self.over_limits(namespace, shape, started=started) or self.over_resources(namespace, shape)

    def over_limits(self, namespace: str, shape: Shape, *, started: bool) -> Reason | None:
        """Why its GPUQuota has no place for it: the same for all of one kind that need as many GPUs."""
        over_jobs = self._over_jobs(namespace, shape, started=started)
        return over_jobs or (self._over_share(namespace, shape) if shape.gpus > 0 else None)

    def _over_jobs(self, namespace: str, shape: Shape, *, started: bool) -> Reason | None:
        most = _most_jobs(self.entry(namespace), shape.kind)
        running = self._usage.share(self._pool, namespace).jobs[shape.kind]
        promised = self._promised_jobs[namespace, shape.kind]
        if most is None or started or running + promised < most:
            return None
        text = f"namespace {namespace} runs {running} of at most {most} {shape.kind.word} jobs in pool {self._pool}"
        return Reason(reason=reasons.WAITING_FOR_QUOTA, message=text + _show_promised(promised))

    def _over_share(self, namespace: str, shape: Shape) -> Reason | None:
        gpus, held = self.entry(namespace).gpus, self._usage.share(self._pool, namespace).gpus
        promised = _show_promised(self._gpus(namespace) - held)
        wanted = self._gpus(namespace) + shape.total_gpus
        limit = None if gpus.borrowing_limit is None else gpus.nominal + gpus.borrowing_limit
        if limit is not None and wanted > limit:
            text = f"{needs(shape)}; namespace {namespace} uses {held} of {limit} in pool {self._pool}"
            text += f" (nominal {gpus.nominal}, may borrow {gpus.borrowing_limit}){promised}"
            return Reason(reason=reasons.WAITING_FOR_QUOTA, message=text)
        if wanted <= gpus.nominal or not self._keeping:
            return None
        others = {ns: kept for ns, kept in self._keeping.items() if ns != namespace}
        kept = sum(max(0, own - self._gpus(ns)) for ns, own in others.items())
        in_use = sum(share.gpus for (pool, _), share in self._usage.shares.items() if pool == self._pool)
        in_use += sum(held.gpus for several in self._promised.values() for held in several)
        idle = self._capacity - in_use - kept
        if shape.total_gpus <= idle:
            return None
        text = (
            f"{needs(shape)}; namespace {namespace} uses {held} in pool {self._pool} (nominal {gpus.nominal}); "
            f"{max(0, idle)} can be borrowed ({kept} idle are kept by namespaces that do not lend them){promised}"
        )
        return Reason(reason=reasons.WAITING_FOR_QUOTA, message=text)

    def over_resources(self, namespace: str, shape: Shape) -> Reason | None:
        """Why a plain ResourceQuota has no place for it: what it counts as used is the API server's word."""
        held = self._snapshot.resource_quotas.get(namespace)
        if not held:
            return None
        absent = [*self._usage.absent(namespace), *self._promised.get(namespace, ())]
        taken = quantity.total(held.requests for held in absent)
        taken_limit = sum(held.cpu_limit_milli for held in absent)
        for quota in held.values():
            if quota.unreadable:
                text = f"ResourceQuota {quota.name} of namespace {namespace} cannot be read: {quota.unreadable}"
                return Reason(reason=reasons.WAITING_FOR_QUOTA, message=f"{needs(shape)}; {text}")
            for key, hard in quota.hard.items():
                asked = _counted(key, shape.requests, shape.cpu_limit_milli) * shape.nodes
                if asked and key not in quota.used:
                    text = (
                        f"{needs(shape)}; ResourceQuota {quota.name} of namespace {namespace} does not say yet how "
                        f"much {key} is in use"
                    )
                    return Reason(reason=reasons.WAITING_FOR_QUOTA, message=text)
                used = quota.used.get(key, 0) + _counted(key, taken, taken_limit)
                if asked and used + asked > hard:
                    show = HONOURED[key].show
                    text = (
                        f"{needs(shape)}; ResourceQuota {quota.name} of namespace {namespace}: {show(used)} of "
                        f"{show(hard)} {key} in use, {show(asked)} needed"
                    )
                    return Reason(reason=reasons.WAITING_FOR_QUOTA, message=text)
        return None


def never(pool: str, namespace: str, shape: Shape, snapshot: Snapshot) -> Reason | None:
    """Why the namespace may never run this shape in the pool, however idle it is; None: it may."""
    entry = entry_of(namespace, pool, snapshot)
    gpus, most = entry.gpus, _most_jobs(entry, shape.kind)
    if most == 0:
        source = "GPUQuota" if entry.name else "the pool's defaultQuota"
        text = f"namespace {namespace} may run no {shape.kind.word} jobs in pool {pool} ({source})"
        return Reason(reason=reasons.EXCEEDS_MAX_QUOTA, message=text)
    if gpus.borrowing_limit is not None and shape.total_gpus > gpus.nominal + gpus.borrowing_limit:
        text = (
            f"{needs(shape)}; namespace {namespace} may use at most {gpus.nominal + gpus.borrowing_limit} in pool "
            f"{pool} (nominal {gpus.nominal}, borrowingLimit {gpus.borrowing_limit})"
        )
        return Reason(reason=reasons.EXCEEDS_MAX_QUOTA, message=text)
    for quota in snapshot.resource_quotas.get(namespace, {}).values():
        for key, hard in quota.hard.items():
            asked = _counted(key, shape.requests, shape.cpu_limit_milli) * shape.nodes
            if asked > hard:
                text = (
                    f"{needs(shape)}; ResourceQuota {quota.name} of namespace {namespace} allows "
                    f"{HONOURED[key].show(hard)} {key} in all, {HONOURED[key].show(asked)} needed"
                )
                return Reason(reason=reasons.EXCEEDS_MAX_QUOTA, message=text)
    return None


def _show_promised(count: int) -> str:
    return f"; {count} more reserved for a job that waits for room" if count else ""


def _most_jobs(entry: PoolQuota, kind: Kind) -> int | None:
    return entry.max_training_jobs if kind is Kind.TRAINING else entry.max_inference_jobs


def _counted(key: str, amounts: Amounts, cpu_limit_milli: int) -> int:
    """So much of these a ResourceQuota counts under the key."""
    if key == _CPU_LIMIT:
        return cpu_limit_milli
    counted: int = getattr(amounts, _FIELDS[key])
    return counted
