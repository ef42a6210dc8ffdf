"""The model service's own load test, through the gateway's face for its clients, with the operator running."""

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from contract.gateway.conftest import Gateway, serve  # noqa: F401  a fixture
from kubernetes import client

from localcluster.simulation import ANNOTATION_PREFIX
from rfuav_gateway.tasks.priorities import class_name, value

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("audited")]

TRAINING = {"model": "resnet18", "num_classes": 3, "train_path": "train", "val_path": "val", "pretrained": False}
INFERENCE = {"cfg_path": "cfg.yaml", "weight_path": "best.safetensors", "source_path": "new"}


@pytest.fixture(scope="module")
def classes(kube: client.ApiClient) -> Iterator[None]:
    """The PriorityClasses that the chart installs with the gateway."""
    scheduling = client.SchedulingV1Api(kube)
    every = [(kind, priority) for kind in ("training", "inference") for priority in range(1, 11)]
    for kind, priority in every:
        body = {"metadata": {"name": class_name(kind, priority)}, "value": value(kind, priority)}
        scheduling.create_priority_class(body | {"preemptionPolicy": "Never"})
    yield
    for kind, priority in every:
        scheduling.delete_priority_class(class_name(kind, priority))


@pytest.fixture
def captures(world) -> Iterator[None]:
    """A volume of this name, bound."""
    name, room = f"captures-{world.namespace}", {"storage": "1Gi"}
    modes = ["ReadWriteMany"]
    claim = {"namespace": world.namespace, "name": "captures", "apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    volume = {"capacity": room, "accessModes": modes, "hostPath": {"path": "/captures"}, "claimRef": claim}
    world.core.create_persistent_volume(
        {
            "metadata": {"name": name},
            "spec": volume | {"storageClassName": "", "persistentVolumeReclaimPolicy": "Retain"},
        }
    )
    wanted = {"accessModes": modes, "resources": {"requests": room}, "storageClassName": "", "volumeName": name}
    world.core.create_namespaced_persistent_volume_claim(
        world.namespace, {"metadata": {"name": "captures"}, "spec": wanted}
    )

    def phase() -> str:
        return world.core.read_namespaced_persistent_volume_claim("captures", world.namespace).status.phase

    world.wait(lambda: phase() == "Bound", 60)
    yield
    world.core.delete_persistent_volume(name)


@pytest.fixture
def service(world, classes, captures, serve) -> Iterator[Gateway]:  # noqa: F811
    """The gateway for the namespace and the pool of the test."""
    compat = {"enabled": True, "namespace": world.namespace, "root": "/data"}
    with serve(compat=compat, pool=world.namespace, roots=[{"path": "/data", "uri": "pvc://captures"}]) as running:
        yield running


@pytest.fixture
def pods_end(world) -> Iterator[None]:
    """The pods of the namespace run for a second; nobody can ask for that through the gateway."""
    stop = threading.Event()

    def annotate() -> None:
        known = set()
        while not stop.wait(0.1):
            for pod in world.core.list_namespaced_pod(world.namespace).items:
                if pod.metadata.uid not in known:
                    notes = {"metadata": {"annotations": {f"{ANNOTATION_PREFIX}run-for": "1s"}}}
                    with contextlib.suppress(client.ApiException):  # it may be gone
                        world.core.patch_namespaced_pod(pod.metadata.name, world.namespace, notes)
                    known.add(pod.metadata.uid)

    thread = threading.Thread(target=annotate)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_ten_trainings_and_thirty_inferences_at_once_all_complete(world, service: Gateway, pods_end) -> None:
    """Its script: mixed creates, then status again and again; at most two trainings and six inferences at a time."""

    def create(number: int) -> str:
        if number % 4:
            path, body = "inference", INFERENCE | {"save_path": f"out/{number}"}
        else:
            path, body = "training", TRAINING | {"save_path": f"models/{number}"}
        reply = service.call("POST", f"/api/v2/{path}/start", body)
        assert reply.status == 200, reply
        return reply.body["task_id"]

    with ThreadPoolExecutor(20) as clients:
        ids = list(clients.map(create, range(40)))
    assert len(set(ids)) == 40
    end = time.monotonic() + 120
    while True:
        body = service.call("GET", "/api/v2/tasks").body
        words = [task["status"] for task in body["training_tasks"] + body["inference_tasks"]]
        assert len(words) == 40
        assert words.count("running") <= 8
        if words.count("completed") == 40:
            break
        assert time.monotonic() < end, body
        time.sleep(0.2)
    for task_id in ids:
        task = service.call("GET", f"/api/v2/tasks/{task_id}").body
        assert (task["status"], task["progress"]) == ("completed", 100)


def test_a_hundred_who_ask_at_once_get_the_same_answer(world, service: Gateway) -> None:
    made = service.call("POST", "/api/v2/training/start", TRAINING | {"save_path": "models/x"}).body
    world.wait(lambda: service.call("GET", f"/api/v2/tasks/{made['task_id']}").body["status"] == "running", 60)
    with ThreadPoolExecutor(100) as clients:
        replies = list(clients.map(lambda _: service.call("GET", f"/api/v2/tasks/{made['task_id']}"), range(100)))
    assert {reply.status for reply in replies} == {200}
    words = [reply.body["status"] for reply in replies]
    assert set(words) <= {"running", "completed"}
    assert service.call("POST", f"/api/v2/training/{made['task_id']}/stop").status == 200


def test_a_smaller_number_starts_first(world, service: Gateway) -> None:
    held = [
        service.call("POST", "/api/v2/training/start", TRAINING | {"save_path": f"models/held{n}"}).body["task_id"]
        for n in range(2)
    ]
    world.wait(lambda: {service.call("GET", f"/api/v2/tasks/{one}").body["status"] for one in held} == {"running"}, 60)
    waiting = {
        priority: service.call(
            "POST", "/api/v2/training/start", TRAINING | {"save_path": f"models/p{priority}", "priority": priority}
        ).body["task_id"]
        for priority in (9, 2, 5)
    }

    def places() -> dict[int, str]:
        return {p: service.call("GET", f"/api/v2/tasks/{one}").body["message"] or "" for p, one in waiting.items()}

    def order() -> list[int]:
        found = places()
        known = all(text.startswith("Place ") for text in found.values())
        return sorted(found, key=lambda priority: int(found[priority].split()[1])) if known else []

    world.wait(lambda: order() == [2, 5, 9], 60)  # a place that changed is told after some seconds
    service.call("POST", f"/api/v2/training/{held[0]}/stop")
    world.wait(lambda: service.call("GET", f"/api/v2/tasks/{waiting[2]}").body["status"] == "running", 60)
    assert service.call("GET", f"/api/v2/tasks/{waiting[5]}").body["status"] == "queued"
