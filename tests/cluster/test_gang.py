"""One training in two pods on two nodes: they find each other by name, one is killed, both stop, and both go on from the checkpoint."""

from typing import Any

import pytest
from cluster import data
from cluster.jobs import PULLING, TOLERATIONS, training
from cluster.running import Running
from cluster.script import Script, Step, epoch, play

EPOCHS = 8
KILLED, STILL = "gang-killed", "gang-undisturbed"
Object = dict[str, Any]


@pytest.fixture(scope="module")
def ends(running: Running) -> dict[str, Object]:
    """The last status of two trainings of two pods each, side by side; of one a pod is killed."""
    kube = running.kube
    kube.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{PULLING}", "--timeout=300s", timeout=310)
    for name in (KILLED, STILL):
        kube.apply(training(name, nodes=2, training={"epochs": EPOCHS}, podTemplate={"tolerations": TOLERATIONS}))

    def kill(job: str) -> None:
        (second,) = [p for p in kube.pods_of(job) if label(p, "rank") == "1"]
        kube.kill(second)

    scripts = {KILLED: [Step("killed", epoch(2), kill)], STILL: [Step("seen", epoch(1), lambda _: None)]}
    return play(kube, [Script("TrainingJob", name, steps) for name, steps in scripts.items()], timeout=180)


@pytest.mark.parametrize("job", [KILLED, STILL])
def test_it_succeeds_and_tells_how_far_it_came(ends: dict[str, Object], job: str) -> None:
    assert ends[job]["phase"] == "Succeeded", ends[job]
    progress = ends[job]["progress"]
    assert (progress["percent"], progress["epoch"], progress["totalEpochs"]) == (100, EPOCHS, EPOCHS)


def test_its_pods_ran_on_two_nodes_and_met_by_the_name_of_the_first(ends: dict[str, Object], running: Running) -> None:
    pods = running.kube.pods_of(STILL)
    assert {p["spec"]["nodeName"] for p in pods} == {running.node, running.second_node}
    service = pods[0]["spec"]["subdomain"]
    (found,) = [s for s in running.kube.items("services") if s["metadata"]["name"] == service]
    assert found["spec"]["clusterIP"] == "None"
    for pod in pods:
        log = running.kube.kubectl("logs", pod["metadata"]["name"])
        assert f".{service}." in log
        assert '"event": "all processes have joined"' in log


def test_one_killed_pod_stops_both_and_both_go_on_together(ends: dict[str, Object], running: Running) -> None:
    assert ends[STILL]["attempt"] == 1
    assert ends[KILLED]["attempt"] == 2
    pods = {(label(p, "attempt"), label(p, "rank")): p["metadata"]["name"] for p in running.kube.pods_of(KILLED)}
    assert pods.keys() >= {("1", "1"), ("2", "0"), ("2", "1")}  # the operator may have had to delete the one left over
    (failure,) = ends[KILLED]["failures"]
    assert (failure["pod"], failure["exitCode"], failure["counted"]) == (pods["1", "1"], 137, True)
    for rank in ("0", "1"):
        assert '"event": "resumed' in running.kube.kubectl("logs", pods["2", rank]), "the second attempt began anew"


@pytest.mark.parametrize("weights", ["last", "best"])
def test_both_end_with_the_same_weights(ends: dict[str, Object], running: Running, weights: str) -> None:
    whole = data.digest(running.kube, ends[STILL]["outputs"][f"{weights}Weights"])
    assert data.digest(running.kube, ends[KILLED]["outputs"][f"{weights}Weights"]) == whole


def label(pod: Object, name: str) -> str:
    return str(pod["metadata"]["labels"][f"rfuav.io/{name}"])
