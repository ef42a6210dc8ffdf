"""Why a pod failed, and what follows: exit codes, retries, rejections, clean-up."""

import pytest

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("audited")]


@pytest.mark.parametrize(
    ("notes", "spec", "attempts", "reason"),
    [
        ({"exit-code": "1"}, {"backoffLimit": 1}, 2, "BackoffLimitExceeded"),
        ({"exit-code": "1"}, {"backoffLimit": 0}, 1, "BackoffLimitExceeded"),
        ({"exit-code": "2"}, {}, 1, "InvalidConfiguration"),
        ({"exit-code": "3"}, {}, 1, "InputMissing"),
        ({"exit-code": "137", "exit-reason": "OOMKilled"}, {"backoffLimit": 3}, 2, "OutOfMemory"),
    ],
)
def test_what_ends_a_job(world, notes, spec, attempts, reason):
    world.submit("a", run="0.2s", annotations=notes, **spec)
    status = world.phase("a", "Failed", seconds=20)
    assert status["attempt"] == attempts
    assert len(status["failures"]) == attempts
    assert status["failures"][-1]["exitCode"] == int(notes["exit-code"])
    assert status["reason"] == reason
    assert status.get("countedFailures", 0) <= attempts


def test_a_stopped_pod_runs_again_and_is_not_counted(world):
    world.submit("a", run="0.2s", annotations={"exit-code": "75"}, backoffLimit=0)
    status = world.until("a", lambda s: s.get("attempt", 0) >= 2)
    assert status.get("countedFailures", 0) == 0
    world.patch("a", {"cancel": True})
    world.phase("a", "Cancelled")


def test_a_pod_that_vanished_runs_again(world):
    world.submit("a", run=None, backoffLimit=0)
    world.phase("a", "Running")
    (pod,) = world.pods("a")
    world.core.delete_namespaced_pod(pod.metadata.name, world.namespace, grace_period_seconds=0)
    status = world.until("a", lambda s: s.get("attempt") == 2 and s["phase"] == "Running")
    assert status.get("countedFailures", 0) == 0


def test_a_quota_s_refusal_is_quoted_and_tried_again(world):
    """A quota with scopes is left to the API server, whose refusal is quoted; the others are honoured beforehand."""
    spec = {"hard": {"pods": "0"}, "scopes": ["NotTerminating"]}
    world.core.create_namespaced_resource_quota(world.namespace, {"metadata": {"name": "q"}, "spec": spec})
    world.wait(lambda: world.core.read_namespaced_resource_quota("q", world.namespace).status.hard)
    world.submit("a")
    status = world.reason("a", "RejectedByCluster")
    assert "exceeded quota" in status["message"]
    assert not world.pods("a")
    world.core.delete_namespaced_resource_quota("q", world.namespace)
    world.phase("a", "Succeeded", seconds=30)


def test_a_finished_job_goes_when_its_time_is_over(world):
    world.submit("a", run="0.2s", ttlSecondsAfterFinished=1)
    world.wait(lambda: not world.exists("a"), 20)
    world.wait(lambda: not world.pods("a"))


def test_a_job_that_runs_too_long_is_stopped(world):
    world.submit("a", run=None, activeDeadlineSeconds=1)
    status = world.phase("a", "Failed")
    assert status["reason"] == "DeadlineExceeded"


def test_a_field_that_is_not_built_yet_says_so(world):
    world.submit("a", output={"uri": "file:///models/a"})
    status = world.reason("a", "Misconfigured")
    assert "spec.output.uri: a file:/// folder is lost with the pod: write pvc://CLAIM/path" in status["message"]
    assert not world.pods("a")


def test_no_such_pool(world):
    world.submit("a", pool="elsewhere")
    status = world.until("a", lambda s: "elsewhere" in s.get("message", ""))
    assert status["reason"] == "Misconfigured"


def test_more_than_any_node_has(world):
    world.submit("a", image="example.com/mine:1", resources={"gpus": 16})
    status = world.until("a", lambda s: s.get("reason") in ("NoMatchingNode", "ExceedsMaxQuota"))
    assert "16 GPUs" in status["message"]
