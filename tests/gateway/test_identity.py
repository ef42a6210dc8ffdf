"""Which job a task is."""

import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfuav_crds import contract
from rfuav_crds.common import JOB_NAME
from rfuav_gateway.tasks import identity
from rfuav_gateway.tasks.bodies import InferenceStart, TrainingStart
from rfuav_gateway.tasks.words import CHINESE, ENGLISH

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=253)


@given(IDS)
def test_a_name_is_one_that_jobs_may_have(task_id):
    name = identity.object_name(task_id)
    assert re.fullmatch(JOB_NAME, name)
    assert name == identity.object_name(task_id)


@given(IDS, IDS)
def test_other_ids_have_other_names(one, other):
    assert (one == other) == (identity.object_name(one) == identity.object_name(other))


def test_a_name_can_be_read():
    """They are stored: another version of the gateway must find the job of an id under the same name."""
    assert identity.object_name("Train_ResNet 18!") == "train-resnet-18-4dbe9609426e"
    assert identity.object_name(str(UUID(int=7))) == "00000000-0000-0000-0000-000-0d25a51a47b7"
    assert identity.object_name("无人机") == "task-b18adaa988f7"


def test_the_id_is_the_annotation_or_where_the_job_is():
    assert identity.task_id_of("team-a", "x", {contract.ANNOTATION_TASK_ID: "my id"}) == "my id"
    assert identity.task_id_of("team-a", "x", {contract.ANNOTATION_TASK_ID: ""}) == "team-a/x"
    assert identity.task_id_of("team-a", "x", {}) == identity.task_id_of("team-a", "x", None) == "team-a/x"


START = {
    "model": "resnet18",
    "num_classes": 3,
    "train_path": "data/train",
    "val_path": "data/val",
    "save_path": "models",
}


def digest(**changes):
    return identity.digest("training", TrainingStart(**(START | changes)))


def test_the_digest_is_of_what_is_asked_for():
    assert digest() == digest(task_id="a") == digest(task_id="b", batch_size=8, priority=5) == digest(unknown=1)
    assert len({digest(), digest(batch_size=9), digest(priority=4), digest(description="x"), digest(name="y")}) == 5


def test_a_field_that_a_later_version_adds_changes_no_digest():
    class Later(TrainingStart):
        queue: str = "default"

    body = START | {"batch_size": 9}
    assert identity.digest("training", Later(**body)) == digest(batch_size=9)
    assert identity.digest("training", Later(**body, queue="night")) != digest(batch_size=9)


def test_kinds_have_digests_of_their_own():
    body = InferenceStart(cfg_path="a.yaml", weight_path="b.pth", source_path="c")
    assert identity.digest("inference", body) != identity.digest("training", body)


def annotations(task_id="t", digest="d"):
    return {contract.ANNOTATION_TASK_ID: task_id, contract.ANNOTATION_TASK_DIGEST: digest}


def test_the_same_create_twice_is_one_task():
    assert identity.conflict("training", "a", "t-1", annotations(), annotations()) is None


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (annotations(digest="other"), "Task t exists with other content"),
        ({contract.ANNOTATION_TASK_ID: "t"}, "Task t exists with other content"),
        (annotations(task_id="u"), "The job TrainingJob a/t-1 exists and is not task t"),
        (None, "The job TrainingJob a/t-1 exists and is not task t"),
    ],
)
def test_a_name_that_is_taken_is_a_conflict(there, words):
    found = identity.conflict("training", "a", "t-1", there, annotations())
    assert found is not None
    assert found.text(ENGLISH).startswith(words)


def test_an_id_of_two_jobs_names_both():
    found = identity.several("a/x", [("training", "a", "x"), ("inference", "a", "x")])
    for phrases in (ENGLISH, CHINESE):
        assert "InferenceJob a/x, TrainingJob a/x" in found.text(phrases)
