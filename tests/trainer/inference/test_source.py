"""Weights and config files of the reference service work as they are, and what was converted is kept beside the results."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from torchvision import models as zoo
from trainer.runs import Watcher, run
from trainer.trainer_kit import CLASSES, inference_spec

from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.inference import infer, source
from rfuav_trainer.networks import reference_config, weights
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.storage import files

SIZE = 64
KEPT = "results/out/converted/old.safetensors"


def reference(architecture):
    """A network as the reference service builds it, away from its start so that its answers differ."""
    torch.manual_seed(1)
    network = getattr(zoo, architecture)(weights=None)
    if architecture.startswith("resnet"):
        network.fc = nn.Linear(network.fc.in_features, len(CLASSES))
    else:
        first = network.classifier[0].in_features
        network.classifier = nn.Sequential(
            nn.Linear(first, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, len(CLASSES))
        )
    pictures = torch.rand(8, 3, SIZE, SIZE) * torch.linspace(0.1, 1.0, 8)[:, None, None, None]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in norms:
        module.momentum = None  # the moments of these pictures, so that the network tells them apart
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        network.train()(pictures)
        scores = network.eval()(pictures)
        spread = scores.std(dim=0).mean()  # scores between 0 and 1, not at either end
        last.weight.div_(spread)
        last.bias.sub_(scores.mean(dim=0)).div_(spread)
    return network


def config(**changes):
    """The YAML file of a training, as the reference service writes them."""
    content = {
        "train": "data/train",
        "val": "data/val",
        "save_path": "models/out",
        "model": "resnet18",
        "weights": "",
        "batch_size": 8,
        "image_size": SIZE,
        "num_classes": len(CLASSES),
        "class_names": list(CLASSES),
        "device": "cuda:0",
        "num_epochs": 100,
        "shuffle": True,
        "lr": 0.0001,
        "optimizer": "adam",
    }
    return {key: value for key, value in {**content, **changes}.items() if value is not None}


@pytest.fixture
def old(desk):
    """Volumes with pictures that need no resizing, and files of the reference service."""
    random = np.random.default_rng(2)
    for number in range(4):
        path = desk / f"captures/test/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        level = random.integers(0, 200)
        Image.fromarray(random.integers(level, level + 56, (SIZE, SIZE, 3), dtype=np.uint8)).save(path)
    torch.save(reference("resnet18").state_dict(), desk / "models/old.pth")
    (desk / "models/cfg.yaml").write_text(yaml.safe_dump(config()))
    return desk


def spec(**changes):
    files = {"model__weights": "pvc://models/old.pth", "model__config": "pvc://models/cfg.yaml"}
    return inference_spec(precision="fp32", **{**files, **changes})


def read(desk, **changes):
    job = desk.job("InferenceJob", spec(**changes))
    return source.read(job, job.spec, desk / "results/out")


def lines(desk, shard=0):
    return [json.loads(line) for line in (desk / f"results/out/predictions-{shard}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small"])
def test_scores_are_those_of_the_old_network_on_levels_from_0_to_1(old, architecture):
    theirs = reference(architecture)
    torch.save(theirs.state_dict(), old / "models/old.pth")
    before = (old / "models/old.pth").read_bytes()
    (old / "models/cfg.yaml").write_text(yaml.safe_dump(config(model=architecture)))
    run(old, spec(evaluation=None))
    found = lines(old)
    assert len(found) == 4
    for line in found:
        pixels = np.asarray(Image.open(old / "captures/test" / line["path"]))
        with torch.no_grad():
            expected = theirs(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255.0)[0].softmax(0)
        scores = {entry["class"]: entry["score"] for entry in line["top"]}
        assert [scores[name] for name in CLASSES] == pytest.approx(expected.tolist(), abs=1e-4)
    assert len({round(line["score"], 3) for line in found}) > 1  # it tells something apart
    assert (old / "models/old.pth").read_bytes() == before
    card = weights.read_card(old / KEPT)
    assert (card.architecture, card.classes, card.preprocessing.image_size) == (architecture, list(CLASSES), SIZE)
    assert (card.preprocessing.mean, card.preprocessing.std) == ((0, 0, 0), (1, 1, 1))


def test_what_was_converted_is_used_until_its_files_change(old):
    first = read(old)
    assert first.made_from is not None
    first.keep(old / "results/out")
    again = read(old)
    assert again.made_from is None
    assert all(torch.equal(again.state[name], tensor) for name, tensor in first.state.items())
    (old / "models/cfg.yaml").write_text(yaml.safe_dump(config(class_names=["x", "y", "z"])))
    other = read(old)
    assert (other.made_from is not None, other.card.classes) == (True, ["x", "y", "z"])
    (old / KEPT).write_bytes((old / KEPT).read_bytes()[:100])
    assert read(old).made_from is not None


def test_shards_convert_at_once_and_the_file_is_whole(old, monkeypatch):
    """Processes of several pods may have the same number."""
    monkeypatch.setattr(files.os, "getpid", lambda: 1)
    monkeypatch.setattr(files.socket, "gethostname", lambda: f"pod-{threading.get_ident()}")
    found = [read(old) for _ in range(4)]
    together = threading.Barrier(len(found))

    def keep(one):
        together.wait()
        one.keep(old / "results/out")

    with ThreadPoolExecutor(len(found)) as pods:
        list(pods.map(keep, found))
    assert read(old).made_from is None
    assert [path.name for path in (old / "results/out/converted").iterdir()] == ["old.safetensors"]


def test_another_shard_uses_it_and_the_job_ends(old, place, capsys):
    for shard in range(2):
        run(old, spec(shards=2, output__uri=place.uri("results/out")), shard=shard, shards=2)
    said = capsys.readouterr().out
    assert said.count("weights converted") == 1
    assert said.count("using converted weights") == 1
    names = place.names("results/out")
    assert {"converted/old.safetensors", "predictions-0.jsonl", "predictions-1.jsonl", "_SUCCESS"} <= set(names)


def test_a_config_that_changed_is_noticed_as_other_files_are(old):
    infer.run(old.laptop("InferenceJob", spec()), Watcher(), StopSignal())
    (old / "models/cfg.yaml").write_text(yaml.safe_dump(config(class_names=["x", "y", "z"])))
    with pytest.raises(InvalidConfigurationError, match=r"model.config: cfg.yaml has other contents"):
        infer.run(old.laptop("InferenceJob", spec()), Watcher(), StopSignal())


def test_nothing_is_converted_into_the_results_of_another_job(old):
    run(old, spec())
    kept = (old / KEPT).read_bytes()
    (old / "models/cfg.yaml").write_text(yaml.safe_dump(config(class_names=["x", "y", "z"])))
    with pytest.raises(InvalidConfigurationError, match="contains results of job"):
        run(old, spec(), uid="u2")
    assert (old / KEPT).read_bytes() == kept


def test_the_job_may_say_what_the_config_does_not(old):
    (old / "models/cfg.yaml").write_text("device: cpu\n")
    with pytest.raises(InvalidConfigurationError, match=r"has no metadata: write model.classes .* or as model.config"):
        read(old)
    found = read(old, model__classes=list(CLASSES))
    assert (found.card.architecture, found.card.preprocessing.image_size) == ("resnet18", 224)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__architecture": "resnet34"}, r"model.architecture differs from model.config .*cfg.yaml: leave"),
        ({"model__classes": ["a", "b", "c"]}, r"model.classes differs from model.config .*cfg.yaml: leave"),
    ],
)
def test_job_and_config_may_not_contradict_each_other(old, changes, message):
    with pytest.raises(InvalidConfigurationError, match=message):
        read(old, **changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (config(model="mobilenet_v3_small"), "contains a resnet18, model.config .*: model says mobilenet_v3_small"),
        (config(class_names=["x", "y", "z"]), "was trained on other classes"),
        (config(), None),
    ],
)
def test_weights_with_metadata_have_the_last_word(old, content, message):
    read(old).keep(old / "results/out")
    (old / "models/new.safetensors").write_bytes((old / KEPT).read_bytes())
    (old / "models/cfg.yaml").write_text(yaml.safe_dump(content))
    if message is None:
        assert read(old, model__weights="pvc://models/new.safetensors").own_card
        return
    with pytest.raises(InvalidConfigurationError, match=message):
        read(old, model__weights="pvc://models/new.safetensors")


def test_names_are_taken_as_they_are_written(tmp_path):
    (tmp_path / "cfg.yaml").write_text("class_names: [no, 1, 0x10, ~x]\nmodel:\nimage_size: 64\n")
    found = reference_config.read(tmp_path / "cfg.yaml", "model.config")
    assert (found.architecture, found.classes, found.image_size) == (None, ("no", "1", "0x10", "~x"), 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read .*: write the URI of the YAML file"),
        ("a: [", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        ("- a\n", "has no fields: write model, class_names and image_size"),
        ("a: " + "[" * 100_000, "is nested deeper than 10 levels"),
        ("a: " + "x" * 300_000, "is larger than 256 KiB"),
        ("model: !!python/object/apply:os.system [touch x]", "model is not one value"),
        ("model: alexnet", "model 'alexnet' is not known: write one of resnet18"),
        ("image_size: 5", "image_size '5' is not a whole number from 16 to 2048"),
        ("image_size: [5]", "image_size is not one value"),
        ("class_names: a", "class_names is not a list of names"),
        ("class_names: &a [*a]", "is not YAML: .*recursive"),
        (f"class_names: [{'x' * 129}]", "class_names is not a list of names"),
        ("class_names: [a, a]", "class_names has 'a' twice"),
        ("class_names: [a, b]\nnum_classes: 3", "num_classes is 3, but class_names has 2"),
    ],
)
def test_config_files_that_are_refused(tmp_path, text, message):
    path = tmp_path / "cfg.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((InputError, InvalidConfigurationError), match=rf"model.config .*cfg.yaml: {message}"):
        reference_config.read(path, "model.config")
