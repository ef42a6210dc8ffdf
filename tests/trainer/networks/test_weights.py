"""Weights files carry what is needed to use them, and refuse what does not fit."""

import json
import resource

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from trainer.trainer_kit import in_child

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


CARD = weights.Card("resnet18", ["a", "b"], PREPROCESSING)


@pytest.mark.parametrize("dtype", weights.TYPES)
def test_every_type_is_written_as_the_library_reads_it(tmp_path, dtype):
    values = torch.arange(24).reshape(2, 3, 4)
    state = {
        "b": values.to(dtype), "a.one": torch.tensor(1.5), "turned": values.to(dtype).permute(2, 0, 1), "scalar": torch.tensor(3),
        "nothing": torch.empty(0, 5), "last": values.float().to(memory_format=torch.contiguous_format)[:, 1:], "flag": torch.tensor([True]),
    }  # fmt: skip
    weights.save(tmp_path / "a.safetensors", state, CARD)
    found = load_file(tmp_path / "a.safetensors")
    assert set(found) == set(state)
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert (
            found[name].contiguous().reshape(-1).view(torch.uint8).tolist()
            == value.contiguous().reshape(-1).view(torch.uint8).tolist()
        )
    with safe_open(tmp_path / "a.safetensors", framework="pt") as opened:
        assert set(opened.metadata()) == {weights.KEY}
    assert weights.read_card(tmp_path / "a.safetensors") == CARD


def test_tied_weights_are_written_under_each_name(tmp_path):
    one = torch.ones(3)
    weights.save(tmp_path / "a.safetensors", {"a": one, "b": one}, CARD)
    assert {name: value.tolist() for name, value in load_file(tmp_path / "a.safetensors").items()} == {
        "a": [1] * 3,
        "b": [1] * 3,
    }


def saves(path):
    state = {f"layer{number}": torch.ones(4 * 2**20) for number in range(20)}  # 16 MiB each
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    weights.save(path, state, CARD)
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert taken < 64 * 2**20, taken


def test_saving_takes_no_copy_of_all_weights(tmp_path):
    assert in_child(saves, tmp_path / "a.safetensors") == 0
