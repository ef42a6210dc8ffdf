"""Checkpoints on disk: whole or not there, the newest whole one wins, foreign ones are refused, a full disk loses nothing."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from rfuav_trainer import errors
from rfuav_trainer.storage.files import atomic_writer
from rfuav_trainer.training import checkpoint
from rfuav_trainer.training.checkpoint import CheckpointStore

SIGNATURE = {"architecture": "resnet18", "classes": ["a", "b"]}


def store(folder, keep=3, **changes):
    return CheckpointStore(folder, keep=keep, signature={**SIGNATURE, **changes})


def state(value, size=1000):
    return {
        "network": {"w": torch.full((size,), float(value))},
        "position": {"epoch": value, "best": None, "history": [{"x": 0.1}]},
    }


def test_the_newest_is_loaded(tmp_path):
    for step in (9, 10, 100):
        store(tmp_path).save(state(step), epoch=step, step=step)
    found, saved = store(tmp_path).latest()
    assert (saved.step, found["position"]["epoch"], found["network"]["w"][0].item()) == (100, 100, 100.0)


def test_only_so_many_are_kept(tmp_path):
    for step in range(6):
        store(tmp_path, keep=2).save(state(step), epoch=0, step=step)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"step-{step:09d}-epoch-00000.{kind}" for step in (4, 5) for kind in ("json", "pt")
    ]


def test_nothing_there(tmp_path):
    assert store(tmp_path / "never").latest() is None


def _cut(path: Path):
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _empty(path: Path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("what", "spoil"),
    [*((".pt", f) for f in (_cut, _flip, _empty, Path.unlink)), *((".json", f) for f in (_cut, _empty, Path.unlink))],
)
def test_a_damaged_one_is_passed_over(tmp_path, spoil, what):
    for step in (1, 2):
        store(tmp_path).save(state(step), epoch=0, step=step)
    victim = next(tmp_path.glob(f"step-000000002*{what}"))
    spoil(victim)
    found, saved = store(tmp_path).latest()
    assert (saved.step, found["position"]["epoch"]) == (1, 1)


@pytest.mark.parametrize("keep", [1, 2])
def test_a_skipped_checkpoint_does_not_come_before_later_ones(tmp_path, keep):
    """Damaged, or of a time when the data was larger and an epoch had more steps."""
    for step in (90, 100):
        store(tmp_path, keep).save(state(step), epoch=step // 10, step=step)
        _cut(tmp_path / f"step-{step:09d}-epoch-{step // 10:05d}.pt")
    again = store(tmp_path, keep)
    assert again.latest() is None
    again.prune()
    for step in (5, 10):
        again.save(state(step), epoch=11, step=step)
        found, saved = store(tmp_path, keep).latest()
        assert (saved.step, found["position"]["epoch"]) == (step, step)
    assert len(list(tmp_path.iterdir())) == 2 * keep


def test_when_all_are_damaged_there_is_none(tmp_path):
    store(tmp_path).save(state(1), epoch=0, step=1)
    _cut(next(tmp_path.glob("*.pt")))
    assert store(tmp_path).latest() is None


def test_one_of_another_configuration_is_refused_by_name(tmp_path):
    store(tmp_path).save(state(1), epoch=0, step=1)
    with pytest.raises(
        errors.InvalidConfigurationError, match=r'architecture: "resnet18" in the checkpoint, "vit_b_16" now'
    ) as caught:
        store(tmp_path, architecture="vit_b_16").latest()
    assert caught.value.exit_code == 2


def test_what_differs_is_named_by_field_not_as_json(tmp_path):
    store(tmp_path, training={"epochs": 3, "optimizer": {"name": "adam", "learningRate": 0.1}}).save(
        state(1), epoch=0, step=1
    )
    other = {"epochs": 5, "optimizer": {"name": "adam", "learningRate": 0.1}, "mixup": 1}
    with pytest.raises(errors.InvalidConfigurationError) as caught:
        store(tmp_path, training=other).latest()
    assert "(training.epochs: 3 in the checkpoint, 5 now; training.mixup: none in the checkpoint, 1 now)" in str(
        caught.value
    )
    assert "--set checkpoint.resume=false" in str(caught.value)


def test_no_code_of_a_checkpoint_is_run(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    data = tmp_path / "step-000000001-epoch-00000.pt"
    torch.save({"network": Evil()}, data)
    content = data.read_bytes()
    manifest = {"file": data.name, "sha256": __import__("hashlib").sha256(content).hexdigest(), "size": len(content)}
    manifest |= {"epoch": 0, "step": 1, "savedAt": "now", "signature": SIGNATURE}
    data.with_suffix(".json").write_text(json.dumps(manifest))
    with pytest.raises(Exception, match="[Ww]eights"):
        store(tmp_path).latest()
    assert not marker.exists()


class Full:
    """A file on a volume that has room for `room` more bytes."""

    def __init__(self, stream, room):
        self.stream, self.room = stream, room

    def write(self, data):
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "checkpoint")
        self.room -= len(data)
        return self.stream.write(data)

    def __getattr__(self, name):
        return getattr(self.stream, name)


@pytest.mark.parametrize("room", [0, 100, 3000])
def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch, room):
    store(tmp_path).save(state(1), epoch=0, step=1)
    real = atomic_writer

    def full(path):
        import contextlib

        @contextlib.contextmanager
        def writer():
            with real(path) as stream:
                yield Full(stream, room)

        return writer()

    monkeypatch.setattr(checkpoint, "atomic_writer", full)
    with pytest.raises(OSError) as caught:
        store(tmp_path).save(state(2), epoch=0, step=2)
    monkeypatch.undo()
    failure = errors.describe(caught.value)
    assert (failure.reason, failure.exit_code) == ("DiskFull", 1)
    assert "no space left" in failure.message
    assert store(tmp_path).latest()[1].step == 1
    assert not list(tmp_path.glob(".*"))  # no half-written file is left to fill the disk further


def test_a_volume_that_is_really_full(small_volume):
    store(small_volume).save(state(1), epoch=0, step=1)
    with pytest.raises(OSError) as caught:
        store(small_volume).save(state(2, size=1_000_000), epoch=0, step=2)
    assert errors.describe(caught.value).reason == "DiskFull"
    assert store(small_volume).latest()[1].step == 1


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(ValueError), atomic_writer(path) as stream:
        stream.write(b"half")
        raise ValueError
    assert path.read_bytes() == b"before"
    with atomic_writer(path) as stream:
        stream.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]
