"""What can be learned from synthesized recordings: the classes when they can be seen, nothing when they cannot.

Through files, as a user's job does it: synthesize, train.run, infer.run with an evaluation.
"""

import json
import os

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from trainer.trainer_kit import Desk, inference_spec, training_spec

from rfuav_trainer.inference import infer
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.synthesis import synthesize
from rfuav_trainer.synthesis.emitters.catalogue import EMITTERS
from rfuav_trainer.synthesis.spec import make_spec
from rfuav_trainer.training import train

SPLITS = {
    "train": {"recordings": 40, "snrDb": [5, 10, 15, 20]},
    "test": {"recordings": 10, "snrDb": [10]},
    "buried": {"recordings": 10, "snrDb": [-20]},
}
CHANCE = 1 / len(EMITTERS)
EPOCHS = 8


def made(root, seed=11):
    """Volumes with captures/<split>/<class>/*.png, and what was seen of the samples on the way.

    Levels: for each split the labels (n,), and mean power, peak and power at zero frequency in dB (n, 3).
    """
    desk, levels = Desk(root), {split: ([], []) for split in SPLITS}

    def watched(spec, split, name, index):
        received, parameters = recording(spec, split, name, index)
        powers = np.abs(received.samples) ** 2
        levels[split][0].append(name)
        levels[split][1].append(10 * np.log10([powers.mean(), powers.max(), np.abs(received.samples.mean()) ** 2]))
        return received, parameters

    recording = synthesize.recording
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesize, "recording", watched)
        synthesize.synthesize(make_spec(output=desk / "captures", splits=SPLITS, format="image", seed=seed))
    return desk, {split: (labels, np.array(features)) for split, (labels, features) in levels.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    torch.set_num_threads(1)
    return made(tmp_path_factory.mktemp("honest"))


def trained(desk, folder, seed=3):
    """Train on captures/<folder>; the weights go to models/<folder>."""
    spec = training_spec(
        model__architecture="resnet18",
        dataset={"train": {"uri": f"pvc://captures/{folder}"}, "validation": {"fraction": 0.1}, "imageSize": 64},
        training__epochs=EPOCHS,
        training__batchSize=16,
        training__schedule={"name": "cosine", "warmupEpochs": 1},
        training__seed=seed,
        checkpoint={"everyEpochs": EPOCHS},
        output__uri=f"pvc://models/{folder}",
    )
    train.run(desk.job("TrainingJob", spec, uid=folder), Progress(None), StopSignal())


def accuracy(desk, folder, split):
    """The accuracy over captures/<split> that an evaluation of the weights in models/<folder> finds."""
    spec = inference_spec(
        model__weights=f"pvc://models/{folder}/best.safetensors",
        input__uri=f"pvc://captures/{split}",
        output__uri=f"pvc://results/{folder}-{split}",
        evaluation={},
    )
    infer.run(desk.job("InferenceJob", spec, uid=f"{folder}-{split}"), Progress(None), StopSignal())
    found = json.loads((desk / f"results/{folder}-{split}/evaluation.json").read_text())
    assert found["samples"] == len(EMITTERS) * SPLITS[split]["recordings"]
    return found["accuracy"]


def shuffle(desk, seed=1):
    """captures/shuffled: as many files in each class folder as in captures/train, as evenly as can be from every class.

    Folders drawn blindly would leave some of them a majority of one class, which a network finds and carries over.
    """
    rng, names = np.random.default_rng(seed), list(EMITTERS)
    for place, name in enumerate(names):
        for number, path in enumerate(rng.permutation(sorted((desk / "captures/train" / name).glob("*.png")))):
            folder = desk / "captures/shuffled" / names[(place + number) % len(names)]
            folder.mkdir(parents=True, exist_ok=True)
            os.link(path, folder / path.name)


def test_a_training_learns_the_classes_and_loses_them_in_the_noise(data):
    desk, _ = data
    trained(desk, "train")
    assert accuracy(desk, "train", "test") > 0.9
    assert accuracy(desk, "train", "buried") < 2.5 * CHANCE


def test_shuffled_labels_teach_nothing(data):
    desk, _ = data
    shuffle(desk)
    trained(desk, "shuffled")
    assert accuracy(desk, "shuffled", "test") < 2.5 * CHANCE


@pytest.mark.parametrize(("column", "name"), list(enumerate(["mean", "peak", "zero frequency"])))
def test_no_class_is_told_by_its_level(data, column, name):
    _, levels = data
    labels, known = levels["train"]
    held_out, other = levels["test"]
    scale = StandardScaler().fit(known[:, [column]])
    guess = KNeighborsClassifier(15).fit(scale.transform(known[:, [column]]), labels)
    assert guess.score(scale.transform(other[:, [column]]), held_out) < 2.5 * CHANCE, name


def test_every_class_has_files_of_one_length(tmp_path):
    spec = make_spec(output=tmp_path, splits={"train": 1}, seconds=0.001)
    assert {len(synthesize.recording(spec, "train", name, 0)[0].samples) for name in EMITTERS} == {spec.sample_count}
