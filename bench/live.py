"""The cluster that live benchmarks run on: a real API server and scheduler, simulated nodes, the operator as a process.

In: nothing. Out: a `Live` with the operator's own HTTP client, for jobs, pods and a watch of them; `bare` has no
operator in it, for others to be measured. Everything is taken down in the end, also after a failure.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from kubernetes import client, config

from localcluster import api, processes
from localcluster.gpus import Gpus
from localcluster.simulation import ANNOTATION_PREFIX, create_nodes
from localcluster.state import Layout
from rfuav_crds import contract
from rfuav_crds.crd import CRDS, manifest
from rfuav_kube.connection import Connection

NAMESPACE, POOL, SYSTEM = "bench", "bench", "rfuav-bench"
OURS = "/apis/rfuav.io/v1alpha1"
JOBS = f"{OURS}/namespaces/{NAMESPACE}/trainingjobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
AGENT = "rfuav-operator"
_WRITES = ("create", "update", "patch", "delete")
Object = dict[str, Any]


def by_the_operator(event: Object) -> bool:
    """Whether the operator made this request."""
    return str(event.get("userAgent", "")).startswith(AGENT)


class Live:
    """A running cluster, with a running operator in it unless it is bare."""

    operator: subprocess.Popen[bytes]
    start_operator: Callable[[], None]  # starts another process when one has ended
    operator_log: Path

    def __init__(self, cluster: api.Cluster, connection: Connection) -> None:
        self.cluster = cluster
        self.connection = connection
        self.seen: list[tuple[float, str, Object]] = []  # seconds, event type, pod
        self._audit_at = 0

    async def must(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """A request that has to succeed."""
        answer = await self.connection.request(method, path, body, **more)
        if not answer.ok:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.message}")
        return answer.body

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = 120) -> None:
        """Wait for something that the watch of pods or anything else shows."""
        end = time.monotonic() + seconds
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            if time.monotonic() > end:
                raise RuntimeError(f"{what} did not come to pass in {seconds:.0f} s")
            await asyncio.sleep(0.05)

    async def submit(self, names: list[str], *, pool: str = POOL, run_for: str | None = None) -> list[Object]:
        """Create jobs, several at a time."""
        free = asyncio.Semaphore(16)

        async def one(name: str) -> Object:
            async with free:
                return dict(await self.must("POST", JOBS, job(name, pool, run_for)))

        return list(await asyncio.gather(*map(one, names)))

    async def phases(self) -> dict[str, Object]:
        """The status of every job."""
        items = (await self.must("GET", JOBS))["items"]
        return {item["metadata"]["name"]: item.get("status") or {} for item in items}

    async def watch(self) -> None:
        """Note every event of pods as it comes, until cancelled; a watch that was closed is taken up again."""
        version = (await self.must("GET", PODS))["metadata"]["resourceVersion"]
        while True:
            params = {"watch": "true", "resourceVersion": version}
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self.connection.stream(PODS, params, idle=600) as response:
                    rest = b""
                    async for chunk in response.content.iter_any():
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            event = json.loads(line)
                            version = event["object"]["metadata"]["resourceVersion"]
                            self.seen.append((time.monotonic(), event["type"], event["object"]))

    def processor(self) -> dict[str, float]:
        """Seconds of processor that each program of the cluster, and the operator, has taken since it started."""
        pids = [(found.component, found.pid) for found in processes.running(Layout.of(self.cluster.name))]
        taken: dict[str, float] = {}
        for component, pid in [*pids, ("operator", self.operator.pid)]:
            # After the name in brackets: user and system time are the 12th and 13th field (proc_pid_stat(5)).
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            taken[component] = taken.get(component, 0.0) + ticks / os.sysconf("SC_CLK_TCK")
        return taken

    def writes(self, by: Callable[[Object], bool] = by_the_operator) -> list[Object]:
        """Writes since the last call, from the API server's audit log; leases are not counted.

        `by`: selects the writer, by the event of the audit log.
        """
        time.sleep(0.5)  # the log is flushed behind
        if self.cluster.audit_log is None:
            raise RuntimeError("this cluster keeps no audit log")
        with self.cluster.audit_log.open(encoding="utf-8") as log:
            log.seek(self._audit_at)
            lines = log.readlines()
            self._audit_at = log.tell()
        events = (json.loads(line) for line in lines if line.endswith("\n"))
        return [
            event
            for event in events
            if event.get("stage") == "ResponseComplete"
            and by(event)
            and event["verb"] in _WRITES
            and event.get("objectRef", {}).get("resource") != "leases"
        ]


def job(name: str, pool: str, run_for: str | None) -> Object:
    """A small TrainingJob; `run_for`: how long its simulated pod runs."""
    notes = {f"{ANNOTATION_PREFIX}run-for": run_for} if run_for else {}
    return {
        "apiVersion": contract.API_VERSION,
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"architecture": "resnet18", "weights": "none", "numClasses": 3},
            "dataset": {"train": {"uri": "file:///data/train"}, "validation": {"fraction": 0.2}},
            "output": {"uri": "file:///out/model"},  # a claim would have to be bound before its pod is
            "resources": {"gpus": 1, "cpu": "1", "memory": "4Gi"},
            "pool": pool,
            "podTemplate": {
                "metadata": {"annotations": notes},
                "volumes": [{"name": "out", "emptyDir": {}}],
                "volumeMounts": [{"name": "out", "mountPath": "/out"}],
            },
        },
    }


def pool(*, training: int = 1, **spec: Any) -> Object:
    """The pool, with so many trainings on one GPU."""
    tier = {"minMemory": 0, "training": training, "inference": 1}
    return {
        "apiVersion": contract.API_VERSION,
        "kind": "GPUPool",
        "metadata": {"name": POOL},
        "spec": {"perGPU": [tier], **spec},
    }


@contextlib.asynccontextmanager
async def bare(nodes: int, name: str = "bench") -> AsyncIterator[Live]:
    """Bring up a cluster with so many nodes, and an eye on its pods; down again in the end."""
    if api.get(name) is not None:
        raise SystemExit(f"a cluster {name} runs already: `make cluster-down NAME={name}` first")
    cluster = api.up(name, "api")
    try:
        kube = config.new_client_from_config(str(cluster.kubeconfig))
        create_nodes(cluster.kubeconfig, nodes, gpus=Gpus(), cpu="64", memory="256Gi")
        _namespaces(client.CoreV1Api(kube))
        async with Connection(str(cluster.kubeconfig), agent="bench") as connection:
            made = Live(cluster, connection)
            await made.until(lambda: _ready(kube) == nodes, "nodes that are ready")
            watching = asyncio.create_task(made.watch())
            try:
                yield made
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
    finally:
        api.down(name)


@contextlib.asynccontextmanager
async def live(nodes: int, gpu_pool: Object, *, lease_seconds: int = 15) -> AsyncIterator[Live]:
    """The same with the operator."""
    async with bare(nodes) as made:
        _install(config.new_client_from_config(str(made.cluster.kubeconfig)), gpu_pool)
        with tempfile.TemporaryDirectory() as folder, _operator(made, Path(folder), lease_seconds):
            yield made


def _namespaces(core: client.CoreV1Api) -> None:
    for name in (NAMESPACE, SYSTEM):
        core.create_namespace({"metadata": {"name": name}})
    while not [a for a in core.list_namespaced_service_account(NAMESPACE).items if a.metadata.name == "default"]:
        time.sleep(0.2)


def _install(kube: client.ApiClient, gpu_pool: Object) -> None:
    extensions, custom = client.ApiextensionsV1Api(kube), client.CustomObjectsApi(kube)
    for crd in CRDS:
        extensions.create_custom_resource_definition(manifest(crd))
    end = time.monotonic() + 30
    while True:
        try:
            custom.create_cluster_custom_object("rfuav.io", "v1alpha1", "gpupools", gpu_pool)
            break
        except client.ApiException:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _ready(kube: client.ApiClient) -> int:
    nodes = client.CoreV1Api(kube).list_node().items
    return sum(any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or ()) for node in nodes)


@contextlib.contextmanager
def _operator(run: Live, folder: Path, lease_seconds: int) -> Any:
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
    settings = {
        "namespace": SYSTEM,
        "kubeconfig": str(run.cluster.kubeconfig),
        "jobs": {"image": "example.com/trainer:1"},
        "progress": {"host": "127.0.0.1", "port": ports[0], "url": f"https://127.0.0.1:{ports[0]}"},
        "health": {"host": "127.0.0.1", "port": ports[1]},
        "leader": {"identity": "bench", "leaseSeconds": lease_seconds},
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    run.operator_log = folder / "operator.log"

    def start() -> None:
        with run.operator_log.open("ab") as log:
            run.operator = subprocess.Popen(
                [sys.executable, "-m", "rfuav_operator", "run", "--settings", str(folder / "settings.yaml")],
                stdout=log,
                stderr=log,
                env={k: v for k, v in os.environ.items() if not k.startswith(("POD_", "KUBERNETES_"))},
            )

    run.start_operator = start
    start()
    try:
        end = time.monotonic() + 60
        while "rfuav_leader 1.0" not in _metrics(ports[1]):
            if time.monotonic() > end or run.operator.poll() is not None:
                raise RuntimeError("the operator does not lead:\n" + run.operator_log.read_text()[-3000:])
            time.sleep(0.1)
        yield
    finally:
        run.operator.send_signal(signal.SIGCONT)
        run.operator.send_signal(signal.SIGTERM)
        run.operator.wait(20)


def _metrics(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""
