"""When time alone changes a job: its backoff, deadline and TTL, and how long its pods may wait, and for what.

A job, its pods and its pool's limits come in; instants go out. What happens then is decided in `lifecycle`.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from rfuav_crds import contract
from rfuav_operator.core.job import starting, units, vetoes
from rfuav_operator.core.model import Assignment, Job, JobStatus, Kind, Pod, PoolSpec

VETO_GRACE = timedelta(seconds=20)  # the scheduler tries again meanwhile: what it sees may be a moment old
AHEAD_GRACE = timedelta(seconds=60)  # the status that records a pod is read later than the pod, but not so much
CAUSE_GRACE = timedelta(seconds=10)  # kubelets of several nodes report their pods at different times
CAUSE_LATEST = timedelta(seconds=20)  # where the clock of a node is ahead by more, its pod is judged at once


def next_time(job: Job, facts_pods: Mapping[str, Pod], pool: PoolSpec) -> datetime | None:
    """The next instant at which time alone changes the job; a past one means that it is due."""
    status = job.status
    if job.deleting or job.set_aside or status.phase is None:
        return None
    if status.phase.terminal:
        ttl = job.spec.ttl_seconds_after_finished
        return None if ttl is None or status.finished_at is None else status.finished_at + timedelta(seconds=ttl)
    times = [t for t in (status.not_before, deadline(job)) if t is not None]
    times += status.avoided_nodes.values()
    if status.shards is not None:
        times += status.shards.not_before.values()
    for a in status.assignments:
        pod = facts_pods.get(a.pod)
        if (due := cause_due(a, job, facts_pods)) is not None:
            times.append(due)
        if pod is None or pod.ended or pod.deleting or pod.unreadable or a.stopping or pod.started:
            continue
        if pod.node is None:
            times.append(bind_due(a, pod, pool))
        else:  # an error that no step has recorded yet is due
            times.append(wait_of(pod, a, status, pool, pod.created).until)
    named = {a.pod for a in status.assignments}
    times += [
        pod.created + AHEAD_GRACE
        for pod in facts_pods.values()
        if pod.live and not pod.deleting and pod.name not in named
    ]
    return min(times, default=None)


def deadline(job: Job) -> datetime | None:
    """When `activeDeadlineSeconds` ends the present run; None: it does not run, or has no deadline."""
    limit, since = job.spec.active_deadline_seconds, job.status.running_since
    if limit is None or since is None:
        return None
    return since + timedelta(seconds=max(0, limit - job.status.running_seconds))


def bind_seconds(a: Assignment, pool: PoolSpec) -> int:
    """How long a pod may wait to be bound."""
    return pool.schedule_timeout_seconds if a.node else pool.scale_up.timeout_seconds


def bind_due(a: Assignment, pod: Pod, pool: PoolSpec) -> datetime:
    """When a pod that is not bound gives its room back: soon if the scheduler says that its node is not for it."""
    due = pod.created + timedelta(seconds=bind_seconds(a, pool))
    if is_refused(a, pod):
        due = min(due, (pod.unschedulable_since or pod.created) + VETO_GRACE)
    return due


def is_refused(a: Assignment, pod: Pod) -> bool:
    """Whether the scheduler says that the pod's node, or its volume, is not for it."""
    return bool(a.node) and vetoes.of(pod.unschedulable) is not None


def wait_of(pod: Pod, a: Assignment, status: JobStatus, pool: PoolSpec, now: datetime) -> starting.Wait:
    """What a bound pod waits for that has not started, and until when."""
    tries = sum(units.failures(status, a.shard)) + status.rejections
    return starting.wait_of(pod, a, now=now, limit=pool.start_timeout_seconds, tries=tries)


def cause_due(a: Assignment, job: Job, pods: Mapping[str, Pod]) -> datetime | None:
    """Until when to wait for the end of the pod that caused this pod to stop; None: judge it now."""
    pod = pods.get(a.pod)
    if job.kind is Kind.INFERENCE or job.spec.nodes == 1 or a.stopping or pod is None or not is_consequence(pod):
        return None
    others = (pods.get(other.pod) for other in job.status.assignments)
    if pod.finished_at is None or not any(p is not None and not p.ended for p in others):
        return None
    return pod.finished_at + CAUSE_GRACE


def is_consequence(pod: Pod | None) -> bool:
    """Whether the pod of a job of several nodes stopped because another did, as far as it knows."""
    return pod is not None and pod.ended and pod.exit_code == contract.EXIT_STOPPED
