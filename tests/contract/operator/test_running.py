"""Jobs of both kinds through the queue and to their end, watched by an observer of its own."""

import pytest

from rfuav_crds import contract

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


def test_a_queue_is_worked_off_within_the_limits(world):
    """Two GPUs of 24 GB: at most two trainings and six inferences at a time; the observer counts."""
    for index in range(4):
        world.submit(f"t{index}")
    for index in range(8):
        world.submit(f"i{index}", "InferenceJob")
    for index in range(4):
        world.phase(f"t{index}", "Succeeded", seconds=30)
    for index in range(8):
        world.phase(f"i{index}", "Succeeded", "InferenceJob", seconds=30)


def test_inference_before_training_and_why_the_rest_waits(world):
    """Two trainings fill the pool for trainings; an inference that came later has room of its own."""
    for index in range(2):
        world.submit(f"long{index}", run=None)
        world.phase(f"long{index}", "Running")
    world.submit("waits")
    status = world.reason("waits", "WaitingForCapacity")
    assert world.namespace in status["message"]
    assert "1 GPU" in status["message"]
    assert status["queue"]["position"] == 1
    world.submit("passes", "InferenceJob")
    world.phase("passes", "Succeeded", "InferenceJob")
    assert world.status("waits")["phase"] == "Queued"
    world.delete("long0")
    world.phase("waits", "Succeeded")


def test_shards_run_as_far_as_parallelism_allows(world):
    world.submit("s", "InferenceJob", shards=4, parallelism=2)
    status = world.phase("s", "Succeeded", "InferenceJob", seconds=30)
    assert status["shards"]["completed"] == "0-3"
    assert len(world.pods("s")) == 4


def test_an_inference_waits_for_its_training(world):
    world.submit("i", "InferenceJob", model={"fromTrainingJob": "t"})
    world.reason("i", "WaitingForTrainingJob", "InferenceJob")
    made = world.submit("t")
    status = world.phase("i", "Succeeded", "InferenceJob")
    assert status["source"]["uid"] == made["metadata"]["uid"]
    assert status["source"]["weights"].startswith("file:///out/model")


def test_an_inference_fails_with_its_training(world):
    world.submit("t", annotations={"exit-code": "2"})
    world.submit("i", "InferenceJob", model={"fromTrainingJob": "t"})
    world.phase("i", "Failed", "InferenceJob")


def test_foreign_pods_take_room(world):
    """A node with eight slots, seven of them used by another workload: one job at a time."""
    container = {"name": "c", "image": "x", "resources": {"limits": {contract.GPU: "7"}}}
    world.core.create_namespaced_pod(
        world.namespace,
        {"metadata": {"name": "foreign"}, "spec": {"nodeName": world.nodes[0], "containers": [container]}},
    )
    world.wait(lambda: world.core.read_namespaced_pod("foreign", world.namespace).status.phase == "Running")
    world.submit("first", run=None)
    world.phase("first", "Running")
    world.submit("second")
    world.reason("second", "WaitingForCapacity")
    world.core.delete_namespaced_pod("foreign", world.namespace)
    world.phase("second", "Succeeded")


def test_cpu_jobs_have_their_own_limit(world):
    for index in range(5):
        world.submit(f"c{index}", "InferenceJob", resources={"gpus": 0}, run=None)

    def phases():
        return sorted(world.status(f"c{index}", "InferenceJob").get("phase", "") for index in range(5))

    world.wait(lambda: phases() == ["Queued", *["Running"] * 4])
    (waiting,) = (s for s in (world.status(f"c{i}", "InferenceJob") for i in range(5)) if s["phase"] == "Queued")
    assert waiting["reason"] == "WaitingForCapacity"
    assert "0 of 4" in waiting["message"]
    assert waiting["queue"] == {"position": 1, "of": 1}
