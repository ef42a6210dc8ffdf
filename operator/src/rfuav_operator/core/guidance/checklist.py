"""Everything that stands between a job and its GPUs, as a list that is ticked off; and how a job goes that has them.

In: a job, and its pool and its namespace's quota, as far as the caller may read them. Out: steps, in the order in which
the operator looks at them. The operator's own verdict (`status.reason`) decides: the steps before it are done, and that
one is not. Those behind it are judged by the numbers in the status of the pool and of the quota, if they suffice.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from rfuav_crds import reasons
from rfuav_crds.modes import StopPolicy
from rfuav_operator.core import conditions
from rfuav_operator.core.guidance.advice import advice
from rfuav_operator.core.guidance.spans import span
from rfuav_operator.core.model import Assignment, Job, Kind, Phase, Pool, PoolQuota, Quota

_UNSEEN_SECONDS = 10  # a job without a status for longer: the operator does not run
_SILENT_SECONDS = 180  # a running job reports more often
_SHOWN = 4  # nodes
POOL, QUOTA = "pool", "quota"
"""What may be unread."""


class Step(msgspec.Struct, frozen=True):
    """One thing that must be so.

    Attributes:
        ok: whether it is; None: not known, or the operator has not come so far.
        what: the thing, in a few words.
        detail: the numbers; for a thing that is not so, why, and what to do.
    """

    ok: bool | None
    what: str
    detail: str = ""


def checklist(
    job: Job, *, pool: Pool | None, quota: Quota | None, now: datetime, unread: Collection[str] = ()
) -> tuple[Step, ...]:
    """The steps of a job.

    Args:
        job: as it is stored.
        pool: the pool that it names; None: there is none, or it was not read.
        quota: the GPUQuota of its namespace; None likewise.
        now: the API server's time.
        unread: what the caller may not read: `POOL`, `QUOTA`.
    """
    phase = job.status.phase
    if phase is not None and phase.terminal:
        return tuple(_ended(job))
    if phase in (Phase.ADMITTED, Phase.RUNNING):
        return tuple(_going(job, now))
    return tuple(_waiting(job, pool, quota, now, unread))


# --- a job waits


def _waiting(
    job: Job, pool: Pool | None, quota: Quota | None, now: datetime, unread: Collection[str]
) -> Iterator[Step]:
    status, spec = job.status, job.spec
    if status.phase is None:
        waited = (now - job.created).total_seconds()
        if waited > _UNSEEN_SECONDS:
            yield Step(
                False, "the operator has seen it", f"no status after {span(waited)}: check that the operator runs"
            )
        else:
            yield Step(None, "the operator has seen it", "it was created just now")
    if status.phase is Phase.SUSPENDED or spec.suspend:
        yield Step(False, "it is not suspended", _with_advice(status.message or "suspend: true", "resume it"))
    gates = list(_gates(job, pool, quota, unread))
    reached = next((at for at, (found, _) in enumerate(gates) if status.reason in found), None)
    if reached is None and status.reason and status.phase is Phase.QUEUED:
        yield Step(None, "it waits for the next look at the queue", f"{status.reason}: {status.message}")
    for at, (_, step) in enumerate(gates):
        if reached is None or at > reached:
            yield step
        elif at < reached:
            yield Step(True, step.what, step.detail if step.ok else "")
        else:
            yield Step(False, step.what, _with_advice(status.message or status.reason, advice(status.reason)))
    yield _place(job, now)


def _gates(
    job: Job, pool: Pool | None, quota: Quota | None, unread: Collection[str]
) -> Iterator[tuple[frozenset[str], Step]]:
    """What the operator looks at, in its order: the reasons with which it stops there, and what is known beside."""
    name, source = job.spec.pool, job.spec.model.from_training_job
    of_pool = pool.status if pool is not None else {}
    yield frozenset({reasons.UNDECODABLE, reasons.INTERNAL_ERROR}), _readable(job)
    yield frozenset({reasons.ON_HOLD}), _open(name, pool, quota, unread)
    yield frozenset({reasons.MISCONFIGURED}), Step(not job.problems, "its manifest can run", "; ".join(job.problems))
    claims = f"claims: {', '.join(job.claims)}" if job.claims else "it names no claim"
    yield frozenset({reasons.WAITING_FOR_VOLUME}), Step(None if job.claims else True, "its volumes are there", claims)
    if source:
        known = job.status.source
        found = Step(
            known is not None or None, "its weights are there", known.weights if known else f"of TrainingJob {source}"
        )
        yield frozenset({reasons.WAITING_FOR_TRAINING_JOB}), found
    yield frozenset({reasons.BACKING_OFF, reasons.REJECTED_BY_CLUSTER}), _pause(job)
    yield (
        frozenset({reasons.NO_MATCHING_NODE, reasons.EXCEEDS_MAX_QUOTA, reasons.UNSCHEDULABLE}),
        Step(None, "a node can take it, once it is free", _nodes(name, of_pool)),
    )
    yield frozenset({reasons.WAITING_FOR_QUOTA}), _share(job, pool, quota, unread)
    yield frozenset({reasons.WAITING_FOR_CAPACITY, reasons.WAITING_FOR_PREEMPTED_JOBS}), _room(job, of_pool)


def _readable(job: Job) -> Step:
    return Step(not job.set_aside, "the operator can read it", job.set_aside)


def _open(name: str, pool: Pool | None, quota: Quota | None, unread: Collection[str]) -> Step:
    what = f"pool {name} admits jobs"
    if pool is None:
        return Step(None, what, "you may not read pools") if POOL in unread else Step(False, what, "it does not exist")
    ready = _condition(pool.status, "Ready")
    if pool.spec.stop_policy != StopPolicy.NONE:
        return Step(False, what, f"stopPolicy is {pool.spec.stop_policy}")
    if quota is not None and quota.spec.stop_policy != StopPolicy.NONE:
        return Step(False, what, f"GPUQuota default of namespace {quota.namespace} is on hold")
    return Step(None if ready is None else ready[0], what, "" if ready is None else ready[1])


def _pause(job: Job) -> Step:
    counted = f"{job.status.counted_failures} failures counted, at most {job.spec.backoff_limit} are allowed"
    return Step(True, "no pause after a failure", counted if job.status.failures else "it has not failed")


def _nodes(name: str, of_pool: Mapping[str, Any]) -> str:
    if not of_pool:
        return ""
    nodes, gpus = _count(of_pool, "nodes"), _count(of_pool, "gpus")
    return f"pool {name} has {nodes} node{'s' * (nodes != 1)} with {gpus} GPU{'s' * (gpus != 1)}"


def _share(job: Job, pool: Pool | None, quota: Quota | None, unread: Collection[str]) -> Step:
    """The team's share of the pool, with what it uses now."""
    what = f"namespace {job.namespace} has quota left"
    if QUOTA in unread:
        return Step(None, what, "you may not read its GPUQuota")
    entry = _entry(job.spec.pool, pool, quota)
    if entry is None:
        return Step(True, what, "no limit: it has no GPUQuota for the pool, and the pool has no default")
    used = _used(job.spec.pool, quota)
    if used is None:
        return Step(None, what, _limits(entry))
    slots, running = used
    most = entry.max_training_jobs if job.kind is Kind.TRAINING else entry.max_inference_jobs
    limit = None if entry.gpus.borrowing_limit is None else entry.gpus.nominal + entry.gpus.borrowing_limit
    fits = (limit is None or slots + _slots(job) <= limit) and (most is None or running[job.kind] < most)
    text = f"it uses {slots} of {'any number of' if limit is None else limit} GPU slots"
    text += f" ({entry.gpus.nominal} are its own)"
    if most is not None:
        text += f"; {running[job.kind]} of at most {most} {job.kind.word} jobs run"
    return Step(fits, what, text)


def _entry(name: str, pool: Pool | None, quota: Quota | None) -> PoolQuota | None:
    entries = () if quota is None else quota.spec.pools
    return next((e for e in entries if e.name == name), None if pool is None else pool.spec.default_quota)


def _used(name: str, quota: Quota | None) -> tuple[int, dict[Kind, int]] | None:
    """Slots that the namespace holds in the pool and the jobs that hold them; None: nobody has counted."""
    entries = quota.status.get("pools") if quota is not None else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and entry.get("name") == name:
            admitted = entry.get("admitted")
            admitted = admitted if isinstance(admitted, Mapping) else {}
            return _count(entry, "used"), {kind: _count(admitted, kind.word) for kind in Kind}
    return None


def _limits(entry: PoolQuota) -> str:
    own = f"{entry.gpus.nominal} GPU slots are its own"
    if entry.gpus.borrowing_limit is None:
        return f"{own}, and it may borrow"
    return f"{own}, and it may borrow {entry.gpus.borrowing_limit}"


def _room(job: Job, of_pool: Mapping[str, Any]) -> Step:
    what = f"pool {job.spec.pool} has room for {_wanted(job)}"
    if not of_pool:
        return Step(None, what)
    held = of_pool.get("slotsInUse")
    held = held if isinstance(held, Mapping) else {}
    slots, training, inference = _count(of_pool, "slots"), _count(held, "training"), _count(held, "inference")
    others = _count(of_pool, "foreignSlots")
    free = max(0, slots - training - inference - others)
    text = f"{free} of {slots} GPU slots are free ({training} in use by trainings, {inference} by inferences"
    text += f", {others} by other workloads)" if others else ")"
    return Step(False if free < _slots(job) else None, what, text)


def _place(job: Job, now: datetime) -> Step:
    queue, what = job.status.queue, "it is its turn"
    if queue is None:
        return Step(None, what, "it has no place in the queue yet")
    text = f"place {queue.position} of {queue.of}"
    if queue.estimated_start is not None:
        left = (queue.estimated_start - now).total_seconds()
        text += f", starts in about {span(left)}" if left > 0 else ", is about to start"
    return Step(queue.position == 1, what, text)


# --- a job has room


def _going(job: Job, now: datetime) -> Iterator[Step]:
    status = job.status
    since = "" if status.admitted_at is None else f"{span((now - status.admitted_at).total_seconds())} ago, "
    yield Step(True, "it has room", f"{since}{_where(status.assignments)}")
    if any(a.stopping for a in status.assignments):
        yield Step(
            False, "it keeps its room", _with_advice(f"{status.reason}: {status.message}", advice(status.reason))
        )
    elif status.phase is Phase.ADMITTED:
        yield Step(False, "its pods run", _with_advice(status.message or status.reason, _of_start(status.reason)))
    else:
        runs = "" if status.running_since is None else span((now - status.running_since).total_seconds())
        yield Step(
            not status.reason, "its pods run", f"{status.reason}: {status.message}" if status.reason else f"for {runs}"
        )
        yield _progress(job, now)
    shared = conditions.find(status.conditions, "GPUShared")
    if shared is not None and shared.status == "True":
        yield Step(False, "no other training is on its GPU", shared.message)
    yield from _failures(job)


def _of_start(reason: str) -> str:
    return "" if reason == reasons.STARTING else advice(reason)


def _progress(job: Job, now: datetime) -> Step:
    progress, what = job.status.progress, "it reports progress"
    if progress is None:
        return Step(None, what, "nothing has been reported yet")
    parts = []
    if progress.epoch is not None:
        parts.append(f"epoch {progress.epoch}" + (f" of {progress.total_epochs}" if progress.total_epochs else ""))
    if progress.processed is not None:
        parts.append(f"{progress.processed} inputs" + (f" of {progress.total}" if progress.total else ""))
    if progress.percent is not None:
        parts.append(f"{progress.percent} %")
    if progress.remaining_seconds is not None:
        parts.append(f"{span(progress.remaining_seconds)} left")
    silent = None if progress.updated_at is None else (now - progress.updated_at).total_seconds()
    if silent is not None:
        parts.append(f"heard {span(silent)} ago")
    return Step(silent is None or silent < _SILENT_SECONDS, what, ", ".join(parts))


def _where(assignments: Collection[Assignment]) -> str:
    nodes = sorted({a.node for a in assignments if a.node})
    slots = sum(a.gpus for a in assignments)
    shown = ", ".join(nodes[:_SHOWN]) + (f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else "")
    return f"{slots} GPU slot{'s' * (slots != 1)} on {shown or 'a node that is being added'}"


# --- a job has ended


def _ended(job: Job) -> Iterator[Step]:
    status = job.status
    took = "" if status.running_seconds == 0 else f"it ran for {span(status.running_seconds)}"
    if status.phase is Phase.SUCCEEDED:
        yield Step(True, "it has succeeded", took)
        for name, uri in sorted(status.outputs.items()):
            yield Step(True, name, uri)
        return
    if status.phase is Phase.CANCELLED:
        yield Step(False, "it was cancelled", status.message)
        return
    yield Step(False, "it has failed", _with_advice(f"{status.reason}: {status.message}", advice(status.reason)))
    yield from _failures(job)


def _failures(job: Job) -> Iterator[Step]:
    for failure in job.status.failures:
        where = f" on {failure.node}" if failure.node else ""
        code = "" if failure.exit_code is None else f" (exit code {failure.exit_code})"
        text = f"{failure.reason}{code}{where}: {failure.message}"
        yield Step(False, f"attempt {failure.attempt}", _with_advice(text, advice(failure.reason)))


# --- words


def _wanted(job: Job) -> str:
    slots = _slots(job)
    return f"{slots} GPU slot{'s' * (slots != 1)}" if slots else "a job without GPU"


def _slots(job: Job) -> int:
    """Slots that the job takes to begin: all nodes of a training, one shard of an inference."""
    return job.spec.resources.gpus * (job.spec.nodes if job.kind is Kind.TRAINING else 1)


def _with_advice(text: str, what: str) -> str:
    return f"{text}. To do: {what}" if what else text


def _condition(status: Mapping[str, Any], kind: str) -> tuple[bool, str] | None:
    found = status.get("conditions")
    for one in found if isinstance(found, list) else ():
        if isinstance(one, Mapping) and one.get("type") == kind:
            return one.get("status") == "True", str(one.get("message") or "")
    return None


def _count(values: Mapping[str, Any], key: str) -> int:
    found = values.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0
