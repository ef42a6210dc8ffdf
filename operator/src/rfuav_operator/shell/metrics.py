"""What Prometheus may ask: the queue, decisions, writes, and how fast freed room is used again."""

from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

registry = CollectorRegistry()

_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

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


class Gauges:
    """Numbers counted when they are asked for.

    Args:
        jobs: (kind, phase) of every job.
        leading: whether this process is the leader.
        set_aside: the kind of every object that could not be read or handled.
    """

    def __init__(
        self,
        jobs: Callable[[], Iterable[tuple[str, str]]],
        leading: Callable[[], bool],
        set_aside: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._jobs = jobs
        self._leading = leading
        self._set_aside = set_aside

    def collect(self) -> Iterator[Any]:
        """The metric families, for the registry."""
        jobs = GaugeMetricFamily("rfuav_jobs", "Jobs by kind and phase", labels=["kind", "phase"])
        for labels, count in Count(self._jobs()).items():
            jobs.add_metric(list(labels), count)
        yield jobs
        aside = GaugeMetricFamily(
            "rfuav_objects_set_aside", "Objects that could not be read or handled", labels=["resource"]
        )
        for kind, count in Count(self._set_aside()).items():
            aside.add_metric([kind], count)
        yield aside
        yield GaugeMetricFamily("rfuav_leader", "Whether this process is the leader", value=float(self._leading()))
