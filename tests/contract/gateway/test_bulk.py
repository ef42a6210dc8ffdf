"""Many tasks are cancelled at once, through the gateway, on a real API server."""

from collections.abc import Callable

import pytest
from contract.gateway.conftest import Gateway, User
from contract.gateway.test_tasks import INFERENCE, TRAINING

pytestmark = pytest.mark.contract

AT = "/api/v2/tasks/cancel"
ALL = ("get", "list", "create", "patch")


def test_a_filter_is_shown_and_then_done(gateway: Gateway, user: Callable[..., User]) -> None:
    owner, reader = user(*ALL), user("get", "list")
    trainings = [
        gateway.call("POST", "/api/v2/training/start", TRAINING, token=owner.token).body["task_id"] for _ in range(3)
    ]
    inference = gateway.call("POST", "/api/v2/inference/start", INFERENCE, token=owner.token).body["task_id"]

    def counts() -> tuple[int, int]:
        listed = gateway.call("GET", "/api/v2/tasks?status=cancelled", token=owner.token).body
        return listed["total_training"], listed["total_inference"]

    shown = gateway.call("POST", AT, {"task_type": "training", "status": "pending"}, token=owner.token).body
    assert (shown["dry_run"], shown["matched"], sorted(shown["task_ids"])) == (True, 3, sorted(trainings))
    assert counts() == (0, 0)
    for body in ({}, {"dry_run": False}, {"status": "completed"}):
        assert gateway.call("POST", AT, body, token=owner.token).status == 422
    refused = gateway.call("POST", AT, {"status": "pending", "dry_run": False}, token=reader.token).body
    assert (refused["task_ids"], len(refused["failed"]), counts()) == ([], 4, (0, 0))
    assert reader.name in refused["failed"][0]["message"]
    chosen = {"task_ids": [trainings[0], inference, "unknown"], "dry_run": False}
    done = gateway.call("POST", AT, chosen, token=owner.token).body
    assert (done["matched"], sorted(done["task_ids"]), done["failed"]) == (2, sorted([trainings[0], inference]), [])
    assert counts() == (1, 1)
    old = {"older_than_seconds": 3600, "dry_run": False}
    assert gateway.call("POST", AT, old, token=owner.token).body["matched"] == 0
    rest = gateway.call("POST", AT, {"status": "pending", "dry_run": False}, token=owner.token).body
    assert (rest["matched"], counts()) == (2, (3, 1))
    stranger = user(home="default")
    at = f"/ns/{owner.namespace}{AT}"
    assert gateway.call("POST", at, {"task_type": "training"}, token=stranger.token).body["matched"] == 0
