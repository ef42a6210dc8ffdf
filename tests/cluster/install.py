"""Puts both images and the chart on a cluster, as the README tells an administrator to.

In: a running cluster with a registry, and the namespace of the jobs. Out: a ready operator and gateway; returned is the trainer's image.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from cluster.jobs import CAPTURES, CPU_JOB, MODELS
from cluster.kube import NAMESPACE as JOBS

from localcluster import images
from localcluster.api import Cluster

ROOT = Path(__file__).parents[2]
NAMESPACE = "rfuav-system"
GATEWAY = f"http://rfuav-gateway.{NAMESPACE}"  # for pods
NODE_PORT = 30080  # the gateway's, for a browser on this machine
# Short waits, CPUs for GPUs: what makes a run of minutes out of one of hours, and nothing else.
VALUES: dict[str, Any] = {
    "replicas": 1,  # `test_standby` starts the second one
    "settings": {
        "logLevel": "info",
        "jobs": {"allowCpu": True},
        "retries": {"backoffBaseSeconds": 1, "backoffCapSeconds": 4, "nodeAvoidSeconds": 5, "uncountedLimit": 200},
        "leader": {"leaseSeconds": 10},
    },
    # A share of the cores that the trainings beside it cannot starve.
    "resources": {"requests": {"cpu": "500m", "memory": "128Mi"}},
    "defaultPool": {
        "spec": {"scheduleTimeoutSeconds": 10, "startTimeoutSeconds": 60, "perNodeCPU": {"training": 3, "inference": 4}}
    },
    "gateway": {
        "enabled": True,
        "settings": {
            "compat": {"enabled": True, "namespace": JOBS},
            "roots": [
                {"path": "/data", "uri": f"pvc://{CAPTURES}"},
                {"path": "/data/models", "uri": f"pvc://{MODELS}"},
            ],
            "resources": {name: amount for name, amount in CPU_JOB.items() if name != "gpus"},
        },
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "service": {"type": "NodePort", "nodePort": NODE_PORT},
    },
}


def install(cluster: Cluster) -> str:
    """Build and push both images (cached layers are not built again), install the chart, wait until the operator is ready."""
    registry = cluster.registry
    assert registry, "this cluster has no registry of its own: unset RFUAV_USE_KUBECONFIG"

    def build(name: str) -> str:
        return images.build(ROOT / f"Dockerfile.{name}", f"rfuav-{name}", registry=registry, context=ROOT)

    operator, trainer = build("operator"), build("trainer")
    repository, _, tag = operator.rpartition(":")
    values = {**VALUES, "image": {"repository": repository, "tag": tag}, "trainer": {"image": trainer}}
    command = [
        *(str(cluster.programs["helm"]), "upgrade", "--install", "rfuav", str(ROOT / "helm/rfuav-operator")),
        *("--kubeconfig", str(cluster.kubeconfig), "--namespace", NAMESPACE, "--create-namespace"),
        *("--values", "-", "--wait", "--timeout", "180s"),
    ]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return trainer
