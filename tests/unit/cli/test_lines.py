"""Lines of the trainer's log for people."""

import json

from rfuav_cli import lines

LINE = {
    "event": "epoch",
    "level": "info",
    "time": "2026-01-01T12:00:01Z",
    "epoch": 3,
    "valLoss": 0.123456,
    "job": "a",
    "attempt": 1,
}


def test_a_line_of_the_trainer():
    line = lines.read(json.dumps(LINE))
    assert lines.plain(line) == "2026-01-01T12:00:01Z epoch  epoch=3  valLoss=0.1235"
    assert lines.plain(line, "[2]").startswith("[2] 2026-01-01T12:00:01Z epoch")
    assert line.style == ""


def test_warnings_and_tracebacks():
    line = lines.read(json.dumps(LINE | {"event": "stopped", "level": "error", "exception": "Traceback:\n  x\x1b"}))
    assert (line.level, line.style) == ("error", "red")
    assert lines.plain(line).splitlines()[1:] == ["Traceback:", "  x\ufffd"]


def test_lines_of_other_programs_stay_as_they_are():
    for raw in ("NCCL INFO ring 0", '{"no": "event"}', '{"event": 3}', "{broken", "[1]"):
        assert lines.plain(lines.read(raw + "\n")) == raw


def test_long_values_are_cut():
    assert len(lines.read(json.dumps({"event": "e", "files": "x" * 1000})).text) < 250
