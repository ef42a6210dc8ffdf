"""The cluster that the contract tests run on: started once, or the one that already runs under its name.

RFUAV_TEST_CLUSTER names it (default `contract`); a cluster that ran before the tests is left running.
"""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes import client, config

from localcluster import api
from localcluster.api import Cluster

ROOT = Path(__file__).parents[2]
Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def api_cluster() -> Iterator[Cluster]:
    """A running `api` cluster with the CRDs installed."""
    name = os.environ.get("RFUAV_TEST_CLUSTER", "contract")
    ran_before = api.get(name) is not None
    cluster = api.up(name, "api")
    try:
        _install_crds(cluster)
        yield cluster
    finally:
        if not ran_before:
            api.down(name)


@pytest.fixture(scope="session")
def kubeconfig(api_cluster: Cluster) -> Path:
    """Path of the kubeconfig of an administrator."""
    return api_cluster.kubeconfig


@pytest.fixture(scope="session")
def kube(kubeconfig: Path) -> client.ApiClient:
    """The Kubernetes client, as an administrator."""
    return config.new_client_from_config(str(kubeconfig))


@pytest.fixture
def namespace(kube: client.ApiClient) -> Iterator[str]:
    """A fresh namespace."""
    core = client.CoreV1Api(kube)
    name = f"test-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


@pytest.fixture(scope="session")
def kubectl(api_cluster: Cluster) -> Kubectl:
    """Runs kubectl with the given arguments; `manifest` goes to its standard input, as JSON."""
    program = _kubectl(api_cluster)

    def run(*arguments: str, manifest: object = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [program, f"--kubeconfig={api_cluster.kubeconfig}", *arguments],
            input=None if manifest is None else json.dumps(manifest),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


def _kubectl(cluster: Cluster) -> str:
    program = cluster.programs.get("kubectl") or shutil.which("kubectl")
    assert program, "kubectl is needed: put it in PATH, or let localcluster build it (unset RFUAV_USE_KUBECONFIG)"
    return str(program)


def _install_crds(cluster: Cluster) -> None:
    for command in (
        ["apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds")],
        ["wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds")],
    ):
        done = subprocess.run(
            [_kubectl(cluster), f"--kubeconfig={cluster.kubeconfig}", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
