"""Gateway and API server are killed while clients create tasks: none is lost, none is there twice."""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from typing import Any

import pytest
from contract.gateway.conftest import Gateway, Serve
from contract.gateway.test_tasks import INFERENCE, TRAINING
from kubernetes import client

from localcluster import api, processes
from localcluster.api import Cluster
from localcluster.state import Layout
from rfuav_crds.contract import ANNOTATION_TASK_ID, GROUP, VERSION

pytestmark = pytest.mark.contract
CLIENTS, EACH = 8, 12
SECONDS = 120


class Client(threading.Thread):
    """Creates tasks one after the other, each with an id of its own, and sends each again until it is answered."""

    def __init__(self, gateway: Gateway, name: str, acknowledged: list[str]) -> None:
        super().__init__(daemon=True)
        self._gateway, self._name, self._acknowledged = gateway, name, acknowledged
        self.refused: list[Any] = []
        self.tries = 0

    def run(self) -> None:
        for number in range(EACH):
            task_id = f"{self._name}-{number}"
            path, body = ("inference", INFERENCE) if number % 2 else ("training", TRAINING)
            self._insist(f"/api/v2/{path}/start", body | {"task_id": task_id})
            self._acknowledged.append(task_id)
            time.sleep(0.05)

    def _insist(self, path: str, body: dict[str, Any]) -> None:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            self.tries += 1
            request = urllib.request.Request(self._gateway.url + path, json.dumps(body).encode())
            request.add_header("Content-Type", "application/json")
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    assert json.loads(answer.read())["task_id"] == body["task_id"]
                    return
            except urllib.error.HTTPError as error:
                if error.code not in (502, 503):
                    self.refused.append((error.code, error.read()))
                    return
            except OSError:
                pass
            time.sleep(0.2)
        self.refused.append("never answered")


def kill_api_server(cluster: Cluster) -> None:
    """Kill it, and start it again."""
    layout = Layout.of(cluster.name)
    (server,) = [one for one in processes.running(layout) if one.component == "kube-apiserver"]
    os.kill(server.pid, signal.SIGKILL)
    while processes.is_running(layout, "kube-apiserver"):
        time.sleep(0.05)
    api.up(cluster.name, "api")


@pytest.mark.timeout(400)
def test_no_task_is_lost_and_none_doubled(
    api_cluster: Cluster, serve: Serve, kube: client.ApiClient, namespace: str
) -> None:
    if api_cluster.audit_log is None:
        pytest.skip("the API server is not ours to kill: RFUAV_USE_KUBECONFIG")
    face = {"enabled": True, "namespace": namespace, "creates": "1000000/minute", "burst": 100_000}
    with serve(compat=face) as gateway:
        acknowledged: list[str] = []
        clients = [Client(gateway, f"client{number}-{uuid.uuid4().hex[:6]}", acknowledged) for number in range(CLIENTS)]
        for one in clients:
            one.start()

        def until(count: int) -> None:
            while len(acknowledged) < count and any(one.is_alive() for one in clients):
                time.sleep(0.02)

        until(CLIENTS * EACH // 6)
        gateway.stop(signal.SIGKILL)
        gateway.start()
        until(CLIENTS * EACH // 2)
        assert len(acknowledged) < CLIENTS * EACH, "it is killed under load"
        kill_api_server(api_cluster)
        for one in clients:
            one.join(SECONDS)
        assert [one.refused for one in clients] == [[]] * CLIENTS
        assert sum(one.tries for one in clients) > CLIENTS * EACH, "some were sent again"

        custom = client.CustomObjectsApi(kube)
        held = [
            job["metadata"]["annotations"][ANNOTATION_TASK_ID]
            for plural in ("trainingjobs", "inferencejobs")
            for job in custom.list_namespaced_custom_object(GROUP, VERSION, namespace, plural)["items"]
        ]
        assert Counter(held) == Counter(acknowledged) == Counter(dict.fromkeys(held, 1))
        assert len(held) == CLIENTS * EACH
        deadline = time.monotonic() + 60  # its watches come back
        while (shown := _shown(gateway)) != set(held) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert shown == set(held)


def _shown(gateway: Gateway) -> set[str]:
    listed = gateway.call("GET", "/api/v2/tasks?limit=1000").body
    return {one["task_id"] for one in (*listed["training_tasks"], *listed["inference_tasks"])}
