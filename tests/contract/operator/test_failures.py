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
