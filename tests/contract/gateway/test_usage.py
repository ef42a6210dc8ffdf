"""GPU-hours through the gateway: from the jobs of a real API server, and from a real Prometheus where there is one."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from contract.gateway.conftest import Gateway, Serve, User
from contract.gateway.test_tasks import INFERENCE, TRAINING
from contract.operator.conftest import free_port
from kubernetes import client
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from rfuav_crds.contract import GROUP, VERSION
from rfuav_operator.core.model import Kind
from rfuav_operator.shell.gpu_time import GpuTime

pytestmark = pytest.mark.contract
PROGRAM = os.environ.get("RFUAV_PROMETHEUS") or shutil.which("prometheus")
ALL = ("get", "list", "create")


@pytest.fixture
def ran(kube: client.ApiClient, namespace: str) -> Callable[[str], None]:
    """Writes into the status of all jobs of a kind that they ran for two hours, which ended an hour ago."""
    api = client.CustomObjectsApi(kube)

    def write(plural: str) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        status = {
            "phase": "Succeeded",
            "startedAt": (now - timedelta(hours=3)).isoformat(),
            "finishedAt": (now - timedelta(hours=1)).isoformat(),
            "runningSeconds": 7200,
        }
        for job in api.list_namespaced_custom_object(GROUP, VERSION, namespace, plural)["items"]:
            at = (GROUP, VERSION, namespace, plural, job["metadata"]["name"])
            api.patch_namespaced_custom_object_status(*at, {"status": status})

    return write


def test_hours_of_the_jobs_that_the_caller_may_list(gateway: Gateway, user: Callable[..., User], ran) -> None:
    alice, half, stranger = user(*ALL), user("list", resources=("trainingjobs",)), user(home="default")
    for path, body in (("training", TRAINING), ("inference", INFERENCE), ("inference", INFERENCE)):
        assert gateway.call("POST", f"/api/v2/{path}/start", body, token=alice.token).status == 200
    ran("trainingjobs")
    ran("inferencejobs")

    def hours(someone: User, query: str = "", at: str = "") -> Any:
        answer = gateway.call("GET", f"{at}/api/v2/usage{query}", token=someone.token)
        assert answer.status == 200, answer
        return {row["name"]: round(row["gpu_hours"], 2) for row in answer.body["usage"]}

    deadline = time.monotonic() + 20
    while sum(hours(alice).values()) < 6 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert hours(alice) == {alice.namespace: 6}
    assert hours(alice, "?by=kind") == {"training": 2, "inference": 4}
    assert hours(alice, "?by=user") == {f"system:serviceaccount:{alice.namespace}:{alice.name}": 6}
    lately = (datetime.now(UTC) - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S")
    assert hours(alice, f"?by=kind&from={lately}") == pytest.approx({"training": 1, "inference": 2}, abs=0.02)
    assert hours(half) == {alice.namespace: 2}  # may list trainings alone
    assert hours(stranger) == {}
    assert hours(stranger, at=f"/ns/{alice.namespace}") == {}
    body = gateway.call("GET", "/api/v2/usage", token=alice.token).body
    assert (body["source"], body["complete"], body["total_gpu_hours"]) == ("jobs", False, 6)
    assert body["since"] is not None
    wrong = gateway.call("GET", "/api/v2/usage?from=2026-02-02T00:00:00&to=2026-01-01T00:00:00", token=alice.token)
    assert (wrong.status, wrong.body["detail"][0]["loc"]) == (422, ["query", "from"])
    assert gateway.call("GET", "/api/v2/usage?by=colour", token=alice.token).status == 422


@pytest.fixture
def prometheus(namespace: str, tmp_path: Path) -> Iterator[str]:
    """A Prometheus that has scraped the operator's metric for some seconds: the test's namespace and another hold GPUs."""
    told, registry = GpuTime(), CollectorRegistry()
    registry.register(told)
    Gauge("rfuav_leader", "", registry=registry).set(1)

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = generate_latest(registry)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    target = ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    threading.Thread(target=target.serve_forever, daemon=True).start()
    port, config = free_port(), tmp_path / "prometheus.yml"
    jobs = [{"job_name": "operator", "static_configs": [{"targets": [f"127.0.0.1:{target.server_port}"]}]}]
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "500ms"}, "scrape_configs": jobs}))
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                str(PROGRAM),
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        one = {(namespace, Kind.TRAINING, "default"): 2, (namespace, Kind.INFERENCE, "default"): 1}
        told.note(one | {("others", Kind.TRAINING, "default"): 50})
        time.sleep(14)
        assert server.poll() is None, (tmp_path / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)
        target.shutdown()


@pytest.mark.skipif(not PROGRAM, reason="no Prometheus: put one into PATH, or name it in RFUAV_PROMETHEUS")
def test_prometheus_knows_what_held_gpus_and_each_caller_gets_their_own(
    serve: Serve, user: Callable[..., User], prometheus: str, namespace: str
) -> None:
    alice, half = user(*ALL), user("list", resources=("trainingjobs",))
    with serve(prometheusURL=prometheus) as gateway:
        now = datetime.now(UTC)
        since = (now - timedelta(seconds=10)).strftime("%Y-%m-%dT%H:%M:%S.%f")
        until = now.strftime("%Y-%m-%dT%H:%M:%S.%f")
        query = f"?from={since}&to={until}"

        def seconds(someone: User, query: str) -> dict[str, float]:
            answer = gateway.call("GET", f"/ns/{namespace}/api/v2/usage{query}", token=someone.token)
            assert (answer.status, answer.body.get("source")) == (200, "prometheus"), answer
            assert answer.body["complete"], answer
            return {row["name"]: row["gpu_hours"] * 3600 for row in answer.body["usage"]}

        assert seconds(alice, query) == pytest.approx({namespace: 30}, rel=0.15)
        assert seconds(alice, f"{query}&by=kind") == pytest.approx({"training": 20, "inference": 10}, rel=0.15)
        assert seconds(half, query) == pytest.approx({namespace: 20}, rel=0.15)
        before = (now - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S")
        answer = gateway.call("GET", f"/ns/{namespace}/api/v2/usage?from={before}", token=alice.token).body
        assert (answer["complete"], answer["since"] > before) == (False, True)
        assert gateway.call("GET", "/api/v2/usage?by=user", token=alice.token).body["source"] == "jobs"
        admin = user(*ALL, home=namespace)
        others = gateway.call("GET", "/ns/others/api/v2/usage", token=admin.token).body
        assert (others["source"], others["usage"]) == ("prometheus", [])


def test_prometheus_that_is_away_or_something_else_is_told(serve: Serve, user: Callable[..., User]) -> None:
    alice = user(*ALL)

    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>sign in</html>")

        def log_message(self, *_: Any) -> None:
            pass

    page = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=page.serve_forever, daemon=True).start()
    with serve(prometheusURL=f"http://127.0.0.1:{page.server_port}") as gateway:
        answer = gateway.call("GET", "/api/v2/usage", token=alice.token)
        assert (answer.status, "not an answer of Prometheus" in answer.body["detail"]) == (503, True), answer
        page.shutdown()
        page.server_close()
        assert gateway.call("GET", "/api/v2/usage", token=alice.token).status == 503
