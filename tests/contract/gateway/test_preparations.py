"""Preparations of data through the gateway, as batch/v1 Jobs; the pods of this cluster are ended by hand."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from contract.gateway.conftest import Gateway, Serve, User
from kubernetes import client

pytestmark = pytest.mark.contract

ALL = ("get", "list", "watch", "create", "patch", "delete")
SPLIT = {"input_path": "/data/all", "output_path": "/data/parts", "train_ratio": 0.7, "val_ratio": 0.2}
AT = "/api/v2/preprocessing"


@pytest.fixture(scope="module")
def gateway(serve: Serve):
    """A gateway with an image of the trainer."""
    with serve(trainerImage="rfuav-trainer:test") as running:
        yield running


@pytest.fixture
def alice(user: Callable[..., User]) -> User:
    """Someone who may do everything with Jobs in the test's namespace."""
    return user(*ALL, resources=("jobs",), group="batch")


@pytest.fixture
def end(kube: client.ApiClient, namespace: str) -> Callable[..., None]:
    """Ends the pod of the one preparation of the test's namespace, as a kubelet would."""
    core = client.CoreV1Api(kube)

    def ended(phase: str, code: int, message: dict[str, Any]) -> None:
        pods = until(lambda: core.list_namespaced_pod(namespace).items)
        state = {"terminated": {"exitCode": code, "reason": phase, "message": json.dumps(message)}}
        status = {"name": "trainer", "image": "x", "imageID": "x", "ready": False, "restartCount": 0, "state": state}
        body = {"status": {"phase": phase, "containerStatuses": [status]}}
        core.patch_namespaced_pod_status(pods[0].metadata.name, namespace, body)

    return ended


def until(ask: Callable[[], Any], seconds: float = 30) -> Any:
    """What `ask` answers as soon as that is something."""
    deadline = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.2)
    return found


def shown(gateway: Gateway, user: User, task: str, status: str) -> Any:
    """The preparation once it has this status."""

    def ask() -> Any:
        answer = gateway.call("GET", f"{AT}/{task}", token=user.token)
        return answer.body if answer.status == 200 and answer.body["status"] == status else None

    return until(ask)


def test_a_split_runs_as_a_job_and_its_numbers_are_shown(
    gateway: Gateway, alice: User, end, kube: client.ApiClient, namespace: str
) -> None:
    answer = gateway.call("POST", f"{AT}/split", SPLIT | {"task_id": "Parts 1"}, token=alice.token)
    assert answer.status == 200, answer
    assert answer.body["task_type"] == "dataset_split"
    assert (answer.body["input_path"], answer.body["output_path"]) == ("/data/all", "/data/parts")
    (job,) = client.BatchV1Api(kube).list_namespaced_job(namespace).items
    assert job.metadata.annotations["rfuav.io/created-by"] == f"system:serviceaccount:{namespace}:{alice.name}"
    assert job.spec.template.spec.containers[0].args[:3] == ["prepare", "split", "/mnt/rfuav/captures/all"]
    own = {"files": 10, "failed": 0, "parts": {"train": 7, "valid": 2, "test": 1}}
    end("Succeeded", 0, {"reason": "Completed", "message": "", "trainerStatus": {"rfuav": own}})
    found = shown(gateway, alice, "Parts%201", "completed")
    assert (found["progress"], found["stats"]) == (
        100,
        {"train": 7, "valid": 2, "test": 1, "total": 10, "unreadable": 0},
    )
    cancel = gateway.call("POST", f"{AT}/Parts%201/cancel", token=alice.token)
    assert cancel.status == 400
    assert "has ended (completed)" in cancel.body["detail"]


def test_a_failure_is_told_in_the_words_of_the_trainer(gateway: Gateway, alice: User, end) -> None:
    body = {"input_path": "/data/a", "output_path": "/data/b", "x": 0, "y": 0, "width": 9, "height": 9}
    task = gateway.call("POST", f"{AT}/crop", body, token=alice.token).body["task_id"]
    end("Failed", 3, {"reason": "InputMissing", "message": "no such folder", "trainerStatus": {}})
    assert shown(gateway, alice, task, "failed")["message"] == "InputMissing: no such folder"


def test_a_cancelled_one_ends_and_its_pod_is_deleted(
    gateway: Gateway, alice: User, kube: client.ApiClient, namespace: str
) -> None:
    task = gateway.call("POST", f"{AT}/augment", {"dataset_path": "/data/set"}, token=alice.token).body["task_id"]
    core, batch = client.CoreV1Api(kube), client.BatchV1Api(kube)
    until(lambda: core.list_namespaced_pod(namespace).items)
    answer = gateway.call("POST", f"{AT}/{task}/cancel", token=alice.token)
    assert (answer.status, answer.body["status"], answer.body["task_id"]) == (200, "success", task)
    found = gateway.call("GET", f"{AT}/{task}", token=alice.token).body
    assert (found["status"], found["message"]) == (
        "cancelled",
        f"Cancelled by system:serviceaccount:{namespace}:{alice.name}",
    )
    until(lambda: not core.list_namespaced_pod(namespace).items)

    def failed() -> bool:
        (job,) = batch.list_namespaced_job(namespace).items
        return any(one.type == "Failed" and one.status == "True" for one in job.status.conditions or ())

    until(failed)
    assert gateway.call("POST", f"{AT}/{task}/cancel", token=alice.token).status == 400
    assert gateway.call("GET", f"{AT}/{task}", token=alice.token).body["status"] == "cancelled"


def test_the_same_create_twice_is_one_preparation(gateway: Gateway, alice: User) -> None:
    body = SPLIT | {"task_id": "twice"}
    first, again = (gateway.call("POST", f"{AT}/split", body, token=alice.token) for _ in range(2))
    other = gateway.call("POST", f"{AT}/split", body | {"output_path": "/data/other"}, token=alice.token)
    assert (first.status, again.status, other.status) == (200, 200, 409)
    assert first.body["created_at"] == again.body["created_at"]


def test_a_job_that_somebody_else_made_is_no_preparation(
    gateway: Gateway, alice: User, kube: client.ApiClient, namespace: str
) -> None:
    batch = client.BatchV1Api(kube)
    gateway.call("POST", f"{AT}/split", SPLIT | {"task_id": "mine"}, token=alice.token)
    (mine,) = batch.list_namespaced_job(namespace).items
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}
    body = {"metadata": {"name": "theirs"}, "spec": {"suspend": True, "template": {"spec": pod}}}
    batch.create_namespaced_job(namespace, body)
    assert gateway.call("GET", f"{AT}/theirs", token=alice.token).status == 404
    assert gateway.call("GET", f"{AT}/{namespace}/theirs", token=alice.token).status == 404
    assert gateway.call("GET", f"{AT}/mine", token=alice.token).status == 200
    assert mine.metadata.labels["rfuav.io/preparation"] == "split"


def test_rights_are_those_of_the_caller(gateway: Gateway, alice: User, user: Callable[..., User]) -> None:
    task = gateway.call("POST", f"{AT}/split", SPLIT, token=alice.token).body["task_id"]
    nobody, reader = user(), user("get", resources=("jobs",), group="batch")
    assert gateway.call("GET", f"{AT}/{task}", token=nobody.token).status == 404
    assert gateway.call("POST", f"{AT}/{task}/cancel", token=nobody.token).status == 404
    assert gateway.call("POST", f"{AT}/split", SPLIT, token=nobody.token).status == 403
    assert gateway.call("GET", f"{AT}/{task}", token=reader.token).status == 200
    assert gateway.call("POST", f"{AT}/{task}/cancel", token=reader.token).status == 403
    assert gateway.call("GET", f"{AT}/{task}/logs", token=reader.token).status == 403
    assert gateway.call("GET", f"{AT}/{task}/logs", token=nobody.token).status == 404


def test_logs_are_followed_until_the_preparation_ends(
    gateway: Gateway, may_read_logs: Callable[[User], None], alice: User, kube: client.ApiClient, namespace: str
) -> None:
    may_read_logs(alice)
    task = gateway.call("POST", f"{AT}/split", SPLIT, token=alice.token).body["task_id"]
    at = f"{AT}/{task}/logs"
    assert gateway.call("GET", at, token=alice.token, Accept="application/json").body == []
    gateway.call("POST", f"{AT}/{task}/cancel", token=alice.token)
    until(lambda: not client.CoreV1Api(kube).list_namespaced_pod(namespace).items)
    assert gateway.call("GET", at, token=alice.token, Accept="application/json").body == []
    events = gateway.call("GET", at, token=alice.token, Accept="text/event-stream").body.splitlines()
    end = json.loads([line for line in events if line.startswith("data: ")][-1].removeprefix("data: "))
    assert (end["status"], end["message"].split()[0]) == ("cancelled", "Cancelled")


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("split", SPLIT | {"val_ratio": 0.5}, "val_ratio"),
        ("augment", {"dataset_path": "/data/x", "methods": ["Blur"]}, "methods"),
        (
            "crop",
            {"input_path": "/etc", "output_path": "/data/x", "x": 0, "y": 0, "width": 1, "height": 1},
            "input_path",
        ),
        ("crop", {"input_path": "/data/x", "output_path": "/data/y", "x": 0, "y": 0, "width": 0, "height": 1}, "width"),
    ],
)
def test_wrong_bodies_name_the_field(gateway: Gateway, alice: User, route: str, body: dict, field: str) -> None:
    answer = gateway.call("POST", f"{AT}/{route}", body, token=alice.token)
    assert (answer.status, answer.body["detail"][0]["loc"]) == (422, ["body", field])


def test_without_an_image_of_the_trainer_nothing_is_prepared(serve: Serve, alice: User) -> None:
    with serve() as gateway:
        answer = gateway.call("POST", f"{AT}/split", SPLIT, token=alice.token)
    assert answer.status == 501
    assert "trainerImage" in answer.body["detail"]
