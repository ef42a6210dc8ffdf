"""Rows of the demo's tables: from job objects to words, and what counts as news."""

from datetime import UTC, datetime

import pytest

from demo.rows import History, row

NOW = datetime(2026, 1, 1, 12, 10, tzinfo=UTC)


def job(kind="TrainingJob", name="drones", **status):
    metadata = {"name": name, "creationTimestamp": "2026-01-01T12:00:00Z"}
    return {"kind": kind, "metadata": metadata, "spec": {}, "status": status}


def test_a_job_that_the_operator_has_not_seen_yet():
    one = row({"kind": "TrainingJob", "metadata": {"name": "a", "creationTimestamp": "2026-01-01T12:09:30Z"}}, NOW)
    assert (one.phase, one.why, one.done, one.node, one.percent) == ("New", "", "", "", None)
    assert (one.waited, one.ran, one.terminal) == (30, None, False)


def test_a_running_training_shows_its_epoch_validation_and_node():
    one = row(
        job(
            phase="Running",
            reason="Running",
            message="1 of 1 pods run",
            progress={"percent": 41, "epoch": 3, "totalEpochs": 8},
            metrics={"valLoss": 0.25, "valAccuracy": 0.9, "top1": 0.1},
            assignments=[{"pod": "p", "node": "n1", "gpus": 1}],
            queuedAt="2026-01-01T12:01:00Z",
            startedAt="2026-01-01T12:03:00Z",
        ),
        NOW,
    )
    assert (one.percent, one.done, one.loss, one.accuracy, one.node) == (41, "3/8", 0.25, 0.9, "n1")
    assert (one.waited, one.ran, one.why) == (120, 420, "")


def test_an_inference_counts_inputs_over_all_its_nodes_and_its_accuracy_is_top1():
    one = row(
        job(
            "InferenceJob",
            phase="Succeeded",
            reason="Completed",
            progress={"percent": 100, "processed": 18, "total": 18},
            metrics={"top1": 0.95},
            assignments=[{"node": "n1"}, {"node": "n2"}, {"node": "n1"}],
            queuedAt="2026-01-01T12:00:00Z",
            startedAt="2026-01-01T12:05:00Z",
            finishedAt="2026-01-01T12:05:30Z",
        ),
        NOW,
    )
    assert (one.done, one.accuracy, one.node, one.terminal) == ("18/18", 0.95, "n1, n2", True)
    assert (one.waited, one.ran, one.why) == (300, 30, "")


@pytest.mark.parametrize(
    ("phase", "reason", "message", "why"),
    [
        ("Queued", "WaitingForCapacity", "needs 1 GPU; 0 free", "WaitingForCapacity: needs 1 GPU; 0 free"),
        ("Queued", "BackingOff", "", "BackingOff"),
        ("Failed", "OutOfMemory", "raise resources.memory", "OutOfMemory: raise resources.memory"),
        ("Running", "Running", "1 pod", ""),
        ("Succeeded", "Completed", "done", ""),
    ],
)
def test_the_reason_names_the_obstacle_and_nothing_else(phase, reason, message, why):
    assert row(job(phase=phase, reason=reason, message=message), NOW).why == why


def test_a_job_that_failed_before_it_started_waited_until_it_failed():
    one = row(job(phase="Failed", queuedAt="2026-01-01T12:00:00Z", finishedAt="2026-01-01T12:02:00Z"), NOW)
    assert (one.waited, one.ran) == (120, None)


def test_news_are_changes_of_phase_reason_and_quarters_of_progress():
    history = History()

    def look(**status):
        return bool(history.note([row(job(**status), NOW)]))

    assert look(phase="Queued", reason="WaitingForTrainingJob", message="a")
    assert not look(phase="Queued", reason="WaitingForTrainingJob", message="b")  # numbers move all the time
    assert look(phase="Queued", reason="WaitingForCapacity")
    assert look(phase="Running", progress={"percent": 0})
    assert not look(phase="Running", progress={"percent": 24})
    assert look(phase="Running", progress={"percent": 25})
    assert look(phase="Succeeded", progress={"percent": 100})


def test_history_keeps_the_reasons_of_each_job_in_order_and_once():
    history = History()
    for reason in ("WaitingForTrainingJob", "WaitingForCapacity", "WaitingForTrainingJob"):
        history.note([row(job("InferenceJob", "a", phase="Queued", reason=reason), NOW)])
    other = row(job("TrainingJob", "a", phase="Running", reason="Running"), NOW)
    history.note([other])
    waited = row(job("InferenceJob", "a", phase="Succeeded"), NOW)
    assert history.waited_for(waited) == "WaitingForTrainingJob, WaitingForCapacity"
    assert history.waited_for(other) == "-"  # a job of the other kind may have the same name
