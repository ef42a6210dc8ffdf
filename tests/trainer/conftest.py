"""Fixtures of the trainer's tests; torch keeps to one thread, as a small pod does."""

import subprocess
import time
import uuid

import pytest
import torch
from trainer.stores import Bucket, Volumes, s3_client, s3_environment, s3_server
from trainer.trainer_kit import Desk, image_set, tone_set, weights_file

from rfuav_trainer.storage import scratch


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def desk(tmp_path):
    """Empty volumes."""
    return Desk(tmp_path)


@pytest.fixture
def image_desk(desk):
    """Volumes with a small set of labelled pictures in captures/train."""
    image_set(desk / "captures/train")
    return desk


@pytest.fixture
def pictures(desk):
    """Volumes with labelled pictures in captures/test, and weights for them in models/out."""
    image_set(desk / "captures/test", count=5)
    (desk / "models/out").mkdir()
    weights_file(desk / "models/out/best.safetensors")
    return desk


@pytest.fixture
def recordings(desk):
    """Volumes with labelled recordings in captures/test, and weights for them in models/out."""
    tone_set(desk / "captures/test", count=2, frames=3)
    (desk / "models/out").mkdir()
    weights_file(desk / "models/out/best.safetensors", recordings=True)
    return desk


@pytest.fixture(scope="session")
def s3():
    """The address of a server that speaks S3."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3, tmp_path, monkeypatch):
    """An empty bucket, for which this process has the credentials."""
    for name, value in s3_environment(s3).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(scratch.VOLUME, str(tmp_path / "scratch"))
    return Bucket(s3_client(s3), f"bucket-{uuid.uuid4()}")


@pytest.fixture(params=["pvc", "s3"])
def place(request, desk):
    """Where outputs go: on a volume, or to a bucket."""
    return Volumes(desk.root) if request.param == "pvc" else request.getfixturevalue("bucket")


@pytest.fixture
def small_volume(tmp_path):
    """A real volume of one megabyte (root alone may mount one; `mount -o remount,size=` gives it another size)."""
    folder = tmp_path / "volume"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("a volume can be mounted by root alone; the simulated full disk of test_checkpoint covers the rule")
    yield folder
    for _ in range(50):
        if subprocess.run(["umount", folder], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    subprocess.run(["umount", "-l", folder], check=True)
