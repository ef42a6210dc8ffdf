"""Kueue on the cluster of a benchmark: its manager as a process, installed from its own files.

In: a bare `Live`. Out: the same, with Kueue running and a queue for batch/v1 Jobs in it. The manifests are those that
its module renders (config/default), with the manager's settings as shipped; only what needs a pod differs:
its webhooks are reached on the loopback, and its certificate is put where a kubelet would mount it.
"""

import asyncio
import base64
import contextlib
import json
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import yaml
from bench.live import NAMESPACE, Live, Object, bare
from rich.console import Console

from localcluster import binaries
from localcluster.simulation import ANNOTATION_PREFIX
from rfuav_crds import contract

SYSTEM, QUEUE = "kueue-system", "bench"
GPU = contract.GPU
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
WORKLOADS = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/workloads"
CLUSTER_QUEUE = f"/apis/kueue.x-k8s.io/v1beta2/clusterqueues/{QUEUE}"
_SERVICE = "kueue-webhook-service"
_CERTIFICATE = f"/api/v1/namespaces/{SYSTEM}/secrets/kueue-webhook-server-cert"
_MAKES_PODS = "system:serviceaccount:kube-system:job-controller"
# The APIs that its pods serve, and the pods themselves: here it is a process, and nobody asks for those APIs.
_LEFT_OUT = ("Deployment", "APIService", "Service")


def by_the_manager(event: Object) -> bool:
    """Whether Kueue made this request."""
    return str(event.get("userAgent", "")).startswith("kueue/")


def by_kueue(event: Object) -> bool:
    """Whether Kueue or the Job controller made it: together they do what the operator does."""
    return by_the_manager(event) or event.get("user", {}).get("username") == _MAKES_PODS


@contextlib.asynccontextmanager
async def kueue(nodes: int, *, gpus: int, stop_policy: str = "None") -> AsyncIterator[Live]:
    """A cluster with Kueue in it, and a queue that takes so many GPUs at a time."""
    program = binaries.ensure(("kueue",), Console(stderr=True))["kueue"]
    async with bare(nodes) as run:
        with tempfile.TemporaryDirectory() as folder, _manager(run, program, Path(folder)) as health:
            await _lay_certificate(run, Path(folder))
            await run.until(lambda: _ready(health), "Kueue's manager")
            _apply(run, _queues(gpus, stop_policy), until=60)
            await run.until(lambda: _active(run), "Kueue's queue")
            yield run


async def submit(run: Live, names: list[str], run_for: str | None = None) -> None:
    """Create Jobs, several at a time."""
    free = asyncio.Semaphore(16)

    async def one(name: str) -> None:
        async with free:
            await run.must("POST", JOBS, _job(name, run_for))

    await asyncio.gather(*map(one, names))


async def workloads(run: Live) -> list[Object]:
    """What Kueue has made of the Jobs."""
    return list((await run.must("GET", WORKLOADS))["items"])


def _job(name: str, run_for: str | None) -> Object:
    """A Job of one pod that asks for what the pod of `live.job` does."""
    notes = {f"{ANNOTATION_PREFIX}run-for": run_for} if run_for else {}
    asked = {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"memory": "4Gi", GPU: "1"}}
    container = {"name": "trainer", "image": "example.com/trainer:1", "resources": asked}
    pod = {"restartPolicy": "Never", "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kueue.x-k8s.io/queue-name": QUEUE}},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"annotations": notes}, "spec": pod}},
    }


def _queues(gpus: int, stop_policy: str) -> list[Object]:
    kind = {"apiVersion": "kueue.x-k8s.io/v1beta2"}
    quotas = [
        {"name": "cpu", "nominalQuota": "10000"},
        {"name": "memory", "nominalQuota": "100Ti"},
        {"name": GPU, "nominalQuota": str(gpus)},
    ]
    group = {"coveredResources": ["cpu", "memory", GPU], "flavors": [{"name": "default", "resources": quotas}]}
    spec = {"namespaceSelector": {}, "resourceGroups": [group], "stopPolicy": stop_policy}
    return [
        {**kind, "kind": "ResourceFlavor", "metadata": {"name": "default"}},
        {**kind, "kind": "ClusterQueue", "metadata": {"name": QUEUE}, "spec": spec},
        {
            **kind,
            "kind": "LocalQueue",
            "metadata": {"name": QUEUE, "namespace": NAMESPACE},
            "spec": {"clusterQueue": QUEUE},
        },
    ]


async def _active(run: Live) -> bool:
    """Whether the queue is known to the manager, held or not."""
    conditions = ((await run.must("GET", CLUSTER_QUEUE)).get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Active" and c["reason"] in ("Ready", "Stopped") for c in conditions)


# --- installing


@contextlib.contextmanager
def _manager(run: Live, program: Path, folder: Path) -> Iterator[int]:
    """The manager while it runs; the port of its health checks."""
    webhook, health, metrics = _free_ports(3)
    manifests, settings = _adapted(_rendered(run), webhook)
    _apply(run, manifests)
    settings["webhook"] = {"port": webhook, "certDir": str(folder)}
    settings["health"] = {"healthProbeBindAddress": f"127.0.0.1:{health}"}
    settings["metrics"] = {"bindAddress": f"127.0.0.1:{metrics}"}
    settings["leaderElection"] = {"leaderElect": False}  # alone; busy, it lost its lease and ended
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    log = folder / "kueue.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                str(program),
                f"--config={folder / 'settings.yaml'}",
                "--zap-log-level=2",  # as its Deployment has it
                "--feature-gates=VisibilityOnDemand=false",  # an API that would be served from a pod's own folders
            ],
            stdout=output,
            stderr=output,
            env={"KUBECONFIG": str(run.cluster.kubeconfig), "HOME": str(folder)},
        )
    try:
        yield health
    except Exception as error:
        raise RuntimeError(f"with Kueue: {error}\n{log.read_text()[-3000:]}") from error
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _rendered(run: Live) -> list[Object]:
    """All objects of its default installation, as its module has them."""
    tools = binaries.TOOLS / binaries.PROGRAMS["kueue"].module
    command = ["go", "mod", "download", "-json", "sigs.k8s.io/kueue"]
    found = json.loads(subprocess.run(command, cwd=tools, check=True, capture_output=True, text=True).stdout)
    command = [str(run.cluster.programs["kubectl"]), "kustomize", f"{found['Dir']}/config/default"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return list(yaml.load_all(text, yaml.CSafeLoader))


def _adapted(objects: list[Object], port: int) -> tuple[list[Object], Object]:
    """The objects to apply, with webhooks that lead to a port of this machine; and the manager's settings."""
    name, namespace = {"name": _SERVICE, "namespace": SYSTEM}, {"app.kubernetes.io/name": "kueue"}
    # The API server dials such a name itself, and checks the certificate for the name of the service all the same.
    loopback = {"type": "ExternalName", "externalName": "localhost"}
    kept: list[Object] = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {**name, "labels": namespace}, "spec": loopback}
    ]
    settings: Object = {}
    for one in objects:
        if one["kind"] == "ConfigMap":
            settings = yaml.safe_load(one["data"]["controller_manager_config.yaml"])
        if one["kind"] in _LEFT_OUT:
            continue
        for hook in (*one.get("webhooks", ()), (one.get("spec") or {}).get("conversion", {}).get("webhook") or {}):
            if hook:
                hook["clientConfig"]["service"]["port"] = port
        kept.append(one)
    kept.sort(key=lambda one: one["kind"] != "Namespace")
    return kept, settings


def _apply(run: Live, objects: list[Object], until: float = 0) -> None:
    """Apply all of them; for `until` seconds again when it fails, as webhooks take a moment to be known."""
    command = [str(run.cluster.programs["kubectl"]), "--kubeconfig", str(run.cluster.kubeconfig)]
    command += ["apply", "--server-side", "--force-conflicts", "-f", "-"]
    end = time.monotonic() + until
    while True:
        done = subprocess.run(command, input=yaml.safe_dump_all(objects), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        if time.monotonic() > end:
            raise RuntimeError(done.stderr[-2000:])
        time.sleep(0.5)


async def _lay_certificate(run: Live, folder: Path) -> None:
    """Write the certificate that the manager makes where it waits for it: a kubelet mounts its secret there."""
    found: dict[str, Any] = {}

    async def made() -> bool:
        found.update((await run.must("GET", _CERTIFICATE)).get("data") or {})
        return "tls.key" in found

    await run.until(made, "Kueue's certificate", seconds=60)
    for name, content in found.items():
        (folder / name).write_bytes(base64.b64decode(content))


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
