"""A pod with several GPUs: a process for each, the weights of one, and one voice for all of them."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from trainer.trainer_kit import Desk, image_set, in_child, training_spec, until

from rfuav_crds import contract
from rfuav_trainer.distributed import gpu_workers
from rfuav_trainer.errors import EXIT_INTERRUPTED, InputError
from rfuav_trainer.process.stop import NOTICE
from rfuav_trainer.storage import inputs, scratch

TWO = {contract.ALLOW_CPU: "1"}
LONG = training_spec(training__epochs=60, training__batchSize=5, resources__gpus=2)


def spec(gpus, **changes):
    # Batch norm sees one process' part of a batch alone: this network has none. Adam makes whole steps of rounding.
    return training_spec(
        model__architecture="vit_b_32",
        training__epochs=1,
        training__batchSize=5,
        training__precision="fp32",
        training__optimizer={"name": "sgd", "learningRate": 0.001},
        resources__gpus=gpus,
        **changes,
    )


def others(process):
    """The processes that it started for its other GPUs."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                command = (entry / "cmdline").read_text()
            except OSError:
                continue
            if parent == str(process.pid) and "spawn_main" in command:
                found.append(int(entry.name))
    return found


def start(desk, job):
    scratch = {"TRAINER_CACHE": str(desk / "scratch"), "TRAINER_PICTURES_BYTES": "16Mi"}
    return desk.start("run", env={**desk.environment("TrainingJob", job), **TWO, **scratch})


def under_way(tmp_path, job=LONG):
    """A training on two GPUs after its first epoch: where it lies, and its first process."""
    desk = Desk(tmp_path)
    (tmp_path / "scratch").mkdir()
    image_set(desk / "captures/train", count=7)
    process = start(desk, job)
    until((desk / "models/out/history.jsonl").exists, otherwise=(desk / "log.txt").read_text)
    return desk, process


def test_two_gpus_end_with_the_weights_of_one(tmp_path):
    one, two = Desk(tmp_path / "one"), Desk(tmp_path / "two")
    for desk in (one, two):
        image_set(desk / "captures/train", count=7)
    assert one.pod("TrainingJob", spec(1), env=TWO).code == 0
    ended = two.pod("TrainingJob", spec(2), env=TWO)
    assert ended.code == 0, ended.output
    assert {e.get("size") for e in ended.events if e["event"] == "all processes have joined"} == {2}
    alone, shared = load_file(one / "models/out/last.safetensors"), load_file(two / "models/out/last.safetensors")
    for name, value in alone.items():
        torch.testing.assert_close(shared[name], value, rtol=1e-3, atol=1e-5)


def test_what_one_has_decoded_the_others_need_not_decode_again(tmp_path):
    """After the first epoch, in which each read other files, no file is needed any more."""
    desk, process = under_way(tmp_path, training_spec(training__epochs=12, training__batchSize=5, resources__gpus=2))
    for path in (desk / "captures/train").rglob("*.png"):
        path.unlink()
    ended = desk.end(process)
    assert ended.code == 0, ended.output
    assert json.loads((desk / "models/out/report.json").read_text())["unreadable"] == {}
    assert not list((tmp_path / "scratch").iterdir())


def test_all_stop_with_a_checkpoint_and_resume(tmp_path):
    desk, process = under_way(tmp_path)
    members = others(process)
    assert len(members) == 1
    os.kill(process.pid, signal.SIGTERM)
    assert desk.end(process).code == 75
    assert not Path(f"/proc/{members[0]}").exists()
    process = start(desk, LONG)
    until(lambda: '"event": "resumed"' in (desk / "log.txt").read_text(), 60)
    os.kill(process.pid, signal.SIGTERM)
    assert desk.end(process).code == 75


def test_of_several_processes_one_logs_the_epochs_and_answers_ctrl_c(tmp_path):
    desk, process = under_way(tmp_path)
    for pid in (*others(process), process.pid):  # as a terminal does
        os.kill(pid, signal.SIGINT)
    ended = desk.end(process)
    assert ended.code == EXIT_INTERRUPTED, ended.output
    epochs = [event["epoch"] for event in ended.events if event["event"] == "epoch"]
    assert epochs == [*range(1, len(epochs) + 1)]
    assert ended.output.count(NOTICE.decode()) == 1
    assert all("gpu" not in event for event in ended.events if event["level"] == "info")


def test_one_that_is_killed_is_the_reason_that_the_pod_gives(tmp_path):
    desk, process = under_way(tmp_path)
    os.kill(others(process)[0], signal.SIGKILL)
    ended = desk.end(process)
    assert ended.code == 1
    told = json.loads((desk / "termination.json").read_text())
    assert (told["reason"], told["exitCode"]) == ("ProcessLost", 1)
    assert "signal 9" in told["message"]


def test_when_the_first_is_killed_the_others_do_not_stay(tmp_path):
    _, process = under_way(tmp_path)
    members = others(process)
    process.kill()
    process.join(10)
    until(lambda: not any(Path(f"/proc/{member}").exists() for member in members), 40)


def test_fewer_gpus_than_asked_for(tmp_path):
    desk = Desk(tmp_path)
    image_set(desk / "captures/train", count=3)
    if torch.cuda.is_available():
        pytest.skip("this machine has GPUs")
    ended = desk.pod("TrainingJob", spec(2))
    assert ended.code == 2
    assert "resources.gpus is 2, but there is no CUDA device" in ended.output


def deaf(job, _progress, _stop):
    """Work of a process that hears nothing, as in a collective that hangs."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(job.name).with_name(f"deaf-{os.environ['LOCAL_RANK']}").touch()
    time.sleep(60)


def test_however_many_are_deaf_they_have_one_time_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_workers, "GRACE_SECONDS", 2)
    job = SimpleNamespace(name=str(tmp_path / "job"), spec=SimpleNamespace(resources=SimpleNamespace(gpus=4)))
    with gpu_workers.crew(job, deaf, {}) as everyone:
        while len(list(tmp_path.glob("deaf-*"))) < 3:
            time.sleep(0.1)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    for member in everyone.members:
        member.process.join(5)
        assert member.process.exitcode == -signal.SIGKILL


def refuses(_job, _progress, _stop):
    os.environ[scratch.VOLUME] = os.environ["KEPT"]
    cache = inputs._new_cache()
    inputs._cache.append(cache)
    (cache.folder / "fetched").touch()
    raise InputError("the folder is empty")


def test_another_process_uses_the_cache_and_expected_errors_have_no_traceback(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("KEPT", str(tmp_path))
    job = SimpleNamespace(name="job", spec=SimpleNamespace(resources=SimpleNamespace(gpus=2)))
    with gpu_workers.crew(job, refuses, {}) as everyone:
        assert everyone.cause().message == "the folder is empty"
    told = capfd.readouterr().out
    assert "the folder is empty" in told
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())


def waits_for_ever(folder):
    """As NCCL does for a process of the same machine that is gone."""
    gpu_workers.GRACE_SECONDS = gpu_workers.LOOK_EVERY = 0.5
    os.environ[contract.TERMINATION_LOG_FILE] = f"{folder}/told.json"
    os.environ["KEPT"] = str(folder)
    job = SimpleNamespace(name="job", spec=SimpleNamespace(resources=SimpleNamespace(gpus=2)))
    with gpu_workers.crew(job, refuses, {}):
        time.sleep(100)


def test_a_process_that_does_not_notice_the_end_of_another_ends_for_its_reason(tmp_path):
    assert in_child(waits_for_ever, tmp_path) == 3
    told = json.loads((tmp_path / "told.json").read_bytes())
    assert (told["reason"], told["message"], told["exitCode"]) == ("InputMissing", "the folder is empty", 3)
