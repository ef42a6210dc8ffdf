"""Weights of the reference service become ours, and compute the same; what is something else is refused without running it."""

import argparse
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
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
    ours = architectures.build(card.architecture, 3, card.preprocessing.image_size, head=card.head).eval()
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
        lambda s: {
            "state_dict": s,
            "best_acc": np.float64(0.9),
            "epoch": np.int64(7),
            "losses": np.ones(3, np.float32),
            "args": argparse.Namespace(lr=np.float32(1e-4)),
        },
        lambda s: (
            {f"{k}.total_ops".lstrip("."): torch.zeros(1) for k in ("module", "module.fc")}
            | {f"module.{k}": v for k, v in s.items()}
            | {"module.layer1.total_params": torch.zeros(1, dtype=torch.float64)}
        ),
    ],
    ids=["under a name", "data parallel", "twice", "head in a sequence", "numbers of NumPy", "counters of a profiler"],
)
def test_what_wraps_it_is_taken_off(tmp_path, wrap):
    theirs = reference()
    torch.save(wrap(theirs.state_dict()), tmp_path / "old.pth")
    card = convert.run(tmp_path / "old.pth", tmp_path / "new.safetensors", classes=CLASSES)
    assert computes_the_same(tmp_path / "new.safetensors", card, theirs)


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "mobilenet_v3_large"])
def test_the_head_that_the_reference_gives_a_mobilenet(tmp_path, architecture):
    theirs = reference(architecture)
    first = theirs.classifier[0].in_features
    theirs.classifier = nn.Sequential(nn.Linear(first, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 3)).eval()
    torch.save(theirs.state_dict(), tmp_path / "old.pth")
    card = convert.run(tmp_path / "old.pth", tmp_path / "new.safetensors", classes=CLASSES, image_size=64)
    assert (card.architecture, card.head) == (architecture, "reference")
    assert weights.read_card(tmp_path / "new.safetensors") == card
    assert computes_the_same(tmp_path / "new.safetensors", card, theirs)


def picture_and_scores(tmp_path, network, mean, std, *, softmax=True, by_class=False):
    """A picture, and what `network` says of it when it is prepared as torchvision's transforms do."""
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    levels = torch.from_numpy(pixels).permute(2, 0, 1) / 255.0
    levels = (levels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        scores = network(levels[None])[0]
    values = (scores.softmax(0) if softmax else scores).tolist()
    stored = dict(zip(CLASSES, values, strict=True)) if by_class else values
    (tmp_path / "a.json").write_text(json.dumps(stored))
    return tmp_path / "a.png", tmp_path / "a.json"


def contrary():
    """A network that a shift of the levels leads to another answer."""
    network = reference()
    nn.init.normal_(network.fc.weight, std=3.0)
    return network


@pytest.mark.parametrize("form", [{}, {"softmax": False}, {"by_class": True}])
@pytest.mark.parametrize("name", ["none", "imagenet"])
def test_the_scores_of_a_picture_decide_the_normalisation(tmp_path, name, form):
    theirs = contrary()
    torch.save(theirs.state_dict(), tmp_path / "old.pth")
    check = picture_and_scores(tmp_path, theirs, *convert.NORMALISATION[name], **form)
    options = {"classes": CLASSES, "image_size": 64}
    card = convert.run(tmp_path / "old.pth", tmp_path / "new.safetensors", **options, check=check)
    assert (card.preprocessing.mean, card.preprocessing.std) == convert.NORMALISATION[name]
    other = "imagenet" if name == "none" else "none"
    with pytest.raises(InvalidConfigurationError, match=rf"differ from those in .* with normalisation {other}"):
        convert.run(tmp_path / "old.pth", tmp_path / "no.safetensors", **options, check=check, normalisation=other)
    assert not (tmp_path / "no.safetensors").exists()


def test_without_a_check_nothing_is_normalised_and_that_is_said(tmp_path, capsys):
    torch.save(reference().state_dict(), tmp_path / "old.pth")
    card = convert.run(tmp_path / "old.pth", tmp_path / "new.safetensors", classes=CLASSES)
    assert (card.preprocessing.mean, card.preprocessing.std) == ((0, 0, 0), (1, 1, 1))
    said = capsys.readouterr()
    assert "pictures are scaled to 0 to 1 and not normalised" in said.out + said.err
    assert "pictures have 224 pixels" in said.out + said.err


@pytest.mark.parametrize("stored", ["[1, 2]", '{"a": 1}', "{", '["x", "y", "z"]', "[1, 2, NaN]"])
def test_scores_that_cannot_be_compared(tmp_path, stored):
    theirs = reference()
    torch.save(theirs.state_dict(), tmp_path / "old.pth")
    check = picture_and_scores(tmp_path, theirs, (0.0,) * 3, (1.0,) * 3)
    check[1].write_text(stored)
    with pytest.raises(InputError, match="--check: .*number for each"):
        convert.run(tmp_path / "old.pth", tmp_path / "new.safetensors", classes=CLASSES, check=check)


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
    assert desk.run(*arguments, "--classes-from", str(desk / "captures/train"), "--check", "a.png").code == 2
