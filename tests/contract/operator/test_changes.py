"""What users do to jobs while they wait and while they run."""

import pytest
from kubernetes import client

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("audited")]


def test_suspend_and_resume_a_running_job(world):
    world.submit("a", run=None)
    queued = world.phase("a", "Running")["queuedAt"]
    world.patch("a", {"suspend": True})
    world.phase("a", "Suspended")
    world.wait(lambda: not [p for p in world.pods("a") if p.status.phase == "Running"])
    world.patch("a", {"suspend": False})
    status = world.phase("a", "Running")
    assert status["attempt"] == 2
    assert status["queuedAt"] == queued
    assert status.get("countedFailures", 0) == 0


def test_the_pool_s_printed_columns(world, kubectl):
    for index in range(2):
        world.submit(f"job{index}", run=None)
        world.phase(f"job{index}", "Running")
    world.submit("job2")
    world.reason("job2", "WaitingForCapacity")
    header = ["NAME", "NODES", "GPUS", "SLOTS", "TRAINING", "INFERENCE", "PENDING", "STOP", "REASON", "AGE"]

    def shown():
        lines = kubectl("get", "gpool", world.namespace).stdout.splitlines()
        assert lines[0].split() == header
        return lines[1].split()[1:-1]

    world.wait(lambda: shown() == ["1", "2", "8", "2", "0", "1", "None", "Ready"])


@pytest.mark.parametrize("running", [False, True])
def test_cancel(world, running):
    world.submit("a", run=None, suspend=not running)
    world.phase("a", "Running" if running else "Suspended")
    world.patch("a", {"cancel": True})
    status = world.phase("a", "Cancelled")
    failed = next(c for c in status["conditions"] if c["type"] == "Failed")
    assert (failed["status"], failed["reason"]) == ("True", "Cancelled")
    world.wait(lambda: not [p for p in world.pods("a") if p.status.phase == "Running"])
    assert world.exists("a")


def test_a_deleted_job_gives_its_room_to_the_next(world):
    for index in range(2):
        world.submit(f"long{index}", run=None)
        world.phase(f"long{index}", "Running")
    world.submit("next")
    world.submit("gone", run=None)
    world.reason("gone", "WaitingForCapacity")
    world.delete("gone")
    world.delete("long0")
    world.phase("next", "Succeeded")
    assert not world.pods("gone")


def test_a_job_of_one_pod_costs_few_writes(world):
    kinds = [f'rfuav_actions_total{{action="{kind}"}}' for kind in ("PatchStatus", "CreatePod", "RecordEvent")]
    before = sum(world.operator.metric(kind) or 0 for kind in kinds)
    world.submit("a")
    world.phase("a", "Succeeded")
    # Queued and admitted, running, succeeded; the pod; two events. One status more when being bound is seen apart.
    assert sum(world.operator.metric(kind) or 0 for kind in kinds) - before in (6, 7)


def test_kubectl_describe_tells_the_story_once(world, kubectl):
    """What no event tells, a condition does: when it got in line, and since when it runs."""
    world.submit("a", run="3s")
    world.phase("a", "Running")
    (pod,) = world.pods("a")
    words = ("Queued At:", "Started At:", "PodsReady", f"attempt 1: {pod.metadata.name} on {world.nodes[0]}")

    def told() -> bool:  # events come behind everything else
        text = kubectl("describe", "trainingjob", "a", "-n", world.namespace).stdout
        return all(word in text for word in words)

    world.wait(told)
    world.phase("a", "Succeeded")
    events = client.EventsV1Api(world.core.api_client)

    def reasons():
        items = events.list_namespaced_event(world.namespace).items
        return sorted(e.reason for e in items if e.regarding.kind == "TrainingJob")

    world.wait(lambda: "Succeeded" in reasons())
    assert reasons() == ["Admitted", "Succeeded"]
