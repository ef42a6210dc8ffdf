"""`kubectl rfuav` as users of the cluster: their own kubeconfig, and the chart's roles."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from kubernetes import client
from kubernetes.client.rest import ApiException

from localcluster.api import Cluster
from localcluster.pki import Authority
from rfuav_cli import main
from rfuav_crds.contract import GROUP, PLURALS, VERSION

ROOT = Path(__file__).parents[3]
PROGRAMS = Path(sys.executable).parent
Object = dict[str, Any]
Roles = dict[tuple[str, str], Object]


class Done(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(scope="session")
def kubectl_path(api_cluster: Cluster) -> str:
    """PATH with kubectl and its plugin."""
    kubectl = Path(api_cluster.programs["kubectl"]).parent if "kubectl" in api_cluster.programs else Path("/usr/bin")
    return f"{kubectl}:{PROGRAMS}:/usr/bin:/bin"


@pytest.fixture(scope="session")
def roles() -> Roles:
    """The roles for users that the chart installs, by kind and name."""
    text = (ROOT / "helm/rfuav-operator/templates/user-roles.yaml").read_text()
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(re.sub(r"\{\{.*?\}\}", "", text))}


@pytest.fixture(scope="session")
def chart_roles(kube: client.ApiClient, roles: Roles) -> Iterator[None]:
    """`view` and `edit` cover jobs, as with the chart."""
    rbac = client.RbacAuthorizationV1Api(kube)
    made = []
    for name in ("rfuav-view", "rfuav-edit"):
        try:
            rbac.create_cluster_role(roles["ClusterRole", name])
        except ApiException as error:
            if error.status != HTTPStatus.CONFLICT:  # from the other folder that uses this fixture
                raise
        else:
            made.append(name)
    yield
    for name in made:
        rbac.delete_cluster_role(name)


@pytest.fixture
def pools_for_everyone(kube: client.ApiClient, roles: Roles) -> Iterator[None]:
    """Who is logged in may read pools, as with the chart."""
    rbac = client.RbacAuthorizationV1Api(kube)
    rbac.create_cluster_role(roles["ClusterRole", "rfuav-pools"])
    rbac.create_cluster_role_binding(roles["ClusterRoleBinding", "rfuav-pools"])
    yield
    rbac.delete_cluster_role_binding("rfuav-pools")
    rbac.delete_cluster_role("rfuav-pools")


@pytest.fixture
def user(
    kube: client.ApiClient, api_cluster: Cluster, namespace: str, chart_roles: None, tmp_path: Path
) -> Callable[..., Path]:
    """Makes the kubeconfig of a user who has a role in the test's namespace, and nothing else."""
    rbac = client.RbacAuthorizationV1Api(kube)

    def make(role: str = "edit", *, name: str = "") -> Path:
        name = name or f"{role}-{namespace}"
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}],
        }
        rbac.create_namespaced_role_binding(namespace, binding)
        authority = Authority(api_cluster.kubeconfig.parent / "pki")
        server = yaml.safe_load(api_cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        path = authority.kubeconfig(tmp_path / f"{name}.kubeconfig", server, name)
        config = yaml.safe_load(path.read_text())
        config["contexts"][0]["context"]["namespace"] = namespace
        path.write_text(yaml.safe_dump(config))
        return path

    return make


@pytest.fixture
def edit(user: Callable[..., Path]) -> Path:
    """The kubeconfig of a user with the role `edit` in the test's namespace."""
    return user()


@pytest.fixture
def rfuav(edit: Path, kubectl_path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, as that user."""
    monkeypatch.setenv("PATH", kubectl_path)
    monkeypatch.setenv("KUBECONFIG", str(edit))

    def run(*words: str, kubeconfig: Path | None = None) -> Done:
        capsys.readouterr()
        code = main.run([*words, *([f"--kubeconfig={kubeconfig}"] if kubeconfig else [])])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert code == 0 or err.strip(), "it failed without a word"
        return Done(code, out, err)

    return run


@pytest.fixture
def program(edit: Path, kubectl_path: str) -> Callable[..., subprocess.Popen[str]]:
    """Starts a command as a process of its own."""

    def start(*words: str, **more: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "PATH": kubectl_path, "KUBECONFIG": str(edit)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
        return subprocess.Popen(list(words), env=environment, **pipes)

    return start


class Jobs:
    """Jobs of a namespace, written by an administrator, as an operator would."""

    def __init__(self, kube: client.ApiClient, namespace: str) -> None:
        self._api = client.CustomObjectsApi(kube)
        self.namespace = namespace

    def create(self, name: str, kind: str = "TrainingJob", *, status: Object | None = None, **spec: Any) -> Object:
        """A job, with a status."""
        base = {"output": {"uri": "pvc://models/a"}, "model": {"architecture": "resnet18"}}
        if kind == "TrainingJob":
            base["dataset"] = {"train": {"uri": "pvc://captures/train"}, "validation": {"fraction": 0.2}}
        else:
            base |= {"model": {"weights": "pvc://models/w.safetensors"}, "input": {"uri": "pvc://captures/in"}}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": base | spec}
        made: Object = self._api.create_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], body)
        if status is not None:
            self.status(name, kind, **status)
        return made

    def status(self, name: str, kind: str = "TrainingJob", **status: Any) -> None:
        """Change a status."""
        self._api.patch_namespaced_custom_object_status(
            GROUP, VERSION, self.namespace, PLURALS[kind], name, {"status": status}
        )

    def get(self, name: str, kind: str = "TrainingJob") -> Object:
        """A job as it is."""
        found: Object = self._api.get_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], name)
        return found

    def exists(self, name: str) -> bool:
        """Whether a TrainingJob is there."""
        try:
            self.get(name)
        except ApiException as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False
        return True

    def delete(self, name: str, kind: str = "TrainingJob") -> None:
        """Delete a job."""
        self._api.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], name)


@pytest.fixture
def jobs(kube: client.ApiClient, namespace: str) -> Jobs:
    """Jobs of the test's namespace."""
    return Jobs(kube, namespace)


@pytest.fixture
def pool(kube: client.ApiClient, namespace: str) -> Iterator[str]:
    """A GPUPool with numbers in its status."""
    api = client.CustomObjectsApi(kube)
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "GPUPool", "metadata": {"name": namespace}, "spec": {}}
    api.create_cluster_custom_object(GROUP, VERSION, "gpupools", body)
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": "admits jobs on 1 of 1 nodes"}
    ready["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    status = {"gpus": 2, "slots": 8, "slotsInUse": {"training": 2, "inference": 0}, "conditions": [ready]}
    status |= {"pending": {"total": 7}, "running": {"training": 2}, "nodes": 1}
    api.patch_cluster_custom_object_status(GROUP, VERSION, "gpupools", namespace, {"status": status})
    yield namespace
    with contextlib.suppress(ApiException):
        api.delete_cluster_custom_object(GROUP, VERSION, "gpupools", namespace)


def read(text: str) -> Any:
    """JSON that a command printed."""
    return json.loads(text)
