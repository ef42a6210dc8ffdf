from datetime import UTC, datetime

from demo.table import row

NOW = datetime(2026, 1, 1, 0, 2, tzinfo=UTC)
META = {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}


def test_a_job_that_nobody_has_seen_yet():
    found = row({"kind": "TrainingJob", "metadata": META}, NOW)
    assert (found.phase, found.progress, found.node, found.why) == ("New", "", "", "")
    assert (found.waited, found.ran) == (120, 0)


def test_a_waiting_job_says_why():
    status = {"phase": "Queued", "reason": "WaitingForCapacity", "message": "needs 1 GPU; none free"}
    found = row({"kind": "InferenceJob", "metadata": META, "status": status}, NOW)
    assert found.why == "needs 1 GPU; none free"


def test_a_running_training():
    status = {
        "phase": "Running",
        "message": "leftover",
        "admittedAt": "2026-01-01T00:00:30Z",
        "assignments": [{"pod": "p", "node": "n1"}],
        "progress": {"percent": 41, "epoch": 4, "totalEpochs": 10},
        "metrics": {"valLoss": 0.12345, "bestValAccuracy": 0.9},
    }
    found = row({"kind": "TrainingJob", "metadata": META, "status": status}, NOW)
    assert found[2:8] == ("Running", "41% epoch 4/10", "0.123", "0.900", "n1", "")
    assert (found.waited, found.ran) == (30, 90)


def test_a_finished_inference_stops_its_clock():
    status = {
        "phase": "Succeeded",
        "admittedAt": "2026-01-01T00:00:30Z",
        "finishedAt": "2026-01-01T00:01:00Z",
        "progress": {"percent": 100, "processed": 27, "failed": 0, "total": 27},
        "metrics": {"top1": 1.0},
    }
    found = row({"kind": "InferenceJob", "metadata": META, "status": status}, NOW)
    assert (found.progress, found.accuracy, found.ran) == ("100% 27/27", "1.000", 30)
