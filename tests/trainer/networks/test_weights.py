"""Weights files carry what is needed to use them, and refuse what does not fit."""

import json

import pytest
import torch
from safetensors.torch import save_file

from rfuav_trainer.data.images import TRANSFORM
from rfuav_trainer.data.samples import SPECTROGRAM, Preprocessing
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.networks import architectures, weights
from rfuav_trainer.signals.spectrogram import SpectrogramParameters

PREPROCESSING = Preprocessing("iq", 64, *SPECTROGRAM, SpectrogramParameters(40e6, 0.05, 2048, 512, "hann", "int16"))


def saved(path):
    torch.manual_seed(2)
    network = architectures.build("mobilenet_v3_small", 3, 64)
    weights.save(
        path,
        network.state_dict(),
        weights.Card("mobilenet_v3_small", ["a", "b", "c"], PREPROCESSING, {"valLoss": 0.25}, "u1", 4),
    )
    return network


def test_there_and_back(tmp_path):
    path = tmp_path / "best.safetensors"
    network = saved(path)
    card = weights.read_card(path)
    assert card.preprocessing == PREPROCESSING
    assert (card.architecture, card.classes, card.metrics, card.job, card.epoch) == (
        "mobilenet_v3_small", ["a", "b", "c"], {"valLoss": 0.25}, "u1", 4,
    )  # fmt: skip
    other = architectures.build("mobilenet_v3_small", 3, 64)
    weights.load(path, other, architecture="mobilenet_v3_small")
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("architecture", "classes"), [("resnet18", 3), ("mobilenet_v3_small", 4), ("mobilenet_v3_large", 3)]
)
def test_weights_of_another_network(tmp_path, architecture, classes):
    path = tmp_path / "best.safetensors"
    saved(path)
    with pytest.raises(InvalidConfigurationError, match=f"does not fit {architecture}"):
        weights.load(path, architectures.build(architecture, classes, 64), architecture=architecture)


def test_a_torn_file(tmp_path):
    path = tmp_path / "best.safetensors"
    saved(path)
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(InputError, match="not a complete safetensors file"):
        weights.read_card(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="no weights file at"):
        weights.read_card(tmp_path / "nothing.safetensors")


def test_other_classes_are_named():
    card = weights.Card("resnet18", ["a", "b"], PREPROCESSING)
    with pytest.raises(InvalidConfigurationError, match="not in the weights: c; not in the data: b"):
        weights.check_classes(card, ["a", "c"], None)


def test_a_file_says_what_it_holds(tmp_path):
    network = saved(tmp_path / "best.safetensors")
    found = weights.describe(tmp_path / "best.safetensors")
    assert (found["architecture"], found["classes"], found["epoch"]) == ("mobilenet_v3_small", ["a", "b", "c"], 4)
    assert found["preprocessing"]["spectrogram"]["sample_rate"] == 40e6
    assert found["weights"] == sum(tensor.numel() for tensor in network.state_dict().values())
    assert found["bytes"] == (tmp_path / "best.safetensors").stat().st_size


@pytest.mark.parametrize(("written", "read"), [(None, 1), (1, 1), (TRANSFORM, TRANSFORM), (TRANSFORM + 1, None)])
def test_weights_keep_the_transform_that_they_were_trained_with(tmp_path, written, read):
    card = weights.Card("resnet18", ["a", "b"], PREPROCESSING).to_json()
    card["preprocessing"]["transform"] = written
    if written is None:
        del card["preprocessing"]["transform"]  # as before there was a second one
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {weights.KEY: json.dumps(card)})
    if read is None:
        with pytest.raises(InputError, match=f"version {written} of the transform.* up to {TRANSFORM}"):
            weights.read_card(tmp_path / "a.safetensors")
    else:
        assert weights.read_card(tmp_path / "a.safetensors").preprocessing.transform == read


def test_a_file_of_someone_else_is_not_described(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="has no metadata.*convert"):
        weights.describe(tmp_path / "a.safetensors")
