"""Which cluster to use, and why: a given one on request, kind if Docker can run it, else the embedded one.

In: the environment. Out: a `Choice` whose reason is shown to people.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localcluster.binaries import KUBERNETES_VERSION
from localcluster.errors import LocalClusterError
from localcluster.state import Profile

USE_KUBECONFIG = "RFUAV_USE_KUBECONFIG"
KIND_IMAGE = f"kindest/node:v{KUBERNETES_VERSION}"
_PULL_TIMEOUT = 300  # seconds


@dataclass(frozen=True)
class Choice:
    """What will be used. `kubeconfig` is set for a given cluster alone."""

    kind: Literal["given", "kind", "embedded"]
    reason: str
    kubeconfig: Path | None = None


def choose(profile: Profile, *, use_kubeconfig: bool | None = None) -> Choice:
    """Decide in order: given, kind, embedded.

    `use_kubeconfig=None`: as the environment variable RFUAV_USE_KUBECONFIG says.
    """
    asked = os.environ.get(USE_KUBECONFIG, "") in {"1", "true", "yes"} if use_kubeconfig is None else use_kubeconfig
    if asked:
        kubeconfig = _given_kubeconfig()
        return Choice("given", f"using the cluster of {kubeconfig}: asked to", kubeconfig)
    if profile == "api":
        return Choice("embedded", "using an embedded control plane: the api profile needs no nodes")
    if shutil.which("docker") is None:
        return Choice("embedded", "using the embedded cluster: there is no docker command")
    if not _succeeds(["docker", "info"], 20):
        return Choice("embedded", "using the embedded cluster: the Docker daemon does not answer")
    if not _succeeds(["docker", "image", "inspect", KIND_IMAGE], 20) and not _succeeds(
        ["docker", "pull", "--quiet", KIND_IMAGE], _PULL_TIMEOUT
    ):
        return Choice(
            "embedded", f"using the embedded cluster: Docker runs, but {KIND_IMAGE} is not there and cannot be pulled"
        )
    return Choice("kind", f"using kind: Docker runs and {KIND_IMAGE} is there")


def _given_kubeconfig() -> Path:
    value = os.environ.get("KUBECONFIG", "")
    if not value:
        default = Path.home() / ".kube" / "config"
        if default.is_file():
            return default
        message = (
            "Asked to use a given cluster, but KUBECONFIG is not set and there is no ~/.kube/config: set"
            " KUBECONFIG to a kubeconfig file."
        )
        raise LocalClusterError(message)
    path = Path(value)
    if not path.is_file():
        message = (
            f"Asked to use the cluster of KUBECONFIG={value}, but that is not a file: set it to one kubeconfig file."
        )
        raise LocalClusterError(message)
    return path.resolve()


def _succeeds(command: list[str], timeout: float) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=timeout, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
