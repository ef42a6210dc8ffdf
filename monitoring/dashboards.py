"""The four dashboards, as Grafana's JSON: overview, team, operator, job.

Panels are written in the order of reading; rows and places follow from that. Whoever imports a dashboard chooses the
data source: none is named.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 24, 8  # of a screen, and of a panel, in Grafana's units
SCHEMA_VERSION = 39
EXTERNAL = {
    "DCGM_FI_DEV_GPU_UTIL": "DCGM exporter",
    "DCGM_FI_DEV_FB_USED": "DCGM exporter",
    "DCGM_FI_DEV_POWER_USAGE": "DCGM exporter",
    "container_cpu_usage_seconds_total": "cAdvisor, by the kubelet",
    "container_memory_working_set_bytes": "cAdvisor, by the kubelet",
    "container_network_receive_bytes_total": "cAdvisor, by the kubelet",
    "container_network_transmit_bytes_total": "cAdvisor, by the kubelet",
    "container_fs_reads_bytes_total": "cAdvisor, by the kubelet",
}
"""Metrics of other programs that a dashboard asks for, and who has them."""


class Panel(NamedTuple):
    """A panel.

    Args:
        unit: Grafana's name of it.
        queries: PromQL and the legend.
        text: what it says and what to do about it.
        sort: of Grafana's panels: timeseries, stat, bargauge, ...
        width: of 24.
        stacked: whether the series are drawn on top of each other.
    """

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    text: str = ""
    sort: str = "timeseries"
    width: int = 8
    stacked: bool = False


class Dashboard(NamedTuple):
    """A dashboard.

    Args:
        variables: name, and the query of its values.
        rows: title and panels.
    """

    name: str
    title: str
    text: str
    variables: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, Sequence[Panel]]]


def quantile(share: str, metric: str, by: str, where: str = "") -> str:
    """The query of a quantile of a histogram."""
    labels = ", ".join(["le", *([by] if by else [])])
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{where}[$__rate_interval])))"


IN_POOL = '{pool=~"$pool"}'
OF_TEAM = '{namespace=~"$namespace"}'
OF_JOB = '{namespace="$namespace", pod=~"$job-.*"}'
OF_CONTAINER = '{namespace="$namespace", pod=~"$job-.*", container="trainer"}'
SHARE, NOMINAL = "sum by (namespace, pool)", f"rfuav_quota_gpu_slots{OF_TEAM}"
POOLS = ("pool", "label_values(rfuav_pool_gpus, pool)")

OVERVIEW = Dashboard(
    "overview",
    "RFUAV / Overview",
    "What runs, what waits and why, and which GPUs are idle.",
    [POOLS],
    [
        (
            "Now",
            [
                Panel("Running", "none", [('sum(rfuav_jobs{phase="Running"})', "")], sort="stat", width=4),
                Panel("Waiting", "none", [(f"sum(rfuav_waiting_jobs{IN_POOL})", "")], sort="stat", width=4),
                Panel(
                    "GPU slots in use",
                    "none",
                    [('sum(rfuav_gpus_held{pool=~"$pool"})', "")],
                    sort="stat",
                    width=4,
                ),
                Panel("GPUs", "none", [(f"sum(rfuav_pool_gpus{IN_POOL})", "")], sort="stat", width=4),
                Panel("Idle GPUs", "none", [(f"sum(rfuav_pool_gpus_idle{IN_POOL})", "")], sort="stat", width=4),
                Panel(
                    "Idle while jobs wait",
                    "none",
                    [(f"sum(rfuav_pool_gpus_idle_while_waiting{IN_POOL})", "")],
                    "More than 0 for long: see the runbook of RfuavGpusIdle.",
                    sort="stat",
                    width=4,
                ),
            ],
        ),
        (
            "Queue",
            [
                Panel(
                    "Waiting jobs by reason",
                    "none",
                    [(f"sum by (reason) (rfuav_waiting_jobs{IN_POOL})", "{{reason}}")],
                    "docs/reasons.md says what to do about each.",
                    stacked=True,
                ),
                Panel(
                    "Wait for admission, nine in ten",
                    "s",
                    [(quantile("0.9", "rfuav_admission_wait_seconds", "pool", IN_POOL), "{{pool}}")],
                ),
                Panel(
                    "From admission to the first container, nine in ten",
                    "s",
                    [(quantile("0.9", "rfuav_start_wait_seconds", "pool", IN_POOL), "{{pool}}")],
                    "Volumes, images, devices.",
                ),
                Panel(
                    "Longest silence of a running job",
                    "s",
                    [(f"max by (pool, kind) (rfuav_longest_silence_seconds{IN_POOL})", "{{pool}} {{kind}}")],
                    "Long: see the runbook of RfuavJobsSilent.",
                ),
                Panel(
                    "Longest wait now",
                    "s",
                    [(f"max by (pool, kind) (rfuav_longest_wait_seconds{IN_POOL})", "{{pool}} {{kind}}")],
                ),
            ],
        ),
        (
            "GPUs",
            [
                Panel(
                    "GPU slots in use by pool and kind",
                    "none",
                    [
                        (f"sum by (pool, kind) (rfuav_gpus_held{IN_POOL})", "{{pool}} {{kind}}"),
                        (f"sum by (pool) (rfuav_pool_gpu_slots_foreign{IN_POOL})", "{{pool}} others"),
                    ],
                    stacked=True,
                ),
                Panel(
                    "GPU slots that can be had",
                    "none",
                    [
                        (f"sum by (pool, kind) (rfuav_pool_gpu_slots_free{IN_POOL})", "{{pool}} {{kind}}"),
                        (f"sum by (pool) (rfuav_pool_gpu_slots{IN_POOL})", "{{pool}} in all"),
                    ],
                ),
                Panel("Nodes", "none", [(f"sum by (pool, state) (rfuav_pool_nodes{IN_POOL})", "{{pool}} {{state}}")]),
                Panel(
                    "Pools that are ready",
                    "none",
                    [(f"max by (pool, reason) (rfuav_pool_ready{IN_POOL})", "{{pool}}: {{reason}}")],
                    "0: the pool admits nothing; the legend has the reason.",
                ),
                Panel(
                    "GPU slots that take no jobs",
                    "none",
                    [(f"sum by (pool) (rfuav_pool_gpu_slots_unusable{IN_POOL})", "{{pool}}")],
                ),
            ],
        ),
        (
            "Ends",
            [
                Panel(
                    "Jobs that ended in an hour",
                    "none",
                    [("sum by (kind, phase) (increase(rfuav_jobs_finished_total[1h]))", "{{kind}} {{phase}}")],
                ),
                Panel(
                    "Pods that failed in an hour",
                    "none",
                    [("sum by (reason) (increase(rfuav_pod_failures_total[1h]))", "{{reason}}")],
                ),
                Panel(
                    "Pods that were stopped in an hour",
                    "none",
                    [(f"sum by (reason) (increase(rfuav_pods_stopped_total{IN_POOL}[1h]))", "{{reason}}")],
                ),
                Panel(
                    "GPU memory that jobs hold",
                    "bytes",
                    [(f"sum by (pool, kind) (rfuav_trainer_gpu_memory_bytes{IN_POOL})", "{{pool}} {{kind}}")],
                ),
                Panel(
                    "Utilisation of the GPUs of jobs",
                    "percentunit",
                    [(f"avg by (pool, kind) (rfuav_trainer_gpu_utilization{IN_POOL})", "{{pool}} {{kind}}")],
                    "Of whole devices, as the trainers report it. Low with many waiting jobs: let more share a GPU.",
                ),
                Panel(
                    "Samples a second",
                    "none",
                    [(f"sum by (pool, kind) (rfuav_samples_per_second{IN_POOL})", "{{pool}} {{kind}}")],
                ),
            ],
        ),
    ],
)

TEAM = Dashboard(
    "team",
    "RFUAV / Team",
    "What a namespace runs, waits for, holds and may use.",
    [("namespace", "label_values(rfuav_namespace_jobs, namespace)")],
    [
        (
            "Jobs",
            [
                Panel(
                    "Jobs by phase",
                    "none",
                    [(f"sum by (kind, phase) (rfuav_namespace_jobs{OF_TEAM})", "{{kind}} {{phase}}")],
                    width=12,
                    stacked=True,
                ),
                Panel(
                    "Waiting jobs by namespace",
                    "none",
                    [(f'sum by (namespace) (rfuav_namespace_jobs{OF_TEAM[:-1]}, phase="Queued"}})', "{{namespace}}")],
                    width=12,
                ),
            ],
        ),
        (
            "GPUs",
            [
                Panel(
                    "GPU slots held",
                    "none",
                    [(f"sum by (namespace, kind) (rfuav_gpus_held{OF_TEAM})", "{{namespace}} {{kind}}")],
                    stacked=True,
                ),
                Panel(
                    "Held beyond the nominal share",
                    "none",
                    [
                        (
                            f"{SHARE} (rfuav_gpus_held{OF_TEAM}) - on (namespace, pool) {SHARE} ({NOMINAL})",
                            "{{namespace}} {{pool}}",
                        )
                    ],
                    "Above 0 is borrowed, and may be taken back; below 0 is lent or free.",
                ),
                Panel(
                    "GPU slot hours in a day",
                    "h",
                    [
                        (
                            f"sum by (namespace) (increase(rfuav_gpu_seconds_total{OF_TEAM}[1d])) / 3600",
                            "{{namespace}}",
                        )
                    ],
                ),
            ],
        ),
    ],
)

OPERATOR = Dashboard(
    "operator",
    "RFUAV / Operator",
    "Whether the operator sees, decides and writes, and how fast.",
    [],
    [
        (
            "State",
            [
                Panel("Leaders", "none", [("sum(rfuav_leader)", "")], "1, always.", sort="stat", width=4),
                Panel("Ready replicas", "none", [("sum(rfuav_ready)", "")], sort="stat", width=4),
                Panel("Set aside", "none", [("sum(rfuav_objects_set_aside) or vector(0)", "")], sort="stat", width=4),
                Panel(
                    "Versions", "none", [("count by (version) (rfuav_build_info)", "{{version}}")], sort="stat", width=4
                ),
                Panel(
                    "Faults in an hour",
                    "none",
                    [("sum(increase(rfuav_faults_total[1h])) or vector(0)", "")],
                    sort="stat",
                    width=4,
                ),
                Panel("Events waiting", "none", [("sum(rfuav_events_waiting)", "")], sort="stat", width=4),
            ],
        ),
        (
            "Decides",
            [
                Panel(
                    "Time of a turn",
                    "s",
                    [(quantile(share, "rfuav_turn_seconds", ""), f"quantile {share}") for share in ("0.5", "0.99")],
                ),
                Panel("Turns a second", "ops", [("sum(rate(rfuav_turn_seconds_count[$__rate_interval]))", "turns")]),
                Panel(
                    "From the end of a pod to the next",
                    "s",
                    [(quantile(share, "rfuav_handoff_seconds", ""), f"quantile {share}") for share in ("0.5", "0.99")],
                ),
                Panel(
                    "Decisions a second",
                    "ops",
                    [("sum by (action) (rate(rfuav_actions_total[$__rate_interval]))", "{{action}}")],
                ),
            ],
        ),
        (
            "Sees",
            [
                Panel(
                    "Silence of watches",
                    "s",
                    [("max by (resource) (rfuav_watch_silent_seconds)", "{{resource}}")],
                    "A bookmark comes every minute.",
                ),
                Panel(
                    "Progress reports a second by HTTP status",
                    "reqps",
                    [("sum by (code) (rate(rfuav_progress_reports_total[$__rate_interval]))", "{{code}}")],
                ),
                Panel(
                    "From a report to the status",
                    "s",
                    [(quantile("0.99", "rfuav_progress_lag_seconds", ""), "quantile 0.99")],
                ),
                Panel(
                    "Connections that were closed",
                    "cps",
                    [("sum by (why) (rate(rfuav_connections_closed_total[$__rate_interval]))", "{{why}}")],
                ),
            ],
        ),
        (
            "Writes",
            [
                Panel(
                    "Time of writes, 99 in 100",
                    "s",
                    [(quantile("0.99", "rfuav_write_seconds", "verb"), "{{verb}}")],
                ),
                Panel(
                    "Writes a second by outcome",
                    "reqps",
                    [
                        (
                            "sum by (verb, outcome) (rate(rfuav_write_seconds_count[$__rate_interval]))",
                            "{{verb}} {{outcome}}",
                        )
                    ],
                ),
                Panel("Queues with work", "none", [("sum by (state) (rfuav_writer_queues)", "{{state}}")]),
                Panel(
                    "Effects that are tried again",
                    "ops",
                    [("sum by (action) (rate(rfuav_effects_tried_again_total[$__rate_interval]))", "{{action}}")],
                ),
                Panel(
                    "Events dropped",
                    "ops",
                    [("sum(rate(rfuav_events_dropped_total[$__rate_interval]))", "dropped")],
                ),
            ],
        ),
        (
            "Gateway",
            [
                Panel(
                    "Requests a second by status",
                    "reqps",
                    [("sum by (code) (rate(rfuav_gateway_requests_total[$__rate_interval]))", "{{code}}")],
                ),
                Panel(
                    "Time of requests, 99 in 100",
                    "s",
                    [(quantile("0.99", "rfuav_gateway_request_seconds", "route"), "{{route}}")],
                ),
                Panel(
                    "Connections and readers of logs",
                    "none",
                    [
                        ("sum(rfuav_gateway_connections)", "connections"),
                        ("sum(rfuav_gateway_streams)", "readers of logs"),
                        ("sum(rfuav_gateway_live_streams)", "open pages"),
                        ("max(rfuav_gateway_tasks)", "tasks"),
                        ("sum(rfuav_gateway_connections_refused)", "connections refused since the start"),
                    ],
                ),
                Panel(
                    "Silence of watches",
                    "s",
                    [("max by (resource) (rfuav_gateway_watch_silent_seconds)", "{{resource}}")],
                ),
            ],
        ),
    ],
)

JOB = Dashboard(
    "job",
    "RFUAV / Job",
    "What the pods of one job use. Its progress is in its status: a metric of each job would grow with them.",
    [("namespace", "label_values(rfuav_namespace_jobs, namespace)")],
    [
        (
            "GPU (DCGM exporter)",
            [
                Panel(
                    "Utilisation",
                    "percent",
                    [(f"DCGM_FI_DEV_GPU_UTIL{OF_JOB}", "{{pod}} GPU {{gpu}}")],
                    "Of the whole GPU: others may share it.",
                ),
                Panel("Memory", "decmbytes", [(f"DCGM_FI_DEV_FB_USED{OF_JOB}", "{{pod}} GPU {{gpu}}")]),
                Panel("Power", "watt", [(f"DCGM_FI_DEV_POWER_USAGE{OF_JOB}", "{{pod}} GPU {{gpu}}")]),
            ],
        ),
        (
            "CPU, memory, network (cAdvisor)",
            [
                Panel(
                    "CPUs",
                    "none",
                    [
                        (
                            f"sum by (pod) (rate(container_cpu_usage_seconds_total{OF_CONTAINER}[$__rate_interval]))",
                            "{{pod}}",
                        )
                    ],
                    "As many as it asks for, with an idle GPU: decoding limits it.",
                ),
                Panel(
                    "Memory",
                    "bytes",
                    [(f"sum by (pod) (container_memory_working_set_bytes{OF_CONTAINER})", "{{pod}}")],
                ),
                Panel(
                    "Received and sent",
                    "Bps",
                    [
                        (
                            f"sum by (pod) (rate(container_network_receive_bytes_total{OF_JOB}[$__rate_interval]))",
                            "{{pod}} received",
                        ),
                        (
                            f"sum by (pod) (rate(container_network_transmit_bytes_total{OF_JOB}[$__rate_interval]))",
                            "{{pod}} sent",
                        ),
                    ],
                ),
                Panel(
                    "Read from disks",
                    "Bps",
                    [
                        (
                            f"sum by (pod) (rate(container_fs_reads_bytes_total{OF_CONTAINER}[$__rate_interval]))",
                            "{{pod}}",
                        )
                    ],
                ),
            ],
        ),
    ],
)

ALL = (OVERVIEW, TEAM, OPERATOR, JOB)


def rendered(dashboard: Dashboard) -> str:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    x = y = 0
    for title, row in dashboard.rows:
        y += HEIGHT if x else 0
        panels.append(_row(title, y, len(panels) + 1))
        x, y = 0, y + 1
        for panel in row:
            if x + panel.width > WIDTH:
                x, y = 0, y + HEIGHT
            panels.append(_panel(panel, x, y, len(panels) + 1))
            x += panel.width
    document = {
        "uid": f"rfuav-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.text,
        "tags": ["rfuav"],
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "links": [
            {"type": "dashboards", "title": "RFUAV", "tags": ["rfuav"], "asDropdown": False, "includeVars": True}
        ],
        "annotations": {"list": []},
        "templating": {
            "list": [
                _source(),
                *(_variable(name, query, dashboard) for name, query in dashboard.variables),
                *_text(dashboard),
            ]
        },
        "panels": panels,
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}


def _variable(name: str, query: str, dashboard: Dashboard) -> dict[str, Any]:
    one = dashboard is JOB
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": not one,
        "includeAll": not one,
        **({} if one else {"current": {"text": ["All"], "value": ["$__all"]}}),
    }


def _text(dashboard: Dashboard) -> list[dict[str, Any]]:
    """The job is typed: no metric has a list of them."""
    if dashboard is not JOB:
        return []
    return [{"name": "job", "label": "Job", "type": "textbox", "query": ""}]


def _row(title: str, y: int, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        "panels": [],
    }


def _panel(panel: Panel, x: int, y: int, number: int) -> dict[str, Any]:
    custom = {"fillOpacity": 20, "stacking": {"mode": "normal", "group": "A"}} if panel.stacked else {"fillOpacity": 0}
    options: dict[str, Any] = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    if panel.sort == "stat":
        custom, options = {}, {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    return {
        "id": number,
        "type": panel.sort,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }
