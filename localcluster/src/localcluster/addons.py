"""What real nodes need beside them, as processes on the host: an image registry, DNS, volumes, and the imitated GPUs.

In: a running API server. Out: images can be pushed, names resolve, claims are bound, `nvidia.com/gpu` is allocatable.
"""

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from localcluster import binaries, controlplane, fullnode, processes
from localcluster.errors import LocalClusterError
from localcluster.gpus import RESOURCE, Gpus
from localcluster.state import Layout, Settings

STORAGE_CLASS = "standard"
PROVISIONER = "localcluster.rfuav.io/folder"


def start_registry(layout: Layout, settings: Settings, programs: dict[str, Path]) -> None:
    """An image registry on the bridge: this machine and the nodes reach it, nobody else does.

    What it stores outlives the cluster, so that the next one's images need not be compressed and pushed again. Several
    registries may share the folder: blobs are named by their content and moved into place whole.
    """
    blobs = binaries.cache_root() / "images" / "registry"
    storage = {"filesystem": {"rootdirectory": str(blobs)}, "delete": {"enabled": False}}
    configuration = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": storage,
        "http": {"addr": settings.registry},
    }
    file = layout.root / "registry.yaml"
    file.write_text(yaml.safe_dump(configuration))
    controlplane.launch(layout, settings, "registry", [str(programs["registry"]), "serve", str(file)])
    controlplane.wait_until(layout, "registry", lambda: _answers(f"http://{settings.registry}/v2/"), timeout=30)


def start_dns(layout: Layout, settings: Settings, programs: dict[str, Path]) -> None:
    """CoreDNS beside the API server; the service kube-dns leads there. It knows the cluster's names and no others."""
    port, health = settings.ports["coredns"], settings.ports["coredns-health"]
    corefile = layout.root / "Corefile"
    # A block of its own for all other names: in one block `template` would answer before `kubernetes`.
    corefile.write_text(f"""cluster.local:{port} in-addr.arpa:{port} {{
    bind {settings.gateway}
    errors
    health 127.0.0.1:{health}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {layout.kubeconfig} localcluster
        ttl 5
    }}
}}
.:{port} {{
    bind {settings.gateway}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
""")
    controlplane.launch(layout, settings, "coredns", [str(programs["coredns"]), "-conf", str(corefile)])
    controlplane.wait_until(layout, "coredns", lambda: _answers(f"http://127.0.0.1:{health}/health"), timeout=30)
    apply(layout, programs, _dns_service(settings))


def start_volumes(layout: Layout, programs: dict[str, Path]) -> None:
    """The default StorageClass and what answers its claims."""
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",  # every node sees every volume
    }
    apply(layout, programs, [storage_class])
    layout.volumes.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "localcluster.provisioner", str(layout.kubeconfig), str(layout.volumes)]
    processes.start(layout, "provisioner", command)


def start_gpus(layout: Layout, index: int) -> None:
    """The imitated GPUs of one node."""
    sockets = layout.node(index) / "var/lib/kubelet/device-plugins"
    start_device_plugin(layout, index, fullnode.name(layout, index), sockets)


def start_device_plugin(layout: Layout, index: int, node: str, sockets: Path) -> None:
    """The device plugin of one node, beside the kubelet's sockets in the folder `sockets`."""
    command = [sys.executable, "-m", "localcluster.deviceplugin", node, str(sockets)]
    processes.start(layout, f"gpus-{index}", command)


def wait_for_node(layout: Layout, programs: dict[str, Path], index: int) -> None:
    """Until the node is Ready and offers its GPUs."""
    ready = '{.status.conditions[?(@.type=="Ready")].status}'
    gpus = "{.status.allocatable." + RESOURCE.replace(".", r"\.") + "}"
    query = ["get", "node", fullnode.name(layout, index), "-o", f"jsonpath={ready} {gpus}"]
    wanted = f"True {Gpus().slots}"

    def look() -> bool:
        return kubectl(layout, programs, *query, check=False) == wanted

    controlplane.wait_until(layout, f"node-{index}", look, timeout=120)


def kubectl(layout: Layout, programs: dict[str, Path], *arguments: str, stdin: str = "", check: bool = True) -> str:
    """Run kubectl against the cluster and return what it printed."""
    command = [str(programs["kubectl"]), f"--kubeconfig={layout.kubeconfig}", *arguments]
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if check and result.returncode != 0:
        raise LocalClusterError(f"`kubectl {' '.join(arguments)}` failed: {result.stderr.strip()}")
    return result.stdout.strip()


def apply(layout: Layout, programs: dict[str, Path], objects: list[dict[str, Any]]) -> None:
    """Apply objects; changes nothing if they exist already."""
    kubectl(layout, programs, "apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(objects))


def _dns_service(settings: Settings) -> list[dict[str, Any]]:
    metadata = {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}
    protocols = {"dns": "UDP", "dns-tcp": "TCP"}
    port = settings.ports["coredns"]
    ports = [{"name": n, "port": 53, "targetPort": port, "protocol": p} for n, p in protocols.items()]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"clusterIP": str(settings.dns_address), "ports": ports},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [str(settings.gateway)]}],
        "ports": [{"name": n, "port": port, "protocol": p} for n, p in protocols.items()],
    }
    return [service, endpoints]


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2):
            return True
    except OSError:
        return False
