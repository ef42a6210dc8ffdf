"""The memory of an inference does not grow with the number of its inputs: lines, metrics and pictures pass through."""

import json
import resource

import numpy as np
import pytest
import torch
from PIL import Image
from trainer.trainer_kit import CLASSES, in_child, inference_spec

from rfuav_trainer import data, infer, models, weights
from rfuav_trainer.progress import Progress
from rfuav_trainer.runtime import StopSignal
from rfuav_trainer.spectrogram import SpectrogramParameters

FEW, MANY = 100, 10_000
FRAME = 256  # samples
GROWTH = 1.05


def _measure(environment, result):
    from rfuav_trainer.config import from_environment

    torch.set_num_threads(1)
    infer.run(from_environment(environment), Progress(None), StopSignal())
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
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(folder / "one.png")
    for number in range(count):
        (folder / CLASSES[number % len(CLASSES)] / f"{number:05}.png").hardlink_to(folder / "one.png")
    (folder / "one.png").unlink()


@pytest.mark.parametrize("make", [recordings, pictures])
def test_ten_thousand_inputs_take_the_memory_of_a_hundred(desk, make):
    parameters = SpectrogramParameters(1e6, FRAME / 1e6, 64, 32) if make is recordings else None
    preprocessing = data.Preprocessing("iq" if parameters else "image", 64, spectrogram=parameters)
    torch.manual_seed(1)
    network = models.build("resnet18", len(CLASSES), 64)
    card = weights.Card("resnet18", list(CLASSES), preprocessing)
    weights.save(desk / "models/w.safetensors", network.state_dict(), card)
    peaks = {}
    for count in (FEW, MANY):
        make(desk / f"captures/{count}", count)
        spec = inference_spec(
            model__weights="pvc://models/w.safetensors",
            input__uri=f"pvc://captures/{count}",
            output__uri=f"pvc://results/{count}",
            evaluation={},
        )
        assert in_child(_measure, desk.environment("InferenceJob", spec), desk / "peak") == 0
        assert json.loads((desk / f"results/{count}/evaluation.json").read_text())["samples"] == count
        peaks[count] = int((desk / "peak").read_text())
    print(peaks)
    assert peaks[MANY] < GROWTH * peaks[FEW], peaks
