"""Trainings that are stopped or killed end with the bits of one that nothing interrupts, on a volume and in a store."""

import signal

import pytest
import torch
from safetensors.torch import load
from trainer.runs import Watcher, die_at, die_in, run, same_weights, stopped
from trainer.stores import Volumes, files_in
from trainer.trainer_kit import IQ, Desk, image_set, in_child, tone_set, training_spec

ALL = {
    "epochs": 3,
    "batchSize": 3,
    "gradientAccumulation": 2,
    "clipNorm": 1.0,
    "optimizer": {"name": "sgd", "learningRate": 0.01, "weightDecay": 0.0001},
    "schedule": {"name": "cosine", "warmupEpochs": 1},
    "labelSmoothing": 0.1,
    "classWeights": "balanced",
    "mixup": 0.4,
    "emaDecay": 0.9,
    "augment": [
        "AdvancedBlur",
        "CLAHE",
        "ColorJitter",
        "GaussNoise",
        "ISONoise",
        "Sharpen",
        "FrequencyMask",
        "TimeMask",
    ],
    "precision": "fp16",
    "seed": 3,
}  # 18 pictures: three steps an epoch
RECORDINGS = {
    **ALL,
    "optimizer": {"name": "adamw", "learningRate": 0.001},
    "precision": "bf16",
    "augment": ["AddNoise", "Fading", "FrequencyShift", "TimeCrop", "TimeMask"],
}
CHANGES = {  # of a small training
    "plain": {},  # five steps an epoch
    "all": {"training": ALL},
    "recordings": {"training": RECORDINGS, "dataset__iq": IQ},
}


def spec_of(recipe, uri="pvc://models/out", **changes):
    return training_spec(**CHANGES[recipe], output__uri=uri, **changes)


def fill(desk, recipe):
    if recipe == "recordings":
        tone_set(desk / "captures/train", count=4, frames=2)  # 18 of 24 frames to train on
    else:
        image_set(desk / "captures/train")
    return desk


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The outputs of trainings that nothing interrupts, by recipe."""
    torch.set_num_threads(1)
    outputs = {}
    for recipe in CHANGES:
        desk = fill(Desk(tmp_path_factory.mktemp(recipe)), recipe)
        run(desk, spec_of(recipe))
        outputs[recipe] = desk / "models/out"
    return outputs


def same_bits(place, other):
    """Whether weights and history are those of the other training."""
    for name in ("best.safetensors", "last.safetensors"):
        ours, theirs = load(place.get(f"models/out/{name}")), load((other / name).read_bytes())
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert place.get("models/out/history.jsonl") == (other / "history.jsonl").read_bytes()


def same_files(place, other, *, but=()):
    """Whether the output has the files of the other training and nothing else; those of the folders `but` aside."""
    aside = ("tensorboard", *but)  # the name of its file has the time
    ours, theirs = place.names("models/out"), files_in(other)
    assert len([name for name in ours if name.startswith("tensorboard/")]) == 1
    assert [name for name in ours if not name.startswith(aside)] == [n for n in theirs if not n.startswith(aside)]


@pytest.mark.parametrize(
    ("place", "recipe", "at"),
    [
        ("pvc", "plain", 7),  # inside an epoch
        ("pvc", "plain", 15),  # the last step
        ("pvc", "all", 1),  # the first step
        ("pvc", "all", 3),  # the end of an epoch
        ("pvc", "all", 8),
        ("pvc", "recordings", 5),
        ("s3", "plain", 7),
    ],
    indirect=["place"],
)
def test_stopped_and_resumed_it_ends_with_the_same_bits(desk, place, undisturbed, recipe, at):
    spec = spec_of(recipe, place.uri("models/out"))
    stopped(fill(desk, recipe), spec, at)
    saved = place.names("models/out/checkpoints/u1")
    assert [name for name in saved if name.startswith(f"step-{at:09d}-") and name.endswith("json")]
    watcher = Watcher()
    run(desk, spec, watcher=watcher)
    epoch, step = watcher.first_step
    per_epoch = watcher.reports[0]["rfuav"]["totalSteps"]
    assert epoch * per_epoch + step > at or at >= 15 or step == 0
    same_bits(place, undisturbed[recipe])
    same_files(place, undisturbed[recipe], but=["checkpoints"])


@pytest.mark.parametrize("step", [2, 8])
def test_killed_it_loses_at_most_one_interval_and_ends_with_the_same_bits(desk, undisturbed, step):
    assert in_child(die_at, fill(desk, "all").environment("TrainingJob", spec_of("all")), step) == -signal.SIGKILL
    watcher = Watcher()
    run(desk, spec_of("all"), watcher=watcher)
    first = watcher.first_step
    assert step - (3 * first[0] + first[1] - 1) < 3  # steps taken again; a checkpoint every epoch of three
    same_bits(Volumes(desk.root), undisturbed["all"])


@pytest.mark.parametrize(
    ("at", "after"),
    [(4, False), (7, False), (7, True), (8, True), (13, False), (16, True), (19, False), (23, True)],
)
def test_killed_around_any_change_of_the_store_it_ends_with_the_same_bits(bucket, image_desk, undisturbed, at, after):
    spec = spec_of("plain", bucket.uri("models/out"))
    environment = image_desk.environment("TrainingJob", spec)
    assert in_child(die_in, environment, "storage.uploads:Remote._ask", at, after) == -signal.SIGKILL
    run(image_desk, spec)
    same_bits(bucket, undisturbed["plain"])
    same_files(bucket, undisturbed["plain"])


@pytest.mark.parametrize("spoilt", ["cut pt", "flipped pt", "cut json"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(desk, place, undisturbed, capsys, spoilt):
    spec = spec_of("all", place.uri("models/out"))
    stopped(fill(desk, "all"), spec, 8)
    how, kind = spoilt.split()
    newest = f"models/out/checkpoints/u1/step-000000008-epoch-00002.{kind}"
    content = bytearray(place.get(newest))
    content[len(content) // 2] ^= 1
    place.put(newest, bytes(content) if how == "flipped" else bytes(content[:-100]))
    watcher = Watcher()
    run(desk, spec, watcher=watcher)
    assert "skipping damaged checkpoint" in capsys.readouterr().out
    assert watcher.first_step == (2, 1)  # after that of the second epoch's end
    same_bits(place, undisturbed["all"])


def test_a_finished_training_is_not_done_again_and_its_files_are_named_where_they_are(place, image_desk, undisturbed):
    spec = spec_of("plain", place.uri("models/out"))
    watcher, again = Watcher(), Watcher()
    mark = run(image_desk, spec, watcher=watcher)
    same_bits(place, undisturbed["plain"])
    same_files(place, undisturbed["plain"])
    assert mark["outputs"]["bestWeights"] == place.uri("models/out/best.safetensors")
    uri = watcher.last["rfuav"]["checkpoint"]["uri"]
    assert uri.removeprefix(place.uri("models/out/")) in place.names("models/out")
    before = place.names("models/out")
    assert run(image_desk, spec, watcher=again) == mark
    assert place.names("models/out") == before
    assert [report["progressPercentage"] for report in again.reports] == [100]
    assert again.last["rfuav"]["outputs"] == mark["outputs"]


def test_reader_threads_do_not_change_the_result_and_seed_and_recipe_do(image_desk, undisturbed):
    out = image_desk / "models/out"
    run(image_desk, spec_of("plain", training__workers=3))
    assert same_weights(out / "last.safetensors", undisturbed["plain"] / "last.safetensors")
    for number, changes in enumerate(({"training__seed": 4}, {"training": {**ALL, "mixup": 0.5}})):
        run(image_desk, training_spec(**changes, output__uri=f"pvc://models/{number}"), uid="u2")
        for other in undisturbed.values():
            assert not same_weights(image_desk / f"models/{number}/last.safetensors", other / "last.safetensors")
