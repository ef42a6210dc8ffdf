"""A node is drained: its pods are evicted, jobs say why they wait, and go on once the node is back."""

from cluster import data
from cluster.jobs import UNDISTURBED, long_training
from cluster.running import Running
from cluster.script import epoch


def test_a_training_survives_the_drain_of_its_node(running: Running) -> None:
    kube = running.kube
    kube.apply(long_training("drained"))
    kube.wait("TrainingJob", "drained", epoch(3), timeout=120, what="epoch 3")
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
    kube.apply(long_training(UNDISTURBED))  # has run already when all of the suite runs
    kube.wait_finished("TrainingJob", UNDISTURBED)
    assert data.digest(kube, end["outputs"]["lastWeights"]) == data.digest(
        kube, kube.status("TrainingJob", UNDISTURBED)["outputs"]["lastWeights"]
    )
