"""Where the data of a job lies on this machine, what it may use of it, and what makes two jobs the same."""

import json
from pathlib import Path

import pytest
from trainer.trainer_kit import inference_spec, training_spec

import rfuav_trainer.job as module
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.process import runtime


def test_uris(desk):
    job = desk.job("TrainingJob", training_spec())
    assert job.path("pvc://captures/a/b c", "x") == desk / "captures/a/b c"
    assert job.path("pvc://captures", "x") == desk / "captures"
    assert job.path("file:///some/folder", "x") == Path("/some/folder")
    with pytest.raises(
        InputError, match=r"dataset.train.uri: claim 'other' .* the pod should mount the claim at /mnt/rfuav/other"
    ):
        job.path("pvc://other/x", "dataset.train.uri")


def test_without_mounts_claims_are_where_the_operator_puts_them(desk, monkeypatch):
    monkeypatch.setattr(module, "MOUNT_ROOT", desk.root)
    job = module.from_environment({"RFUAV_JOB": desk.job_json("TrainingJob", training_spec())})
    assert job.path("pvc://captures/x", "w") == desk / "captures/x"


def test_on_a_laptop_the_message_says_which_option_to_add(desk):
    job = module.from_file(desk.write_job("TrainingJob", training_spec()))
    assert (job.uid, job.in_pod) == ("local-job", False)
    with pytest.raises(InputError, match="add --mount captures=FOLDER"):
        job.path("pvc://captures/train", "dataset.train.uri")


def test_a_file_output_is_fine_on_a_laptop_alone(desk):
    spec = training_spec(output__uri=f"file://{desk.root}/out")
    assert module.from_file(desk.write_job("TrainingJob", spec)).spec.output.uri.startswith("file://")
    with pytest.raises(InvalidConfigurationError, match="lost with the pod"):
        desk.job("TrainingJob", spec)


@pytest.mark.parametrize(
    ("limits", "cpus"),
    [
        (("4", "max 100000", 8), 4),
        (("500m", "max 100000", 8), 1),
        (("4", "150000 100000", 8), 1),
        (("4", "300000 100000", 8), 3),
        (("64", "", 2), 2),
    ],
)
def test_cpus(desk, monkeypatch, limits, cpus):
    asked, quota, machine = limits
    (desk / "cpu.max").write_text(quota)
    monkeypatch.setattr(module, "CGROUP", desk.root)
    monkeypatch.setattr(module.os, "cpu_count", lambda: machine)
    job = desk.job("TrainingJob", training_spec(resources={"gpus": 0, "cpu": asked}))
    assert job.cpus == cpus


def test_memory(desk, monkeypatch):
    (desk / "memory.max").write_text("1000000\n")
    monkeypatch.setattr(module, "CGROUP", desk.root)
    assert desk.job("TrainingJob", training_spec()).memory == 1_000_000


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"pool": "other"}, True),
        ({"suspend": True}, True),
        ({"training__workers": 2}, True),
        ({"training__seed": 9}, False),
        ({"model__architecture": "resnet18"}, False),
    ],
)
def test_what_makes_a_job_another(desk, changes, same):
    one = desk.job("TrainingJob", training_spec()).fingerprint()
    assert (desk.job("TrainingJob", training_spec(**changes)).fingerprint() == one) is same


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"output__annotate": True}, {"errorThreshold": 0.5}])
def test_what_makes_an_inference_another(desk, changes):
    one = desk.job("InferenceJob", inference_spec()).fingerprint()
    assert desk.job("InferenceJob", inference_spec(**changes)).fingerprint() != one


@pytest.mark.parametrize("shard", [-1, 3])
def test_a_shard_that_is_not_there(desk, shard):
    with pytest.raises(InvalidConfigurationError, match="spec.shards is 3, counted from 0"):
        desk.job("InferenceJob", inference_spec(shards=3), shard=shard)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_damaged_mark_is_no_mark(desk, content):
    path = desk / "_SUCCESS"
    path.write_text(content)
    assert runtime.finished_before(path, desk.job("TrainingJob", training_spec())) is None


def test_the_mark_of_another_job_is_not_this_jobs(desk):
    path = desk / "_SUCCESS"
    path.write_text(json.dumps({"uid": "someone"}))
    assert runtime.finished_before(path, desk.job("TrainingJob", training_spec())) is None
