"""Jobs from flags: what is written, and that each mistake names its flag."""

import pytest

from rfuav_cli.failures import Failure
from rfuav_cli.manifests import fields_of, manifest, named
from rfuav_crds.load import load_job

TRAIN = {"data": "pvc://captures/train", "to": "pvc://models/a", "validation": "0.2", "arch": "resnet18"}


def test_a_training_holds_what_was_written_and_nothing_else():
    found = manifest(
        "TrainingJob", "a", TRAIN | {"epochs": 3, "batch_size": "16", "gpus": None}, ["training.mixup=0.2"]
    )
    assert found == {
        "apiVersion": "rfuav.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "a"},
        "spec": {
            "dataset": {"train": {"uri": "pvc://captures/train"}, "validation": {"fraction": 0.2}},
            "output": {"uri": "pvc://models/a"},
            "model": {"architecture": "resnet18"},
            "training": {"epochs": 3, "batchSize": 16, "mixup": 0.2},
        },
    }
    load_job(found)


def test_validation_may_be_other_data():
    found = manifest("TrainingJob", "a", TRAIN | {"validation": "pvc://captures/val"}, ())
    assert found["spec"]["dataset"]["validation"] == {"uri": "pvc://captures/val"}


def test_an_inference():
    values = {"data": "pvc://captures/flight", "to": "pvc://results/f", "from_": "a", "batch_size": "auto", "shards": 4}
    spec = manifest("InferenceJob", "f", values, ())["spec"]
    assert spec["model"] == {"fromTrainingJob": "a"}
    assert (spec["batchSize"], spec["shards"]) == ("auto", 4)


@pytest.mark.parametrize(
    ("kind", "values", "changes", "words"),
    [
        ("TrainingJob", TRAIN | {"epochs": 0}, (), "--epochs: input should be greater than or equal to 1"),
        ("TrainingJob", TRAIN | {"batch_size": "many"}, (), "--batch-size: write auto or a whole number"),
        ("TrainingJob", TRAIN | {"data": None}, (), "--data: spec.dataset.train: is required"),
        ("TrainingJob", TRAIN | {"to": None}, (), "--to: spec.output: is required"),
        ("TrainingJob", TRAIN, ("epochs=3",), "spec.epochs: unknown field"),
        ("TrainingJob", TRAIN, ("epochs",), "--set epochs: write PATH=VALUE"),
        ("InferenceJob", {"data": "pvc://c/f", "to": "pvc://r/f"}, (), "--from or --weights: spec.model: is required"),
        (
            "InferenceJob",
            {"data": "pvc://c/f", "to": "pvc://r/f", "from_": "Not_a_name"},
            (),
            "--from: write the name of",
        ),
    ],
)
def test_a_mistake_names_its_flag(kind, values, changes, words):
    with pytest.raises(Failure, match=words.replace(".", r"\.").split("(")[0]) as failure:
        manifest(kind, "a", values, changes)
    assert failure.value.code == 2


def test_several_mistakes_have_a_line_each():
    with pytest.raises(Failure) as failure:
        manifest("TrainingJob", "A_b", TRAIN | {"epochs": 0}, ())
    assert [line.split(":")[0].strip() for line in str(failure.value).splitlines()] == [
        "the job has mistakes", "NAME", "--epochs",
    ]  # fmt: skip


def test_words_of_the_api_server_name_flags_too():
    text = 'spec.output.uri: Invalid value: "x": write pvc://CLAIM/path'
    assert named(text, fields_of("TrainingJob")) == '--to: Invalid value: "x": write pvc://CLAIM/path'
