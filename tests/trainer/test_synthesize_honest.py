"""What a network can learn from synthesized recordings: the classes when they can be seen, nothing when they cannot."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn

from rfuav_trainer.emitters import EMITTERS
from rfuav_trainer.spectrogram import picture
from rfuav_trainer.synthesis_spec import make_spec
from rfuav_trainer.synthesize import recording

SPLITS = {
    "train": {"recordings": 40, "snrDb": [5, 10, 15, 20]},
    "test": {"recordings": 10, "snrDb": [10]},
    "buried": {"recordings": 10, "snrDb": [-20]},
}
CHANCE = 1 / len(EMITTERS)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """For each split: pictures (n, 1, 64, 64), labels (n,) and trivial features (n, 3) in dB."""
    torch.set_num_threads(1)
    spec = make_spec(output=tmp_path_factory.getbasetemp(), splits=SPLITS, seed=11)
    made = {}
    for split, wanted in spec.splits.items():
        pictures, labels, trivial = [], [], []
        for label, name in enumerate(spec.classes):
            for index in range(wanted.recordings):
                samples = recording(spec, split, name, index)[0].samples
                pictures.append(picture(torch.from_numpy(samples), spec.spectrogram, 64))
                labels.append(label)
                powers = np.abs(samples) ** 2
                trivial.append(10 * np.log10([powers.mean(), powers.max(), np.abs(samples.mean()) ** 2]))
        made[split] = (torch.stack(pictures).float() / 255, torch.tensor(labels), np.array(trivial))
    return made


def trained(pictures, labels):
    """A small network: four strided convolutions and a mean, 12 epochs."""
    torch.manual_seed(0)
    layers = []
    for before, after in ((1, 16), (16, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, len(EMITTERS)))
    epochs, batch = 12, 16
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    steps = epochs * -(-len(labels) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(batch):
            loss = nn.functional.cross_entropy(network(pictures[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def accuracy(network, split):
    pictures, labels, _ = split
    with torch.inference_mode():
        return (network(pictures).argmax(1) == labels).float().mean().item()


def test_a_network_learns_the_classes_and_loses_them_in_the_noise(data):
    network = trained(*data["train"][:2])
    assert accuracy(network, data["test"]) > 0.9
    assert accuracy(network, data["buried"]) < 2.5 * CHANCE


def test_shuffled_labels_teach_nothing(data):
    pictures, labels, _ = data["train"]
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    assert accuracy(trained(pictures, shuffled), data["test"]) < 2.5 * CHANCE


@pytest.mark.parametrize(("column", "name"), list(enumerate(["mean", "peak", "zero frequency"])))
def test_no_class_is_told_by_its_level(data, column, name):
    _, labels, trivial = data["train"]
    _, held_out, other = data["test"]
    scale = StandardScaler().fit(trivial[:, [column]])
    guess = KNeighborsClassifier(15).fit(scale.transform(trivial[:, [column]]), labels)
    assert guess.score(scale.transform(other[:, [column]]), held_out) < 2.5 * CHANCE, name


def test_every_class_has_files_of_one_length(tmp_path):
    spec = make_spec(output=tmp_path, splits={"train": 1}, seconds=0.001)
    assert {len(recording(spec, "train", name, 0)[0].samples) for name in EMITTERS} == {spec.sample_count}
