"""Memory does not grow with the number of inputs: pictures, scores, metrics and lines pass through."""

import ctypes
import json
import resource

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from trainer.trainer_kit import in_child, inference_spec, training_spec

from rfuav_trainer.data.samples import Preprocessing
from rfuav_trainer.evaluation import report
from rfuav_trainer.inference import infer
from rfuav_trainer.networks import weights
from rfuav_trainer.process import runtime
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.signals.spectrogram import SpectrogramParameters
from rfuav_trainer.storage.files import write_json
from rfuav_trainer.training import artifacts, kept_pictures, train

CLASSES = [f"drone-{number:02}" for number in range(37)]
FEW, MANY = 100, 10_000
FRAME = 256  # samples
GROWTH = 1.05


def tiny(classes, size):
    """A network that takes no time: what is measured is everything around it."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, classes))


def _measure(environment, result):
    from rfuav_trainer.job import from_environment

    torch.set_num_threads(1)
    # Drawing takes as much whatever the inputs are, and more than all of them: its peak would hide theirs.
    report.write = lambda folder, content, *_: write_json(folder / "evaluation.json", content)
    artifacts.write_curves = lambda *_: None
    # Decoded pictures are kept in the memory up to a bound of their own, see test_kept.py.
    kept_pictures.MEMORY_SHARE = 0
    job = from_environment(environment)
    (train if job.kind == "TrainingJob" else infer).run(job, Progress(None), StopSignal())
    result.write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def recordings(folder, count):
    """`count` frames in two recordings of each class."""
    rng = np.random.default_rng(1)
    shares = np.full(2 * len(CLASSES), count // (2 * len(CLASSES)))
    shares[: count % len(shares)] += 1
    for number, share in enumerate(shares):
        path = folder / CLASSES[number % len(CLASSES)] / f"{number}.iq"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng.normal(size=2 * FRAME * share).astype("<f4").tofile(path)


def pictures(folder, count):
    """`count` pictures, names for one and the same file."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    drawn = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
    if "validation" in folder.name:  # validation data must not be training data
        drawn = drawn.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    drawn.save(folder / "one.png")
    for number in range(count):
        (folder / CLASSES[number % len(CLASSES)] / f"{number:05}.png").hardlink_to(folder / "one.png")
    (folder / "one.png").unlink()


def _peak(desk, kind, spec):
    assert in_child(_measure, desk.environment(kind, spec), desk / "peak") == 0
    return int((desk / "peak").read_text())


@pytest.mark.parametrize("make", [recordings, pictures])
def test_an_inference_of_ten_thousand_takes_the_memory_of_a_hundred(desk, make):
    parameters = SpectrogramParameters(1e6, FRAME / 1e6, 64, 32) if make is recordings else None
    preprocessing = Preprocessing("iq" if parameters else "image", 16, spectrogram=parameters)
    torch.manual_seed(1)
    card = weights.Card("custom", list(CLASSES), preprocessing)
    weights.save(desk / "models/w.safetensors", tiny(len(CLASSES), 16).state_dict(), card)
    peaks = {}
    for count in (FEW, MANY):
        make(desk / f"captures/{count}", count)
        spec = inference_spec(
            model={"weights": "pvc://models/w.safetensors", "custom": "trainer.training.test_memory:tiny"},
            input__uri=f"pvc://captures/{count}",
            output__uri=f"pvc://results/{count}",
            evaluation={},
        )
        peaks[count] = _peak(desk, "InferenceJob", spec)
        assert json.loads((desk / f"results/{count}/evaluation.json").read_text())["samples"] == count
    assert peaks[MANY] < GROWTH * peaks[FEW], peaks


def test_a_training_of_ten_thousand_takes_the_memory_of_a_hundred(desk):
    peaks = {}
    for count in (FEW, MANY):
        for part in ("train", "validation"):
            pictures(desk / f"captures/{part}-{count}", count)
        spec = training_spec(
            model={"architecture": "custom", "custom": "trainer.training.test_memory:tiny"},
            dataset={
                "train": {"uri": f"pvc://captures/train-{count}"},
                "validation": {"uri": f"pvc://captures/validation-{count}"},
                "imageSize": 16,
            },
            training__epochs=1,
            training__batchSize=32,
            output__uri=f"pvc://models/{count}",
        )
        peaks[count] = _peak(desk, "TrainingJob", spec)
        assert json.loads((desk / f"models/{count}/report.json").read_text())["samples"]["validation"] == count
    assert peaks[MANY] < GROWTH * peaks[FEW], peaks


def _faults(result, keep):
    """Write how many pages the kernel had to give for values that take the room of others before them."""
    if keep:
        runtime.keep_memory()
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        values = [np.ones(2**24, dtype=np.int8) for _ in range(6)]
        del values
    result.write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_memory_that_is_freed_is_kept_for_the_next(tmp_path):
    found = []
    for keep in (False, True):
        assert in_child(_faults, tmp_path / "faults", keep) == 0
        found.append(int((tmp_path / "faults").read_text()))
    assert found[1] < 0.1 * found[0], found
