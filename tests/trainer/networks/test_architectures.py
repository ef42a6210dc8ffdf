"""Every architecture of the API builds, at any size it can take, and says what it cannot."""

from typing import get_args

import pytest
import torch
from torchvision import models as zoo
from torchvision.models.swin_transformer import SwinTransformerBlockV2

from rfuav_crds import Architecture
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.networks import architectures

SMALL = ("resnet18", "mobilenet_v3_small", "mobilenet_v3_large")


def test_all_architectures_of_the_api_are_known():
    assert {*architectures.ARCHITECTURES, "custom"} == set(get_args(Architecture))


@pytest.mark.parametrize("architecture", architectures.ARCHITECTURES)
def test_every_architecture_maps_pictures_to_classes(architecture):
    size = 56 if architecture == "vit_h_14" else 64
    with torch.device("meta"):
        network = architectures.build(architecture, 5, size)
        assert network(torch.empty(2, 3, size, size)).shape == (2, 5)


@pytest.mark.parametrize("architecture", [*SMALL, "swin_v2_t"])
def test_small_ones_for_real(architecture):
    network = architectures.build(architecture, 5, 64).train()
    scores = network(torch.randn(2, 3, 64, 64))
    scores.sum().backward()
    assert torch.isfinite(scores).all()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_fresh_swins_blocks_leave_the_picture_as_it_is():
    network = architectures.build("swin_v2_t", 3, 64).eval()
    blocks = [module for module in network.modules() if isinstance(module, SwinTransformerBlockV2)]
    assert len(blocks) == 12
    for block in blocks:
        seen = torch.randn(1, 8, 8, block.norm1.normalized_shape[0])
        assert torch.equal(block(seen), seen)


@pytest.mark.parametrize(
    ("architecture", "size", "message"),
    [
        ("vit_b_16", 100, "multiples of 16 .* write 96"),
        ("vit_b_32", 48, "multiples of 32 .* write 64"),
        ("vit_h_14", 64, "multiples of 14 .* write 70"),
        ("resnet18", 16, "from 64 up: write 64"),
        ("alexnet", 64, "not known: write one of resnet18"),
    ],
)
def test_sizes_that_do_not_fit(architecture, size, message):
    with pytest.raises(InvalidConfigurationError, match=message):
        architectures.build(architecture, 3, size)


@pytest.mark.parametrize("architecture", architectures.ARCHITECTURES)
def test_the_file_name_of_pretrained_weights_is_torchvisions(architecture):
    name = architectures.pretrained_file(architecture)
    assert name.startswith(architecture)
    assert name.endswith(".pth")


def test_pretrained_weights_without_their_head(tmp_path):
    torch.manual_seed(0)
    source = zoo.mobilenet_v3_small(weights=None)  # 1000 classes, as published
    torch.save(source.state_dict(), tmp_path / architectures.pretrained_file("mobilenet_v3_small"))
    network = architectures.build("mobilenet_v3_small", 3, 64)
    head = network.classifier[3].weight.clone()
    architectures.load_pretrained(network, "mobilenet_v3_small", tmp_path)
    assert torch.equal(network.features[0][0].weight, source.features[0][0].weight)
    assert torch.equal(network.classifier[3].weight, head)


def test_a_vision_transformers_positions_are_interpolated(tmp_path, monkeypatch):
    monkeypatch.setattr(architectures, "pretrained_file", lambda _: "vit.pth")
    with torch.device("meta"):
        source = architectures.build("vit_b_32", 1000, 224)
    state = {key: torch.zeros(value.shape) for key, value in source.state_dict().items()}
    state["encoder.pos_embedding"] = torch.full((1, 50, 768), 0.5)
    torch.save(state, tmp_path / "vit.pth")
    network = architectures.build("vit_b_32", 3, 64)
    architectures.load_pretrained(network, "vit_b_32", tmp_path)
    assert network.encoder.pos_embedding.shape == (1, 5, 768)
    assert torch.allclose(network.encoder.pos_embedding, torch.tensor(0.5))


def test_nothing_is_downloaded(tmp_path):
    network = architectures.build("resnet18", 3, 64)
    with pytest.raises(
        InputError, match=r"they are not downloaded, so put https://.*resnet18-.*\.pth there as resnet18-.*\.pth"
    ):
        architectures.load_pretrained(network, "resnet18", tmp_path)
    with pytest.raises(InvalidConfigurationError, match="weightsCache is empty"):
        architectures.load_pretrained(network, "resnet18", None)


def test_pretrained_weights_of_another_architecture(tmp_path):
    torch.save(
        architectures.build("mobilenet_v3_small", 3, 64).state_dict(),
        tmp_path / architectures.pretrained_file("resnet18"),
    )
    with pytest.raises(InputError, match="does not contain weights of resnet18"):
        architectures.load_pretrained(architectures.build("resnet18", 3, 64), "resnet18", tmp_path)


def test_a_file_that_is_no_weights(tmp_path):
    (tmp_path / architectures.pretrained_file("resnet18")).write_bytes(b"hello")
    with pytest.raises(InputError, match="not a readable PyTorch weights file"):
        architectures.load_pretrained(architectures.build("resnet18", 3, 64), "resnet18", tmp_path)
