"""Everything that can happen to a running training, to one job each, while the operator dies twice: nothing is lost, nothing doubled."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from cluster import data
from cluster.jobs import EPOCHS, MODELS, UNDISTURBED, long_training
from cluster.kube import Kube
from cluster.running import Running
from cluster.script import Script, Step, epoch, play

OPERATOR = "app.kubernetes.io/name=rfuav-operator"
SAME_END = ("killed", "evicted", "suspended")
Object = dict[str, Any]


def operator_pod(kube: Kube) -> Object:
    pods = [p for p in kube.pods(OPERATOR, "rfuav-system") if "deletionTimestamp" not in p["metadata"]]
    assert len(pods) == 1, [p["metadata"]["name"] for p in pods]
    return pods[0]


@dataclass
class Story:
    """The last status of every job, after all of it has happened; the operator's pods as they were before each death."""

    ends: dict[str, Object] = field(default_factory=dict)
    operators: list[Object] = field(default_factory=list)


@pytest.fixture(scope="module")
def story(running: Running) -> Story:
    """Everything happens here; the tests look at what came of it."""
    kube, story = running.kube, Story()

    def newest(job: str) -> Object:
        return kube.pods_of(job)[-1]

    def patch(job: str, **spec: bool) -> None:
        words = ", ".join(f'"{key}": {str(value).lower()}' for key, value in spec.items())
        kube.kubectl("patch", "tj", job, "--type=merge", "-p", f'{{"spec": {{{words}}}}}')

    def crash_operator(_: str) -> None:
        story.operators.append(operator_pod(kube))
        kube.kill(story.operators[-1])

    def remove_operator(_: str) -> None:
        story.operators.append(operator_pod(kube))
        name = story.operators[-1]["metadata"]["name"]
        kube.kubectl("--namespace", "rfuav-system", "delete", "pod", name, "--grace-period=0", "--force")

    def stopped(status: Object) -> bool:
        return status.get("phase") == "Suspended" and not status.get("assignments")

    scripts = {
        UNDISTURBED: [
            Step("left alone while the operator crashes", epoch(2), crash_operator),
            Step("left alone while the operator's pod is removed", epoch(EPOCHS // 2), remove_operator),
        ],
        "killed": [Step("killed", epoch(3), lambda job: kube.kill(newest(job)))],
        "evicted": [Step("evicted", epoch(3), lambda job: kube.evict(newest(job)["metadata"]["name"]))],
        "suspended": [
            Step("suspended", epoch(3), lambda job: patch(job, suspend=True)),
            Step("resumed", stopped, lambda job: patch(job, suspend=False)),
        ],
        "cancelled": [Step("cancelled", epoch(1), lambda job: patch(job, cancel=True))],
        "deleted": [Step("deleted", epoch(1), lambda job: kube.kubectl("delete", "tj", job, "--wait=true") and None)],
    }
    for name in scripts:
        kube.apply(long_training(name))
    story.ends = play(kube, [Script("TrainingJob", name, steps) for name, steps in scripts.items()], timeout=280)
    return story


@pytest.fixture
def ends(story: Story) -> dict[str, Object]:
    return story.ends


@pytest.mark.parametrize("job", [UNDISTURBED, *SAME_END])
def test_it_succeeds_in_the_end(ends: dict[str, Object], job: str) -> None:
    assert ends[job]["phase"] == "Succeeded", ends[job]
    assert ends[job]["progress"]["percent"] == 100
    assert ends[job]["progress"]["epoch"] == EPOCHS


def test_a_job_whose_operator_dies_twice_notices_nothing(ends: dict[str, Object], running: Running) -> None:
    assert ends[UNDISTURBED]["attempt"] == 1
    assert "failures" not in ends[UNDISTURBED]
    assert len(running.kube.pods_of(UNDISTURBED)) == 1


@pytest.mark.parametrize("job", SAME_END)
def test_a_disturbed_training_resumes_from_its_checkpoint(ends: dict[str, Object], running: Running, job: str) -> None:
    assert ends[job]["attempt"] == 2
    last = running.kube.pods_of(job)[-1]["metadata"]["name"]
    assert '"event": "resumed' in running.kube.kubectl("logs", last), "the second attempt began anew"


@pytest.mark.parametrize("weights", ["last", "best"])
@pytest.mark.parametrize("job", SAME_END)
def test_its_weights_are_those_of_an_undisturbed_training_bit_for_bit(
    ends: dict[str, Object], running: Running, job: str, weights: str
) -> None:
    whole = data.digest(running.kube, ends[UNDISTURBED]["outputs"][f"{weights}Weights"])
    assert data.digest(running.kube, ends[job]["outputs"][f"{weights}Weights"]) == whole


def test_another_training_gives_other_weights(ends: dict[str, Object], running: Running) -> None:
    """Else the comparison above would prove nothing."""
    running.kube.wait_finished("TrainingJob", "base")
    whole = data.digest(running.kube, ends[UNDISTURBED]["outputs"]["lastWeights"])
    assert data.digest(running.kube, f"pvc://{MODELS}/base/last.safetensors") != whole


def test_a_kill_counts_and_an_eviction_and_a_suspension_do_not(ends: dict[str, Object]) -> None:
    (killed,) = ends["killed"]["failures"]
    assert (killed["attempt"], killed["exitCode"], killed["counted"]) == (1, 137, True)
    assert ends["killed"]["countedFailures"] == 1
    (evicted,) = ends["evicted"]["failures"]
    assert (evicted["attempt"], evicted.get("counted", False)) == (1, False)
    assert ends["evicted"].get("countedFailures", 0) == 0
    assert ends["suspended"].get("countedFailures", 0) == 0


def test_the_record_of_a_cancelled_job_stays_and_its_pod_goes(ends: dict[str, Object], running: Running) -> None:
    assert ends["cancelled"]["phase"] == "Cancelled"
    failed = next(c for c in ends["cancelled"]["conditions"] if c["type"] == "Failed")
    assert (failed["status"], failed["reason"]) == ("True", "Cancelled")
    running.kube.wait_for(
        lambda: _ended(running.kube, "cancelled"), timeout=40, what="the end of the cancelled job's pod"
    )
    assert running.kube.line("TrainingJob", "cancelled")["PHASE"] == "Cancelled"


def test_a_deleted_job_leaves_no_pod(ends: dict[str, Object], running: Running) -> None:
    assert ends["deleted"] == {}
    running.kube.wait_for(
        lambda: not running.kube.pods_of("deleted"), timeout=40, what="the removal of the deleted job's pod"
    )


def test_the_operator_really_died(story: Story, running: Running) -> None:
    crashed, removed = story.operators
    now = operator_pod(running.kube)
    assert restarts(removed) == restarts(crashed) + 1
    assert now["metadata"]["uid"] != removed["metadata"]["uid"]


def restarts(pod: Object) -> int:
    return sum(int(c["restartCount"]) for c in pod["status"]["containerStatuses"])


def _ended(kube: Kube, job: str) -> bool:
    return all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in kube.pods_of(job))
