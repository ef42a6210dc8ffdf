"""The chart as plain manifests: one file, and a base and an overlay for kustomize."""

import subprocess

import pytest
import yaml
from helm import generate
from rich.console import Console

from localcluster import binaries

pytestmark = pytest.mark.contract

OVERLAYS = sorted((generate.ROOT / "deploy/overlays").iterdir())


def objects(text):
    return {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(text) if o}


def test_the_file_is_what_the_chart_renders():
    assert generate.INSTALL.read_text() == generate.install(), "run `make generate`"


def test_it_is_the_chart_in_a_restricted_namespace(default):
    found = objects(generate.INSTALL.read_text())
    assert found.keys() == {*default, ("Namespace", generate.NAMESPACE)}
    for key in default:
        labels = found[key]["metadata"].get("labels", {})
        assert not [name for name in labels if "helm" in name or labels[name] == "Helm"], key
    for key in (("ConfigMap", "rfuav-operator"), ("ClusterRole", "rfuav-operator")):
        assert {**found[key], "metadata": None} == {**default[key], "metadata": None}


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda folder: folder.name)
def test_an_overlay_builds_on_the_base(overlay):
    kubectl = str(binaries.ensure(("kubectl",), Console(stderr=True))["kubectl"])
    done = subprocess.run([kubectl, "kustomize", str(overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = objects(done.stdout)
    assert found.keys() == objects(generate.INSTALL.read_text()).keys()
    (one,) = found["Deployment", "rfuav-operator"]["spec"]["template"]["spec"]["containers"]
    assert one["image"].startswith("registry.example.org/")
    variables = {e["name"]: e.get("value") for e in one["env"]}
    assert variables["RFUAV_OPERATOR__JOBS__IMAGE"].startswith("registry.example.org/")
