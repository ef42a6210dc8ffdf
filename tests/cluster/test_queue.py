"""More jobs than slots: they wait with a reason and numbers, inference ahead of training, and all come to their end."""

import time
from itertools import pairwise

from cluster.jobs import GPU_JOB, inference, restricted_pod, training
from cluster.kube import Kube
from cluster.running import Running

TRAININGS = ("queued-a", "queued-b", "queued-c")
INFERENCE = "queued-first"
FOREIGN = "foreign-gpus"


def test_jobs_wait_behind_a_foreign_pod_and_then_two_at_a_time(running: Running) -> None:
    kube = running.kube
    kube.wait_finished("TrainingJob", "base")
    kube.apply(restricted_pod(FOREIGN, running.trainer_image, "sleep", "infinity", gpus=8))
    kube.kubectl("wait", "--for=condition=Ready", f"pod/{FOREIGN}", "--timeout=60s")
    order = [("InferenceJob", INFERENCE), *(("TrainingJob", name) for name in TRAININGS)]
    try:
        for name in TRAININGS:
            kube.apply(training(name, resources=GPU_JOB))
            time.sleep(1.1)  # ages are whole seconds
        kube.apply(inference(INFERENCE, resources=GPU_JOB))
        _check_waiting(kube, order)
    finally:
        kube.kubectl("delete", "pod", FOREIGN)

    # The other workload has left; the room it held goes to the head of the queue.
    ends = {name: kube.wait_finished(kind, name) for kind, name in order}
    assert {name: end["phase"] for name, end in ends.items()} == dict.fromkeys(ends, "Succeeded")
    assert all("queue" not in end for end in ends.values())

    # In the order of the queue, never more than the two trainings that two GPUs take. What follows from one end is
    # written side by side, so the times that the statuses tell are compared, not the order of the writes.
    admitted_at = {name: ends[name]["admittedAt"] for _, name in order}
    assert all(admitted_at[a] <= admitted_at[b] for (_, a), (_, b) in pairwise(order))
    assert admitted_at["queued-c"] >= min(ends[name]["finishedAt"] for name in ("queued-a", "queued-b"))


def _check_waiting(kube: Kube, order: list[tuple[str, str]]) -> None:
    """They wait: who is when in turn, and what is short of what."""

    def places() -> list[int]:
        """The jobs' places in the queue of the pool, in which others stand too; [] until all know of all."""
        queues = [kube.status(kind, name).get("queue") for kind, name in order]
        return [queue["position"] for queue in queues if queue and queue["of"] >= len(order)]

    kube.wait_for(
        lambda: len(found := places()) == len(order) and found == sorted(set(found)),
        timeout=60,
        what="places in the queue, inference first",
    )
    for kind, name in order:
        waiting = kube.status(kind, name)
        assert (waiting["phase"], waiting["reason"]) == ("Queued", "WaitingForCapacity")
        assert "needs 1 GPU" in waiting["message"]
        assert "other pods use 8" in waiting["message"], waiting["message"]
        admitted = next(c for c in waiting["conditions"] if c["type"] == "Admitted")
        assert (admitted["status"], admitted["reason"]) == ("False", "WaitingForCapacity")
        assert kube.pods_of(name) == []
    line = kube.line("TrainingJob", TRAININGS[0])
    assert (line["PHASE"], line["REASON"], line["GPUS"]) == ("Queued", "WaitingForCapacity", "1")


def test_the_pool_tells_how_many_slots_it_has(running: Running) -> None:
    (pool,) = running.kube.items("gpupools")
    assert pool["status"]["nodes"] == 2
    assert pool["status"]["slots"] == 16
    assert pool["status"]["gpus"] == 4
