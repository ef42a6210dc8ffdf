"""A network that is opened for inference gives what it gave in training, and is what makes that quick."""

import pytest
import torch
from torch import nn
from trainer.trainer_kit import CLASSES, inference_spec

from rfuav_trainer.data.samples import Preprocessing
from rfuav_trainer.inference.classifier import open_classifier
from rfuav_trainer.networks import architectures, weights

SIZE = 64


class Branching(nn.Module):
    """A network of a user's own, which torch.fx cannot trace."""

    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4, classes)

    def forward(self, pictures):
        found = self.body(pictures)
        return self.head(-found if found.sum() > 0 else found)


def branching(classes, _size):
    return Branching(classes)


def saved(desk, architecture, dtype=torch.float32):
    """A network that is not fresh, neither in its weights nor in its batch norms, and its file."""
    torch.manual_seed(3)
    function = f"{__name__}:branching" if architecture == "custom" else None
    network = architectures.build(architecture, len(CLASSES), SIZE, function=function)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor, 1.0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(last.weight, std=0.05)  # torchvision's vision transformers begin with zeros
    card = weights.Card(architecture, list(CLASSES), Preprocessing("image", SIZE))
    (desk / "models/out").mkdir()
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in network.state_dict().items()}
    weights.save(desk / "models/out/best.safetensors", state, card)
    return network.eval()


def opened(desk, custom=None):
    job = desk.job("InferenceJob", inference_spec(precision="fp32", model__custom=custom))
    return open_classifier(job, job.spec, "image", torch.device("cpu"))


@pytest.mark.parametrize(
    "architecture", ["resnet18", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large", "swin_v2_t", "vit_b_32"]
)
def test_it_scores_as_the_trained_network_does_without_its_batch_norms(desk, architecture):
    trained = saved(desk, architecture)
    classifier = opened(desk)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in classifier.network.modules())
    pictures = torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8)
    inputs = classifier.preprocessing.normalise(pictures)
    with torch.inference_mode():
        expected, found = trained(inputs), classifier.network(inputs)
    assert expected.std(dim=1).min() > 1e-3  # it tells something apart
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert torch.equal(classifier.scores(pictures), found.softmax(dim=1))


def test_a_users_own_network_is_left_as_it_is(desk):
    trained = saved(desk, "custom")
    classifier = opened(desk, f"{__name__}:branching")
    pictures = torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8)
    with torch.inference_mode():
        expected = trained(classifier.preprocessing.normalise(pictures)).softmax(dim=1)
    assert any(isinstance(module, nn.BatchNorm2d) for module in classifier.network.modules())
    assert torch.allclose(classifier.scores(pictures), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("architecture", architectures.ARCHITECTURES)
def test_a_file_of_weights_replaces_all_that_a_network_has(architecture):
    """So that one for inference need not draw weights first."""
    with torch.device("meta"):
        network = architectures.build(architecture, 5, 56 if architecture == "vit_h_14" else 64)
    has = {name for name, _ in [*network.named_parameters(), *network.named_buffers()]}
    assert has == {*network.state_dict()}


def test_no_weights_are_drawn_only_to_be_replaced(desk, monkeypatch):
    saved(desk, "resnet18")
    drawn = []
    monkeypatch.setattr(nn.init, "kaiming_normal_", lambda tensor, **_: drawn.append(tensor.is_meta))
    opened(desk)
    assert drawn
    assert all(drawn)


def test_weights_kept_in_half_precision_become_whole(desk):
    saved(desk, "resnet18", torch.float16)
    found = opened(desk)
    assert {tensor.dtype for tensor in found.network.state_dict().values()} == {torch.float32}
    assert found.scores(torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)).shape == (1, len(CLASSES))
