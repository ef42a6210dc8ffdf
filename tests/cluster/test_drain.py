"""A node is drained: its pods are evicted, jobs say why they wait, and go on once the node is back."""

from cluster import data
from cluster.jobs import GPU_JOB, training
from cluster.running import Running
from cluster.script import epoch

EPOCHS = 24


def test_a_training_survives_the_drain_of_its_node(running: Running) -> None:
    kube = running.kube
    for name in ("drained", "still"):
        kube.apply(training(name, training={"epochs": EPOCHS}, resources=GPU_JOB))
    kube.wait("TrainingJob", "drained", epoch(3), timeout=120, what="epoch 3")
    kube.wait_finished("TrainingJob", "still")
    try:
        kube.kubectl("drain", running.node, "--pod-selector=rfuav.io/job", "--delete-emptydir-data", timeout=120)
        waiting = kube.wait(
            "TrainingJob",
            "drained",
            lambda s: s.get("phase") == "Queued" and s.get("reason") != "BackingOff",
            timeout=60,
            what="a reason to wait for the cordoned node",
        )
        assert waiting["reason"] == "NoMatchingNode"
        assert "cordoned" in waiting["message"], waiting["message"]
        assert all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in kube.pods_of("drained"))
    finally:
        kube.kubectl("uncordon", running.node)
    end = kube.wait_finished("TrainingJob", "drained")
    assert end["phase"] == "Succeeded"
    assert end.get("countedFailures", 0) == 0
    assert data.digest(kube, end["outputs"]["lastWeights"]) == data.digest(
        kube, kube.status("TrainingJob", "still")["outputs"]["lastWeights"]
    )
