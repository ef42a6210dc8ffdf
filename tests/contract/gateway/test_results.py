"""Results through the gateway: read from the job when asked for, with the rights that the task itself needs."""

from collections.abc import Callable

import pytest
from contract.gateway.conftest import Gateway, User
from contract.gateway.test_tasks import TRAINING
from kubernetes import client

from rfuav_crds.contract import GROUP, VERSION

pytestmark = pytest.mark.contract

RESULTS = {
    "history": {"epochs": [1, 2], "trainLoss": [0.5, 0.25]},
    "classes": ["noise", "video"],
    "confusion": [[0, 0, 7], [1, 0, 2]],
    "bySNR": [[-10, 9, 0.7778]],
    "truncated": False,
}


def test_results_are_there_when_the_operator_has_written_them(
    gateway: Gateway, user: Callable[..., User], kube: client.ApiClient, namespace: str
) -> None:
    alice = user("get", "list", "create")
    gateway.call("POST", "/api/v2/training/start", TRAINING | {"task_id": "mine"}, token=alice.token)
    before = gateway.call("GET", "/api/v2/tasks/mine/results", token=alice.token)
    assert (before.status, "has no results yet" in before.body["detail"]) == (404, True)
    api = client.CustomObjectsApi(kube)
    (job,) = api.list_namespaced_custom_object(GROUP, VERSION, namespace, "trainingjobs")["items"]
    patch = {"status": {"phase": "Running", "results": RESULTS}}
    api.patch_namespaced_custom_object_status(GROUP, VERSION, namespace, "trainingjobs", job["metadata"]["name"], patch)
    by_name = f"/api/v2/tasks/{namespace}/{job['metadata']['name']}/results"
    after = gateway.call("GET", "/api/v2/tasks/mine/results", token=alice.token)
    assert (after.status, after.body) == (200, RESULTS)
    assert gateway.call("GET", by_name, token=alice.token).status == 404  # its id is the one that its client chose
    assert gateway.call("GET", "/api/v2/tasks/none/results", token=alice.token).status == 404
    nobody = gateway.call("GET", "/api/v2/tasks/mine/results", token=user().token)
    assert (nobody.status, nobody.body["detail"]) == (404, "Task mine does not exist")
