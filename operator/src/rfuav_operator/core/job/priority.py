"""What orders jobs: the value of their PriorityClass, which a pool may refuse to a namespace, and their age.

In: the job, its pool and the cluster's PriorityClasses and namespaces. Out: a value, or what is wrong.
"""

from datetime import datetime

from rfuav_operator.core.model import Defaults, Job, Kind, Pool, PriorityAccess, PriorityClass, Snapshot, Uid, is_active

_SHOWN = 8
Age = tuple[datetime, datetime, Uid]


def priority(job: Job, snapshot: Snapshot) -> int | None:
    """The value that orders the job; None: it waits, and names a PriorityClass that does not exist.

    An admitted job has the value that was recorded with its admission, whatever becomes of the class.
    """
    admitted, named = is_active(job), snapshot.priority_classes.get(job.spec.priority_class_name)
    if admitted and job.status.priority is not None:
        return job.status.priority
    if named is not None:
        return named.value
    if admitted or _names_default(job, snapshot.defaults):  # admitted before values were recorded
        return of_kind(job.kind, snapshot)
    return None


def age_of(job: Job) -> Age:
    """Orders jobs of one priority and namespace: the time when they queued, then UID, so that no two are equal."""
    return job.status.queued_at or job.created, job.created, job.uid


def of_kind(kind: Kind, snapshot: Snapshot) -> int:
    """The value of jobs of this kind that name no class; the settings give it when their class does not exist."""
    defaults = snapshot.defaults
    found = snapshot.priority_classes.get(_default_class(kind, defaults))
    if found is not None:
        return found.value
    return defaults.training_priority if kind is Kind.TRAINING else defaults.inference_priority


def _default_class(kind: Kind, defaults: Defaults) -> str:
    return defaults.training_priority_class if kind is Kind.TRAINING else defaults.inference_priority_class


def _names_default(job: Job, defaults: Defaults) -> bool:
    return job.spec.priority_class_name in ("", _default_class(job.kind, defaults))


def problem(job: Job, pool: Pool, snapshot: Snapshot) -> str:
    """Why a job that waits may not have its PriorityClass, and what to write instead; empty: it may."""
    name = job.spec.priority_class_name
    if is_active(job) or _names_default(job, snapshot.defaults):
        return ""
    access = _access(job, pool, snapshot)
    found = snapshot.priority_classes.get(name)
    if found is None:
        return f"spec.priorityClassName: PriorityClass {name} does not exist; {_instead(access, snapshot)}"
    if _allows(access, found):
        return ""
    if pool.spec.priority_classes is None:
        why = f"above {access[0].ceiling}, the highest value that pool {pool.name} allows"
    else:
        why = f"not allowed for namespace {job.namespace} in pool {pool.name}"
    return (
        f"spec.priorityClassName: PriorityClass {name} ({found.value}) is {why} (GPUPool, spec.priorityClasses); "
        f"{_instead(access, snapshot)}"
    )


def _access(job: Job, pool: Pool, snapshot: Snapshot) -> list[PriorityAccess]:
    """The entries of the pool's list that apply to the job's namespace."""
    listed = pool.spec.priority_classes
    if listed is None:
        return [PriorityAccess(ceiling=max(of_kind(kind, snapshot) for kind in Kind))]
    mine = snapshot.namespaces.get(job.namespace)
    return [one for one in listed if one.namespace_selector is None or one.namespace_selector.selects(mine)]


def _allows(access: list[PriorityAccess], named: PriorityClass) -> bool:
    return any(named.name in one.names or (one.ceiling is not None and named.value <= one.ceiling) for one in access)


def _instead(access: list[PriorityAccess], snapshot: Snapshot) -> str:
    """What the job may name."""
    allowed = sorted(name for name, found in snapshot.priority_classes.items() if _allows(access, found))
    if not allowed:
        return "leave it empty"
    more = f" and {len(allowed) - _SHOWN} more" if len(allowed) > _SHOWN else ""
    return f"leave it empty or write one of: {', '.join(allowed[:_SHOWN])}{more}"
