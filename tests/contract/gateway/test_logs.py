"""Logs through the gateway. The pods of this cluster have no log of their own: real ones are in the end-to-end tests."""

import json
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from contract.gateway.conftest import Gateway, Serve, User
from contract.gateway.test_tasks import TRAINING
from contract.operator.conftest import until
from kubernetes import client

from rfuav_crds.contract import GROUP, VERSION

pytestmark = pytest.mark.contract

STARTED = "2026-01-01T00:00:00Z"
ALL = ("get", "list", "watch", "create", "patch", "delete")


@pytest.fixture
def alice(user: Callable[..., User], may_read_logs: Callable[[User], None]) -> User:
    """Someone who may do everything with jobs, and read the logs of pods."""
    made = user(*ALL)
    may_read_logs(made)
    return made


@pytest.fixture
def end(kube: client.ApiClient, namespace: str) -> Callable[[str], None]:
    """Ends all trainings of the test's namespace, as an operator would."""
    api = client.CustomObjectsApi(kube)

    def ended(phase: str) -> None:
        for job in api.list_namespaced_custom_object(GROUP, VERSION, namespace, "trainingjobs")["items"]:
            status = {"status": {"phase": phase, "reason": "Error", "message": "it broke", "startedAt": STARTED}}
            name = job["metadata"]["name"]
            api.patch_namespaced_custom_object_status(GROUP, VERSION, namespace, "trainingjobs", name, status)

    return ended


def stream(gateway: Gateway, path: str, token: str, got: list[bytes], began: threading.Event) -> None:
    """Read a stream of events to its end."""
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    with urllib.request.urlopen(urllib.request.Request(gateway.url + path, headers=headers), timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        for line in answer:
            began.set()
            got.append(line)


def test_every_reader_gets_the_end_of_the_task_as_the_last_event(gateway: Gateway, alice: User, end) -> None:
    made = gateway.call("POST", "/api/v2/training/start", TRAINING, token=alice.token).body
    readers = []
    for path in (f"/api/v2/tasks/{made['task_id']}/logs", f"/api/v2/training/{made['task_id']}/logs"):
        got, began = [], threading.Event()
        thread = threading.Thread(target=stream, args=(gateway, path, alice.token, got, began))
        thread.start()
        assert began.wait(20)
        readers.append((thread, got))
    end("Failed")
    for thread, got in readers:
        thread.join(30)
        assert not thread.is_alive()
        data = [json.loads(line.removeprefix(b"data: ")) for line in got if line.startswith(b"data: ")]
        assert data[-1] == {"status": "failed", "message": "Error: it broke"}


def test_logs_of_a_task_whose_pods_are_gone_are_gone(gateway: Gateway, alice: User, end) -> None:
    made = gateway.call("POST", "/api/v2/training/start", TRAINING, token=alice.token).body
    at = f"/api/v2/tasks/{made['task_id']}/logs"
    assert gateway.call("GET", at, token=alice.token, Accept="application/json").body == []
    end("Failed")
    until(
        lambda: gateway.call("GET", f"/api/v2/tasks/{made['task_id']}", token=alice.token).body["status"] == "failed",
        20,
    )
    until(lambda: gateway.call("GET", at, token=alice.token, Accept="application/json").status == 410, 20)
    for accept in ("application/json", "text/event-stream"):
        answer = gateway.call("GET", at, token=alice.token, Accept=accept)
        assert answer.status == 410, answer


def test_where_the_output_is_mounted_the_log_outlives_the_pods(
    serve: Serve, alice: User, end, kube: client.ApiClient, tmp_path: Path
) -> None:
    places = [
        {"uri": "pvc://captures/models", "namespace": alice.namespace, "path": str(tmp_path)},
        {"uri": "pvc://captures", "namespace": "another", "path": str(tmp_path)},
    ]
    with serve(outputs=places) as gateway:
        made = gateway.call("POST", "/api/v2/training/start", TRAINING | {"task_id": "kept"}, token=alice.token)
        assert made.status == 200
        api = client.CustomObjectsApi(kube)
        (job,) = api.list_namespaced_custom_object(GROUP, VERSION, alice.namespace, "trainingjobs")["items"]
        head = {"event": "log", "uid": job["metadata"]["uid"]}
        done = {"event": "done", "level": "info", "time": "2026-01-01T00:00:09.5Z", "attempt": 2}
        (tmp_path / "first").mkdir()
        (tmp_path / "first/log.jsonl").write_text(f"{json.dumps(head)}\n{json.dumps(done)}\n")
        end("Succeeded")
        until(lambda: gateway.call("GET", "/api/v2/tasks/kept", token=alice.token).body["status"] == "completed", 20)
        at = "/api/v2/tasks/kept/logs"
        until(lambda: gateway.call("GET", at, token=alice.token, Accept="application/json").body != [], 20)
        (entry,) = gateway.call("GET", at, token=alice.token, Accept="application/json").body
        assert (entry["message"], entry["stage"], entry["attempt"]) == ("done", "completed", 2)
        events = gateway.call("GET", at, token=alice.token, Accept="text/event-stream").body
        assert events.count("data: ") == 2
        assert '"status":"completed"' in events


def test_who_may_not_read_pod_logs_reads_none(gateway: Gateway, user: Callable[..., User]) -> None:
    bob = user(*ALL)
    made = gateway.call("POST", "/api/v2/training/start", TRAINING, token=bob.token).body
    assert gateway.call("GET", f"/api/v2/tasks/{made['task_id']}/logs", token=bob.token).status == 403
    assert gateway.call("GET", "/api/v2/tasks/unknown/logs", token=bob.token).status == 404


def test_a_stop_tells_readers_to_come_back_and_does_not_wait_for_them(serve: Serve, alice: User) -> None:
    with serve() as gateway:
        made = gateway.call("POST", "/api/v2/training/start", TRAINING, token=alice.token).body
        got, began = [], threading.Event()
        path = f"/api/v2/tasks/{made['task_id']}/logs"
        thread = threading.Thread(target=stream, args=(gateway, path, alice.token, got, began))
        thread.start()
        assert began.wait(20)
        assert gateway.stop(seconds=15) == 0
        thread.join(10)
    assert b"event: reconnect\n" in got
