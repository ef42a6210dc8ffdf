"""Real nodes: each a set of namespaces with containerd, kubelet and kube-proxy inside (node-init.sh).

In: a cluster's settings and a running API server. Out: Ready nodes. They reach the host, and one another, and
nothing else.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import yaml

from localcluster import cleanup, controlplane, hostcheck, links, processes
from localcluster.gpus import Gpus
from localcluster.pki import Authority
from localcluster.state import Layout, Settings

PAUSE_IMAGE = "localcluster/pause:1"
_INIT = Path(__file__).with_name("node-init.sh")
_OVERLAY_MAGIC = "overlay"


def name(layout: Layout, index: int) -> str:
    """A node's name, which includes its cluster."""
    return f"{layout.name}-{index}"


def start(layout: Layout, settings: Settings, programs: dict[str, Path], index: int) -> None:
    """Start node `index` unless it runs, and plug it in. After a crash it comes back as a machine after a reboot."""
    component = f"node-{index}"
    if not processes.is_running(layout, component):
        _launch(layout, settings, programs, index)
    controlplane.wait_until(layout, component, lambda: init_pid(layout, index) is not None, timeout=10)
    pid = init_pid(layout, index)
    if pid is not None:
        links.plug(layout, settings, index, pid)  # also one that runs: the `up` that started it may have been killed


def _launch(layout: Layout, settings: Settings, programs: dict[str, Path], index: int) -> None:
    folder = layout.node(index)
    folder.mkdir(parents=True, exist_ok=True)
    layout.volumes.mkdir(parents=True, exist_ok=True)
    layout.logs.mkdir(parents=True, exist_ok=True)
    cgroup = _ensure_cgroup(layout, index)
    _write_configuration(layout, settings, programs, index, cgroup)
    routes = "\n".join(
        f"{settings.node_pods(i)} {settings.node_address(i)}" for i in range(settings.nodes) if i != index
    )
    labels = Gpus().labels()
    environment = {
        "NODE_NAME": name(layout, index),
        "NODE_DIR": str(folder),
        "LOG_DIR": str(layout.logs),
        "VOLUME_DIR": str(layout.volumes),
        "NODE_PROGRAMS": f"{programs['kubelet']} {programs['kube-proxy']}",
        "NODE_ADDRESS": f"{settings.node_address(index)}/{settings.node_network.prefixlen}",
        "NODE_LABELS": ",".join(f"{key}={value}" for key, value in labels.items()),
        "GATEWAY": str(settings.gateway),
        "POD_NETWORK": str(settings.pod_network),
        "POD_ROUTES": routes,
    }
    namespaces = ["--pid", "--mount-proc", "--mount", "--net", "--uts", "--ipc", "--propagation", "private"]
    command = ["unshare", "--fork", "--kill-child", *namespaces, "bash", str(_INIT)]
    processes.start(layout, f"node-{index}", command, extra_environment=environment)


def init_pid(layout: Layout, index: int) -> int | None:
    """The node's first process, by its pid on the host; None if it does not exist (yet)."""
    for process in processes.running(layout):
        if process.component != f"node-{index}":
            continue
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            command = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
        if numbers[-1] == "1" and len(numbers) > 1 and str(_INIT).encode() in command and command[0] == b"bash":
            return process.pid
    return None


def _ensure_cgroup(layout: Layout, index: int) -> str:
    """Make the control group the node's pods run under, in every hierarchy, and return its path below them."""
    top = cleanup.cgroup_name(layout)
    if (cleanup.CGROUPS / "cgroup.controllers").exists():
        roots = [cleanup.CGROUPS]
    else:
        roots = [p for p in cleanup.CGROUPS.iterdir() if p.is_dir() and not p.is_symlink() and p.name != "unified"]
    for root in roots:
        folder = root
        for part in (top, f"node-{index}"):
            _delegate(folder)
            (folder / part).mkdir(exist_ok=True)
            for limit in ("cpuset.cpus", "cpuset.mems"):  # a cpuset of cgroup v1 starts empty and takes no process then
                if root.name == "cpuset":
                    (folder / part / limit).write_text((folder / limit).read_text())
            folder = folder / part
    return f"/{top}/node-{index}"


def _delegate(folder: Path) -> None:
    """With cgroup v2, let children of `folder` use its controllers."""
    controllers = folder / "cgroup.controllers"
    if controllers.exists():
        wanted = {"cpu", "cpuset", "memory", "pids", "io", "hugetlb"} & set(controllers.read_text().split())
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in sorted(wanted)))


def _write_configuration(
    layout: Layout, settings: Settings, programs: dict[str, Path], index: int, cgroup: str
) -> None:
    folder, authority, node = layout.node(index), Authority(layout.pki), name(layout, index)
    inside = Path("/run/localcluster/node")
    certificate, key = authority.issue(f"{node}-server", node, hosts=(node, str(settings.node_address(index))))
    for source, target in ((certificate, "server.crt"), (key, "server.key"), (authority.certificate, "ca.crt")):
        (folder / target).write_bytes(source.read_bytes())
        (folder / target).chmod(0o600)
    kubeconfig = authority.kubeconfig(
        layout.pki / f"{node}.kubeconfig", settings.server_url, f"system:node:{node}", groups=("system:nodes",)
    )
    (folder / "kubelet.kubeconfig").write_bytes(kubeconfig.read_bytes())
    kubeconfig = authority.kubeconfig(layout.pki / "kube-proxy.kubeconfig", settings.server_url, "system:kube-proxy")
    (folder / "kube-proxy.kubeconfig").write_bytes(kubeconfig.read_bytes())
    (folder / "resolv.conf").write_text(f"nameserver {settings.dns_address}\n")
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet(settings, inside, cgroup)))
    (folder / "containerd.toml").write_text(_containerd(layout, inside))
    (folder / "cni").mkdir(exist_ok=True)
    (folder / "cni" / "10-pods.conflist").write_text(json.dumps(_cni(settings, index)))
    registry = folder / "certs.d" / str(settings.registry)
    registry.mkdir(parents=True, exist_ok=True)
    address = f"http://{settings.registry}"
    hosts = f'server = "{address}"\n[host."{address}"]\n  capabilities = ["pull", "resolve"]\n'
    (registry / "hosts.toml").write_text(hosts)
    _write_pause_image(programs["pause"], folder / "pause.tar")


def _kubelet(settings: Settings, inside: Path, cgroup: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(inside / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(inside / "server.crt"),
        "tlsPrivateKeyFile": str(inside / "server.key"),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDomain": "cluster.local",
        "clusterDNS": [str(settings.dns_address)],
        "resolvConf": str(inside / "resolv.conf"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "5s",
        "nodeLeaseDurationSeconds": 20,
        "syncFrequency": "10s",
        # the disk belongs to the whole machine: its fill level says nothing about this node
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
    }


def _containerd(layout: Layout, inside: Path) -> str:
    # an overlay upon an overlay is refused, which is what a container's root file system is
    snapshotter = "native" if _file_system(layout.root) == _OVERLAY_MAGIC else "overlayfs"
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/{PAUSE_IMAGE}"
  # without CAP_SYS_RESOURCE runc may not lower a score, and fails with "can't get final child's PID from pipe: EOF"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{hostcheck.cni_folder()}"
    conf_dir = "{inside / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{inside / "certs.d"}"
"""


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`."""
    best = ("/", "")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split(" ")
        if path.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _cni(settings: Settings, index: int) -> dict[str, Any]:
    # ptp rather than bridge: every packet is routed by the node, so service addresses work without the module
    # br_netfilter
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": str(settings.node_pods(index))}]],
        "dataDir": "/var/lib/cni",
    }
    pods = {"type": "ptp", "ipMasq": False, "mtu": 1400, "ipam": {**addresses, "routes": [{"dst": "0.0.0.0/0"}]}}
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [pods, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def _write_pause_image(program: Path, archive: Path) -> None:
    """Pack the pause program as an image archive of one layer."""

    def add(tar: tarfile.TarFile, file_name: str, content: bytes, mode: int = 0o644) -> None:
        entry = tarfile.TarInfo(file_name)
        entry.size, entry.mode = len(content), mode
        tar.addfile(entry, io.BytesIO(content))

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        add(tar, "pause", program.read_bytes(), 0o755)
    content = layer.getvalue()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, mode="w") as tar:
        add(tar, "layer.tar", content)
        add(tar, "config.json", json.dumps(config).encode())
        add(tar, "manifest.json", json.dumps(manifest).encode())
