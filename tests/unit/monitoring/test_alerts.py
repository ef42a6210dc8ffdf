"""Alerts: each has a runbook, a fault under which it fires, and asks only for metrics that there are."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from localcluster import binaries
from monitoring import metrics
from monitoring.queries import unknown

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "helm/rfuav-operator/files/alerts.yaml"
PLAYED = Path(__file__).with_name("alerts.yaml")
RUNBOOKS = (ROOT / "docs/runbooks.md").read_text()
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
SECTIONS = {part.split("\n", 1)[0]: part for part in RUNBOOKS.split("\n## ")[1:]}


def test_there_are_alerts():
    assert len(ALERTS) >= 12


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_leads_to_its_runbook(name):
    rule = ALERTS[name]
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert "\n1. " in SECTIONS[name] or "(#" in SECTIONS[name]


def test_every_runbook_has_its_alert():
    assert SECTIONS.keys() == ALERTS.keys()


@pytest.mark.parametrize("name", ALERTS)
def test_a_runbook_names_the_test_whose_fault_moves_the_metric(name):
    (file, test) = re.findall(r"^Test: `(tests/[\w/]+\.py)::(\w+)`", SECTIONS[name], flags=re.MULTILINE)[0]
    assert f"def {test}(" in (ROOT / file).read_text()


@pytest.mark.parametrize("words", re.findall(r"log has (`[^`]+`(?: or `[^`]+`)?)", RUNBOOKS))
def test_what_runbooks_quote_of_the_log_is_written_by_the_code(words):
    sources = [path.read_text() for top in ("kube", "operator", "gateway") for path in (ROOT / top).rglob("*.py")]
    for word in re.findall(r"`([^`]+)`", words):
        assert any(f'"{word}' in source for source in sources), word


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_asks_for_metrics_and_labels_that_there_are(name):
    assert unknown(ALERTS[name]["expr"], [*metrics.operator(), *metrics.gateway()]) == []


def test_a_metric_or_label_that_is_not_there_is_found():
    known = [*metrics.operator(), *metrics.gateway()]
    assert unknown("sum by (pool) (rfuav_waiting_job)", known) == ["metric rfuav_waiting_job"]
    assert unknown("rfuav_jobs_finished", known) == ["metric rfuav_jobs_finished"]
    assert unknown('sum(rate(rfuav_write_seconds_count{code="5"}[5m]))', known) == [
        "label code of rfuav_write_seconds_count"
    ]
    assert unknown("sum by (node) (rfuav_waiting_jobs)", known) == ["label node"]


def test_each_alert_is_played_with_a_fault_and_without():
    fires, quiet = set(), set()
    for played in yaml.safe_load(PLAYED.read_text())["tests"]:
        for expected in played["alert_rule_test"]:
            (fires if expected["exp_alerts"] else quiet).add(expected["alertname"])
    assert fires == quiet == ALERTS.keys()


def test_alerts_fire_under_their_faults_and_not_else():
    promtool = binaries.locate("promtool")
    if promtool is None:
        pytest.skip("promtool is not built (minutes the first time): python -m localcluster build promtool")
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(PLAYED)]):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
