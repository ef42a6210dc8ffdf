"""The full profile where Docker runs: kind's node in a container, with our registry and imitated GPUs beside it.

In: a Docker daemon with kind's node image. Out: the same kubeconfig, registry and GPUs as the embedded cluster has.
"""

import dataclasses
import json
import subprocess
from pathlib import Path

import yaml

from localcluster import addons, binaries, processes, state
from localcluster.errors import LocalClusterError
from localcluster.gpus import Gpus
from localcluster.selection import KIND_IMAGE
from localcluster.state import Layout, Settings

PROGRAMS = ("kind", "kubectl", "helm", "registry")
_DEVICE_PLUGINS = "/var/lib/kubelet/device-plugins"
_REGISTRIES = "/etc/containerd/certs.d"
_READ_REGISTRIES = f"""[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{_REGISTRIES}"
"""


def up(layout: Layout, settings: Settings, programs: dict[str, Path]) -> Settings:
    """Make the cluster unless it exists, start the processes beside it, and return settings with the registry."""
    if settings.nodes != 1:
        raise LocalClusterError(
            "On kind the cluster has one node: leave --nodes out, or stop Docker to get the embedded one."
        )
    folders = {_DEVICE_PLUGINS: layout.node(0) / "device-plugins", _REGISTRIES: layout.node(0) / "certs.d"}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    if name(layout) not in _run(programs, "get", "clusters").split():
        file = layout.root / "kind.yaml"
        file.write_text(yaml.safe_dump(configuration(folders)))
        image, wait = f"--image={KIND_IMAGE}", "--wait=180s"
        _run(
            programs,
            "create",
            "cluster",
            image,
            wait,
            f"--config={file}",
            f"--kubeconfig={layout.kubeconfig}",
            "--name",
            name(layout),
        )
    settings = dataclasses.replace(settings, registry_host=_gateway())
    state.save(layout, settings)
    hosts = folders[_REGISTRIES] / str(settings.registry)
    hosts.mkdir(exist_ok=True)
    (hosts / "hosts.toml").write_text(f'[host."http://{settings.registry}"]\n  capabilities = ["pull", "resolve"]\n')
    addons.start_registry(layout, settings, programs)
    addons.start_device_plugin(layout, 0, node(layout), folders[_DEVICE_PLUGINS])
    return settings


def down(layout: Layout) -> None:
    """Remove the node's container and the processes beside it; works without Docker's answer too."""
    processes.kill_all(layout)
    program = binaries.locate("kind")
    if program is None:
        raise LocalClusterError(
            "kind made this cluster and its program is gone: run `localcluster build kind`, then `down` again."
        )
    _run({"kind": program}, "delete", "cluster", f"--kubeconfig={layout.kubeconfig}", "--name", name(layout))


def is_ready(layout: Layout, programs: dict[str, Path]) -> bool:
    """Whether the API server says that it is ready and the registry runs."""
    if "kubectl" not in programs:
        return False
    ready = addons.kubectl(layout, programs, "get", "--raw=/readyz", "--request-timeout=2s", check=False) == "ok"
    return ready and processes.is_running(layout, "registry")


def name(layout: Layout) -> str:
    """What kind calls the cluster."""
    return f"rfuav-{layout.id}"


def node(layout: Layout) -> str:
    """What kind calls its one node."""
    return f"{name(layout)}-control-plane"


def configuration(folders: dict[str, Path]) -> dict[str, object]:
    """Kind's configuration: one node with the GPUs' labels, which sees `folders` (path in the node: folder of ours)."""
    mounts = [{"hostPath": str(outside), "containerPath": inside} for inside, outside in folders.items()]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "containerdConfigPatches": [_READ_REGISTRIES],
        "nodes": [{"role": "control-plane", "labels": Gpus().labels(), "extraMounts": mounts}],
    }


def _gateway() -> str:
    """This machine as kind's nodes see it: the IPv4 gateway of Docker's network `kind`."""
    command = ["docker", "network", "inspect", "kind"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LocalClusterError(f"`{' '.join(command)}` failed: {result.stderr.strip()}")
    configured = json.loads(result.stdout)[0]["IPAM"]["Config"]
    gateways = [one["Gateway"] for one in configured if "." in one.get("Gateway", "")]
    if not gateways:
        raise LocalClusterError(
            "Docker's network `kind` has no IPv4 gateway: remove it (`docker network rm kind`) and run this again."
        )
    return str(gateways[0])


def _run(programs: dict[str, Path], *arguments: str) -> str:
    result = subprocess.run([str(programs["kind"]), *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LocalClusterError(f"`kind {' '.join(arguments)}` failed:\n{result.stderr.strip()[-2000:]}")
    return result.stdout
