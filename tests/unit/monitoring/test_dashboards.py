"""Dashboards: they ask only for metrics that there are, name their units, and no data source. Grafana itself is not run."""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import binaries
from monitoring import metrics
from monitoring.dashboards import ALL, EXTERNAL
from monitoring.queries import unknown

FILES = Path(__file__).resolve().parents[3] / "helm/rfuav-operator/files/dashboards"
DASHBOARDS: dict[str, Any] = {path.stem: json.loads(path.read_text()) for path in sorted(FILES.glob("*.json"))}
PANELS = [
    pytest.param(panel, id=f"{name}-{panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]
QUERIES = [target["expr"] for (panel,) in (param.values for param in PANELS) for target in panel["targets"]]
UNITS = {"none", "s", "h", "ops", "reqps", "cps", "Bps", "bytes", "decmbytes", "percent", "percentunit", "watt"}
METRICS = [*metrics.operator(), *metrics.gateway()]


def test_there_are_four():
    assert DASHBOARDS.keys() == {one.name for one in ALL} == {"overview", "team", "operator", "job"}
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == 4


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_for_metrics_that_there_are_and_names_its_unit(panel):
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    for target in panel["targets"]:
        assert unknown(target["expr"], METRICS, EXTERNAL) == []


def test_every_metric_of_the_operator_is_on_a_dashboard():
    """What nobody sees is not needed: a new one gets its place in monitoring/dashboards.py."""
    asked = {word for query in QUERIES for word in re.findall(r"rfuav_\w+", query)}
    assert {metric.name for metric in metrics.operator() if not asked.intersection(metric.series)} == set()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_data_source_is_chosen_by_whoever_looks(name):
    found = re.findall(r'"uid": "([^"]+)"', (FILES / f"{name}.json").read_text())
    assert set(found) == {f"rfuav-{name}", "${datasource}"}
    (source,) = (v for v in DASHBOARDS[name]["templating"]["list"] if v["type"] == "datasource")
    assert source["name"] == "datasource"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_variables_that_are_used_are_defined(name):
    defined = {variable["name"] for variable in DASHBOARDS[name]["templating"]["list"]}
    used = set(
        re.findall(r"\$(\w+)", "".join(t["expr"] for p in DASHBOARDS[name]["panels"] for t in p.get("targets", ())))
    )
    assert used - {"__rate_interval"} == defined - {"datasource"}
    for variable in DASHBOARDS[name]["templating"]["list"]:
        if variable["type"] == "query":
            (query,) = re.findall(r"label_values\((.*), \w+\)", variable["query"]["query"])
            assert unknown(query, METRICS) == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap_and_fit_the_screen(name):
    panels = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(p["x"] >= 0 and p["x"] + p["w"] <= 24 for p in places)
    for a, b in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]


def test_prometheus_can_read_every_query(tmp_path):
    promtool = binaries.locate("promtool")
    if promtool is None:
        pytest.skip("promtool is not built (minutes the first time): python -m localcluster build promtool")
    plain = [re.sub(r"\$\w+", "x", query.replace("$__rate_interval", "5m")) for query in QUERIES]
    rules = [{"record": f"panel:{index}", "expr": query} for index, query in enumerate(plain)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
