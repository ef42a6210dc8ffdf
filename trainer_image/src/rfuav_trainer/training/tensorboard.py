"""Writes TensorBoard event files with the scalars of every epoch, using only the standard library.

In: the metrics of an epoch. Out: one file below output/tensorboard. The format is TFRecord with protocol buffers
(tensorflow/core/util/event.proto and framework/summary.proto), restricted to the fields of scalars.
"""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING

from rfuav_trainer.storage import outputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import IO

GROUPS = {
    "trainLoss": "loss/train",
    "valLoss": "loss/validation",
    "trainAccuracy": "accuracy/train",
    "valAccuracy": "accuracy/validation",
    "bestValAccuracy": "accuracy/best",
    "learningRate": "training/learningRate",
}
"""Tags that group metrics into charts; every other metric is in `metrics/`."""
OURS = ".rfuav"
"""Suffix of our event files."""
POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected
MASK = 0xA282EAD8


class Board:
    """The event file of one attempt. It starts with all earlier epochs, so that none appears twice.

    Args:
        folder: output/tensorboard; replaces the event files of earlier attempts, not those of other programs.
        history: metrics of the earlier epochs.
    """

    def __init__(self, folder: Path, history: Iterable[Mapping[str, float]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = outputs.found(folder, f"events.out.tfevents.*{OURS}")
        self._path = folder / f"events.out.tfevents.{time.time_ns()}{OURS}"
        with self._path.open("xb") as stream:
            stream.write(_record(_event(_text(3, b"brain.Event:2"))))
            for row in history:
                _write(stream, row)
        outputs.written(self._path, keep=True)
        for path in earlier:
            outputs.remove(path)

    def add(self, row: Mapping[str, float]) -> None:
        """Append the metrics of an epoch, including `epoch`; visible to readers at once."""
        with self._path.open("ab") as stream:
            _write(stream, row)
            stream.flush()
            os.fsync(stream.fileno())
        outputs.written(self._path, keep=True)


def _write(stream: IO[bytes], row: Mapping[str, float]) -> None:
    values = b"".join(
        _text(1, _text(1, GROUPS.get(name, f"metrics/{name}").encode()) + b"\x15" + struct.pack("<f", value))
        for name, value in row.items()
        if name != "epoch"
    )
    stream.write(_record(_event(b"\x10" + _varint(int(row["epoch"])) + _text(5, values))))


def _event(content: bytes) -> bytes:
    """An Event with the current time (field 1, double) and `content`."""
    return b"\x09" + struct.pack("<d", time.time()) + content


def _text(field: int, content: bytes) -> bytes:
    """A field that is a string or a message."""
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:  # noqa: PLR2004  (seven bits a byte)
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _checksum(length) + content + _checksum(content)


def _checksum(content: bytes) -> bytes:
    """TFRecord's masked CRC-32C."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF)
