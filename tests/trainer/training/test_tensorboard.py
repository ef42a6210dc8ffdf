"""Our event files as an independent implementation of the format reads and writes them (tensorboardX)."""

import struct

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event

from rfuav_trainer.training.tensorboard import Board

ROWS = [
    {"epoch": 1, "trainLoss": 1.5, "valLoss": 2.25, "macroF1": 0.5, "learningRate": 1e-4},
    {"epoch": 300, "trainLoss": 0.75, "valLoss": 0.0, "macroF1": 0.999, "learningRate": 1e-5},
]


def masked(content):
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(folder):
    """The events of the one file in the folder, checksums checked."""
    (path,) = folder.iterdir()
    content, found = path.read_bytes(), []
    assert path.name.startswith("events.out.tfevents.")
    while content:
        length, check = struct.unpack_from("<QI", content)
        assert masked(content[:8]) == check
        body, (check,) = content[12 : 12 + length], struct.unpack_from("<I", content, 12 + length)
        assert masked(body) == check
        found.append(Event.FromString(body))
        content = content[16 + length :]
    return found


def scalars(folder):
    return [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in events(folder)[1:]]


EXPECTED = [
    (1, {"loss/train": 1.5, "loss/validation": 2.25, "metrics/macroF1": 0.5, "training/learningRate": 1e-4}),
    (300, {"loss/train": 0.75, "loss/validation": 0.0, "metrics/macroF1": 0.999, "training/learningRate": 1e-5}),
]


def test_what_was_added_is_read(tmp_path):
    board = Board(tmp_path / "tensorboard", [])
    for row in ROWS:
        board.add(row)
    first, *_ = events(tmp_path / "tensorboard")
    assert (first.file_version, first.wall_time > 1.7e9) == ("brain.Event:2", True)
    for (step, values), (at, expected) in zip(scalars(tmp_path / "tensorboard"), EXPECTED, strict=True):
        assert step == at
        assert values == pytest.approx(expected)


def test_a_second_attempt_has_every_epoch_once(tmp_path):
    board = Board(tmp_path, [])
    for row in ROWS:
        board.add(row)
    Board(tmp_path, ROWS[:1]).add(ROWS[1])
    assert [step for step, _ in scalars(tmp_path)] == [1, 300]


def test_event_files_of_others_stay(tmp_path):
    theirs = tmp_path / "events.out.tfevents.1769860800.host.1.0"
    theirs.write_bytes(b"dear")
    for _ in range(2):
        Board(tmp_path, ROWS)
    assert theirs.read_bytes() == b"dear"
    theirs.unlink()
    assert [step for step, _ in scalars(tmp_path)] == [1, 300]
