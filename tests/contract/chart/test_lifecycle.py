"""Install, upgrade, roll back, uninstall and install again, with real helm on a real API server."""

import pytest
from contract.chart.conftest import CHART, NAMESPACE, Chart

pytestmark = pytest.mark.contract

CRDS = {f"{plural}.rfuav.io" for plural in ("trainingjobs", "inferencejobs", "gpupools", "gpuquotas")}
JOB = """
apiVersion: rfuav.io/v1alpha1
kind: TrainingJob
metadata: {name: kept, namespace: default}
spec:
  model: {architecture: resnet18, weights: none, numClasses: 3}
  dataset: {train: {uri: "pvc://data/train"}, validation: {fraction: 0.2}}
  output: {uri: "pvc://data/out"}
"""


def test_the_life_of_a_release(chart: Chart) -> None:
    there = ("--namespace", NAMESPACE)
    release = ("rfuav", str(CHART), *there, "--wait", "--timeout", "90s")

    chart.helm("install", *release, "--create-namespace", "--set", "gateway.enabled=true")
    deployment = chart.get("deployment", "rfuav-operator", *there)
    assert deployment["status"]["readyReplicas"] == 2
    chart.kubectl("wait", "--for=condition=Established", "--timeout=30s", *(f"crd/{name}" for name in CRDS))
    chart.kubectl("apply", "-f", "-", text=JOB)

    # What was rendered is what is there: nothing that the API server changes, drops or adds to a field of ours.
    rendered = chart.helm("get", "manifest", "rfuav", *there).stdout
    diff = chart.kubectl(
        "diff", "--server-side", "--force-conflicts", "--field-manager=diff", "-f", "-", text=rendered, check=False
    )
    assert (diff.returncode, diff.stdout) == (0, ""), diff.stderr

    chart.helm("upgrade", *release, "--set", "priorityClasses.training=1500,replicas=3")
    assert chart.names("priorityclasses") >= {"rfuav-training", "rfuav-training-1500", "rfuav-inference"}
    assert chart.get("deployment", "rfuav-operator", *there)["status"]["readyReplicas"] == 3

    chart.helm("rollback", "rfuav", "1", *there, "--wait", "--timeout", "90s")
    assert chart.get("deployment", "rfuav-operator", *there)["spec"]["replicas"] == 2
    assert chart.get("priorityclass", "rfuav-training")["value"] == 1000

    chart.helm("uninstall", "rfuav", *there, "--wait")
    left = chart.get("crd")["items"]
    assert {o["metadata"]["name"] for o in left} >= CRDS
    assert chart.get("trainingjob", "kept", "--namespace=default")
    assert not chart.get(
        "deployments,services,configmaps,roles,serviceaccounts", *there, "--selector=app.kubernetes.io/instance=rfuav"
    )["items"]

    # Another release may not take over what stayed, unless it says so.
    other = ("other", str(CHART), "--namespace", "other", "--wait", "--timeout", "90s")
    refused = chart.helm("install", *other, "--create-namespace", check=False)
    assert refused.returncode != 0
    assert "cannot be imported into the current release" in refused.stderr
    chart.helm("uninstall", "other", "--namespace", "other", check=False)  # what the failed attempt has left
    chart.helm("install", *other, "--create-namespace", "--take-ownership")
    assert chart.get("trainingjob", "kept", "--namespace=default")
    chart.helm("uninstall", "other", "--namespace", "other", "--wait")

    chart.kubectl("delete", "crd,priorityclass", "--selector=app.kubernetes.io/name=rfuav-operator", "--wait")
    chart.kubectl("delete", "crd", "--ignore-not-found", *CRDS)
    chart.kubectl("delete", "namespace", NAMESPACE, "other")
