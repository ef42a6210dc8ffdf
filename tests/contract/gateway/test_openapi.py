"""Requests made from the gateway's own OpenAPI document, and what their answers must be like."""

import json
import os
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import hypothesis
import pytest
import schemathesis
from contract.gateway.conftest import Gateway, Serve
from contract.gateway.test_resources import JOB
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from kubernetes import client
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from localcluster.gpus import Gpus
from localcluster.simulation import create_nodes
from rfuav_crds.contract import GROUP, VERSION
from rfuav_gateway.app import routes
from rfuav_gateway.tasks.identity import object_name

pytestmark = pytest.mark.contract

N = int(os.environ.get("RFUAV_FUZZ_GATEWAY", "2000"))
"""Requests of all operations together; beyond those of CI the seed is random, and printed."""
CI = "RFUAV_FUZZ_GATEWAY" not in os.environ
SEED = int(os.environ.get("RFUAV_FUZZ_SEED") or random.SystemRandom().randrange(2**32))
SHARE = 0.3  # of the answers of an operation, at least: otherwise it is only refusals that are tested
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

SCHEMA = schemathesis.openapi.from_dict(json.loads(json.dumps(routes().openapi())))
OPERATIONS = {found.label: found for result in SCHEMA.get_all_operations() if (found := result.ok())}
LIMITS = dict.fromkeys(("creates", "requests", "previews", "batched"), "1000000/minute")
ENDS = ("/cancel", "/stop")
MANIFEST = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "TrainingJob", "spec": JOB["TrainingJob"]}

STARTS = {
    "training": {
        "model": "resnet18",
        "num_classes": 3,
        "train_path": "/data/train",
        "val_path": "/data/valid",
        "save_path": "/data/models",
    },
    "inference": {"cfg_path": "/data/cfg.yaml", "weight_path": "/data/best.safetensors", "source_path": "/data/new"},
    "preprocessing": {"input_path": "/data/all", "output_path": "/data/parts"},
}
RESULTS = {"history": {"epochs": [1], "valLoss": [0.5]}, "classes": ["a"], "confusion": [[0, 0, 3]], "truncated": False}


class Service(NamedTuple):
    """A gateway without credentials, with a pool of two GPUs, and one task of each type."""

    gateway: Gateway
    tasks: dict[str, str]
    namespace: str
    token: str

    def start(self, kind: str) -> str:
        """A new task; its id."""
        last = "split" if kind == "preprocessing" else "start"
        answer = self.gateway.call("POST", f"/api/v2/{kind}/{last}", STARTS[kind])
        assert answer.status == 200, answer
        return str(answer.body["task_id"])


@pytest.fixture(scope="module")
def service(kube: client.ApiClient, kubeconfig: Any, serve: Serve) -> Iterator[Service]:
    """The service."""
    name = f"openapi-{uuid.uuid4().hex[:8]}"
    custom, core = client.CustomObjectsApi(kube), client.CoreV1Api(kube)
    spec = {"nodeSelector": {"test": name}, "perGPU": [{"minMemory": "22Gi", "training": 1, "inference": 3}]}
    pool = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "GPUPool", "metadata": {"name": name}, "spec": spec}
    core.create_namespace({"metadata": {"name": name}})
    custom.create_cluster_custom_object(GROUP, VERSION, "gpupools", pool)
    nodes = create_nodes(kubeconfig, 1, prefix=name, gpus=Gpus(), labels={"test": name})
    core.create_namespaced_service_account(name, {"metadata": {"name": "page"}})
    token = core.create_namespaced_service_account_token(
        "page", name, {"spec": {"expirationSeconds": 3600}}
    ).status.token
    face = {"enabled": True, "namespace": name, "creates": "1000000/minute", "burst": 100_000, "changeLimits": True}
    try:
        with serve(pool=name, compat=face, trainerImage="rfuav-trainer:test", limits=LIMITS) as running:
            made = Service(running, {}, name, token)
            made.tasks.update({kind: made.start(kind) for kind in STARTS})
            for job in custom.list_namespaced_custom_object(GROUP, VERSION, name, "trainingjobs")["items"]:
                custom.patch_namespaced_custom_object_status(
                    GROUP, VERSION, name, "trainingjobs", job["metadata"]["name"], {"status": {"results": RESULTS}}
                )
            yield made
    finally:
        for node in nodes:
            core.delete_node(node)
        custom.delete_cluster_custom_object(GROUP, VERSION, "gpupools", name)
        core.delete_namespace(name)


def filled(case: schemathesis.Case, service: Service) -> None:
    """Give a request a task that exists, paths below a root, and devices of the pool; all else stays as it was made."""
    path = case.operation.path
    if "{task_id}" in path:
        kind = path.split("/")[3].replace("tasks", "training")
        ends = path.endswith(ENDS) or case.method == "DELETE"
        task = service.start(kind) if ends else service.tasks[kind]
        case.path_parameters["task_id"] = task
        if case.method == "DELETE":  # only what has ended can be deleted
            service.gateway.call("POST", f"/api/v2/tasks/{task}/cancel")
    if path.startswith("/api/v2/jobs/"):
        case.path_parameters.update({"type": "training", "namespace": service.namespace})
        task = service.tasks["training"] if case.method == "GET" else service.start("training")
        case.path_parameters["name"] = object_name(task)
        if case.method == "DELETE":
            service.gateway.call("POST", f"/api/v2/tasks/{task}/cancel")
    if path == "/api/v2/live" and case.query:
        case.query.pop("namespace", None)
    if "cursor" in (case.query or {}):
        del case.query["cursor"]  # it is what an answer had
    if not isinstance(case.body, dict):
        return
    if path.endswith("/preview"):  # one of its parts has to be there, and the others must not
        kind = "inference" if case.body.get("inference") else "training"
        case.body = {kind: STARTS[kind]}
        return
    if path == "/api/v2/jobs":
        case.body = {"manifest": {**MANIFEST, "metadata": {"name": f"job-{uuid.uuid4().hex[:8]}"}}}
        return
    if path == "/api/v2/session":
        case.body["token"] = service.token
        return
    case.body.pop("task_id", None)  # two creates of one id with other content are a conflict
    case.body.pop("callback_url", None)  # there are no callbacks without a secret
    if case.body.get("name") is not None:
        case.body["name"] = "run"
    for name, text in case.body.items():
        if name.endswith("_path") and text:
            case.body[name] = f"/data/{name}"
        elif name.endswith("_paths"):
            case.body[name] = [f"/data/{name}/{number}" for number in range(min(len(text), 3))]
    if "methods" in case.body:
        case.body["methods"] = ["CLAHE"]
    if "max_concurrent" in case.body:
        slots = list(case.body["max_concurrent"].values())
        case.body["max_concurrent"] = {"cpu": slots[0]}


def requests(operation: schemathesis.schemas.APIOperation) -> st.SearchStrategy[tuple[schemathesis.Case, bool]]:
    """Three in four as the document says and then filled; the others as the document says, or against it."""
    good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    raw = good
    if operation.body:
        raw = st.one_of(good, operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    return st.sampled_from([True, True, True, False]).flatmap(
        lambda fill: st.tuples(good if fill else raw, st.just(fill))
    )


def sent(case: schemathesis.Case, gateway: Gateway) -> schemathesis.Response:
    if case.operation.path.endswith(("/logs", "/live")):
        case.headers["accept"] = "application/json"  # a stream of a task that goes on does not end
    return case.call(base_url=gateway.url, timeout=30)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_are_as_the_document_says(label: str, service: Service) -> None:
    operation = OPERATIONS[label]
    statuses: Counter[int] = Counter()

    @hypothesis.settings(
        max_examples=max(10, N // len(OPERATIONS)),
        derandomize=CI,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(operation))
    def play(request: tuple[schemathesis.Case, bool]) -> None:
        case, fill = request
        if fill:
            filled(case, service)
        answer = sent(case, service.gateway)
        statuses[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    if not CI:
        print(f"seed {SEED}: {label}")
    (play if CI else hypothesis.seed(SEED)(play))()
    good = sum(count for status, count in statuses.items() if 200 <= status < 300)
    assert good >= SHARE * statuses.total(), f"{label}: {dict(statuses)}"
