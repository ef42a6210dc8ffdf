"""The values files of the chart: rendered, linted, accepted by the API server, their pods by the restricted profile."""

import json
from pathlib import Path

import pytest
from contract.chart.conftest import CHART, NAMESPACE, Chart, manifests

pytestmark = pytest.mark.contract

FILES = sorted([*CHART.glob("ci/*-values.yaml"), *CHART.glob("values-*.yaml")])
# Of others, and not on the cluster: their schema accepts everything, their names and places are checked.
FOREIGN = {"monitoring.coreos.com": ("v1", "ServiceMonitor"), "gateway.networking.k8s.io": ("v1", "HTTPRoute")}


def _foreign(group: str, version: str, kind: str) -> dict[str, object]:
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


@pytest.fixture(scope="module", autouse=True)
def places(helm3: Chart) -> None:
    """The namespaces that the files name, restricted, and the kinds of others."""
    for name in (NAMESPACE, "team-a", "team-b"):
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        helm3.kubectl("apply", "--server-side", "-f", "-", text=json.dumps(manifest))
    for group, (version, kind) in FOREIGN.items():
        crd = json.dumps(_foreign(group, version, kind))
        helm3.kubectl("apply", "--server-side", "-f", "-", text=crd)
        helm3.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", "-", text=crd)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_values_file_is_accepted_as_it_is(helm3: Chart, file: Path) -> None:
    helm3.helm("lint", "--strict", str(CHART), "--values", str(file))
    command = (
        "template",
        "rfuav",
        str(CHART),
        "--namespace",
        NAMESPACE,
        "--values",
        str(file),
        "--kube-version",
        "1.35.4",
    )
    rendered = helm3.helm(*command).stdout
    assert rendered == helm3.helm(*command).stdout
    applied = helm3.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", text=rendered)
    assert "Warning" not in applied.stderr  # a Deployment whose pods are not restricted is warned about
    for deployment in (o for o in manifests(rendered) if o["kind"] == "Deployment"):
        template = deployment["spec"]["template"]
        template["spec"].pop("serviceAccountName")  # there is none before the chart is installed
        pod = {"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]}
        pod["metadata"] = {"name": deployment["metadata"]["name"], "namespace": NAMESPACE, **template["metadata"]}
        helm3.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(pod))


def test_there_are_files() -> None:
    ci = {"gateway-values", "namespaces-values", "everything-values"}
    places = ("gpu-operator-time-slicing", "kind", "k3s", "gke", "eks-karpenter", "openshift")
    assert {file.stem for file in FILES} >= ci | {f"values-{place}" for place in places}
