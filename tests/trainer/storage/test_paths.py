"""Where a URI of a job lies on this machine."""

from pathlib import Path

import pytest
from trainer.trainer_kit import training_spec

from rfuav_crds import contract
from rfuav_trainer.errors import InputError
from rfuav_trainer.job import from_environment, from_file
from rfuav_trainer.storage.paths import local_path


def test_uris(desk):
    job = desk.job("TrainingJob", training_spec())
    assert local_path(job, "pvc://captures/a/b c", "x") == desk / "captures/a/b c"
    assert local_path(job, "pvc://captures", "x") == desk / "captures"
    assert local_path(job, "file:///some/folder", "x") == Path("/some/folder")
    with pytest.raises(
        InputError, match=r"dataset.train.uri: claim 'other' .* the pod should mount the claim at /mnt/rfuav/other"
    ):
        local_path(job, "pvc://other/x", "dataset.train.uri")


def test_without_mounts_claims_are_where_the_operator_puts_them(desk, monkeypatch):
    monkeypatch.setattr("rfuav_trainer.storage.paths.MOUNT_ROOT", desk.root)
    job = from_environment({contract.JOB: desk.job_json("TrainingJob", training_spec())})
    assert local_path(job, "pvc://captures/x", "w") == desk / "captures/x"


def test_on_a_laptop_the_message_says_which_option_to_add(desk):
    job = from_file(desk.write_job("TrainingJob", training_spec()))
    assert (job.uid, job.in_pod) == ("local-job", False)
    with pytest.raises(InputError, match="add --mount captures=FOLDER"):
        local_path(job, "pvc://captures/train", "dataset.train.uri")
