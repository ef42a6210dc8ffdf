"""Weights of the reference service become ours, and compute the same; what is something else is refused without running it."""

import json
import os

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torchvision import models as zoo

from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.networks import architectures, convert, weights

CLASSES = ["a", "b", "c"]


def reference(architecture="resnet18"):
    """As the reference trains it: torchvision's network with its last layer replaced."""
    torch.manual_seed(1)
    network = getattr(zoo, architecture)(weights=None)
    if architecture.startswith("resnet"):
        network.fc = nn.Linear(network.fc.in_features, 3)
    elif architecture.startswith("swin"):
        network.head = nn.Linear(network.head.in_features, 3)
    elif architecture.startswith("mobilenet"):
        network.classifier[-1] = nn.Linear(network.classifier[-1].in_features, 3)
    else:
        network.heads.head = nn.Linear(network.heads.head.in_features, 3)
    return network.eval()


def computes_the_same(path, card, theirs, size=64):
    ours = architectures.build(card.architecture, 3, card.preprocessing.image_size).eval()
    weights.load(path, ours, architecture=card.architecture)
    pictures = torch.randn(2, 3, size, size)
    with torch.no_grad():
        return torch.equal(ours(pictures), theirs(pictures))


@pytest.mark.parametrize("architecture", ["resnet18", "resnet34", "mobilenet_v3_small", "swin_v2_t"])
def test_the_architecture_is_found_and_computes_the_same(tmp_path, architecture):
    theirs = reference(architecture)
    torch.save(theirs.state_dict(), tmp_path / "old.pth")
    card = convert.run(tmp_path / "old.pth", tmp_path / "new.safetensors", classes=CLASSES, image_size=64)
    assert card.architecture == architecture
    assert weights.read_card(tmp_path / "new.safetensors") == card
    assert (card.classes, card.preprocessing.image_size) == (CLASSES, 64)
    assert computes_the_same(tmp_path / "new.safetensors", card, theirs)


def test_a_vision_transformer_says_its_image_size(tmp_path):
    theirs = architectures.build("vit_b_32", 3, 96).eval()
    torch.save(theirs.state_dict(), tmp_path / "old.pth")
    card = convert.run(tmp_path / "old.pth", tmp_path / "new.safetensors", classes=CLASSES)
    assert (card.architecture, card.preprocessing.image_size) == ("vit_b_32", 96)
    assert computes_the_same(tmp_path / "new.safetensors", card, theirs, 96)
    with pytest.raises(InvalidConfigurationError, match="pictures of 96 pixels, not 224"):
        convert.run(tmp_path / "old.pth", tmp_path / "new.safetensors", classes=CLASSES, image_size=224)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {f"module.model.{k}": v for k, v in s.items()},
        lambda s: {k.replace("fc.", "fc.1."): v for k, v in s.items()},
    ],
    ids=["under a name", "data parallel", "twice", "head in a sequence"],
)
def test_what_wraps_it_is_taken_off(tmp_path, wrap):
    theirs = reference()
    torch.save(wrap(theirs.state_dict()), tmp_path / "old.pth")
    card = convert.run(tmp_path / "old.pth", tmp_path / "new.safetensors", classes=CLASSES)
    assert computes_the_same(tmp_path / "new.safetensors", card, theirs)


def test_no_code_of_the_file_is_run(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    torch.save({"state_dict": Evil()}, tmp_path / "old.pth")
    with pytest.raises(
        InputError, match=r"without running code.*save it with torch.save\(model.state_dict\(\), path\)"
    ):
        convert.run(tmp_path / "old.pth", tmp_path / "new.safetensors", classes=CLASSES)
    assert not marker.exists()
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"x": 1}, {}, "does not contain a state dict"),
        (None, {"classes": ["a"]}, "has 3 classes, but 1 are named"),
        (None, {"architecture": "resnet34"}, "fits none of resnet34; nearest is resnet34: .* tensors"),
        (None, {"architecture": "alexnet"}, "'alexnet' is not known"),
        ({"a.weight": torch.ones(3, 4)}, {}, "fits none of resnet18"),
        ({"a.weight": torch.ones(3)}, {}, "not a classifier"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, content, options, message):
    torch.save(reference().state_dict() if content is None else content, tmp_path / "old.pth")
    with pytest.raises((InputError, InvalidConfigurationError), match=message):
        convert.run(tmp_path / "old.pth", tmp_path / "new.safetensors", **{"classes": CLASSES, **options})


def test_the_command(desk):
    torch.save(reference().state_dict(), desk / "models/old.pth")
    for name in CLASSES:
        (desk / "captures/train" / name).mkdir(parents=True)
    arguments = ["convert", str(desk / "models/old.pth"), str(desk / "models/new.safetensors")]
    ended = desk.run(*arguments, "--classes-from", str(desk / "captures/train"), "--normalisation", "none")
    assert ended.code == 0, ended.output
    with safe_open(desk / "models/new.safetensors", framework="pt") as opened:
        card = json.loads(opened.metadata()["rfuav"])
    assert card["classes"] == CLASSES
    assert card["preprocessing"]["mean"] == [0, 0, 0]
    assert desk.run(*arguments, "--class", "a").code == 2
