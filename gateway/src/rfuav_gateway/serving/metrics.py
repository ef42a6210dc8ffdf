"""What Prometheus may ask of the gateway: requests by route, connections, streams, and what the cache holds."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

registry = CollectorRegistry()

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)

_seconds = Histogram(
    "rfuav_gateway_request_seconds",
    "Time of requests, but for streams",
    ["method", "route"],
    buckets=_BUCKETS,
    registry=registry,
)
_requests = Counter(
    "rfuav_gateway_requests", "Requests by route and HTTP status", ["method", "route", "code"], registry=registry
)


def answered(method: str, route: str, status: int, seconds: float, *, stream: bool) -> None:
    """Count one request; `route` is the pattern of its path, of which there are few."""
    _requests.labels(method, route, str(status)).inc()
    if not stream:
        _seconds.labels(method, route).observe(seconds)


GAUGES = {
    "rfuav_gateway_tasks": "Tasks in the cache",
    "rfuav_gateway_streams": "Readers of logs",
    "rfuav_gateway_live_streams": "Readers of what happens: open pages",
    "rfuav_gateway_callbacks_waiting": "Callbacks that this replica has to deliver",
    "rfuav_gateway_connections": "Open connections",
    "rfuav_gateway_connections_refused": "Connections beyond the limits, since the start",
}
"""What is counted when it is asked for."""


class Gauges:
    """Numbers counted when they are asked for.

    Args:
        numbers: what counts each of `GAUGES`, by its name.
        silent: seconds since the API server last said something, by resource.
    """

    def __init__(self, numbers: Mapping[str, Callable[[], float]], silent: Callable[[], Mapping[str, float]]) -> None:
        self._numbers = numbers
        self._silent = silent

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The present values."""
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(name, text, value=self._numbers[name]())
        silence = GaugeMetricFamily(
            "rfuav_gateway_watch_silent_seconds",
            "Since the API server last said something about a resource: an event, a bookmark (one a minute) or a list",
            labels=("resource",),
        )
        for resource, seconds in self._silent().items():
            silence.add_metric((resource,), seconds)
        yield silence
