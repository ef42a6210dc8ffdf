"""Entries: the reference's fields from the trainer's values, and nothing of a line that harms a reader."""

import json
from datetime import UTC, datetime

import msgspec
import pytest

from rfuav_gateway.logs.entries import LONGEST_MESSAGE, Entry, entry_of
from rfuav_gateway.logs.places import Place
from rfuav_gateway.logs.pod_log import Line
from rfuav_gateway.logs.source import Pod
from rfuav_gateway.tasks.bodies import LogEntry

AT = Place("train-1", 1_800_000_000_250_000_999, 0)
NOW = datetime(2030, 1, 1, tzinfo=UTC)


ONE = Pod("train-1")


def read(line: bytes | dict, place: Place | None = AT, left_out: int = 0, pod: Pod = ONE) -> dict:
    text = json.dumps(line).encode() if isinstance(line, dict) else line
    return json.loads(msgspec.json.encode(entry_of(Line(place, text, left_out), pod, NOW)))


def test_an_entry_has_the_fields_of_its_body():
    assert [field.name for field in msgspec.structs.fields(Entry)] == list(LogEntry.model_fields)


def test_the_line_of_an_epoch():
    line = {
        "epoch": 3, "trainLoss": 0.5, "trainAccuracy": 0.75, "valLoss": 0.4, "valAccuracy": 0.8125, "macroF1": 0.7, "learningRate": 1e-4,
        "bestValAccuracy": 0.9, "epochs": 10, "seconds": 12.3, "best": False, "event": "epoch", "level": "info",
        "time": "2027-01-15T08:00:00.200000Z", "job": "train", "attempt": 1,
    }  # fmt: skip
    found = read(line)
    metrics = {name: value for name, value in found.pop("metrics").items() if value is not None}
    assert metrics == {
        "epoch": 3, "total_epochs": 10, "train_loss": 0.5, "train_acc": 75.0, "val_loss": 0.4, "val_acc": 81.25, "best_acc": 90.0,
        "macro_f1": 0.7, "learning_rate": 1e-4,
    }  # fmt: skip
    assert found == {
        "timestamp": "2027-01-15T08:00:00.200000", "level": "INFO", "message": "epoch (epoch 3, epochs 10, seconds 12.3, best False)",
        "stage": "epoch_end", "attempt": 1,
    }  # fmt: skip
    LogEntry.model_validate({**found, "metrics": metrics})


@pytest.mark.parametrize(
    ("values", "stage", "step"),
    [
        ({"event": "training", "epoch": 0, "epochs": 5}, "epoch_start", None),
        ({"event": "progress", "epoch": 1, "step": 40, "loss": 0.3}, "training", 40),
        ({"event": "progress", "epoch": 1, "step": 90, "validated": "3/9"}, "validation", 90),
        ({"event": "progress", "processed": 1200, "total": 5000}, None, 1200),
        ({"event": "done", "epochs": 5}, "completed", None),
        ({"event": "checkpoint", "file": "step-40.pt"}, None, None),
    ],
)
def test_stages_and_steps_come_from_values(values, stage, step):
    found = read({**values, "level": "info"})
    assert (found.get("stage"), found.get("step")) == (stage, step)


@pytest.mark.parametrize(
    ("level", "expected"),
    [("warning", "WARNING"), ("error", "ERROR"), ("critical", "ERROR"), ("debug", "INFO"), (7, "INFO"), (None, "INFO")],
)
def test_levels(level, expected):
    assert read({"event": "x", "level": level})["level"] == expected


def test_a_traceback_belongs_to_the_message():
    assert (
        read({"event": "it broke", "level": "error", "exception": "Traceback\n  line 1"})["message"]
        == "it broke\nTraceback\n  line 1"
    )


def test_a_pod_of_several_is_named():
    assert read(b"x", pod=Pod("p", attempt=2, shard=7)) == {
        "timestamp": "2027-01-15T08:00:00.250000", "level": "INFO", "message": "x", "attempt": 2, "shard": 7,
    }  # fmt: skip
    assert read(b"x", pod=Pod("p", rank=0))["rank"] == 0


@pytest.mark.parametrize(
    "line",
    [
        b"plain words",
        b"{not json",
        b"[1, 2]",
        b'{"event": 3}',
        b'"a string"',
        b"{}",
        b"{" * 5000,
        b'{"a": ' * 2500,
        b'{"event": "x", "loss": NaN}',
    ],
)
def test_a_line_that_is_no_json_event_is_a_message(line):
    assert read(line) == {
        "timestamp": "2027-01-15T08:00:00.250000",
        "level": "INFO",
        "message": line.decode(),
        "attempt": 1,
    }


@pytest.mark.parametrize("time", ["yesterday", 5, None, "2027-01-15T08:00:00", "0001-01-01T00:00:00+23:59", ["x"]])
def test_an_odd_time_gives_the_kubelet_s(time):
    assert read({"event": "x", "time": time})["timestamp"] == "2027-01-15T08:00:00.250000"


def test_odd_values_are_left_out():
    found = read(
        b'{"event": "epoch", "trainLoss": true, "valLoss": "0.3", "macroF1": 1e999, "step": -1, "valAccuracy": [1]}'
    )
    assert "metrics" not in found
    assert "step" not in found


def test_control_characters_and_broken_text_are_harmless():
    found = read(b"\x1b[2Jcleared \xff\xfe \x00 \x9b31m caf\xc3\xa9")
    assert found["message"].isprintable()
    assert "café" in found["message"]
    assert read({"event": "a\x1b]0;title\x07b\u202e", "file": "\x1b[1m"})["message"].isprintable()


def test_a_long_line_is_cut_and_says_so():
    found = read(b"x" * 20_000, left_out=10_000_000)["message"]
    assert found == "x" * LONGEST_MESSAGE + f"... ({10_000_000 + 20_000 - LONGEST_MESSAGE} more)"
    details = read({"event": "x", **{f"key{n}": "v" * 1000 for n in range(100)}})["message"]
    assert len(details) < 1000


def test_the_kubelet_s_own_words_are_a_warning_of_now():
    assert read(b"unable to retrieve container logs", place=None) == {
        "timestamp": "2030-01-01T00:00:00.000000", "level": "WARNING", "message": "unable to retrieve container logs", "attempt": 1,
    }  # fmt: skip
