"""A cluster of its own, on which nothing but the chart has made anything, and helm against it."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from rich.console import Console

from localcluster import api, binaries
from localcluster.api import Cluster
from localcluster.gpus import Gpus
from localcluster.simulation import create_nodes

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm/rfuav-operator"
NAMESPACE = "rfuav-system"
Object = dict[str, Any]
HELMS = ("helm", "helm4")


class Chart:
    """helm and kubectl on the cluster; a failed command fails the test, unless it is told otherwise."""

    def __init__(self, cluster: Cluster, helm: Path) -> None:
        self.cluster, self._helm = cluster, helm
        self.kube = config.new_client_from_config(str(cluster.kubeconfig))
        self.core, self.custom = client.CoreV1Api(self.kube), client.CustomObjectsApi(self.kube)

    def helm(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run helm."""
        return self._run(self._helm, *arguments, check=check)

    def kubectl(self, *arguments: str, text: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl; `text` goes to its standard input."""
        return self._run(self.cluster.programs["kubectl"], *arguments, text=text, check=check)

    def get(self, *arguments: str) -> Any:
        """What `kubectl get` finds."""
        return json.loads(self.kubectl("get", *arguments, "--output=json").stdout)

    def names(self, kind: str) -> set[str]:
        """Of the chart's objects of a cluster-wide kind."""
        return {
            o["metadata"]["name"] for o in self.get(kind, "--selector=app.kubernetes.io/name=rfuav-operator")["items"]
        }

    def namespace(self, name: str, **labels: str) -> None:
        """Make a namespace."""
        self.core.create_namespace({"metadata": {"name": name, "labels": labels}})

    def _run(self, program: Path, *arguments: str, text: str = "", check: bool) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(program), "--kubeconfig", str(self.cluster.kubeconfig), *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert not check or done.returncode == 0, f"{program.name} {' '.join(arguments)}: {done.stderr}"
        return done


@pytest.fixture(scope="session")
def chart_cluster() -> Iterator[Cluster]:
    """An `api` cluster with two simulated nodes, on which pods become ready by themselves."""
    name = os.environ.get("RFUAV_TEST_CLUSTER", "contract") + "-chart"
    ran_before = api.get(name) is not None
    cluster = api.up(name, "api")
    try:
        if not ran_before:
            create_nodes(cluster.kubeconfig, 2, prefix="chart", gpus=Gpus(0))
        yield cluster
    finally:
        if not ran_before:
            api.down(name)


@pytest.fixture(scope="session", params=HELMS)
def chart(chart_cluster: Cluster, request: pytest.FixtureRequest) -> Chart:
    """With Helm 3, and with Helm 4 where it is built."""
    if request.param == "helm4" and binaries.locate("helm4") is None:
        pytest.skip("Helm 4 is not built: run `make test-helm4`")
    return Chart(chart_cluster, binaries.ensure((request.param,), Console(stderr=True))[request.param])


@pytest.fixture(scope="session")
def helm3(chart_cluster: Cluster) -> Chart:
    """Where the version of helm does not matter."""
    return Chart(chart_cluster, binaries.ensure(("helm",), Console(stderr=True))["helm"])


def manifests(text: str) -> list[Object]:
    """The objects of a rendered chart."""
    return [o for o in yaml.safe_load_all(text) if o]
