"""GPU seconds by namespace, kind and pool: what the usage of a month is added up from.

In: what jobs hold after each turn. Out: a counter and a gauge, of the terms in which this process led. A namespace has
series from its first GPU on, so their number does not depend on that of jobs, nor on that of namespaces without GPUs.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from rfuav_kube import clock
from rfuav_operator.core.model import Kind
from rfuav_operator.shell import metrics

_Holder = tuple[str, Kind, str]  # namespace, kind, pool
_LABELS = ("namespace", "kind", "pool")
MOST_HOLDERS = 10_000


class GpuTime:
    """GPU slots that jobs hold, and for how many seconds they did, while this process led.

    There is a series for each namespace, kind and pool, however many jobs; of those that hold nothing any more,
    the ones that were held longest ago go first when there are too many.
    """

    def __init__(self) -> None:
        self._held: Mapping[_Holder, int] = {}
        self._since = 0.0
        self._seconds: OrderedDict[_Holder, float] = OrderedDict()

    def note(self, held: Mapping[_Holder, int]) -> None:
        """From now on these are held, by namespace, kind and pool; those that hold nothing are left out."""
        if held == self._held:
            return
        now = clock.monotonic()
        for key, seconds in self._lately(now):
            self._seconds[key] = self._seconds.get(key, 0.0) + seconds
            self._seconds.move_to_end(key)
        self._held, self._since = dict(held), now
        for key in self._held:
            self._seconds.setdefault(key, 0.0)
        while len(self._seconds) > MOST_HOLDERS and (oldest := next(iter(self._seconds))) not in self._held:
            del self._seconds[oldest]

    def _lately(self, now: float) -> Iterator[tuple[_Holder, float]]:
        """Slot seconds since the last note."""
        return ((key, slots * (now - self._since)) for key, slots in self._held.items())

    def collect(self) -> Iterator[Any]:
        """The metric families, for the registry."""
        seconds = CounterMetricFamily(
            "rfuav_gpu_seconds", "GPU slots that jobs hold, times the seconds for which they do", labels=_LABELS
        )
        lately = dict(self._lately(clock.monotonic()))
        for key, before in self._seconds.items():
            seconds.add_metric(key, before + lately.get(key, 0.0))
        yield seconds
        slots = GaugeMetricFamily("rfuav_gpus_held", "GPU slots that jobs hold", labels=_LABELS)
        for key, count in self._held.items():
            slots.add_metric(key, count)
        yield slots


gpu_time = GpuTime()
metrics.registry.register(gpu_time)
