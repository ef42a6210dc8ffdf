"""The chart's values against the programs that read them, without helm."""

import json
from pathlib import Path

import pytest
import yaml

from rfuav_crds import KINDS
from rfuav_gateway.settings import Output, Root
from rfuav_gateway.settings import Settings as GatewaySettings
from rfuav_operator.core.model import Defaults
from rfuav_operator.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "helm" / "rfuav-operator"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
SETTINGS = SCHEMA["properties"]["settings"]["properties"]
# Names and ports that other objects of the chart must agree with, and what the pod's environment says.
OWN = {
    "jobs": {"image", "trainingPriority", "inferencePriority"},
    "progress": {"host", "port", "service", "servicePort", "caSecret"},
    "leader": {"lease", "identity"},
}
SECTIONS = {"jobs", "retries", "writes", "progress", "leader"}


def test_the_settings_of_the_schema_are_those_of_the_operator():
    offered = {field.alias for field in Settings.model_fields.values()}
    assert set(SETTINGS) == offered - {"namespace", "kubeconfig", "watchNamespaces", "health", "defaultPool"}


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_each_section_offers_what_the_operator_reads(section):
    model = next(f.annotation for f in Settings.model_fields.values() if f.alias == section)
    offered = {field.alias for field in model.model_fields.values()}
    assert set(SETTINGS[section]["properties"]) == offered - OWN.get(section, set())


def test_the_settings_of_the_schema_are_those_of_the_gateway():
    """But what other objects and values of the chart must agree with."""
    offered = SCHEMA["properties"]["gateway"]["properties"]["settings"]["properties"]
    fields = {field.alias: field.annotation for field in GatewaySettings.model_fields.values()}
    own = {
        "host",
        "port",
        "healthPort",
        "tlsCertificate",
        "tlsKey",
        "kubeconfig",
        "trainerImage",
        "clusterAssignsUsers",
    }
    assert set(offered) == set(fields) - own
    for name in ("compat", "proxy", "limits"):
        assert set(offered[name]["properties"]) == {field.alias for field in fields[name].model_fields.values()}
    root = offered["roots"]["items"]["properties"]
    assert set(root) == {field.alias for field in Root.model_fields.values()}
    output = offered["outputs"]["items"]["properties"]
    assert set(output) == {field.alias for field in Output.model_fields.values()}


def test_the_gateways_values_are_its_defaults():
    assert GatewaySettings.model_validate(VALUES["gateway"]["settings"]) == GatewaySettings()


def test_priorities_are_the_operators_defaults():
    assert VALUES["priorityClasses"]["training"] == Defaults().training_priority
    assert VALUES["priorityClasses"]["inference"] == Defaults().inference_priority


@pytest.mark.parametrize("file", [CHART / "values.yaml", ROOT / "demo/values.yaml"], ids=lambda f: f.parent.name)
def test_the_default_pool_is_one(file):
    spec = yaml.safe_load(file.read_text())["defaultPool"]["spec"]
    KINDS["GPUPool"].model_validate(
        {"apiVersion": "rfuav.io/v1alpha1", "kind": "GPUPool", "metadata": {"name": "default"}, "spec": spec}
    )


@pytest.mark.parametrize("file", sorted((ROOT / "examples/demo").glob("*-jobs.yaml")), ids=lambda f: f.name)
def test_the_demos_jobs_are_valid(file):
    jobs = list(yaml.safe_load_all(file.read_text()))
    assert len(jobs) == {"training-jobs.yaml": 4, "inference-jobs.yaml": 6}[file.name]
    for job in jobs:
        KINDS[job["kind"]].model_validate(job)
    trainings = yaml.safe_load_all((ROOT / "examples/demo/training-jobs.yaml").read_text())
    names = {job["metadata"]["name"]: job["spec"]["model"]["architecture"] for job in trainings}
    assert len(set(names.values())) == 4
    sources = {job["spec"]["model"].get("fromTrainingJob") for job in jobs} - {None}
    assert sources <= set(names)
