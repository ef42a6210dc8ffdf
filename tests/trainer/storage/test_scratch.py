"""Folders of a process: they go with it, and those of killed processes go when the next one starts."""

import os
import signal
import threading

import pytest
from trainer.trainer_kit import in_child

from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.storage import scratch


@pytest.fixture(autouse=True)
def _volume(tmp_path, monkeypatch):
    monkeypatch.setenv(scratch.VOLUME, str(tmp_path / "volume"))


def die_with_a_folder(volume):
    os.environ[scratch.VOLUME] = volume
    (scratch.make("cache") / "left").write_bytes(b"x")
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(tmp_path):
    assert in_child(die_with_a_folder, str(tmp_path / "volume")) == -signal.SIGKILL
    (left,) = (tmp_path / "volume").iterdir()
    stranger = tmp_path / "volume/of-somebody-else"
    stranger.mkdir()
    mine = scratch.make("cache")
    other = scratch.make("output")
    assert not left.exists()
    assert {*(tmp_path / "volume").iterdir()} == {stranger, mine, other}
    for folder in (mine, other):
        scratch.remove(folder)
    assert [*(tmp_path / "volume").iterdir()] == [stranger]


def test_many_that_start_together_never_sweep_one_another():
    made, started = [], threading.Barrier(8)

    def start():
        started.wait()
        made.extend(scratch.make("cache") for _ in range(20))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*made}) == 160
    assert all(folder.is_dir() for folder in made)
    for folder in made:
        scratch.remove(folder)


def test_a_volume_without_locks_is_never_swept(tmp_path, monkeypatch):
    def no_locks(_handle, _how):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(scratch.fcntl, "flock", no_locks)
    first, second = scratch.make("cache"), scratch.make("cache")
    assert first.is_dir()
    for folder in (first, second):
        scratch.remove(folder)
    assert not [*(tmp_path / "volume").iterdir()]


def test_a_volume_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(scratch.VOLUME, str(tmp_path / "file/below"))
    with pytest.raises(InvalidConfigurationError, match=r"TRAINER_CACHE .*/file/below cannot be written"):
        scratch.make("cache")
