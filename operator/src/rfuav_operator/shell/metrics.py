"""What is counted as it happens: decisions, writes, waits. `census` has what is counted when Prometheus asks.

The values of every label are few, and known: no metric has a series for each job, pod or node.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram

from rfuav_crds.reasons import OF_TRAINER, OWN

registry = CollectorRegistry()

OTHER = "(other)"
"""In the place of what has no series of its own. No reason and no name of Kubernetes has brackets."""

_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_LONG = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 72 * 3600)  # waits of jobs
_LAG = (1, 2, 5, 10, 30, 60, 300)

actions = Counter("rfuav_actions", "Decisions handed to the writer", ["action"], registry=registry)
turns = Histogram("rfuav_turn_seconds", "Time of one turn of the loop", buckets=_FAST, registry=registry)
handoff = Histogram(
    "rfuav_handoff_seconds",
    "From the end of a pod to the hand-over of the next one's create for the same node",
    buckets=_FAST,
    registry=registry,
)
reports = Counter("rfuav_progress_reports", "Progress reports by HTTP status", ["code"], registry=registry)
events_dropped = Counter("rfuav_events_dropped", "Kubernetes Events dropped by their limits", registry=registry)
tried_again = Counter(
    "rfuav_effects_tried_again", "Creates and deletes that failed and are tried again", ["action"], registry=registry
)
connections_closed = Counter(
    "rfuav_connections_closed",
    "Connections that the servers closed: late, idle, replaced by a newer one, too many",
    ["why"],
    registry=registry,
)
_writes = Histogram(
    "rfuav_write_seconds", "Requests of the writer", ["verb", "outcome"], buckets=_FAST, registry=registry
)


def wrote(verb: str, outcome: str, seconds: float) -> None:
    """Count one request of the writer."""
    _writes.labels(verb, outcome).observe(seconds)


# What follows is counted when a status has been written, by the difference to the one before: each change once.
admission_wait = Histogram(
    "rfuav_admission_wait_seconds",
    "From a job's place in the queue to its first admission",
    ["pool", "kind"],
    buckets=_LONG,
    registry=registry,
)
start_wait = Histogram(
    "rfuav_start_wait_seconds",
    "From a job's first admission to its first running container: volumes, image, devices",
    ["pool", "kind"],
    buckets=_LONG,
    registry=registry,
)
report_lag = Histogram(
    "rfuav_progress_lag_seconds",
    "From the receipt of a progress report to the status that has it, in whole seconds",
    buckets=_LAG,
    registry=registry,
)
finished = Counter("rfuav_jobs_finished", "Jobs that ended", ["kind", "phase", "reason"], registry=registry)
failures = Counter(
    "rfuav_pod_failures",
    "Failures of pods, after which a job runs again or ends; counted: against spec.backoffLimit",
    ["kind", "reason", "counted"],
    registry=registry,
)
stopped = Counter(
    "rfuav_pods_stopped",
    "Pods that the operator stops so that their job continues later: Preempted, PoolDrained, Suspended, ...",
    ["pool", "kind", "reason"],
    registry=registry,
)
faults = Counter(
    "rfuav_faults",
    "Errors of the operator itself: a job is set aside, a plan, a turn or the status of a pool fails",
    ["part"],
    registry=registry,
)


def known(reason: str) -> str:
    """The reason if it is one of ours, else `(other)`: an image may say anything, and the kubelet much."""
    return reason if reason in OWN or reason in OF_TRAINER else OTHER
