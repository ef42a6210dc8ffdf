"""What Prometheus may ask of the gateway: requests by route, connections, streams, and what the cache holds."""

from collections.abc import Callable, Iterable

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


class Gauges:
    """Numbers counted when they are asked for.

    Args:
        numbers: by name: its help text, and what counts it.
    """

    def __init__(self, numbers: dict[str, tuple[str, Callable[[], float]]]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The present values."""
        for name, (text, count) in self._numbers.items():
            yield GaugeMetricFamily(f"rfuav_gateway_{name}", text, value=count())
