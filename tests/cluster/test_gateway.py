"""A client of the old service, in a pod, starts a training through the REST gateway and follows it to its end."""

import json
from typing import Any

import pytest
from cluster import data
from cluster.install import GATEWAY
from cluster.running import Running

BODY = {
    "model": "mobilenet_v3_small",
    "num_classes": len(data.CLASSES),
    "train_path": "pictures/train",  # below compat.root
    "val_path": "/data/pictures/val",
    "save_path": "models",
    "name": "rest",
    "num_epochs": 2,
    "image_size": 64,
    "device": "cpu",
    "pretrained": False,
    "task_id": "my first training",
    "priority": 1,
}

# One request, answered by its status and body. A stream is read to its end.
_CALL = """
import json, sys, urllib.error, urllib.request
method, url, body = sys.argv[1:]
request = urllib.request.Request(url, body.encode() or None, {"Content-Type": "application/json"}, method=method)
try:
    with urllib.request.urlopen(request, timeout=180) as answer:
        print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode()]))
"""


def call(running: Running, method: str, path: str, body: Any = None) -> tuple[int, str]:
    """One request from the pod `inspector`; the answer's status and text."""
    text = json.dumps(body) if body is not None else ""
    answer = running.kube.exec(data.POD, "python", "-c", _CALL, method, f"{GATEWAY}{path}", text, timeout=200)
    status, content = json.loads(answer)
    return status, content


@pytest.fixture(scope="module")
def started(running: Running) -> dict[str, Any]:
    """The training, as its create was answered."""
    status, content = call(running, "POST", "/api/v2/training/start", BODY)
    assert status == 200, content
    return dict(json.loads(content))


AT = f"/api/v2/training/{BODY['task_id'].replace(' ', '%20')}"


def test_the_training_is_a_job_of_the_operator(running: Running, started: dict[str, Any]) -> None:
    assert (started["task_id"], started["priority"]) == (BODY["task_id"], 1)
    jobs = running.kube.items("trainingjobs")
    (job,) = [one for one in jobs if one["metadata"].get("annotations", {}).get("rfuav.io/task-id") == BODY["task_id"]]
    assert job["spec"]["dataset"]["train"]["uri"] == "pvc://captures/pictures/train"
    assert job["spec"]["output"]["uri"] == "pvc://models/rest"
    assert job["spec"]["priorityClassName"] == "rfuav-training-p1"
    assert job["spec"]["resources"]["gpus"] == 0


def test_its_log_is_followed_to_its_end(running: Running, started: dict[str, Any]) -> None:
    del started
    status, text = call(running, "GET", f"{AT}/logs")
    assert status == 200
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1]["status"] == "completed", text[-2000:]
    epochs = [one["metrics"]["epoch"] for one in events if one.get("stage") == "epoch_end"]
    assert epochs == [1, 2]


def test_it_completes_with_metrics_and_weights(running: Running, started: dict[str, Any]) -> None:
    del started

    def ended() -> dict[str, Any]:
        task: dict[str, Any] = json.loads(call(running, "GET", AT)[1])
        return task if task["status"] in ("completed", "failed", "cancelled") else {}

    task = running.kube.wait_for(ended, timeout=180, what="the end of the training")
    assert (task["status"], task["progress"]) == ("completed", 100), task
    assert (task["current_epoch"], task["total_epochs"]) == (2, 2)
    assert 0 <= task["latest_metrics"]["val_acc"] <= 100
    assert "best.safetensors" in data.files(running.kube, "pvc://models/rest")
    status, content = call(running, "GET", f"{AT.replace('/training/', '/tasks/')}/results")
    assert (status, json.loads(content)["history"]["epochs"]) == (200, [1, 2])
    listed = json.loads(call(running, "GET", "/api/v2/tasks?status=completed&task_type=training")[1])
    assert BODY["task_id"] in [one["task_id"] for one in listed["training_tasks"]]


def test_the_same_create_again_is_the_same_task(running: Running, started: dict[str, Any]) -> None:
    status, content = call(running, "POST", "/api/v2/training/start", BODY)
    assert (status, json.loads(content)["created_at"]) == (200, started["created_at"])
