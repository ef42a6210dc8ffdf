"""Training end to end on small sets: what it leaves behind, and that it goes on after any interruption with the same bits."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from trainer.runs import Watcher, hanging, history, run, same_weights, stopped
from trainer.trainer_kit import IQ, image_set, tone_set, training_spec, weights_file
from trainer.training.test_tensorboard import scalars as tensorboard_scalars

from rfuav_trainer.data import samples
from rfuav_trainer.errors import InputError, InvalidConfigurationError, StoppedError
from rfuav_trainer.networks import architectures, weights
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.training.learner import SMALLEST_SCALE, Learner

METRICS = {
    "trainLoss", "trainAccuracy", "valLoss", "valAccuracy", "bestValAccuracy", "macroF1", "microF1", "meanAveragePrecision",
    "calibrationError", "top1", "top3", "top5", "macroPrecision", "macroRecall", "microPrecision", "microRecall", "learningRate",
}  # fmt: skip


def test_what_a_training_leaves_behind(image_desk):
    watcher = Watcher()
    mark = run(image_desk, training_spec(), watcher=watcher)
    out = image_desk / "models/out"
    names = {path.name for path in out.iterdir()}
    assert names == {
        "_SUCCESS", "best.safetensors", "last.safetensors", "checkpoints", "history.jsonl", "learning-curves.png", "report.html", "report.json", "tensorboard",
    }  # fmt: skip
    assert mark["outputs"]["bestWeights"] == "pvc://models/out/best.safetensors"
    rows = history(out)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(row.keys() == METRICS | {"epoch"} for row in rows)
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert rows[-1]["bestValAccuracy"] == max(row["valAccuracy"] for row in rows)
    assert len(list((out / "checkpoints/u1").glob("*.pt"))) == 2  # checkpoint.keep
    report = json.loads((out / "report.json").read_text())
    assert report["samples"] == {"train": 18, "validation": 6}
    assert report["unreadable"] == {}
    assert Image.open(out / "learning-curves.png").size[0] > 400
    page = (out / "report.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", page)[2:] == [
        "What the network sees",
        "The most confident mistakes of the best epoch",
    ]
    _, seen, mistakes = (Image.open(io.BytesIO(base64.b64decode(png))) for png in re.findall('base64,([^"]+)"', page))
    assert (seen.width, mistakes.width) == (5 * 212 + 12, min(5, 4) * 212 + 12)
    assert seen.height == 4 * 248 + 12  # eighteen pictures with two lines each
    board = tensorboard_scalars(out / "tensorboard")
    assert [(step, values["loss/validation"]) for step, values in board] == [
        (row["epoch"], pytest.approx(row["valLoss"])) for row in rows
    ]
    last = watcher.reports[-1]
    assert last["progressPercentage"] == 100
    assert {m["name"] for m in last["metrics"]} == METRICS
    assert last["rfuav"]["outputs"] == mark["outputs"]
    shown = watcher.summary
    assert shown["history"]["epochs"] == [1, 2, 3]
    assert shown["history"]["valLoss"] == [float(f"{row['valLoss']:.4g}") for row in rows]
    assert shown["classes"] == report["classes"]
    assert sum(count for _, _, count in shown["confusion"]) == 6
    assert sum(c for r, k, c in shown["confusion"] if r == k) / 6 == pytest.approx(rows[-1]["valAccuracy"], abs=1e-5)
    assert not shown["truncated"]
    assert last["rfuav"]["checkpoint"]["uri"].startswith("pvc://models/out/checkpoints/u1/")
    percents = [report["progressPercentage"] for report in watcher.reports]
    assert percents == sorted(percents)


def test_the_status_gets_accuracy_by_snr_and_a_finished_training_gives_it_again(desk):
    """As it is run again when its pod was lost after the end."""
    image_set(desk / "captures/train", count=6)
    for path in sorted((desk / "captures/train").rglob("*.png")):
        path.rename(path.with_name(f"{path.stem}_snr{-10 if int(path.stem) % 2 else 20}.png"))
    spec, first, again = training_spec(training__epochs=1), Watcher(), Watcher()
    run(desk, spec, watcher=first)
    rows = first.summary["bySNR"]
    assert [snr for snr, _, _ in rows] == [-10, 20]
    shown = first.summary["confusion"]
    assert sum(samples for _, samples, _ in rows) == sum(count for _, _, count in shown)
    right = sum(count for row, column, count in shown if row == column)
    assert sum(samples * accuracy for _, samples, accuracy in rows) == pytest.approx(right, abs=0.01)
    run(desk, spec, watcher=again)
    assert again.summary == first.summary


def test_it_learns_and_shuffled_labels_stay_at_chance(desk):
    image_set(desk / "captures/train", count=16)
    spec = training_spec(training__epochs=2, training__batchSize=8, model__architecture="resnet18")
    run(desk, spec)
    assert history(desk / "models/out")[-1]["bestValAccuracy"] >= 0.9
    rng = np.random.default_rng(5)
    files = sorted((desk / "captures/train").rglob("*.png"))
    contents = [path.read_bytes() for path in files]
    for path, which in zip(files, rng.permutation(len(files)), strict=True):
        path.write_bytes(contents[which])
    spec["output"]["uri"] = "pvc://models/shuffled"
    run(desk, spec, uid="u2")
    accuracies = [row["valAccuracy"] for row in history(desk / "models/shuffled")]
    assert np.mean(accuracies) < 0.65  # chance is 1/3; twelve validation pictures


def test_a_new_job_takes_nothing_from_the_old_one(image_desk):
    spec = training_spec(training__epochs=1)
    run(image_desk, spec)
    watcher = Watcher()
    mark = run(image_desk, spec, watcher=watcher, uid="u2")
    assert mark["uid"] == "u2"
    assert watcher.reports[0]["rfuav"]["step"] == 1


def test_a_changed_job_under_an_old_name_is_refused(image_desk):
    run(image_desk, training_spec(training__epochs=1))
    with pytest.raises(InvalidConfigurationError, match="finished there with different settings"):
        run(image_desk, training_spec(training__epochs=2))


def test_a_checkpoint_of_another_architecture_is_refused(image_desk):
    stopped(image_desk, training_spec(), 2)
    with pytest.raises(
        InvalidConfigurationError, match=r"architecture: \"mobilenet_v3_small\" in the checkpoint, \"resnet18\" now"
    ):
        run(image_desk, training_spec(model__architecture="resnet18"))


def test_a_checkpoint_of_another_split_is_refused(image_desk):
    stopped(image_desk, training_spec(), 2)
    (manifest,) = (image_desk / "models/out/checkpoints/u1").glob("*.json")
    content = json.loads(manifest.read_text())
    split = content["signature"].pop("split")
    assert split == {"rules": 2, "fraction": 0.25, "recordingPattern": None}
    manifest.write_text(json.dumps(content))  # as a version wrote it that split by other rules
    with pytest.raises(
        InvalidConfigurationError, match=r'split: none in the checkpoint, \{"rules": 2, "fraction": 0.25'
    ):
        run(image_desk, training_spec())


def test_what_was_trained_on_never_validates_after_a_change_of_the_data(image_desk):
    stopped(image_desk, training_spec(), 2)
    image_set(image_desk / "captures/train", count=11)
    with pytest.raises(InvalidConfigurationError, match="validation samples .* are now of recordings that it was tr"):
        run(image_desk, training_spec())


def test_resume_false_begins_at_the_beginning(image_desk):
    stopped(image_desk, training_spec(checkpoint={"resume": False}), 7)
    watcher = Watcher()
    run(image_desk, training_spec(checkpoint={"resume": False}, training__epochs=1), watcher=watcher)
    assert (watcher.reports[0]["rfuav"]["epoch"], watcher.reports[0]["rfuav"]["step"]) == (0, 1)


def test_a_lost_best_file_is_replaced_by_the_next_epoch(image_desk):
    stopped(image_desk, training_spec(), 12)
    best = image_desk / "models/out/best.safetensors"
    best.unlink()
    run(image_desk, training_spec())
    assert best.is_file()


def unbounded(classes, size):
    """A network without any normalisation: too large a learning rate takes it beyond all numbers."""
    hidden = [nn.Linear(64, 64) for _ in range(4)]
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 64), *hidden, nn.Linear(64, classes))


def test_a_training_that_diverges_says_what_to_lower(image_desk):
    spec = training_spec(
        model={"architecture": "custom", "custom": f"{__name__}:unbounded"},
        training__optimizer={"name": "sgd", "learningRate": 1, "momentum": 0.99},
        training__precision="fp32",
    )
    with pytest.raises(InvalidConfigurationError, match=r"loss became nan .*lower .*learningRate \(now 1\)") as caught:
        run(image_desk, spec)
    assert caught.value.reason == "Diverged"
    assert not (image_desk / "models/out/_SUCCESS").exists()


def test_numbers_that_are_lost_are_noticed_within_ten_steps(image_desk, monkeypatch):
    """In the weights too, where no loss shows it."""
    whole, taken = Learner.step, []

    def step(self, group, moment):
        seen = whole(self, group, moment)
        taken.append(moment)
        if len(taken) == 3:
            with torch.no_grad():
                next(iter(self.network.parameters()))[0] = torch.nan
            seen = torch.nan_to_num(seen)
        return torch.where(seen.isfinite(), seen, torch.ones_like(seen))

    monkeypatch.setattr(Learner, "step", step)
    with pytest.raises(
        InvalidConfigurationError, match=r"weights features.* became infinite or NaN in epoch 1, step 10"
    ):
        run(image_desk, training_spec(training__batchSize=1))
    assert len(taken) == 10


class Steep(nn.Module):
    """Scores whose gradients overflow in half precision, unless the loss is scaled far less than at the beginning."""

    def __init__(self, classes, spoil=None):
        super().__init__()
        self.last, self.spoil = nn.Linear(3, classes), spoil

    def forward(self, pictures):
        scores = 512 * self.last(pictures.mean(dim=(2, 3)))
        if self.spoil and self.training and torch.is_grad_enabled():
            scores.register_hook(self.spoil)
        return scores


def steep(classes, _size):
    return Steep(classes)


def without_gradients(classes, _size):
    return Steep(classes, lambda gradient: gradient * torch.nan)


def in_fp16(build, **changes):
    return training_spec(
        model={"architecture": "custom", "custom": f"{__name__}:{build}"},
        training__precision="fp16",
        training__batchSize=1,
        training__optimizer={"name": "sgd", "learningRate": 1e-6},
        **changes,
    )


def test_gradients_that_overflow_while_fp16_finds_its_scale_are_no_divergence(image_desk, monkeypatch):
    whole, scales = Learner.step, []

    def step(self, group, moment):
        seen = whole(self, group, moment)
        scales.append(self.scaler.get_scale())
        return seen

    monkeypatch.setattr(Learner, "step", step)
    run(image_desk, in_fp16("steep", training__epochs=1))
    assert scales == sorted(scales, reverse=True)  # halved by each step that was skipped
    assert SMALLEST_SCALE <= scales[-1] < 128


def test_fp16_gradients_that_are_never_numbers_end_a_training_within_twenty_steps(image_desk):
    with pytest.raises(
        InvalidConfigurationError, match=r"gradients became infinite or NaN in every step in epoch 1, step 18"
    ) as caught:
        run(image_desk, in_fp16("without_gradients"))
    assert caught.value.reason == "Diverged"


def test_a_loss_that_is_no_number_ends_a_training_in_fp16_too(image_desk, monkeypatch):
    """Though the scaler skips those steps, so that the weights stay what they were."""
    whole, taken = Learner._forward, []

    def forward(self, pictures):
        taken.append(len(pictures))
        return whole(self, pictures) * (torch.nan if len(taken) == 3 else 1)

    monkeypatch.setattr(Learner, "_forward", forward)
    with pytest.raises(InvalidConfigurationError, match=r"the loss became nan in epoch 1") as caught:
        run(image_desk, in_fp16("steep"))
    assert caught.value.reason == "Diverged"
    assert len(taken) == 10
    assert not list((image_desk / "models/out").rglob("step-*"))


def test_what_holds_nothing_is_left_out_of_a_training(image_desk):
    pixels = np.zeros((64, 64, 3), np.uint8)
    paths = sorted((image_desk / "captures/train").rglob("*.png"))[:2]
    for path, level in zip(paths, (0, 200), strict=True):
        Image.fromarray(pixels + np.uint8(level)).save(path)
    run(image_desk, training_spec(training__epochs=2, dataset__errorThreshold=0))
    report = json.loads((image_desk / "models/out/report.json").read_text())
    names = [path.relative_to(image_desk / "captures/train").as_posix() for path in paths]
    assert report["dead"] == dict(zip(names, ["dead: all zero", "dead: constant"], strict=True))
    assert report["unreadable"] == {}


def test_scores_that_are_no_numbers_are_a_training_that_diverged(image_desk, monkeypatch):
    """Even where the training's loss was still a number."""

    def scores(self, pictures):
        found = torch.zeros(len(pictures), 3)
        found[0, 0] = torch.nan
        return found

    monkeypatch.setattr(Learner, "scores", scores)
    with pytest.raises(InvalidConfigurationError, match=r"lower optimizer.learningRate") as caught:
        run(image_desk, training_spec())
    assert caught.value.reason == "Diverged"


@pytest.mark.parametrize("shift", [-3.0, 7.0])
def test_a_constant_added_to_all_scores_changes_no_metric(image_desk, monkeypatch, shift):
    """Scores from 0 to 1 are no probabilities: what the network gives are logits, wherever they lie."""
    whole = Learner.scores
    found = []
    for number, constant in enumerate((0.0, shift)):
        monkeypatch.setattr(Learner, "scores", lambda *a, c=constant: whole(*a).sigmoid() + c)
        spec = training_spec(training__epochs=1, output__uri=f"pvc://models/out{number}")
        run(image_desk, spec, uid=f"u{number}")
        found += history(image_desk / f"models/out{number}")
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_early_stopping(image_desk):
    spec = training_spec(training__epochs=30, training__earlyStopping={"patience": 1, "metric": "valAccuracy"})
    run(image_desk, spec)
    rows = history(image_desk / "models/out")
    assert len(rows) < 30
    assert rows[-1]["valAccuracy"] <= max(row["valAccuracy"] for row in rows[:-1])
    assert json.loads((image_desk / "models/out/report.json").read_text())["stoppedEarly"] is True


def test_a_corrupt_image_is_passed_over_and_listed(desk):
    image_set(desk / "captures/train", count=20)
    (desk / "captures/train/beta/007.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    run(desk, training_spec(training__epochs=1))
    report = json.loads((desk / "models/out/report.json").read_text())
    assert list(report["unreadable"]) == ["beta/007.png"]
    assert "not a readable image" in report["unreadable"]["beta/007.png"]


def test_unreadable_files_of_the_same_name_in_both_folders_are_two(image_desk):
    image_set(image_desk / "captures/val", count=2, seed=1)
    for folder in ("train", "val"):
        (image_desk / f"captures/{folder}/alpha/000.png").write_bytes(f"no picture in {folder}".encode())
    spec = training_spec(training__epochs=1, dataset__errorThreshold=0.5)
    spec["dataset"]["validation"] = {"uri": "pvc://captures/val"}
    run(image_desk, spec)
    report = json.loads((image_desk / "models/out/report.json").read_text())
    assert {*report["unreadable"]} == {"alpha/000.png", "validation/alpha/000.png"}
    assert report["recordings"]["beta"] == {"train": 8, "validation": 2, "recognisedBy": {"number": 10}}


def test_too_many_corrupt_images_end_the_job(image_desk):
    for number in range(2):
        (image_desk / f"captures/train/beta/{number:03d}.png").write_bytes(b"no image")
    with pytest.raises(
        InputError, match=r"2 of 24 files cannot be read, more than 5%: beta/00\d.png: not a readable"
    ) as caught:
        run(image_desk, training_spec(training__epochs=1))
    assert caught.value.reason == "TooManyUnreadable"


def test_recordings(desk):
    tone_set(desk / "captures/train", count=10)
    optimizer = {"learningRate": 0.0003}
    spec = training_spec(
        dataset__iq=IQ, training__epochs=5, training__optimizer=optimizer, model__architecture="resnet18"
    )
    run(desk, spec)
    assert history(desk / "models/out")[-1]["bestValAccuracy"] >= 0.9


def test_a_network_goes_on_from_a_weights_file(image_desk):
    run(image_desk, training_spec(training__epochs=2))
    spec = training_spec(
        training__epochs=1, model__weights="pvc://models/out/last.safetensors", output__uri="pvc://models/more"
    )
    run(image_desk, spec, uid="u2")
    first, more = history(image_desk / "models/out"), history(image_desk / "models/more")
    assert more[0]["trainLoss"] < first[0]["trainLoss"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("number", "at"), [(13, "epoch 0, step [1-3] "), (20, "epoch 0, step 5 ")], ids=["train", "validate"]
)
def test_a_stop_does_not_wait_for_a_reader_that_hangs(image_desk, monkeypatch, workers, number, at):
    spec, stop = training_spec(training__workers=workers), StopSignal()
    with hanging(monkeypatch, number, stop), pytest.raises(StoppedError, match=at):
        run(image_desk, spec, stop=stop)
    run(image_desk, spec)
    run(image_desk, training_spec(output__uri="pvc://models/whole"), uid="u2")
    assert same_weights(image_desk / "models/out/last.safetensors", image_desk / "models/whole/last.safetensors")


@pytest.mark.parametrize(
    ("recordings", "fft_size", "found"),
    [
        (True, 128, None),
        (True, 256, ["fftSize 128 in the weights, 256 in the job"]),
        (
            False,
            128,
            [
                "format image in the weights, iq here",
                "mean (0.485, 0.456, 0.406) in the weights, (0.5, 0.5, 0.5) here",
                "std (0.229, 0.224, 0.225) in the weights, (0.25, 0.25, 0.25) here",
            ],
        ),
    ],
)
def test_start_weights_of_other_pictures_are_said(desk, recordings, fft_size, found):
    weights_file(desk / "models/start.safetensors", recordings=recordings)
    tone_set(desk / "captures/train", count=2)
    spec = training_spec(
        model__weights="pvc://models/start.safetensors",
        dataset__iq={**IQ, "fftSize": fft_size},
        dataset__validation__fraction=0.5,
        training__epochs=1,
    )
    ended = desk.pod("TrainingJob", spec)
    assert ended.code == 0, ended.output
    said = [event["differences"] for event in ended.events if "different preprocessing" in event["event"]]
    assert said == ([] if found is None else [found])


@pytest.mark.parametrize("field", ["train", "validation"])
def test_an_output_in_the_data_is_refused(desk, field):
    """Else a second start would take its folder for a class."""
    image_set(desk / "captures/train", count=2)
    image_set(desk / "captures/val", count=2)
    place = {"train": "train", "validation": "val"}[field]
    spec = training_spec(dataset__validation={"uri": "pvc://captures/val"}, output__uri=f"pvc://captures/{place}/out")
    ended = desk.pod("TrainingJob", spec)
    assert ended.code == 2
    assert f"is inside dataset.{field}.uri pvc://captures/{place}" in ended.termination["message"]
    assert not (desk / f"captures/{place}/out").exists()


def test_a_frame_that_cannot_be_read_is_one_of_many_also_after_a_stop(desk):
    root = tone_set(desk / "captures/train", count=4, frames=10)
    for name in ("alpha/000.iq", "beta/001.iq", "gamma/002.iq"):
        samples = np.fromfile(root / name, "<f4")
        samples[0] = np.nan
        samples.tofile(root / name)
    spec = training_spec(dataset__iq=IQ, training__epochs=2, dataset__errorThreshold=0.03)
    stopped(desk, spec, 1)
    run(desk, spec)
    found = json.loads((desk / "models/out/report.json").read_bytes())["unreadable"]
    assert found.keys() == {f"{name}, frame 0" for name in ("alpha/000.iq", "beta/001.iq", "gamma/002.iq")}
    with pytest.raises(InputError, match=r"3 of 120 frames cannot be read, more than 2%"):
        run(desk, {**spec, "dataset": {**spec["dataset"], "errorThreshold": 0.02}}, uid="u2")


def test_best_weights_that_another_job_left_are_not_taken_for_ones_own(image_desk):
    stopped(image_desk, training_spec(), 10)
    run(image_desk, training_spec(training__epochs=1), uid="other")
    (image_desk / "models/out/_SUCCESS").unlink()
    run(image_desk, training_spec())
    best = json.loads((image_desk / "models/out/report.json").read_bytes())["best"]
    card = weights.read_card(image_desk / "models/out/best.safetensors")
    assert (card.job, card.epoch) == ("u1", best["epoch"])


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "vit_b_32"])
def test_weights_of_another_number_of_classes_get_a_fresh_head(desk, architecture):
    image_set(desk / "captures/train", count=2)
    spec = training_spec(
        model={"architecture": architecture, "weights": "pvc://models/start.safetensors"},
        dataset__validation__fraction=0.5,
        training__epochs=1,
        training__optimizer__learningRate=1e-9,
    )
    torch.manual_seed(5)
    network = architectures.build(architecture, 2, 64)
    card = weights.Card(architecture, ["one", "two"], samples.Preprocessing("image", 64))
    weights.save(desk / "models/start.safetensors", network.state_dict(), card)
    ended = desk.pod("TrainingJob", spec)
    assert ended.code == 0, ended.output
    assert [(e["weights"], e["data"]) for e in ended.events if "reinitialising the head" in e["event"]] == [(2, 3)]
    found = load_file(desk / "models/out/last.safetensors")
    for name, value in network.named_parameters():
        if found[name].shape == value.shape:
            torch.testing.assert_close(found[name], value.detach(), rtol=0, atol=1e-6)
        else:
            assert found[name].shape[0] == 3


def test_a_training_starts_from_weights_of_the_reference_service(desk):
    """Everything but the head with its 512 hidden units, which is replaced."""
    image_set(desk / "captures/train", count=4)
    network = architectures.build("mobilenet_v3_small", 3, 64, head=architectures.REFERENCE_HEAD)
    torch.save({"state_dict": network.state_dict()}, desk / "models/old.pth")
    spec = training_spec(
        model__weights="pvc://models/old.pth", training__epochs=1, training__optimizer={"learningRate": 1e-9}
    )
    ended = desk.pod("TrainingJob", spec)
    assert ended.code == 0, ended.output
    found = load_file(desk / "models/out/last.safetensors")
    kept = {name: value for name, value in network.named_parameters() if name.startswith("features.")}
    assert kept
    for name, value in kept.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=0, atol=1e-6)
    assert found["classifier.0.weight"].shape == (1024, 576)


def test_weights_of_as_many_other_classes_are_refused(desk):
    weights_file(desk / "models/start.safetensors", classes=("alpha", "beta", "delta"))
    image_set(desk / "captures/train", count=2)
    ended = desk.pod("TrainingJob", training_spec(model__weights="pvc://models/start.safetensors"))
    assert (ended.code, ended.termination["reason"]) == (2, "ClassMismatch")
    assert "not in the weights: gamma; not in the data: delta" in ended.termination["message"]
