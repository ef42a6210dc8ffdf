"""A client of the model service that knows its interface alone: paths, fields, defaults, codes and error bodies.

Nothing of the gateway's own models is used here.
"""

import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from contract.gateway.conftest import Gateway, Reply, Serve

pytestmark = pytest.mark.contract

STATUS = {"pending", "queued", "running", "completed", "failed", "cancelled"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?")  # without a zone
METRICS = [
    "epoch",
    "total_epochs",
    "train_loss",
    "train_acc",
    "val_loss",
    "val_acc",
    "macro_f1",
    "micro_f1",
    "mAP",
    "top1_acc",
    "top3_acc",
    "top5_acc",
    "macro_precision",
    "macro_recall",
    "micro_precision",
    "micro_recall",
    "precision",
    "recall",
    "learning_rate",
    "best_acc",
]
TRAINING = {
    "model": "resnet18",
    "num_classes": 37,
    "train_path": "data/train",
    "val_path": "data/val",
    "save_path": "models/output_3",
}
INFERENCE = {
    "cfg_path": "configs/model.yaml",
    "weight_path": "models/best.safetensors",
    "source_path": "data/test",
    "save_path": "results",
}
NUMBER = (int, float)


@pytest.fixture(scope="module")
def service(serve: Serve, kube) -> Iterator[Gateway]:
    """The gateway as the old service's network sees it: no credentials, relative paths."""
    from kubernetes import client

    core, name = client.CoreV1Api(kube), "reference-client"
    core.create_namespace({"metadata": {"name": name}})
    compat = {"enabled": True, "namespace": name, "root": "/data"}
    limits = {"requests": "1000000/minute"}
    try:
        with serve(compat=compat, limits=limits) as running:
            yield running
    finally:
        core.delete_namespace(name)


def checked_task(task: Any) -> dict[str, Any]:
    """A Task with its fields and their types."""
    optional = {
        "message": str,
        "progress": NUMBER,
        "device": str,
        "priority": int,
        "current_epoch": int,
        "total_epochs": int,
        "latest_metrics": dict,
    }
    assert isinstance(task["task_id"], str)
    assert task["task_type"] in ("training", "inference")
    assert task["status"] in STATUS
    for name in ("created_at", "updated_at"):
        assert TIME.fullmatch(task[name]), task[name]
    for name, kind in optional.items():
        assert task[name] is None or isinstance(task[name], kind), (name, task[name])
    assert task["progress"] is None or 0 <= task["progress"] <= 100
    if task["latest_metrics"] is not None:
        assert sorted(task["latest_metrics"]) == sorted(METRICS)
    return task


def checked_action(reply: Reply, task_id: str) -> None:
    assert reply.status == 200, reply
    assert sorted(reply.body) == ["message", "status", "task_id"]
    assert (reply.body["status"], reply.body["task_id"]) == ("success", task_id)


def checked_error(reply: Reply, status: int) -> None:
    assert reply.status == status, reply
    assert isinstance(reply.body["detail"], str)


def test_a_training_with_defaults_only(service: Gateway) -> None:
    reply = service.call("POST", "/api/v2/training/start", TRAINING)
    assert reply.status == 200
    task = checked_task(reply.body)
    assert (task["task_type"], task["device"], task["priority"]) == ("training", "cuda", 5)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", task["task_id"])
    assert task["total_epochs"] == 100
    for path in (f"/api/v2/training/{task['task_id']}", f"/api/v2/tasks/{task['task_id']}"):
        assert checked_task(service.call("GET", path).body) == task


def test_a_training_with_every_field(service: Gateway) -> None:
    body = TRAINING | {
        "name": "run_1",
        "batch_size": 16,
        "num_epochs": 3,
        "learning_rate": 0.001,
        "image_size": 32,
        "device": "cuda:1",
        "weight_path": "",
        "pretrained": False,
        "shuffle": True,
        "task_id": "my-run/1 (copy)",
        "priority": 1,
        "description": "a note",
        "something_new": {"that": "is ignored"},
    }
    reply = service.call("POST", "/api/v2/training/start", body)
    assert reply.status == 200, reply
    task = checked_task(reply.body)
    assert (task["task_id"], task["device"], task["priority"], task["total_epochs"]) == (
        "my-run/1 (copy)",
        "cuda:1",
        1,
        3,
    )
    found = service.call("GET", f"/api/v2/tasks/{urllib.parse.quote('my-run/1 (copy)', safe='')}")
    assert found.body["task_id"] == "my-run/1 (copy)"


def test_an_inference_and_a_batch(service: Gateway) -> None:
    task = checked_task(service.call("POST", "/api/v2/inference/start", INFERENCE).body)
    assert (task["task_type"], task["priority"]) == ("inference", 3)
    read = checked_task(service.call("GET", f"/api/v2/inference/{task['task_id']}").body)
    assert read | {"message": ""} == task | {"message": ""}  # that of a create may have a note
    body = {
        "cfg_path": "configs/model.yaml",
        "weight_path": "models/best.safetensors",
        "source_paths": ["data/a", "data/b"],
        "save_base_path": "results/batch",
    }
    reply = service.call("POST", "/api/v2/inference/batch", body)
    assert sorted(reply.body) == ["message", "status", "task_ids", "total"]
    assert (reply.status, reply.body["total"], len(set(reply.body["task_ids"]))) == (200, 2, 2)
    for task_id in reply.body["task_ids"]:
        assert service.call("GET", f"/api/v2/inference/{task_id}").status == 200


def test_a_training_is_no_inference(service: Gateway) -> None:
    task = service.call("POST", "/api/v2/training/start", TRAINING).body
    checked_error(service.call("GET", f"/api/v2/inference/{task['task_id']}"), 404)


def test_lists(service: Gateway) -> None:
    for _ in range(3):
        service.call("POST", "/api/v2/training/start", TRAINING)
    body = service.call("GET", "/api/v2/tasks").body
    assert {"training_tasks", "inference_tasks", "total_training", "total_inference"} <= body.keys()
    for task in body["training_tasks"] + body["inference_tasks"]:
        checked_task(task)
    assert body["total_training"] >= 3
    body = service.call("GET", "/api/v2/tasks?task_type=training&limit=2").body
    assert (len(body["training_tasks"]), body["inference_tasks"], body["total_inference"]) == (2, [], 0)
    body = service.call("GET", "/api/v2/tasks?status=running").body
    assert (body["training_tasks"], body["total_training"]) == ([], 0)


def test_stop_cancel_and_delete(service: Gateway) -> None:
    first = service.call("POST", "/api/v2/training/start", TRAINING).body["task_id"]
    second = service.call("POST", "/api/v2/inference/start", INFERENCE).body["task_id"]
    checked_error(service.call("DELETE", f"/api/v2/tasks/{first}"), 404)  # it has not ended
    checked_action(service.call("POST", f"/api/v2/training/{first}/stop"), first)
    checked_action(service.call("POST", f"/api/v2/tasks/{second}/cancel"), second)
    for task_id in (first, second):
        assert service.call("GET", f"/api/v2/tasks/{task_id}").body["status"] == "cancelled"
        checked_error(service.call("POST", f"/api/v2/tasks/{task_id}/cancel"), 404)  # it has ended
        checked_action(service.call("DELETE", f"/api/v2/tasks/{task_id}"), task_id)
        checked_error(service.call("GET", f"/api/v2/tasks/{task_id}"), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v2/tasks/nobody"),
        ("GET", "/api/v2/training/nobody"),
        ("GET", "/api/v2/inference/nobody"),
        ("GET", "/api/v2/tasks/nobody/logs"),
        ("GET", "/api/v2/training/nobody/logs"),
        ("POST", "/api/v2/training/nobody/stop"),
        ("POST", "/api/v2/tasks/nobody/cancel"),
        ("DELETE", "/api/v2/tasks/nobody"),
    ],
)
def test_unknown_ids_are_404(service: Gateway, method: str, path: str) -> None:
    checked_error(service.call(method, path), 404)


@pytest.mark.parametrize(
    ("path", "body", "wrong"),
    [
        ("training/start", {name: value for name, value in TRAINING.items() if name != "model"}, "model"),
        ("training/start", TRAINING | {"image_size": 31}, "image_size"),
        ("training/start", TRAINING | {"num_classes": "many"}, "num_classes"),
        ("training/start", TRAINING | {"priority": 11}, "priority"),
        ("training/start", TRAINING | {"priority": 0}, "priority"),
        ("training/start", TRAINING | {"device": "tpu"}, "device"),
        ("training/start", TRAINING | {"train_path": "../../etc"}, "train_path"),
        ("inference/start", {name: value for name, value in INFERENCE.items() if name != "weight_path"}, "weight_path"),
        ("inference/batch", {"cfg_path": "c", "weight_path": "w", "source_paths": []}, "source_paths"),
    ],
)
def test_a_body_that_is_wrong_is_422_and_says_where(service: Gateway, path: str, body: Any, wrong: str) -> None:
    reply = service.call("POST", f"/api/v2/{path}", body)
    assert reply.status == 422, reply
    assert isinstance(reply.body["detail"], list)
    for entry in reply.body["detail"]:
        assert {"loc", "msg", "type"} <= entry.keys()
        assert isinstance(entry["loc"], list)
    assert ["body", wrong] in [entry["loc"][:2] for entry in reply.body["detail"]]


def test_every_model_of_the_service_is_known(service: Gateway) -> None:
    for model in [
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "vit_b_16",
        "vit_b_32",
        "vit_l_16",
        "vit_l_32",
        "vit_h_14",
        "swin_v2_t",
        "swin_v2_s",
        "swin_v2_b",
        "mobilenet_v3_small",
        "mobilenet_v3_large",
    ]:
        reply = service.call("POST", "/api/v2/training/start", TRAINING | {"model": model})
        assert reply.status == 200, (model, reply)


def test_the_page_of_routes(service: Gateway) -> None:
    reply = service.call("GET", "/")
    assert reply.status == 200
    assert "/api/v2/training/start" in reply.body


GPU = [
    "id",
    "device_name",
    "name",
    "compute_capability",
    "total_memory_gb",
    "allocated_memory_gb",
    "cached_memory_gb",
    "free_memory_gb",
    "utilization",
    "current_tasks",
]
OTHERS = {
    "/api/v2/resources": "device_usage active_tasks limits gpu_info",
    "/api/v2/resources/gpu": "available count cuda_version pytorch_version devices",
    "/api/v2/resources/cpu": "percent per_cpu_percent cores physical_cores freq_mhz load_avg memory_percent",
    "/api/v1/health": "status timestamp version training_tasks inference_tasks active_log_streams resource_status",
    "/api/v1/info": "app_name version environment supported_models resource_limits gpu_available",
}


@pytest.mark.parametrize("path", OTHERS)
def test_what_the_service_says_of_itself(service: Gateway, path: str) -> None:
    reply = service.call("GET", path)
    assert reply.status == 200, reply
    assert set(OTHERS[path].split()) <= reply.body.keys()
    for gpu in reply.body.get("devices", []):
        assert set(GPU) <= gpu.keys()
        assert sorted(gpu["current_tasks"]) == ["inference", "training"]
    if path == "/api/v1/health":
        assert TIME.fullmatch(reply.body["timestamp"])
        assert sorted(reply.body["resource_status"]) == ["gpu_available", "gpu_count"]
    if path == "/api/v1/info":
        assert sorted(reply.body["resource_limits"]) == sorted(
            f"max_{kind}_concurrent_{device}" for kind in ("training", "inference") for device in ("gpu", "cpu")
        )
