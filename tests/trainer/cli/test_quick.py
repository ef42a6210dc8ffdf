"""Work without a manifest: train, predict, evaluate and init on a folder, at the command line and in Python."""

import json
import os

import pytest
import structlog
import torch
import yaml
from trainer.signals.test_archive import packed
from trainer.signals.test_sidecar import xml
from trainer.trainer_kit import image_set, tone_set

import rfuav_trainer
from rfuav_crds import load_job
from rfuav_trainer import errors
from rfuav_trainer.job import MOUNTS
from rfuav_trainer.quick import folder, manifest

SMALL = ("--arch", "mobilenet_v3_small", "--size", "64", "--epochs", "1")
HERE = manifest.Machine(gpus=0, cpus=2, memory=8 * 2**30)


@pytest.fixture
def split(desk):
    """Pictures in captures/train and captures/test, and an unrelated folder beside them."""
    image_set(desk / "captures/train", count=6)
    image_set(desk / "captures/test", count=2, seed=1)
    (desk / "captures/notes").mkdir()
    return desk


@pytest.mark.parametrize("command", [("train",), ("quick", "train")], ids=" ".join)
def test_train_on_a_folder_then_predict_and_evaluate(split, command):
    out = split / "results/mine"
    ended = split.run(*command, str(split / "captures"), *SMALL, "--output", str(out), "--set", "training.seed=5")
    assert ended.code == 0, ended.output
    kept = yaml.safe_load((out / "job.yaml").read_text())
    assert kept["spec"]["training"]["seed"] == 5
    assert kept["metadata"]["name"] == "mine"
    assert [event["event"] for event in ended.events][-1] == "done"
    assert (out / "best.safetensors").is_file()

    again = split.run("train", "-f", str(out / "job.yaml"))
    assert again.code == 0
    assert "already finished" in again.output

    ended = split.run("predict", str(split / "captures/test"), "--weights", str(out))
    assert ended.code == 0, ended.output
    lines = ended.output.splitlines()
    assert lines[0].split() == ["file", "class", "score", "then"]
    assert [line.split()[0] for line in lines[1:]] == [
        f"{name}/00{n}.png" for name in ("alpha", "beta", "gamma") for n in (0, 1)
    ]

    ended = split.run("evaluate", str(split / "captures"), "--weights", str(out), "--output", str(split / "results/e"))
    assert ended.code == 0, ended.output
    assert ended.output.startswith("6 samples")
    assert (split / "results/e/evaluation.html").is_file()


def test_predict_prints_json_for_one_file_and_names_what_cannot_be_read(pictures):
    where = pictures / "captures/test/alpha"
    ended = pictures.run("predict", str(where / "001.png"), "-w", str(pictures / "models/out"), "--json")
    assert ended.code == 0, ended.output
    line = json.loads(ended.output)
    assert line["path"] == "001.png"
    assert line["score"] == line["top"][0]["score"]
    (where / "broken.png").write_bytes(b"no picture")
    ended = pictures.run("predict", str(where), "-w", str(pictures / "models/out"))
    row = next(line for line in ended.output.splitlines() if line.startswith("broken.png "))
    assert "not a readable image" in row
    assert ended.code == 0


def test_predict_shows_a_recording_as_one_row_and_its_frames_on_request(recordings):
    one = str(recordings / "captures/test/alpha/000.iq")
    rows = recordings.run("predict", one, "-w", str(recordings / "models/out")).output.splitlines()
    assert len(rows) == 2
    assert rows[1].endswith("of 3 frames")
    rows = recordings.run("predict", one, "-w", str(recordings / "models/out"), "--frames").output.splitlines()
    assert [row.rpartition("  ")[2] for row in rows[1:]] == ["0.000 s", "0.004 s", "0.008 s"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "{}/captures", "-f", "x.yaml"), "not both"),
        (("train", "{}/job.yaml"), "for a job file write -f {}/job.yaml"),
        (("train", "{}/captures", "--output", "{}/captures/out"), "add --output FOLDER, a folder outside the data"),
        (("train", "{}/captures", "--output", "{}/weights"), "add --output FOLDER, a new one"),
        (("train", "{}/captures", "--arch", "resnet19", "--output", "{}/o"), "spec.model.architecture"),
        (("train", "-f", "{}/job.yaml", "--set", "training.epoch=3"), "spec.training.epoch: unknown field: did you mean epochs?"),
        (("train", "-f", "{}/job.yaml", "--set", "trainig.epochs=3"), "spec.trainig: unknown field: did you mean training?"),
        (("train", "-f", "{}/job.yaml", "--set", "training.epochs=many"), "spec.training.epochs"),
        (("train", "-f", "{}/job.yaml", "--set", "training.epochs.x=1"), "epochs has no fields, its value is 3"),
        (("train", "-f", "{}/job.yaml", "--set", "training.epochs"), "write PATH=VALUE"),
        (("train", "--set", "training.epochs=1"), "name it with -f job.yaml"),
        (("predict", "{}/captures/test", "-w", "{}/none"), "no weights file at"),
        (("predict", "{}/none", "-w", "{}/models"), "does not exist"),
        (("evaluate", "{}/captures"), "add --weights FILE"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line(split, arguments, words):
    split.write_job("TrainingJob", {"model": {"architecture": "resnet18"}, "dataset": {"train": {"uri": "pvc://captures/train"}},
                                    "training": {"epochs": 3}, "output": {"uri": "pvc://models/o"}})  # fmt: skip
    (split / "weights/other.txt").write_text("somebody's")
    ended = split.run(*(argument.format(split.root) for argument in arguments))
    assert ended.code in (2, 3), ended.output
    assert words.format(split.root) in ended.output
    assert "Traceback" not in ended.output


def test_set_takes_values_as_yaml_and_an_empty_one_gives_the_default(split):
    from rfuav_trainer.job import from_file

    path = split.write_job("TrainingJob", {"model": {"architecture": "resnet18"}, "dataset": {"train": {"uri": "pvc://captures/train"}},
                                           "training": {"epochs": 3}, "output": {"uri": "pvc://models/o"}})  # fmt: skip
    changes = ["training.optimizer.learningRate=1e-4", "spec.training.augment=[CLAHE]", "training.epochs="]
    training = from_file(path, changes=changes).spec.training
    assert (training.optimizer.learning_rate, training.augment, training.epochs) == (1e-4, ["CLAHE"], 100)


def test_init_writes_a_manifest_that_trains_here_and_in_a_cluster(split):
    path = split / "job.yaml"
    ended = split.run("init", str(split / "captures"), "-f", str(path), *SMALL, "--output", str(split / "results/x"))
    assert ended.code == 0, ended.output
    assert f"rfuav-trainer train -f {path}" in ended.output
    content = yaml.safe_load(path.read_text())
    assert content["metadata"]["annotations"][MOUNTS].split() == ["captures=captures", "models=results"]
    assert load_job(content).spec.dataset.train.uri == "pvc://captures/train"
    refused = split.run("init", str(split / "captures"), "-f", str(path))
    assert (refused.code, "exists: add --overwrite" in refused.output) == (2, True)
    ended = split.run("train", "-f", str(path), "--set", "training.batchSize=4")
    assert ended.code == 0, ended.output
    assert (split / "results/x/_SUCCESS").is_file()


def test_what_init_finds_in_a_folder_of_recordings(desk):
    root = tone_set(desk / "captures/a b's", count=2, frames=3)
    beside = root / "alpha/000.json"
    beside.write_text(json.dumps({"sampleRate": 1e6, "sampleFormat": "float32"}))
    found = folder.look(root)
    assert (found.kind, found.sample_rate, found.sample_format) == ("iq", 1e6, "float32")
    options = manifest.Options("vit_b_16", 1, 224, desk / "models/o'clock")
    content = yaml.safe_load(manifest.training(found, options, HERE, beside=desk.root))
    job = load_job(content)
    assert job.spec.dataset.iq.frame_seconds * 1e6 == pytest.approx(3 * 4096)
    assert job.spec.training.optimizer.learning_rate == 1e-4
    assert job.spec.output.uri == "pvc://models/o'clock"
    assert job.metadata.name == "o-clock"


def test_init_takes_the_sample_rate_from_the_sidecars_of_packs(desk):
    """The most frequent one. Only the first file of a pack is looked at."""
    root = tone_set(desk / "captures", count=1)
    for name, pack, rate in (("alpha", "pack1", 2e6), ("alpha", "pack2", 4e6), ("beta", "pack1", 4e6)):
        for second in range(5):
            (root / name / f"{pack}_{second}-{second + 1}s.iq").write_bytes(bytes(8 * 4096))
        (root / name / f"{pack}.xml").write_bytes(xml(SampleRate=f"{rate:.0f}"))
    assert folder.look(root).sample_rate == 4e6
    assert yaml.safe_load(rfuav_trainer.init(root))["spec"]["dataset"]["iq"]["sampleRate"] == 4_000_000


def test_init_takes_the_sample_rate_from_sigmf(desk):
    """Of an archive, and of metadata that has another name than its data; the longest capture gives the frame."""
    rate = {"core:datatype": "cf32_le", "core:sample_rate": 2e6}
    captures = [{"core:sample_start": 0}, {"core:sample_start": 3000}]
    for label in ("a", "b"):
        root = desk / "captures" / label
        root.mkdir(parents=True)
        (root / "x.raw").write_bytes(bytes(8 * 9000))
        content = {"global": {**rate, "core:dataset": "x.raw"}, "captures": captures}
        (root / "y.sigmf-meta").write_text(json.dumps(content))
        packed(
            root / "z.sigmf", ("z.sigmf-meta", json.dumps({"global": rate}).encode()), ("z.sigmf-data", bytes(64000))
        )
    found = folder.look(desk / "captures")
    assert (found.kind, found.sample_rate, found.seconds) == ("iq", 2e6, 6000 / 2e6)


def test_a_folder_is_listed_once(desk, monkeypatch):
    """Listing is slow on a network file system; the names of the classes are one listing of the folder itself."""
    root = tone_set(desk / "captures")
    (root / "alpha/000.xml").write_bytes(xml())
    read = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: read.append(str(path)) or scandir(path))
    folder.look(root)
    assert sorted(read) == sorted([str(root)] * 2 + [str(root / name) for name in ("alpha", "beta", "gamma")])


def test_init_balances_uneven_classes_and_uses_the_validation_folder(desk):
    image_set(desk / "captures/train", classes=("a",), count=4)
    image_set(desk / "captures/train", classes=("b",), count=1)
    image_set(desk / "captures/val", classes=("a", "b"), count=1)
    content = yaml.safe_load(rfuav_trainer.init(desk / "captures"))
    assert content["spec"]["training"]["classWeights"] == "balanced"
    assert content["spec"]["dataset"]["validation"] == {"uri": "pvc://captures/val"}


def test_in_python_values_come_back_and_nothing_global_stays(split, monkeypatch):
    monkeypatch.chdir(split.root)
    torch.manual_seed(7)
    before = (torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    trained = rfuav_trainer.train(
        "captures", arch="mobilenet_v3_small", size=64, epochs=2, changes=["training.batchSize=6"]
    )
    assert trained.output == split / "runs/captures"
    assert [row["epoch"] for row in trained.history] == [1, 2]
    assert trained.best["epoch"] in (1, 2)
    (line,) = rfuav_trainer.predict(split / "captures/test/alpha/000.png", trained.weights)
    assert line["class"] in ("alpha", "beta", "gamma")
    assert rfuav_trainer.evaluate("captures", trained.output)["samples"] == 6
    assert {path.name for path in split.root.iterdir()} >= {"runs", "captures"}
    after = (torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert not structlog.is_configured()
    with pytest.raises(errors.InputError, match="no weights file"):
        rfuav_trainer.predict("captures/test", "captures")


def test_check_says_what_a_training_would_do_and_writes_nothing(split, monkeypatch):
    monkeypatch.chdir(split.root)
    before = sorted(split.root.rglob("*"))
    plan = rfuav_trainer.check("captures", arch="mobilenet_v3_small", size=64, epochs=3)
    assert plan.classes["alpha"].keys() == {"train", "validation", "trainRecordings", "validationRecordings"}
    assert sum(row["train"] + row["validation"] for row in plan.classes.values()) == 18
    assert (plan.shape, plan.batch_size, plan.state) == ((3, 64, 64), 8, "new")
    assert plan.steps == -(-sum(row["train"] for row in plan.classes.values()) // 8)
    assert 1_000_000 < plan.parameters < 2_000_000
    assert plan.parameters * 4 < plan.memory < plan.memory_limit
    assert plan.seconds > 0
    assert sorted(split.root.rglob("*")) == before
    ended = split.run("check", str(split / "captures"), *SMALL)
    assert ended.code == 0, ended.output
    assert "input    pictures as 3 x 64 x 64" in ended.output
    with pytest.raises(errors.InvalidConfigurationError, match=r"imageSize 30 .* write 64"):
        rfuav_trainer.check("captures", size=30)


def test_the_second_run_of_a_folder_gets_the_next_name(split, monkeypatch):
    monkeypatch.chdir(split.root)
    (split / "runs/captures").mkdir(parents=True)
    assert "models=runs" in rfuav_trainer.init("captures")
    assert "uri: 'pvc://models/captures-2'" in rfuav_trainer.init("captures")


def test_version(desk):
    ended = desk.run("--version")
    assert (ended.code, ended.output.split()[0]) == (0, "rfuav-trainer")
