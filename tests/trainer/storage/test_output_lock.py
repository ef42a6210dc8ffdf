"""Two jobs never write to one output at a time, and who is held off is told whose it is."""

import errno
import fcntl
import json
import os
import re
import signal

import pytest
from trainer.runs import run
from trainer.trainer_kit import image_set, in_child, inference_spec, training_spec

from rfuav_trainer.errors import JobError, StoppedError
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.storage import output_lock


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(output_lock, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(output_lock, "PAUSE_SECONDS", 0.05)


@pytest.fixture
def job(desk):
    return lambda uid, name="drones": desk.job("TrainingJob", training_spec(), uid=uid, name=name)


def held(folder, job, stop=None):
    return output_lock.held(folder, job, stop or StopSignal())


def test_another_job_waits_and_names_the_writer(tmp_path, job, monkeypatch):
    monkeypatch.setattr(output_lock.socket, "gethostname", lambda: "drones-1a2b3-1")
    with held(tmp_path, job("old")):
        words = r"is in use by TrainingJob team/drones \(UID old, pod drones-1a2b3-1, since 20\d\d-.*\)"
        with pytest.raises(JobError, match=words) as refused, held(tmp_path, job("new")):
            pass
        assert (refused.value.reason, refused.value.exit_code) == ("OutputBusy", 1)
    with held(tmp_path, job("new")):
        assert json.loads((tmp_path / output_lock.WRITER).read_bytes())["uid"] == "new"
    assert not (tmp_path / output_lock.WRITER).exists()


def test_a_file_that_cannot_be_opened_holds_nobody_off(tmp_path, job, monkeypatch):
    def refuse(*_args):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(output_lock.os, "open", refuse)
    with held(tmp_path, job("u1")):
        (tmp_path / "last").write_bytes(b"weights")


def test_all_pods_and_processes_of_a_job_write_together(tmp_path, job):
    with held(tmp_path, job("u1")), held(tmp_path, job("u1")):
        pass
    first, second = held(tmp_path, job("u1")), held(tmp_path, job("u1"))
    with first:
        second.__enter__()
    with pytest.raises(JobError), held(tmp_path, job("u2")):  # the second one still writes
        pass
    second.__exit__(None, None, None)
    with held(tmp_path, job("u2")):
        pass


def take_and_die(folder, job):
    with output_lock.held(folder, job, StopSignal()):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("uid", ["u1", "u2"])
def test_a_pod_that_was_killed_holds_nobody_off(tmp_path, job, uid):
    assert in_child(take_and_die, tmp_path, job("u1")) == -signal.SIGKILL
    with held(tmp_path, job(uid)):
        pass


def test_what_a_dead_node_left_locked_does_not_hold_off_its_own_job(tmp_path, job):
    """A volume that several machines share may keep the lock of one that is gone for a while."""
    (tmp_path / output_lock.WRITER).write_text('{"uid": "u1"}')
    left = os.open(tmp_path / output_lock.WRITER, os.O_RDONLY)
    fcntl.flock(left, fcntl.LOCK_SH)
    with held(tmp_path, job("u1")):
        pass
    os.close(left)


def test_a_file_that_its_last_holder_removes_meanwhile_is_made_again(tmp_path, job, monkeypatch):
    """Opened before the removal and locked after it, it would be a lock that nobody else sees."""
    path, opened, first = tmp_path / output_lock.WRITER, os.open, [True]

    def open_late(*arguments):
        handle = opened(*arguments)
        if first.pop() if first else False:
            path.unlink()
        return handle

    monkeypatch.setattr(output_lock.os, "open", open_late)
    with held(tmp_path, job("u1")):
        assert json.loads(path.read_bytes())["uid"] == "u1"
        with pytest.raises(JobError), held(tmp_path, job("u2")):
            pass


def test_who_waits_hears_sigterm(tmp_path, job):
    stop = StopSignal()
    stop.request()
    with held(tmp_path, job("old")), pytest.raises(StoppedError), held(tmp_path, job("new"), stop):
        pass


def test_a_job_that_is_about_to_stop_is_waited_for(tmp_path, job, monkeypatch):
    old = held(tmp_path, job("old"))
    old.__enter__()
    monkeypatch.setattr(output_lock.time, "sleep", lambda _: old.__exit__(None, None, None))
    with held(tmp_path, job("new")):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"uid": 5}', "\xff"])
def test_a_torn_name_is_another_job(tmp_path, job, content):
    path = tmp_path / output_lock.WRITER
    path.write_text(content, encoding="latin-1")
    handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    words = re.escape(f"{tmp_path} is in use by another job")
    with pytest.raises(JobError, match=words), held(tmp_path, job("u1")):
        pass
    os.close(handle)


def test_a_volume_without_locks_holds_nobody_off(tmp_path, job, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(output_lock.fcntl, "flock", refuse)
    with held(tmp_path, job("u1")), held(tmp_path, job("u2")):
        pass


@pytest.mark.parametrize("kind", ["TrainingJob", "InferenceJob"])
def test_both_kinds_of_job_are_held_off(kind, pictures):
    image_set(pictures / "captures/train")
    spec = training_spec() if kind == "TrainingJob" else inference_spec(output__uri="pvc://models/out")
    first = pictures.job("TrainingJob", training_spec(), uid="old", name="first")
    with held(pictures / "models/out", first), pytest.raises(JobError, match=r"TrainingJob team/first \(UID old"):
        run(pictures, spec)


def test_what_a_killed_process_left_is_swept_by_the_next_that_is_alone(tmp_path, job):
    for folder in ("", "checkpoints/u1", "annotated/deep"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / ".best.safetensors.4711.tmp").write_bytes(b"half")
        for name in ("best.safetensors", ".state-0.json", "mine.tmp", ".notes.tmp"):
            (tmp_path / folder / name).write_bytes(b"")
    with held(tmp_path, job("u1")):
        left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
        assert left == {"best.safetensors", ".state-0.json", "mine.tmp", ".notes.tmp", output_lock.WRITER}
        (tmp_path / ".evaluation.json.1.tmp").write_bytes(b"another shard writes this")
        with held(tmp_path, job("u1")):
            assert (tmp_path / ".evaluation.json.1.tmp").exists()
