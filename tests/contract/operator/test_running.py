"""Jobs of both kinds through the queue and to their end, watched by an observer of its own."""

import pytest

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("audited")]


def conditions(status):
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


@pytest.mark.parametrize("kind", ["TrainingJob", "InferenceJob"])
def test_a_job_runs_to_its_end(world, kind):
    world.submit("a", kind)
    status = world.phase("a", "Succeeded", kind)
    assert conditions(status)["Complete"][0] == "True"
    assert conditions(status)["Admitted"][0] == "True"
    assert status["queuedAt"] <= status["admittedAt"] <= status["startedAt"] <= status["finishedAt"]
    (pod,) = world.pods("a")
    assert pod.spec.restart_policy == "Never"
    assert pod.spec.node_name == world.nodes[0]
    assert pod.metadata.owner_references[0].controller


def test_an_inference_waits_for_its_training(world):
    world.submit("i", "InferenceJob", model={"fromTrainingJob": "t"})
    world.reason("i", "WaitingForTrainingJob", "InferenceJob")
    made = world.submit("t")
    status = world.phase("i", "Succeeded", "InferenceJob")
    assert status["source"]["uid"] == made["metadata"]["uid"]
    assert status["source"]["weights"].startswith("file:///out/model")
