"""Tasks through the gateway: create, read, list, cancel and delete, against the jobs of a real API server."""

import threading
import urllib.request
import uuid
from collections.abc import Callable

import pytest
from contract.gateway.conftest import Gateway, Serve, User
from kubernetes import client

from rfuav_crds.contract import GROUP, VERSION

pytestmark = pytest.mark.contract

TRAINING = {
    "model": "resnet18",
    "num_classes": 3,
    "train_path": "/data/train",
    "val_path": "/data/valid",
    "save_path": "/data/models",
    "name": "first",
}
INFERENCE = {"cfg_path": "/data/cfg.yaml", "weight_path": "/data/w/best.safetensors", "source_path": "/data/new"}


@pytest.fixture
def jobs(kube: client.ApiClient, namespace: str) -> Callable[[str], list[dict]]:
    """Lists the jobs of the test's namespace, as an administrator."""
    api = client.CustomObjectsApi(kube)
    return lambda plural: api.list_namespaced_custom_object(GROUP, VERSION, namespace, plural)["items"]


@pytest.fixture
def alice(user: Callable[..., User]) -> User:
    """Someone who may do everything with jobs in the test's namespace."""
    return user("get", "list", "watch", "create", "patch", "delete")


def test_a_create_is_a_job_with_what_the_body_says(gateway: Gateway, alice: User, jobs) -> None:
    answer = gateway.call(
        "POST", "/api/v2/training/start", TRAINING | {"task_id": "My task", "priority": 2}, token=alice.token
    )
    assert answer.status == 200, answer
    assert (answer.body["task_id"], answer.body["status"], answer.body["priority"]) == ("My task", "pending", 2)
    (job,) = jobs("trainingjobs")
    assert job["spec"]["dataset"]["train"]["uri"] == "pvc://captures/train"
    assert job["spec"]["output"]["uri"] == "pvc://captures/models/first"
    assert job["spec"]["priorityClassName"] == "rfuav-training-p2"
    assert (
        job["metadata"]["annotations"]["rfuav.io/created-by"] == f"system:serviceaccount:{alice.namespace}:{alice.name}"
    )


def test_the_same_create_twice_is_one_task_and_other_content_is_a_conflict(gateway: Gateway, alice: User, jobs) -> None:
    body = TRAINING | {"task_id": str(uuid.uuid4())}
    first = gateway.call("POST", "/api/v2/training/start", body, token=alice.token)
    again = gateway.call("POST", "/api/v2/training/start", body, token=alice.token)
    other = gateway.call("POST", "/api/v2/training/start", body | {"num_epochs": 7}, token=alice.token)
    assert (first.status, again.status, other.status) == (200, 200, 409)
    assert first.body == again.body
    assert "other content" in other.body["detail"]
    assert len(jobs("trainingjobs")) == 1


def test_twenty_creates_at_once_are_twenty_tasks(gateway: Gateway, alice: User, jobs) -> None:
    replies = []
    threads = [
        threading.Thread(
            target=lambda: replies.append(gateway.call("POST", "/api/v2/training/start", TRAINING, token=alice.token))
        )
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.status for reply in replies] == [200] * 20
    assert {reply.body["task_id"] for reply in replies} == {
        job["metadata"]["annotations"]["rfuav.io/task-id"] for job in jobs("trainingjobs")
    }
    assert len(jobs("trainingjobs")) == 20


def test_a_task_is_read_listed_cancelled_and_deleted(gateway: Gateway, alice: User, jobs) -> None:
    made = gateway.call("POST", "/api/v2/training/start", TRAINING, token=alice.token).body
    at = f"/api/v2/tasks/{made['task_id']}"
    assert gateway.call("GET", at, token=alice.token).body == made
    listed = gateway.call("GET", "/api/v2/tasks?status=pending&task_type=training", token=alice.token).body
    assert (listed["training_tasks"], listed["total_training"], listed["inference_tasks"]) == ([made], 1, [])
    assert gateway.call("DELETE", at, token=alice.token).status == 404  # it has not ended
    assert gateway.call("POST", f"{at}/cancel", token=alice.token).body["status"] == "success"
    assert jobs("trainingjobs")[0]["spec"]["cancel"] is True
    assert gateway.call("GET", at, token=alice.token).body["status"] == "cancelled"
    assert gateway.call("POST", f"{at}/cancel", token=alice.token).status == 404  # it has ended
    assert gateway.call("DELETE", at, token=alice.token).body == {
        "status": "success",
        "message": f"Task {made['task_id']} is deleted",
        "task_id": made["task_id"],
    }
    assert jobs("trainingjobs") == []
    assert gateway.call("GET", at, token=alice.token).status == 404


def test_a_batch_is_a_task_for_each_source(gateway: Gateway, alice: User, jobs) -> None:
    body = {
        "cfg_path": "/data/cfg.yaml",
        "weight_path": "/data/w/best.safetensors",
        "source_paths": [f"/data/new/{n}.png" for n in range(30)],
        "save_base_path": "/data/out",
    }
    answer = gateway.call("POST", "/api/v2/inference/batch", body, token=alice.token)
    assert (answer.status, answer.body["total"], len(set(answer.body["task_ids"]))) == (200, 30, 30)
    by_id = {job["metadata"]["annotations"]["rfuav.io/task-id"]: job for job in jobs("inferencejobs")}
    inputs = [by_id[task_id]["spec"]["input"]["uri"] for task_id in answer.body["task_ids"]]
    assert inputs == [f"pvc://captures/new/{n}.png" for n in range(30)]


def test_a_batch_with_an_id_that_is_sent_again_is_the_same_tasks(gateway: Gateway, alice: User, jobs) -> None:
    body = {
        "cfg_path": "/data/cfg.yaml",
        "weight_path": "/data/w/best.safetensors",
        "source_paths": [f"/data/new/{n}.png" for n in range(5)],
        "task_id": "flight7",
    }
    first, again = (gateway.call("POST", "/api/v2/inference/batch", body, token=alice.token) for _ in range(2))
    assert first.body == again.body
    assert again.body["task_ids"] == [f"flight7-{n}" for n in range(1, 6)]
    assert len(jobs("inferencejobs")) == 5
    other = gateway.call("POST", "/api/v2/inference/batch", body | {"source_paths": ["/data/x"]}, token=alice.token)
    assert other.status == 409


def test_a_job_of_kubectl_is_a_task_named_by_its_namespace_and_name(
    gateway: Gateway, alice: User, kube: client.ApiClient, namespace: str
) -> None:
    made = gateway.call("POST", "/api/v2/training/start", TRAINING, token=alice.token).body
    api = client.CustomObjectsApi(kube)
    (job,) = api.list_namespaced_custom_object(GROUP, VERSION, namespace, "trainingjobs")["items"]
    plain = {key: job[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": "mine"}}
    api.create_namespaced_custom_object(GROUP, VERSION, namespace, "trainingjobs", plain)
    answer = gateway.call("GET", f"/api/v2/tasks/{namespace}/mine", token=alice.token)
    assert (answer.status, answer.body["task_id"]) == (200, f"{namespace}/mine")
    assert gateway.call("POST", f"/api/v2/training/{namespace}/mine/stop", token=alice.token).status == 200
    assert gateway.call("GET", f"/api/v2/tasks/{made['task_id']}", token=alice.token).body["status"] == "pending"


def test_a_read_after_a_create_through_another_replica_finds_it(gateway: Gateway, serve: Serve, alice: User) -> None:
    with serve() as other:
        made = gateway.call("POST", "/api/v2/inference/start", INFERENCE, token=alice.token).body
        found = other.call("GET", f"/api/v2/inference/{made['task_id']}", token=alice.token)
    assert (found.status, found.body["task_id"]) == (200, made["task_id"])


def test_what_the_api_server_refuses_is_refused_in_its_words(gateway: Gateway, alice: User) -> None:
    body = TRAINING | {"save_path": "hf://someone/something"}
    answer = gateway.call("POST", "/api/v2/training/start", body, token=alice.token)
    assert answer.status == 422
    assert [entry["loc"] for entry in answer.body["detail"]] == [["body", "save_path"]]


def test_a_path_outside_the_roots_is_refused_with_their_list(gateway: Gateway, alice: User) -> None:
    answer = gateway.call(
        "POST", "/api/v2/training/start", TRAINING | {"train_path": "/data/../etc"}, token=alice.token
    )
    assert answer.status == 422
    assert answer.body["detail"][0]["loc"] == ["body", "train_path"]
    assert "/data" in answer.body["detail"][0]["msg"]


def test_a_restart_loses_nothing(serve: Serve, alice: User) -> None:
    with serve() as first:
        made = first.call("POST", "/api/v2/training/start", TRAINING, token=alice.token).body
    with serve() as second:
        assert second.call("GET", f"/api/v2/tasks/{made['task_id']}", token=alice.token).body == made


def test_a_list_is_read_page_by_page_searched_and_compressed(gateway: Gateway, alice: User) -> None:
    ids = [f"run {number:02}" for number in range(25)]
    for task_id in ids:
        assert (
            gateway.call("POST", "/api/v2/training/start", TRAINING | {"task_id": task_id}, token=alice.token).status
            == 200
        )
    shown, cursor = [], ""
    while cursor is not None:
        page = gateway.call(
            "GET", f"/api/v2/tasks?limit=10&cursor={cursor}" if cursor else "/api/v2/tasks?limit=10", token=alice.token
        ).body
        assert page["total_training"] == 25
        shown += [task["task_id"] for task in page["training_tasks"]]
        cursor = page["next_cursor"]
    assert sorted(shown) == ids
    found = gateway.call("GET", "/api/v2/tasks?search=RUN%201", token=alice.token).body
    assert (found["total_training"], len(found["training_tasks"])) == (10, 10)
    answer = gateway.call("GET", "/api/v2/tasks", token=alice.token, Accept_Encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gateway.call("GET", "/api/v2/tasks?cursor=nonsense", token=alice.token).status == 422


def test_prometheus_sees_requests_by_route_and_no_ids(gateway: Gateway, alice: User) -> None:
    made = gateway.call("POST", "/api/v2/training/start", TRAINING, token=alice.token).body
    gateway.call("GET", f"/api/v2/tasks/{made['task_id']}", token=alice.token)
    gateway.call("GET", "/no/such/page", token=alice.token)
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.health}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert 'rfuav_gateway_requests_total{code="200",method="GET",route="/api/v2/tasks/{task_id:path}"}' in text
    assert 'rfuav_gateway_requests_total{code="404",method="GET",route="unknown"}' in text
    assert made["task_id"] not in text
    assert "rfuav_gateway_tasks " in text
    assert "rfuav_turn_seconds" not in text
