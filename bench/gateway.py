"""What the REST gateway takes: `make bench-gateway`. One machine, a real API server, load from other processes.

status: `wrk` asks for one task, 20 connections; then two of them ask two replicas at the same time. create: 20 clients,
beside raw creates of the same objects at the same API server. list: pages of 100 out of all tasks. Logs: readers of 20
tasks whose pods log 10 lines a second each; the API server gets them from a kubelet that this program imitates, and
each line carries the time at which it was written.
The old service's claims: create 500/s, status 1,000/s, logs 100/s, 100 streams.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from bench.live import NAMESPACE, OURS, Live, Object, bare
from bench.machine import report
from kubernetes import client, config

from localcluster.pki import Authority
from localcluster.state import Layout
from rfuav_crds.crd import CRDS, manifest
from rfuav_gateway.tasks import manifests
from rfuav_gateway.tasks.bodies import TrainingStart
from rfuav_gateway.tasks.manifests import Terms
from rfuav_gateway.tasks.roots import Places

CLIENTS, CREATES, PAGES, LOGGED = 20, 500, 200, 20
SECONDS = 10
BODY: Object = {
    "model": "resnet18",
    "num_classes": 37,
    "train_path": "/data/train",
    "val_path": "/data/val",
    "save_path": "/data/models",
    "pretrained": False,
}
JOBS = f"{OURS}/namespaces/{NAMESPACE}/trainingjobs"
STATUS = {
    "phase": "Running",
    "message": "epoch 7 of 100",
    "progress": {"percent": 7, "epoch": 7, "totalEpochs": 100},
    "metrics": dict.fromkeys(("trainLoss", "trainAccuracy", "valLoss", "valAccuracy", "macroF1"), 0.912345),
}


def raw_job(number: int, prefix: str) -> Object:
    """The job that the gateway would make of a create."""
    terms = Terms(places=Places({"/data": "pvc://captures"}))
    start = TrainingStart.model_validate(BODY | {"name": f"{prefix}{number}"})
    return manifests.training(start, namespace=NAMESPACE, task_id=f"{prefix}-{number}", terms=terms).manifest


async def raw_creates(run: Live, count: int, prefix: str) -> float:
    """Creates a second at the API server."""
    bodies = [raw_job(number, prefix) for number in range(count)]
    began = time.monotonic()
    await _each(bodies, lambda body: run.must("POST", JOBS, body))
    return count / (time.monotonic() - began)


async def creates(url: str, count: int) -> tuple[float, float]:
    """Creates a second through the gateway, and the median of their milliseconds."""
    took: list[float] = []
    async with aiohttp.ClientSession() as session:

        async def create(number: int) -> None:
            sent = time.monotonic()
            body = BODY | {"name": f"g{number}"}
            async with session.post(f"{url}/api/v2/training/start", json=body) as answer:
                answer.raise_for_status()
                await answer.read()
            took.append(time.monotonic() - sent)

        began = time.monotonic()
        await _each(range(count), create)
        seconds = time.monotonic() - began
    return count / seconds, _at(took, 0.5)


async def lists(url: str) -> tuple[float, int]:
    """p99 of the milliseconds of a page, and its bytes on the wire."""
    took, cursor, size = [], None, 0
    async with aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": "gzip"}) as session:
        for number in range(PAGES):
            params = {"task_type": "training", "limit": "100"} | ({"cursor": cursor} if cursor else {})
            sent = time.monotonic()
            async with session.get(f"{url}/api/v2/tasks", params=params) as answer:
                answer.raise_for_status()
                data = await answer.read()
            took.append(time.monotonic() - sent)
            size = max(size, len(data))
            if number % 10 == 0:  # pages from different places of the list
                async with aiohttp.ClientSession() as plain, plain.get(f"{url}/api/v2/tasks", params=params) as read:
                    cursor = (await read.json())["next_cursor"]
    return _at(took, 0.99), size


def wrk(url: str, seconds: int = SECONDS) -> tuple[float, float]:
    """Answers a second, and p99 of their milliseconds; only answers 200 count."""
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "--latency", url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(text)
    found = re.search(r"99%\s+([\d.]+)(us|ms|s)", text), re.search(r"Requests/sec:\s+([\d.]+)", text)
    if found[0] is None or found[1] is None:
        raise RuntimeError(text)
    return float(found[1][1]), float(found[0][1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[0][2]]


async def replicas(run: Live, folder: Path, url: str) -> float:
    """Answers a second of two replicas, the one of `url` and another; each has a `wrk` of its own."""
    other = folder / "other"
    other.mkdir()
    with gateway(run, other) as (_, port):
        urls = url, re.sub(r":\d+/", f":{port}/", url, count=1)
        return sum(rps for rps, _ in await asyncio.gather(*(asyncio.to_thread(wrk, one) for one in urls)))


# --- logs


async def kubelet(run: Live) -> tuple[web.AppRunner, list[str]]:
    """A node whose kubelet is this program, with a pod for each of the first tasks; the ids of these."""
    authority = Authority(Layout.of(run.cluster.name).pki)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*authority.issue("bench-kubelet", "bench-kubelet", hosts=("127.0.0.1",)))

    async def log(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if "follow" not in request.query:
            return response
        number = 0
        while True:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9:09}Z"
            line = {"event": f"written at {time.time()}", "level": "info", "step": number}
            await response.write(f"{stamp} {json.dumps(line)}\n".encode())
            number += 1
            await asyncio.sleep(0.1)

    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", log)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = _free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    await run.must("POST", "/api/v1/nodes", {"metadata": {"name": "kubelet"}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    patch = "application/merge-patch+json"
    await run.must("PATCH", "/api/v1/nodes/kubelet/status", {"status": status}, content_type=patch)
    ids = [f"seed-{number}" for number in range(LOGGED)]
    for number in range(LOGGED):
        name = raw_job(number, "seed")["metadata"]["name"]
        await _pod(run, await run.must("GET", f"{JOBS}/{name}"))
    return runner, ids


async def _pod(run: Live, job: Object) -> None:
    from rfuav_operator.core.names import stem  # noqa: PLC0415  the pod's name follows from the job's

    meta = job["metadata"]
    body = {
        "metadata": {
            "name": f"{stem(meta['name'], meta['uid'])}-1",
            "labels": {
                "rfuav.io/job": meta["name"],
                "rfuav.io/kind": "TrainingJob",
                "rfuav.io/attempt": "1",
                "rfuav.io/job-uid": meta["uid"],
            },
            "ownerReferences": [
                {
                    "apiVersion": job["apiVersion"],
                    "kind": "TrainingJob",
                    "name": meta["name"],
                    "uid": meta["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": {"nodeName": "kubelet", "containers": [{"name": "trainer", "image": "example.com/trainer:1"}]},
    }
    made = await run.must("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", body)
    running = {"phase": "Running", "containerStatuses": [_RUNNING]}
    at = f"/api/v1/namespaces/{NAMESPACE}/pods/{made['metadata']['name']}/status"
    await run.must("PATCH", at, {"status": running}, content_type="application/merge-patch+json")


_RUNNING = {
    "name": "trainer",
    "image": "example.com/trainer:1",
    "imageID": "",
    "ready": True,
    "restartCount": 0,
    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
}


class Reader(asyncio.Protocol):
    """Reads one stream, and notes how late each line came."""

    _WRITTEN = re.compile(rb"written at ([\d.]+)")

    def __init__(self, path: str, lags: list[float]) -> None:
        self._path = path
        self._lags = lags

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(f"GET {self._path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self._lags += [now - float(found) for found in self._WRITTEN.findall(data)]


def read_logs(port: int, ids: list[str], readers: int, seconds: float, answers: Any) -> None:
    """In a process of its own: so many readers for so long; how late lines came, after the first seconds."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        lags: list[float] = []
        made = []
        for number in range(readers):
            path = f"/api/v2/tasks/{ids[number % len(ids)]}/logs?tail=0"
            made.append(await loop.create_connection(lambda p=path: Reader(p, lags), "127.0.0.1", port))
        await asyncio.sleep(3)
        lags.clear()
        await asyncio.sleep(seconds)
        answers.put((len(lags) / seconds, lags[:: max(1, len(lags) // 100_000)]))
        for transport, _ in made:
            transport.abort()

    asyncio.run(main())


# --- the gateway


@contextlib.contextmanager
def gateway(run: Live, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The gateway as people run it, in the face that asks for no token."""
    port, health = _free_port(), _free_port()
    settings = {
        "kubeconfig": str(run.cluster.kubeconfig),
        "host": "127.0.0.1",
        "port": port,
        "healthPort": health,
        "drainSeconds": 0,
        "roots": [{"path": "/data", "uri": "pvc://captures"}],
        "compat": {"enabled": True, "namespace": NAMESPACE, "creates": "1000000/minute", "burst": 100_000},
        "limits": {"requests": "9000000/minute"},
    }
    (folder / "gateway.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "rfuav_gateway", "run", "--settings", str(folder / "gateway.yaml")]
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{health}/readyz", timeout=2):
                break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((folder / "gateway.log").read_text()[-3000:])
            time.sleep(0.1)
        time.sleep(0.5)
        yield process, port
    finally:
        process.terminate()
        process.wait(30)


def _install(run: Live) -> None:
    extensions = client.ApiextensionsV1Api(config.new_client_from_config(str(run.cluster.kubeconfig)))
    for crd in CRDS:
        extensions.create_custom_resource_definition(manifest(crd))
    time.sleep(3)


def _peak(process: "subprocess.Popen[bytes]") -> float:
    text = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _each(items: Any, work: Any) -> None:
    """Work on each, so many at a time."""
    left = iter(items)

    async def one() -> None:
        for item in left:
            await work(item)

    await asyncio.gather(*(one() for _ in range(CLIENTS)))


def _at(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000


async def measure(tasks: int, readers: int) -> Object:
    """All figures."""
    async with bare(1, "bench-gateway") as run:
        _install(run)
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            seeded = await raw_creates(run, tasks, "seed")
            name = raw_job(0, "seed")["metadata"]["name"]
            patch = "application/merge-patch+json"
            await run.must("PATCH", f"{JOBS}/{name}/status", {"status": STATUS}, content_type=patch)
            with gateway(run, folder) as (process, port):
                url = f"http://127.0.0.1:{port}"
                status = await asyncio.to_thread(wrk, f"{url}/api/v2/tasks/seed-0")
                two = await replicas(run, folder, f"{url}/api/v2/tasks/seed-0")
                raw = await raw_creates(run, CREATES, "raw")
                created = await creates(url, CREATES)
                raw_again = await raw_creates(run, CREATES, "again")
                listed = await lists(url)
                runner, ids = await kubelet(run)
                answers = multiprocessing.get_context("spawn").Queue()
                reading = multiprocessing.get_context("spawn").Process(
                    target=read_logs, args=(port, ids, readers, SECONDS, answers)
                )
                reading.start()
                await asyncio.sleep(6)
                beside = await asyncio.to_thread(wrk, f"{url}/api/v2/tasks/seed-0", 5)
                lines, lags = await asyncio.to_thread(answers.get)
                reading.join()
                await runner.cleanup()
                peak = _peak(process)
    raw_rps = (raw + raw_again) / 2
    return {
        "tasks": tasks,
        "seeded_rps": round(seeded),
        "status_rps": round(status[0]),
        "status_p99_ms": round(status[1], 1),
        "status_rps_of_two_replicas": round(two),
        "create_rps": round(created[0]),
        "raw_create_rps": round(raw_rps),
        "create_of_raw": round(created[0] / raw_rps, 2),
        "create_p50_ms": round(created[1], 1),
        "list_p99_ms": round(listed[0], 1),
        "list_kb": round(listed[1] / 1000, 1),
        "sse_readers": readers,
        "sse_lines_rps": round(lines),
        "sse_lag_p99_ms": round(_at(lags, 0.99), 1) if lags else None,
        "status_rps_with_readers": round(beside[0]),
        "status_p99_ms_with_readers": round(beside[1], 1),
        "peak_mb": round(peak),
        "claims_of_the_old_service": {"create_rps": 500, "status_rps": 1000, "logs_rps": 100, "streams": 100},
    }


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=50_000, help="tasks that exist")
    parser.add_argument("--readers", type=int, default=1000, help="readers of logs")
    chosen = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("bench-gateway needs wrk: apt-get install wrk")
    report("gateway", asyncio.run(measure(chosen.tasks, chosen.readers)))


if __name__ == "__main__":
    main()
