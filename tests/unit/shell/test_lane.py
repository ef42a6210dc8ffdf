"""Order within a job, and which status survives."""

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from rfuav_operator.core.model import (
    CreatePod,
    DeletePod,
    Job,
    JobSpec,
    JobStatus,
    Kind,
    PatchStatus,
    Progress,
    RecordEvent,
    Uid,
)
from rfuav_operator.shell.writing.lane import JobLane, Trouble

JOB = Job(
    kind=Kind.TRAINING,
    namespace="ns",
    name="a",
    uid=Uid("u1"),
    resource_version="1",
    generation=1,
    created=datetime(2026, 1, 1, tzinfo=UTC),
    deleting=False,
    spec=JobSpec(),
    raw_spec={},
    status=JobStatus(),
)
EVENT = RecordEvent(job=JOB, type="Normal", reason="Queued", action="Queue", note="n")


def status(attempt: int, *, urgent: bool = True, percent: int | None = None) -> PatchStatus:
    progress = None if percent is None else Progress(percent=percent)
    return PatchStatus(job=JOB, status=replace(JOB.status, attempt=attempt, progress=progress), urgent=urgent)


def create(name: str) -> CreatePod:
    return CreatePod(job_uid=JOB.uid, namespace="ns", name=name, manifest={})


def delete(uid: str) -> DeletePod:
    return DeletePod(job_uid=JOB.uid, namespace="ns", name="p", uid=Uid(uid))


def lane(*actions: Any) -> JobLane:
    made = JobLane()
    for action in actions:
        made.add(action)
    return made


def order(waiting: JobLane, *, written: bool = True) -> list[Any]:
    """What goes when, if every status is written, or none."""
    waiting.running = True
    taken = []
    while (action := waiting.next()) is not None:
        taken.append(action)
        if isinstance(action, PatchStatus):
            if written:
                waiting.recorded()
            else:
                waiting.drop()
    return taken


def test_an_unsent_status_is_superseded_and_its_effects_wait_for_the_newer():
    assert order(lane(status(1), create("p1"), status(2))) == [status(2), create("p1")]


def test_effects_are_never_superseded():
    assert order(lane(create("p1"), delete("d"), create("p2"))) == [create("p1"), delete("d"), create("p2")]


def test_a_status_goes_before_effects_whose_record_is_written():
    assert order(lane(create("p1"), create("p2"), status(1), create("p3"))) == [
        status(1),
        create("p1"),
        create("p2"),
        create("p3"),
    ]


def test_a_failed_status_takes_along_what_waited_for_it_and_nothing_else():
    waiting = lane(create("p1"), status(1), create("p2"))
    waiting.running = True
    assert waiting.next() == status(1)
    waiting.add(create("p3"))  # decided while the status is under way
    waiting.add(status(2))
    waiting.add(create("p4"))
    assert waiting.drop() == [create("p2"), create("p3"), create("p4")]
    assert order(waiting) == [create("p1")]


def test_an_effect_is_queued_once_until_it_is_done():
    waiting = lane(create("p1"), delete("d"), create("p1"), delete("d"))
    assert list(waiting.ready) == [create("p1"), delete("d")]
    under_way = waiting.next()
    assert under_way == create("p1")
    waiting.add(create("p1"))
    assert list(waiting.ready) == [delete("d")]
    waiting.done(under_way)
    waiting.add(create("p1"))
    assert list(waiting.ready) == [delete("d"), create("p1")]


def test_a_lane_with_an_effect_set_aside_is_not_idle():
    waiting = lane(create("p1"))
    assert waiting.next() == create("p1")
    assert waiting.tried(create("p1")) == 1
    assert not waiting.is_idle
    waiting.again(create("p1"))
    assert waiting.next() == create("p1")
    waiting.done(create("p1"))
    assert waiting.is_idle


def test_creates_are_given_up_after_some_tries_that_took_their_time():
    trouble = Trouble()
    trouble.add("no", 60)
    assert not trouble.is_enough  # one long silence
    trouble.add("no", 0.1)
    assert trouble.is_enough


@pytest.mark.parametrize(
    ("actions", "urgent"),
    [
        ([status(1, urgent=False)], False),
        ([status(1)], True),
        ([status(1), status(2, urgent=False)], True),  # a transition stays urgent under newer progress
        ([status(1, urgent=False), status(2)], True),
        ([status(1, urgent=False), create("p")], True),
        ([EVENT], True),
        ([], False),
    ],
)
def test_what_the_budget_does_not_hold_back(actions, urgent):
    assert lane(*actions).is_due is urgent


def test_the_last_value_of_a_progress_is_final():
    last = replace(status(1, urgent=False, percent=40), final=True)
    assert lane(last).flags.final
    assert not lane(status(1, urgent=False, percent=40)).flags.final
    assert lane(last, status(2, urgent=False)).flags.final  # also under a newer status: the last value is in it


def test_a_status_decided_before_our_own_write_is_sent_on_its_result():
    moved = JobLane()
    moved.wrote("1", "2")
    moved.wrote("2", "3")
    assert [moved.version_for(v) for v in ("1", "2", "3", "7")] == ["3", "3", "3", "7"]
