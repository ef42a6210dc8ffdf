"""The full profile, for real: what a pod needs is there, a crash heals, and after `down` the machine is as it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from localcluster import addons, api, cleanup, fullnode, hostcheck, images, links, processes, state
from localcluster.state import Layout

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(os.geteuid() != 0, reason="real nodes need root")]
NAME = "lctest"
# What a kubelet writes for the whole machine when nothing is in its way.
KERNEL = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)

TRY_NETWORK = """
import os, socket, ssl, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
trust = ssl.create_default_context(cafile=account + "ca.crt")
request = urllib.request.Request("https://kubernetes.default.svc/api", headers={"Authorization": "Bearer " + open(account + "token").read()})
assert urllib.request.urlopen(request, context=trust, timeout=10).status == 200
assert len(os.environ["NVIDIA_VISIBLE_DEVICES"].split(",")) == 2, os.environ["NVIDIA_VISIBLE_DEVICES"]
open("/data/written", "w").write("by a pod")
"""


def traces() -> dict[str, set[str]]:
    """What of this test's cluster can be seen on the machine, and what no cluster may change."""

    def lines(*command: str) -> set[str]:
        return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())

    identity = Layout.of(NAME).id
    root = str(state.state_root())
    return {
        "links": {
            link["ifname"]
            for link in json.loads("".join(lines("ip", "-json", "link")))
            if link.get("ifalias") == identity
        },
        "mounts": {m for m in Path("/proc/self/mounts").read_text().splitlines() if root in m},
        "control groups": {str(p) for p in cleanup.cgroup_folders(Layout.of(NAME))},
        "processes": {str(p) for p in processes.running(Layout.of(NAME))},
        "container processes": {
            line for line in lines("ps", "-eo", "args") if "-address /run/containerd" in line and NAME in line
        },
        "packet filter": {r for r in lines("iptables-save") if r.startswith("-A")},
        "named namespaces": lines("ip", "netns", "list"),
        "kernel settings": {f"{name}={Path('/proc/sys', name).read_text().strip()}" for name in KERNEL},
        "files": {str(p) for p in Path(root).rglob("*") if NAME in p.name},
    }


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        # On a bare machine `up` would bring what is looked with.
        hostcheck.require_packages(hostcheck.NODE_COMMANDS, Console(), plugins=True)
        yield traces()
        api.down(NAME)


@pytest.fixture(scope="module")
def cluster(before) -> api.Cluster:
    return api.up(NAME, "full", use_kubeconfig=False)


def kubectl(cluster: api.Cluster, *arguments: str, stdin: str = "") -> str:
    return addons.kubectl(Layout.of(NAME), cluster.programs, *arguments, stdin=stdin)


def wait(look, what: str, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.2)
    return found


def pod(
    name: str, image: str, *, command: list[str] | None = None, limits: dict[str, str], volumes: bool = False
) -> dict:
    container = {
        "name": "main",
        "image": image,
        "resources": {"limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    if command:
        container["command"] = command
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 2,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    if volumes:
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def phase(cluster: api.Cluster, name: str) -> str:
    return kubectl(cluster, "get", "pod", name, "-o", "jsonpath={.status.phase}")


def test_a_restricted_pod_reaches_the_api_by_name_writes_its_volume_and_sees_its_gpus(
    cluster: api.Cluster, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nUSER 65532\n")
    reference = images.build(tmp_path / "Dockerfile", "lctest", registry=cluster.registry)
    assert images.build(tmp_path / "Dockerfile", "lctest", registry=cluster.registry) == reference
    kubectl(cluster, "label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    wait(
        lambda: kubectl(cluster, "get", "serviceaccount", "default", "--ignore-not-found"),
        "the default service account",
    )
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    # five slots of two physical GPUs with four slots each lie on both
    network = pod(
        "network",
        reference,
        command=["python3", "-c", TRY_NETWORK],
        limits={"nvidia.com/gpu": "5", "memory": "200Mi"},
        volumes=True,
    )
    hog = pod(
        "hog",
        reference,
        command=["python3", "-c", "x = [bytearray(1 << 20) for _ in range(500)]"],
        limits={"memory": "64Mi"},
    )
    for one in (claim, network, hog):
        kubectl(cluster, "apply", "-f", "-", stdin=json.dumps(one))
    wait(lambda: phase(cluster, "network") in {"Succeeded", "Failed"}, "ended")
    assert phase(cluster, "network") == "Succeeded", kubectl(cluster, "logs", "network")
    written = list(Layout.of(NAME).volumes.glob("*/written"))
    assert [p.read_text() for p in written] == ["by a pod"]
    wait(lambda: phase(cluster, "hog") == "Failed", "killed")
    assert (
        kubectl(cluster, "get", "pod", "hog", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.reason}")
        == "OOMKilled"
    )
    kubectl(cluster, "delete", "pod", "network", "hog", "--wait")
    kubectl(cluster, "delete", "pvc", "data", "--wait")
    wait(lambda: not list(Layout.of(NAME).volumes.iterdir()), "the volume's folder is removed")


def test_the_kubelet_changes_kernel_settings_of_its_node_alone(cluster: api.Cluster) -> None:
    pid = fullnode.init_pid(Layout.of(NAME), 0)
    own = {line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    assert {f"/proc/sys/{name}" for name in KERNEL} <= own
    copy = Path(f"/proc/{pid}/root/run/localcluster/tunables/kernel.panic")
    copy.write_text("0")
    for process in processes.running(Layout.of(NAME)):
        if Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[0].endswith(b"kubelet"):
            os.kill(process.pid, signal.SIGKILL)
    wait(lambda: copy.read_text().strip() == "10", "the kubelet that was started anew set it again")


def test_killed_daemons_come_back_and_running_pods_stay(cluster: api.Cluster) -> None:
    sleeper = pod("sleeper", fullnode.PAUSE_IMAGE, limits={"memory": "32Mi", "nvidia.com/gpu": "1"})
    kubectl(cluster, "apply", "-f", "-", stdin=json.dumps(sleeper))
    wait(lambda: phase(cluster, "sleeper") == "Running", "Running")
    for process in processes.running(Layout.of(NAME)):
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[0]
        if command.endswith((b"kubelet", b"containerd", b"kube-apiserver", b"etcd", b"kube-scheduler")):
            os.kill(process.pid, signal.SIGKILL)
    again = api.up(NAME, "full", use_kubeconfig=False)
    assert phase(again, "sleeper") == "Running"
    kubectl(again, "delete", "pod", "sleeper", "--wait")


def test_down_in_the_middle_of_everything_leaves_nothing(cluster: api.Cluster, before) -> None:
    busy = pod("busy", fullnode.PAUSE_IMAGE, limits={"memory": "32Mi"})
    kubectl(cluster, "apply", "-f", "-", stdin=json.dumps(busy))
    wait(lambda: phase(cluster, "busy") == "Running", "Running")
    assert traces()["links"]
    assert traces()["control groups"]
    api.down(NAME)
    assert traces() == before


def test_up_continues_after_an_up_that_was_killed_before_the_node_was_connected(before, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(links, "plug", lambda *_: pytest.fail("killed here"))
        with pytest.raises(pytest.fail.Exception, match="killed here"):
            api.up(NAME, "full", use_kubeconfig=False)
    pid = fullnode.init_pid(Layout.of(NAME), 0)
    assert pid is not None
    api.up(NAME, "full", use_kubeconfig=False)  # ends when the node is Ready
    assert fullnode.init_pid(Layout.of(NAME), 0) == pid
    api.down(NAME)
    assert traces() == before


@pytest.mark.parametrize("reached", ["etcd", "node-0"])
def test_down_after_an_up_that_was_killed_half_way_leaves_nothing(reached: str, before) -> None:
    up = subprocess.Popen([sys.executable, "-m", "localcluster", "up", "--profile", "full", "--name", NAME])
    wait(lambda: processes.is_running(Layout.of(NAME), reached), f"{reached} started")
    up.kill()
    up.wait()
    api.down(NAME)
    assert traces() == before
    api.down(NAME)
