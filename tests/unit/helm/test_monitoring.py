"""Alerts and dashboards as the chart renders them."""

import json
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.contract

FILES = Path(__file__).resolve().parents[3] / "helm/rfuav-operator/files"


def dashboards(objects):
    return {name: object_ for (kind, name), object_ in objects.items() if kind == "ConfigMap" and "-dashboard-" in name}


def test_neither_is_there_by_default(default):
    assert not dashboards(default)
    assert not [kind for kind, _ in default if kind == "PrometheusRule"]


def test_the_rule_has_the_alerts_as_they_are(render):
    rule = render("--set", "prometheusRule.enabled=true,prometheusRule.labels.release=prometheus")[
        "PrometheusRule", "rfuav-operator"
    ]
    assert rule["spec"] == yaml.safe_load((FILES / "alerts.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def test_runbooks_may_be_elsewhere(render):
    objects = render("--set", "prometheusRule.enabled=true,prometheusRule.runbooks=https://wiki.example.org/rfuav")
    rules = [rule for group in objects["PrometheusRule", "rfuav-operator"]["spec"]["groups"] for rule in group["rules"]]
    found = {rule["annotations"]["runbook_url"] for rule in rules}
    assert "https://wiki.example.org/rfuav#rfuavnoleader" in found
    assert all(url.startswith("https://wiki.example.org/rfuav#") for url in found)


def test_each_dashboard_is_a_config_map_for_the_sidecar(render):
    found = dashboards(
        render("--set", "dashboards.enabled=true,dashboards.namespace=grafana,dashboards.annotations.folder=RFUAV")
    )
    assert set(found) == {f"rfuav-operator-dashboard-{path.stem}" for path in FILES.glob("dashboards/*.json")}
    for name, made in found.items():
        stem = name.rpartition("-")[2]
        assert json.loads(made["data"][f"rfuav-{stem}.json"]) == json.loads(
            (FILES / f"dashboards/{stem}.json").read_text()
        )
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert made["metadata"]["namespace"] == "grafana"
        assert made["metadata"]["annotations"] == {"folder": "RFUAV"}


def test_labels_of_a_metric_stay_its_own(render):
    """`namespace` of rfuav_gpus_held is that of the jobs: Prometheus would call it exported_namespace."""
    monitor = render("--set", "serviceMonitor.enabled=true")["ServiceMonitor", "rfuav-operator"]
    assert [endpoint["honorLabels"] for endpoint in monitor["spec"]["endpoints"]] == [True]
