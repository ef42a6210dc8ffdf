"""Each way in which a pod of a bad job can end: the job fails, or waits, with words that say what to do."""

from typing import Any, NamedTuple

import pytest
from cluster import data
from cluster.jobs import CAPTURES, REGISTRY, RESULTS, TINY, claim, inference, training
from cluster.running import Running

FROM_BASE = {"weights": None, "fromTrainingJob": "base"}


class Bad(NamedTuple):
    """A job that fails: how often it is tried, with what exit code, and the words that its status must say."""

    job: dict[str, Any]
    reason: str
    exit_code: int | None
    words: tuple[str, ...]
    attempts: int = 1


BAD = (
    Bad(training("too-many-classes", model={"numClasses": 9}), "ClassMismatch", 2, ("9", "3", "numClasses")),
    Bad(
        inference("many-torn", model=FROM_BASE, input={"uri": f"pvc://{CAPTURES}/many-torn"}),
        "TooManyUnreadable",
        3,
        ("12 of 24", "more than 5%"),
    ),
    Bad(
        training("out-of-memory", resources={"memory": "64Mi", "sharedMemory": "8Mi"}, backoffLimit=1),
        "OutOfMemory",
        137,
        ("raise spec.resources.memory",),
        attempts=2,
    ),
    Bad(
        training("disk-full", output={"uri": f"pvc://{TINY}/disk-full"}, backoffLimit=0),
        "BackoffLimitExceeded",
        1,
        ("no space left", "larger volume"),
    ),
    Bad(
        training("no-such-image", image=f"{REGISTRY}/rfuav-trainer:nowhere", backoffLimit=0),
        "BackoffLimitExceeded",
        None,
        ("rfuav-trainer:nowhere", "not found"),
    ),
)
TORN = inference("one-torn", model=FROM_BASE, input={"uri": f"pvc://{CAPTURES}/one-torn"}, output={"annotate": "none"})
NO_CLAIM = training("no-claim", dataset={"train": {"uri": "pvc://forgotten/train"}}, backoffLimit=5)


@pytest.mark.parametrize(
    "bad", [pytest.param(bad, id=bad.job["metadata"]["name"], marks=pytest.mark.submits(bad.job)) for bad in BAD]
)
def test_it_fails_and_says_what_to_do(running: Running, bad: Bad) -> None:
    kube, kind, name = running.kube, bad.job["kind"], bad.job["metadata"]["name"]
    end = kube.wait_finished(kind, name)
    story = kube.story(kind, name)
    assert (end["phase"], end["reason"]) == ("Failed", bad.reason), story
    assert [word for word in bad.words if word not in end["message"]] == [], story
    last = end["failures"][-1]
    assert last.get("exitCode") == bad.exit_code, story
    assert len(kube.pods_of(name)) <= bad.attempts
    assert last["attempt"] == bad.attempts
    failed = next(c for c in end["conditions"] if c["type"] == "Failed")
    assert (failed["status"], failed["reason"], failed["message"]) == ("True", bad.reason, end["message"])
    line = kube.line(kind, name)
    assert (line["PHASE"], line["REASON"]) == ("Failed", bad.reason)


@pytest.mark.submits(TORN)
def test_a_few_unreadable_inputs_are_listed_and_the_rest_is_done(running: Running) -> None:
    kube = running.kube
    end = kube.wait_finished("InferenceJob", "one-torn")
    assert end["phase"] == "Succeeded", kube.story("InferenceJob", "one-torn")
    assert {key: end["progress"][key] for key in ("processed", "failed", "total")} == {
        "processed": 23,
        "failed": 1,
        "total": 24,
    }
    folder = f"pvc://{RESULTS}/one-torn"
    listed = [data.read(kube, f"{folder}/{name}") for name in data.files(kube, folder) if name.startswith("errors")]
    assert "05.png" in "".join(listed)
    assert kube.line("InferenceJob", "one-torn")["FAILED"] == "1"


@pytest.mark.submits(NO_CLAIM)
def test_a_job_without_its_claim_says_so_and_continues_once_the_claim_exists(running: Running) -> None:
    kube = running.kube
    waiting = kube.wait(
        "TrainingJob",
        "no-claim",
        lambda s: "forgotten" in s.get("message", ""),
        timeout=60,
        what="a word about the claim",
    )
    assert waiting["phase"] in ("Queued", "Admitted")
    kube.apply(claim("forgotten"))
    end = kube.wait_finished("TrainingJob", "no-claim")
    assert (end["phase"], end["reason"]) == ("Failed", "InputMissing"), kube.story(
        "TrainingJob", "no-claim"
    )  # it is empty


def test_a_full_disk_leaves_nothing_half_written(running: Running) -> None:
    running.kube.wait_finished("TrainingJob", "disk-full")
    left = data.files(running.kube, f"pvc://{TINY}/disk-full")
    assert not [name for name in left if name.endswith((".tmp", ".pt", "_SUCCESS"))], left
