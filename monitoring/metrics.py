"""All metrics of operator and gateway, as their registries describe them, and the table of docs/metrics.md."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from rfuav_gateway.serving import metrics as of_gateway
from rfuav_operator.shell import census, gpu_time
from rfuav_operator.shell import metrics as of_operator

HEAD = """\
# Metrics

Operator (port 8080) and gateway (port 8081) answer `GET /metrics` in Prometheus' text format. `make generate` writes
this page from the code.

- **The cluster's state is told by the leader alone**, so sums over replicas count everything once. Replicas on standby
  tell of themselves. Counters and histograms belong to a process: use `rate` or `increase`, and sum.
- **The number of series does not depend on the number of jobs**
  (`tests/unit/shell/test_census.py::test_a_thousand_jobs_have_no_more_series_than_ten`). `kind` is TrainingJob or
  InferenceJob; `reason` is one of the [reasons](reasons.md), else `(other)`; `pool` is a pool that exists, else
  `(missing)`; of namespaces the 100 with most jobs have series of their own, and the others are `(other)` together.
  Only `rfuav_gpus_held` and `rfuav_gpu_seconds_total` have all that held GPUs, {holders:,} series at most.
  GPU seconds alone have series for each namespace that has held a GPU: hours are added up from them.
- A slot is one `nvidia.com/gpu` that a node offers; several may share a physical GPU.
- Values of single jobs are in their status. [Monitoring](monitoring.md) joins pods of jobs to metrics of DCGM.
"""


class Metric(NamedTuple):
    """A metric."""

    name: str  # as it is asked for
    type: str
    labels: tuple[str, ...]
    text: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its series."""
        if self.type == "histogram":
            return tuple(f"{self.name}_{end}" for end in ("bucket", "count", "sum"))
        return (self.name,)


def operator() -> list[Metric]:
    """The metrics of the operator."""
    gauges = {**census.OF_PROCESS, **census.OF_CLUSTER}
    asked = (Metric(name, "gauge", gauge.labels, gauge.text) for name, gauge in gauges.items())
    return sorted([*_registered(of_operator.registry), *asked])


def gateway() -> list[Metric]:
    """The metrics of the gateway."""
    asked = of_gateway.Gauges(dict.fromkeys(of_gateway.GAUGES, lambda: 0.0), dict)
    return sorted([*_registered(of_gateway.registry), *(_described(family) for family in asked.collect())])


def table() -> str:
    """docs/metrics.md."""
    parts = [HEAD.format(holders=gpu_time.MOST_HOLDERS)]
    for title, metrics in (("Operator", operator()), ("Gateway", gateway())):
        rows = (f"| `{m.name}` | {m.type} | {', '.join(m.labels)} | {m.text} |" for m in metrics)
        parts.append(
            "\n".join([f"## {title}\n", "| metric | type | labels | what it says |", "|---|---|---|---|", *rows, ""])
        )
    return "\n".join(parts)


def _registered(registry: CollectorRegistry) -> Iterator[Metric]:
    for collector in list(registry._collector_to_names):  # noqa: SLF001  a registry lists values alone
        families = collector.describe() if isinstance(collector, MetricWrapperBase) else collector.collect()
        labels = collector._labelnames if isinstance(collector, MetricWrapperBase) else None  # noqa: SLF001  as above
        for family in families:
            found = _described(family)
            yield found if labels is None else found._replace(labels=tuple(labels))


def _described(family: Any) -> Metric:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = getattr(family, "_labelnames", ())
    return Metric(name, family.type, tuple(labels), family.documentation)
