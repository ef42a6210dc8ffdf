"""The pool as devices, and what the service says of itself, on a real API server with simulated GPU nodes."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from contract.gateway.conftest import Gateway, Serve, User
from contract.operator.conftest import until
from kubernetes import client

from localcluster.gpus import Gpus
from localcluster.simulation import create_nodes
from rfuav_cli import main as plugin
from rfuav_crds.contract import GROUP, PLURALS, VERSION

pytestmark = pytest.mark.contract

JOB = {
    "TrainingJob": {
        "model": {"architecture": "resnet18", "weights": "none", "numClasses": 3},
        "dataset": {"train": {"uri": "pvc://data/train"}, "validation": {"fraction": 0.2}},
        "output": {"uri": "pvc://data/model"},
    },
    "InferenceJob": {
        "model": {"weights": "pvc://data/best.safetensors"},
        "input": {"uri": "pvc://data/in"},
        "output": {"uri": "pvc://data/predictions"},
    },
}


class Fleet(NamedTuple):
    """A pool with two nodes of two GPUs each, and the gateway whose pool it is."""

    gateway: Gateway
    pool: str
    nodes: list[str]


@pytest.fixture(scope="module")
def fleet(kube: client.ApiClient, kubeconfig: Any, serve: Serve) -> Iterator[Fleet]:
    """The pool."""
    name = f"fleet-{uuid.uuid4().hex[:8]}"
    custom, core = client.CustomObjectsApi(kube), client.CoreV1Api(kube)
    spec = {"nodeSelector": {"test": name}, "perGPU": [{"minMemory": "22Gi", "training": 1, "inference": 3}]}
    pool = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "GPUPool", "metadata": {"name": name}, "spec": spec}
    custom.create_cluster_custom_object(GROUP, VERSION, "gpupools", pool)
    nodes = create_nodes(kubeconfig, 2, prefix=name, gpus=Gpus(), labels={"test": name})
    with serve(pool=name) as running:
        yield Fleet(running, name, nodes)
    for node in nodes:
        core.delete_node(node)
    custom.delete_cluster_custom_object(GROUP, VERSION, "gpupools", name)


@pytest.fixture
def grant(kube: client.ApiClient) -> Iterator[Callable[..., None]]:
    """Lets a user do these verbs on GPUPools."""
    rbac = client.RbacAuthorizationV1Api(kube)
    made: list[str] = []

    def let(user: User, *verbs: str) -> None:
        name = f"{user.name}-pools"
        made.append(name)
        rules = [{"apiGroups": [GROUP], "resources": ["gpupools"], "verbs": list(verbs)}]
        rbac.create_cluster_role({"metadata": {"name": name}, "rules": rules})
        subject = {"kind": "ServiceAccount", "name": user.name, "namespace": user.namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        rbac.create_cluster_role_binding({"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})

    yield let
    for name in made:
        rbac.delete_cluster_role_binding(name)
        rbac.delete_cluster_role(name)


Run = Callable[..., str]


@pytest.fixture
def run(kube: client.ApiClient, namespace: str, fleet: Fleet) -> Run:
    """Makes a job of the test's namespace that runs on a node, or waits, as the operator would have written it."""
    custom = client.CustomObjectsApi(kube)

    def make(kind: str, node: str = "", *, gpus: int = 1, home: str = namespace) -> str:
        name = f"job-{uuid.uuid4().hex[:8]}"
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": kind,
            "metadata": {"name": name},
            "spec": {**JOB[kind], "pool": fleet.pool, "resources": {"gpus": gpus}},
        }
        at = GROUP, VERSION, home, PLURALS[kind]
        custom.create_namespaced_custom_object(*at, body)
        status = {"phase": "Queued"}
        if node:
            status = {"phase": "Running", "assignments": [{"pod": f"{name}-1", "node": node, "gpus": gpus}]}
        custom.patch_namespaced_custom_object_status(*at, name, {"status": status})
        return name

    return make


def seen(fleet: Fleet, user: User, path: str = "/api/v2/resources") -> Any:
    answer = fleet.gateway.call("GET", path, token=user.token)
    assert answer.status == 200, answer
    return answer.body


def test_gpus_are_those_of_the_pools_nodes_in_a_stable_order(
    fleet: Fleet, user: Callable[..., User], grant: Callable[..., None]
) -> None:
    reader = user()
    grant(reader, "list")
    until(lambda: seen(fleet, reader, "/api/v2/resources/gpu")["count"] == 4, 20)
    body = seen(fleet, reader, "/api/v2/resources/gpu")
    assert body["available"] is True
    assert [(one["id"], one["device_name"], one["node"], one["node_index"]) for one in body["devices"]] == [
        (number, f"cuda:{number}", fleet.nodes[number // 2], number % 2) for number in range(4)
    ]
    first = body["devices"][0]
    assert (first["name"], first["total_memory_gb"]) == ("NVIDIA-GeForce-RTX-4090", 24)
    assert (first["utilization"], first["allocated_memory_gb"]) == (None, None)
    assert first["limits"] == {"training": 1, "inference": 3}


def test_use_is_that_of_all_and_names_are_those_of_tasks_that_the_caller_may_see(
    fleet: Fleet, user: Callable[..., User], grant: Callable[..., None], run: Run, namespace: str
) -> None:
    reader, stranger = user("get", "list"), user(home="default")
    grant(reader, "list")
    grant(stranger, "list")
    training, inference = run("TrainingJob", fleet.nodes[1]), run("InferenceJob", fleet.nodes[1])
    run("TrainingJob")
    until(lambda: seen(fleet, reader)["queue"] == {"training": 1, "inference": 0}, 20)
    body = seen(fleet, reader)
    on_node = [body["device_usage"][f"cuda:{number}"] for number in (2, 3)]
    assert sorted(one["training"] for one in on_node) == sorted(one["inference"] for one in on_node) == [0, 1]
    active = [*body["active_tasks"]["cuda:2"], *body["active_tasks"]["cuda:3"]]
    assert sorted(active, key=lambda one: one["type"]) == [
        {"id": f"{namespace}/{inference}", "type": "inference", "namespace": namespace},
        {"id": f"{namespace}/{training}", "type": "training", "namespace": namespace},
    ]
    assert body["limits"]["cpu"] == {"training": 4, "inference": 8}
    blind = seen(fleet, stranger)
    assert blind["device_usage"] == body["device_usage"]
    assert set(map(str, blind["active_tasks"].values())) == {"[]"}


def test_cpus_are_summed_over_the_nodes(
    fleet: Fleet, user: Callable[..., User], grant: Callable[..., None], kube: client.ApiClient, namespace: str
) -> None:
    reader = user()
    grant(reader, "list")
    requests = {"cpu": "16", "memory": "64Gi"}
    container = {"name": "x", "image": "x", "resources": {"requests": requests}}
    pod = {"metadata": {"name": "other"}, "spec": {"nodeName": fleet.nodes[0], "containers": [container]}}
    client.CoreV1Api(kube).create_namespaced_pod(namespace, pod)
    until(lambda: seen(fleet, reader, "/api/v2/resources/cpu")["percent"] == 25, 20)
    assert seen(fleet, reader, "/api/v2/resources/cpu") == {
        "percent": 25.0,
        "per_cpu_percent": [],
        "cores": 64,
        "physical_cores": None,
        "freq_mhz": None,
        "load_avg": {},
        "memory_percent": 25.0,
        "nodes": 2,
    }


def test_who_may_not_list_pools_sees_no_resources(fleet: Fleet, user: Callable[..., User]) -> None:
    nobody = user("get", "list")
    for path in ("", "/gpu", "/cpu"):
        answer = fleet.gateway.call("GET", f"/api/v2/resources{path}", token=nobody.token)
        assert answer.status == 403
        assert "gpupools" in answer.body["detail"]
        assert fleet.gateway.call("GET", f"/api/v2/resources{path}").status == 401


def test_health_and_info_need_no_credentials_and_tell_numbers_to_those_who_have_them(
    fleet: Fleet, user: Callable[..., User], grant: Callable[..., None], run: Run
) -> None:
    owner, nobody = user("get", "list"), user()
    grant(owner, "list")
    run("TrainingJob")
    until(lambda: seen(fleet, owner, "/api/v1/health")["training_tasks"] == 1, 20)
    health = seen(fleet, owner, "/api/v1/health")
    assert health["status"] == "healthy"
    assert health["inference_tasks"] == 0
    assert health["resource_status"] == {"gpu_available": True, "gpu_count": 4}
    info = seen(fleet, owner, "/api/v1/info")
    assert "resnet18" in info["supported_models"]
    assert info["resource_limits"] == {
        "max_training_concurrent_gpu": 4,
        "max_inference_concurrent_gpu": 12,
        "max_training_concurrent_cpu": 4,
        "max_inference_concurrent_cpu": 8,
    }
    for token in ("", nobody.token):
        answer = fleet.gateway.call("GET", "/api/v1/health", token=token).body
        assert (answer["status"], answer["training_tasks"], answer["inference_tasks"]) == ("healthy", None, None)
        assert answer["resource_status"] == {"gpu_available": None, "gpu_count": None}
        answer = fleet.gateway.call("GET", "/api/v1/info", token=token).body
        assert (answer["gpu_available"], set(answer["resource_limits"].values())) == (None, {None})
    assert fleet.gateway.call("GET", "/api/v1/health", token="forged").status == 401


def test_limits_are_changed_for_all_gpus_of_a_kind_by_those_who_may(
    fleet: Fleet, user: Callable[..., User], grant: Callable[..., None], kube: client.ApiClient
) -> None:
    reader, admin = user(), user()
    grant(reader, "get", "list")
    grant(admin, "get", "list", "patch")
    wanted = {"max_concurrent": {"cuda:0": {"training": 1, "inference": 2}, "cpu": {"training": 2, "inference": 6}}}
    at = "/api/v2/resources/config"
    assert fleet.gateway.call("POST", at, wanted, token=reader.token).status == 403
    answer = fleet.gateway.call("POST", at, wanted, token=admin.token)
    assert answer.status == 200, answer
    gpu = {"training": 1, "inference": 2}
    now = {"cpu": {"training": 2, "inference": 6}} | {f"cuda:{number}": gpu for number in range(4)}
    assert answer.body["current_config"] == now
    assert seen(fleet, admin)["limits"] == now
    pool = client.CustomObjectsApi(kube).get_cluster_custom_object(GROUP, VERSION, "gpupools", fleet.pool)
    assert pool["spec"]["perGPU"] == [{"minMemory": "22Gi", "training": 1, "inference": 2}]
    assert pool["spec"]["perNodeCPU"] == {"training": 1, "inference": 3}
    differ = {"cuda:0": {"training": 1, "inference": 2}, "cuda:3": {"training": 1, "inference": 3}}
    answer = fleet.gateway.call("POST", at, {"max_concurrent": differ}, token=admin.token)
    assert answer.status == 422
    assert "same kind" in answer.body["detail"][0]["msg"]
    back = {"max_concurrent": {"cuda:0": {"training": 1, "inference": 3}, "cpu": {"training": 4, "inference": 8}}}
    assert fleet.gateway.call("POST", at, back, token=admin.token).status == 200


def test_in_compat_limits_change_only_where_the_settings_say_so(
    fleet: Fleet, serve: Serve, kube: client.ApiClient
) -> None:
    at, wanted = "/api/v2/resources/config", {"max_concurrent": {"cuda:0": {"training": 1, "inference": 3}}}
    face = {"enabled": True, "namespace": "default"}
    with serve(pool=fleet.pool, compat=face) as gateway:
        answer = gateway.call("POST", at, wanted)
        assert (answer.status, "compat.changeLimits" in answer.body["detail"]) == (403, True)
    with serve(pool=fleet.pool, compat=face | {"changeLimits": True}) as gateway:
        deadline = time.monotonic() + 20
        while (answer := gateway.call("POST", at, wanted)).status == 503 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert answer.status == 200, answer


ON_S3 = {
    "model": {"architecture": "resnet18", "weights": "none", "numClasses": 3},
    "dataset": {"train": {"uri": "s3://data/train"}, "validation": {"fraction": 0.2}},
    "output": {"uri": "s3://data/model"},
}
TRAINING = {
    "model": "resnet18",
    "num_classes": 3,
    "train_path": "/data/train",
    "val_path": "/data/valid",
    "save_path": "/data/models",
}


def test_a_preview_says_where_a_task_would_start_or_its_place_and_creates_nothing(
    fleet: Fleet, user: Callable[..., User], run: Run, kube: client.ApiClient, namespace: str
) -> None:
    owner, reader = user("create", "get", "list"), user("get", "list")
    core, custom = client.CoreV1Api(kube), client.CustomObjectsApi(kube)
    at = "/api/v2/preview"

    def asked(body: Any) -> Any:
        answer = fleet.gateway.call("POST", at, body, token=owner.token, timeout=60)
        assert answer.status == 200, answer
        return answer.body

    training = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "TrainingJob", "spec": {**ON_S3, "pool": fleet.pool}}
    until(lambda: asked({"manifest": training})["starts_now"], 30)
    free = asked({"manifest": training})
    assert free["nodes"] in ([fleet.nodes[0]], [fleet.nodes[1]])
    assert free["message"] == f"Starts now on {free['nodes'][0]}"
    other = f"other-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": other}})
    names = [run("TrainingJob", node, home=other) for node in fleet.nodes * 2]
    until(lambda: not asked({"manifest": training})["starts_now"], 30)
    full = asked({"manifest": training})
    assert (full["position"], full["of"], full["reason"]) == (1, 1, "WaitingForCapacity")
    assert full["message"].startswith("Place 1 of 1: needs 1 GPU; pool")
    assert not [name for name in (other, *names) if name in str(full)]
    # Its volume does not exist in the namespace, or its PriorityClass in the cluster: it would wait, and says for what.
    assert "does not exist" in asked({"training": TRAINING})["message"]
    spec = {"input": {"uri": "s3://data/in"}, "output": {"uri": "s3://data/out"}, "pool": fleet.pool}
    manifest = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "InferenceJob", "spec": spec}
    spec["model"] = {"weights": "s3://data/best.safetensors"}
    assert asked({"manifest": manifest})["starts_now"]
    spec["model"] = {"fromTrainingJob": "missing"}
    assert "does not exist" in asked({"manifest": manifest})["message"]
    for plural in ("trainingjobs", "inferencejobs"):
        assert custom.list_namespaced_custom_object(GROUP, VERSION, namespace, plural)["items"] == []
    assert fleet.gateway.call("POST", at, {"training": TRAINING}, token=reader.token).status == 403
    assert fleet.gateway.call("POST", at, {}, token=owner.token).status == 422
    manifest["spec"] = {"shards": "many"}
    assert fleet.gateway.call("POST", at, {"manifest": manifest}, token=owner.token).status == 422
    core.delete_namespace(other)
    for name in names:
        custom.delete_namespaced_custom_object(GROUP, VERSION, other, "trainingjobs", name)


def test_kubectl_rfuav_asks_a_gateway_for_a_preview(
    fleet: Fleet,
    user: Callable[..., User],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    owner, path = user("create", "get", "list"), tmp_path / "job.json"
    metadata, spec = {"name": "first"}, {**ON_S3, "pool": fleet.pool}
    training = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "TrainingJob", "metadata": metadata, "spec": spec}
    path.write_text(json.dumps(training))
    words = ["preview", "-f", str(path), "--gateway", fleet.gateway.url, "-n", owner.namespace]
    assert plugin.run(words) == 3
    assert "Put your token into RFUAV_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("RFUAV_TOKEN", owner.token)
    until(lambda: plugin.run(words) == 0 and "Starts now on" in capsys.readouterr().out, 30)


def test_compat_shows_resources_and_counts_to_anybody(serve: Serve, fleet: Fleet, namespace: str, run: Run) -> None:
    run("InferenceJob")
    with serve(compat={"enabled": True, "namespace": namespace}, pool=fleet.pool) as compat:
        until(lambda: compat.call("GET", "/api/v2/resources/gpu").status == 200, 20)
        assert compat.call("GET", "/api/v2/resources/gpu").body["count"] == 4
        health = compat.call("GET", "/api/v1/health").body
        assert (health["training_tasks"], health["inference_tasks"]) == (0, 1)
