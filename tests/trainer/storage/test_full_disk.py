"""A volume that runs full under a job: it ends as DiskFull and unmarked, and goes on to a whole result once there is room."""

import json
import os
import subprocess

import pytest
import torch
from safetensors.torch import load_file
from trainer.runs import run
from trainer.trainer_kit import CLASSES, inference_spec, training_spec

from rfuav_trainer import errors
from rfuav_trainer.inference import results

PAGE = 4096  # what a tmpfs gives away at a time


def resize(volume, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", volume], check=True)


def runs_full(desk, spec):
    with pytest.raises(OSError) as caught:
        run(desk, spec)
    failure = errors.describe(caught.value)
    assert (failure.reason, failure.exit_code) == ("DiskFull", 1)


def lines(folder):
    return [json.loads(line) for line in (folder / "predictions-0.jsonl").read_text().splitlines()]


@pytest.fixture
def pictures(pictures, small_volume):
    """Pictures to classify; results/out lies on the small volume."""
    (pictures / "results/out").symlink_to(small_volume)
    return pictures


@pytest.mark.parametrize(
    ("pages", "missing"), [(0, "job.json"), (1, "predictions-0.jsonl"), (2, "_SUCCESS-0"), (3, "_SUCCESS")]
)
def test_an_inference_whose_lines_find_no_room(pictures, small_volume, pages, missing):
    run(pictures, inference_spec(output__uri="pvc://results/whole"), uid="u2")
    room = os.statvfs(small_volume)
    (small_volume / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize - pages * PAGE))
    runs_full(pictures, inference_spec())
    assert not list(small_volume.glob("_SUCCESS" if missing == "_SUCCESS" else "_SUCCESS*"))
    assert not (small_volume / missing).exists() or not (small_volume / missing).read_bytes()
    (small_volume / "filler").unlink()
    run(pictures, inference_spec())
    assert lines(small_volume) == lines(pictures / "results/whole")
    assert (small_volume / "_SUCCESS").is_file()


def test_an_inference_that_runs_full_half_way_goes_on_there(pictures, small_volume, monkeypatch):
    monkeypatch.setattr(results, "COMMIT_SECONDS", 0)
    resize(small_volume, "256k")
    spec = inference_spec(batchSize=1, output__annotate="all")
    runs_full(pictures, spec)
    assert not list(small_volume.glob("_SUCCESS*"))
    done = json.loads((small_volume / ".state-0.json").read_text())["done"]
    assert 0 < done < 15
    resize(small_volume, "32m")
    drawn = small_volume / "annotated/alpha/000.png.jpg"
    before = drawn.stat().st_mtime_ns
    run(pictures, spec)
    assert drawn.stat().st_mtime_ns == before  # the first pictures were not classified again
    assert [line["path"] for line in lines(small_volume)] == [
        f"{name}/{number:03d}.png" for name in CLASSES for number in range(5)
    ]
    assert (small_volume / "_SUCCESS").is_file()


@pytest.mark.parametrize(("size", "missing"), [("4m", "best"), ("28m", "last")])
def test_a_training_whose_weights_find_no_room(image_desk, small_volume, size, missing):
    resize(small_volume, size)
    spec = training_spec(training__epochs=1, checkpoint={"keep": 1})
    run(image_desk, {**spec, "output": {"uri": "pvc://models/whole"}}, uid="u2")
    (image_desk / "models/out").symlink_to(small_volume)
    ended = image_desk.pod("TrainingJob", spec)
    assert (ended.code, ended.termination["reason"]) == (1, "DiskFull")
    assert "no space left" in ended.termination["message"]
    assert not list(small_volume.glob("_SUCCESS*"))
    assert not list(small_volume.glob(".*"))  # nothing half-written is left
    assert (small_volume / "best.safetensors").exists() == (missing != "best")
    assert not (small_volume / f"{missing}.safetensors").exists()
    resize(small_volume, "64m")
    assert image_desk.pod("TrainingJob", spec, attempt=2).code == 0
    for name in ("best", "last"):
        one, other = (
            load_file(folder / f"{name}.safetensors") for folder in (small_volume, image_desk / "models/whole")
        )
        assert all(torch.equal(one[key], other[key]) for key in other)
    assert len((small_volume / "history.jsonl").read_text().splitlines()) == 1
    assert (small_volume / "_SUCCESS").is_file()
