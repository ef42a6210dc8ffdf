"""The operator with the rights that the chart grants it, and none besides: it serves the namespaces that it is given."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from contract.chart.conftest import CHART, NAMESPACE, ROOT, Chart
from contract.operator.conftest import Operator, until

from localcluster.simulation import ANNOTATION_PREFIX
from rfuav_crds.contract import API_VERSION

pytestmark = pytest.mark.contract

SERVED, OTHER = "served", "not-served"


def _job(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "metadata": {"name": "a", "namespace": namespace},
        "spec": {
            "model": {"architecture": "resnet18", "weights": "none", "numClasses": 3},
            "dataset": {"train": {"uri": "s3://open/train"}, "validation": {"fraction": 0.2}},
            "output": {"uri": "s3://open/out"},
            "resources": {"gpus": 0},
            "podTemplate": {"metadata": {"annotations": {f"{ANNOTATION_PREFIX}run-for": "2s"}}},
            "ttlSecondsAfterFinished": 1,
        },
    }


@pytest.fixture
def operator(helm3: Chart, tmp_path: Path) -> Iterator[Operator]:
    """Its process, as the ServiceAccount of the chart with `watchNamespaces`."""
    helm3.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    helm3.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))
    for name in (NAMESPACE, SERVED, OTHER):
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        helm3.kubectl("apply", "--server-side", "-f", "-", text=json.dumps(manifest))
    rendered = helm3.helm(
        *("template", "rfuav", str(CHART), "--kube-version", "1.35.4", "--namespace", NAMESPACE),
        *("--set", f"watchNamespaces={{{SERVED}}}", "--show-only", "templates/rbac.yaml"),
    ).stdout
    helm3.kubectl("apply", "--server-side", "-f", "-", text=rendered)
    configuration = yaml.safe_load(helm3.cluster.kubeconfig.read_text())
    token = helm3.kubectl("create", "token", "rfuav-operator", "--namespace", NAMESPACE).stdout.strip()
    configuration["users"][0]["user"] = {"token": token}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(configuration))
    made = Operator(kubeconfig, tmp_path, "limited")
    settings = yaml.safe_load(made._settings.read_text())
    made._settings.write_text(
        yaml.safe_dump(
            {**settings, "namespace": NAMESPACE, "watchNamespaces": [SERVED], "defaultPool": {"enabled": True}}
        )
    )
    made.start()
    yield made
    if made.running:
        made.stop()
    helm3.kubectl("delete", "-f", "-", text=rendered)
    helm3.kubectl("delete", "namespace", SERVED, OTHER)
    helm3.kubectl("delete", "-f", str(ROOT / "crds"))


def test_it_runs_jobs_of_its_namespaces_and_touches_no_other(helm3: Chart, operator: Operator) -> None:
    until(lambda: operator.metric("rfuav_leader") == 1, 60)
    for namespace in (OTHER, SERVED):
        helm3.kubectl("create", "-f", "-", text=json.dumps(_job(namespace)))
    until(lambda: helm3.core.list_namespaced_pod(SERVED).items, 60)
    # From the first status to the end of its time: status, pods, Events and the delete are within its rights.
    until(lambda: not helm3.get("trainingjobs", "--namespace", SERVED)["items"], 60)
    until(
        lambda: helm3.get("events", "--namespace", SERVED, "--field-selector=involvedObject.kind=TrainingJob")["items"],
        10,
    )
    time.sleep(1)
    assert "status" not in helm3.get("trainingjob", "a", "--namespace", OTHER)
    assert not helm3.core.list_namespaced_pod(OTHER).items
    assert helm3.get("gpupool", "default")["status"]["nodes"] == 2
    assert "orbidden" not in operator.log.read_text()
