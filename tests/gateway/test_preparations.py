"""Preparations of data become Jobs of the trainer's image, and Jobs are shown as tasks."""

import json

import msgspec
import pytest

from rfuav_gateway.tasks import preparations
from rfuav_gateway.tasks.bodies import AugmentStart, CropStart, SplitStart
from rfuav_gateway.tasks.preparations import JobObject, Terms
from rfuav_gateway.tasks.roots import Places
from rfuav_gateway.tasks.words import CHINESE, ENGLISH, RefusedError

TERMS = Terms(
    places=Places({"/data": "pvc://captures", "/models": "pvc://models/all", "/cold": "s3://bucket"}, "/data"),
    image="rfuav-trainer:1",
)
SPLIT = {"input_path": "all", "output_path": "/models/parts"}


def made(body, terms=TERMS):
    return preparations.manifest(body, namespace="team", task_id="my split", terms=terms, created_by="eve")


def args(body):
    return made(body)["spec"]["template"]["spec"]["containers"][0]["args"]


def test_a_split_is_a_job_of_the_trainer_that_mounts_its_claims():
    job = made(SplitStart(**SPLIT, description="day 1"))
    assert (job["apiVersion"], job["kind"], job["metadata"]["namespace"]) == ("batch/v1", "Job", "team")
    assert job["metadata"]["name"].startswith("my-split-")
    assert job["metadata"]["labels"] == {"rfuav.io/preparation": "split"}
    annotations = job["metadata"]["annotations"]
    assert len(annotations.pop("rfuav.io/task-digest")) == 64
    assert annotations == {
        "rfuav.io/task-id": "my split",
        "rfuav.io/task-description": "day 1",
        "rfuav.io/task-input": "all",
        "rfuav.io/task-output": "/models/parts",
        "rfuav.io/created-by": "eve",
    }
    assert (job["spec"]["backoffLimit"], job["spec"]["ttlSecondsAfterFinished"]) == (0, 604_800)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (container["name"], container["image"]) == ("trainer", "rfuav-trainer:1")
    assert container["args"] == [
        *("prepare", "split", "/mnt/rfuav/captures/all", "/mnt/rfuav/models/all/parts", "--overwrite"),
        *("--validation", "0.2", "--test", "0", "--validation-folder", "valid"),
    ]
    assert container["resources"] == {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"memory": "4Gi"}}
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert (mounts["/mnt/rfuav/captures"], mounts["/mnt/rfuav/models"]) == (True, False)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["restartPolicy"] == "Never"
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in container["env"]


@pytest.mark.parametrize(
    ("ratios", "validation", "test"),
    [({}, "0.2", "0"), ({"train_ratio": 0.7, "val_ratio": 0.2}, "0.2", "0.1"), ({"val_ratio": 0.2}, "0.2", "0")],
)
def test_what_training_and_validation_leave_is_for_tests(ratios, validation, test):
    words = args(SplitStart(**SPLIT, **ratios))
    assert words[words.index("--validation") + 1] == validation
    assert words[words.index("--test") + 1] == test


def test_an_augmentation_goes_beside_its_data_with_all_methods():
    words = args(AugmentStart(dataset_path="/data/sets/one/"))
    assert words[1:5] == [
        "augment",
        "/mnt/rfuav/captures/sets/one",
        "/mnt/rfuav/captures/sets/dataset_aug",
        "--overwrite",
    ]
    assert [words[i + 1] for i, word in enumerate(words) if word == "--change"] == list(preparations.METHODS)
    assert args(AugmentStart(dataset_path="sets/one"))[3] == "/mnt/rfuav/captures/sets/dataset_aug"
    assert args(AugmentStart(dataset_path="one", output_path="out", methods=["CLAHE"]))[3:] == [
        *("/mnt/rfuav/captures/out", "--overwrite", "--change", "CLAHE")
    ]


def test_a_crop_has_its_box():
    body = CropStart(input_path="a.png", output_path="out", x=1, y=2, width=3, height=4)
    assert args(body)[1:] == [
        *("crop", "/mnt/rfuav/captures/a.png", "/mnt/rfuav/captures/out", "--overwrite", "--box", "1,2,3,4")
    ]


def test_kubernetes_puts_no_variables_into_paths():
    words = args(SplitStart(input_path="a$(HOME)$", output_path="out"))
    assert words[2] == "/mnt/rfuav/captures/a$$(HOME)$$"


def test_resources_and_users_are_those_of_the_settings():
    terms = Terms(
        places=TERMS.places,
        image="x",
        resources={"cpu": 2, "memory": "8Gi", "cpuLimit": "3", "gpuMemory": "12Gi"},
        keep_seconds=60,
        cluster_assigns_users=True,
    )
    job = made(SplitStart(**SPLIT), terms)
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {
        "requests": {"cpu": "2", "memory": "8Gi"},
        "limits": {"memory": "8Gi", "cpu": "3"},
    }
    assert "runAsUser" not in pod["securityContext"]
    assert job["spec"]["ttlSecondsAfterFinished"] == 60


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (SplitStart(**SPLIT | {"input_path": "/etc/x"}), "input_path", "/etc/x is outside of"),
        (SplitStart(**SPLIT | {"input_path": "/cold/x"}), "input_path", "is not below a folder of a volume"),
        (SplitStart(**SPLIT | {"output_path": "/data"}), "output_path", "is not below a folder of a volume"),
        (SplitStart(**SPLIT | {"output_path": "pvc://a/../b"}), "output_path", "is not below a folder of a volume"),
        (SplitStart(**SPLIT | {"output_path": "pvc://A_b/c"}), "output_path", "is not below a folder of a volume"),
        (
            SplitStart(**SPLIT, train_ratio=0.8, val_ratio=0.3),
            "val_ratio",
            "train_ratio leaves 0.2 for the other parts",
        ),
        (AugmentStart(dataset_path="x", methods=["Blur"]), "methods", "write one or more of AdvancedBlur, CLAHE"),
        (AugmentStart(dataset_path="x", methods=[]), "methods", "write one or more of"),
    ],
)
def test_what_cannot_be_prepared_is_refused(body, field, words):
    with pytest.raises(RefusedError) as caught:
        made(body)
    (problem,) = caught.value.problems
    assert problem.field == field
    assert words in problem.what.text(ENGLISH)
    assert problem.what.text(CHINESE)


def held(status, **annotations):
    body = made(SplitStart(**SPLIT))
    body["metadata"] |= {"uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-31T12:00:00Z"}
    body["metadata"]["annotations"] |= {f"rfuav.io/{key}": text for key, text in annotations.items()}
    return preparations.read(msgspec.convert(body | {"status": status}, JobObject))


def condition(kind, **more):
    return {"type": kind, "status": "True", "lastTransitionTime": "2026-01-31T12:05:00Z", **more}


@pytest.mark.parametrize(
    ("status", "annotations", "word"),
    [
        ({}, {}, "pending"),
        ({"active": 1, "ready": 0}, {}, "queued"),
        ({"active": 1, "ready": 1}, {}, "running"),
        ({"conditions": [condition("Complete")]}, {}, "completed"),
        ({"conditions": [condition("Failed", reason="BackoffLimitExceeded", message="x")]}, {}, "failed"),
        ({"conditions": [{"type": "Failed", "status": "False"}], "active": 1}, {}, "queued"),
        ({"active": 1, "ready": 1}, {"cancelled-by": "eve"}, "cancelled"),
        ({"conditions": [condition("Failed", reason="DeadlineExceeded")]}, {"cancelled-by": "eve"}, "cancelled"),
        ({"conditions": [condition("Complete")]}, {"cancelled-by": "eve"}, "completed"),
    ],
)
def test_the_status_word_of_a_job(status, annotations, word):
    one = held(status, **annotations)
    assert (one.status, one.type, one.task_id) == (word, "dataset_split", "my split")
    shown = preparations.view(one, ENGLISH)
    assert (shown.input_path, shown.output_path, shown.progress) == (
        "all",
        "/models/parts",
        100.0 * (word == "completed"),
    )
    assert (shown.message == "Cancelled by eve") == (word == "cancelled")


def test_times_are_without_a_zone_and_the_newest_counts():
    shown = preparations.view(held({"conditions": [condition("Complete")]}), ENGLISH)
    assert (shown.created_at.isoformat(), shown.updated_at.isoformat()) == (
        "2026-01-31T12:00:00",
        "2026-01-31T12:05:00",
    )


def test_numbers_and_reasons_come_from_what_the_trainer_left():
    own = {"processed": 15, "total": 15, "files": 15, "failed": 1, "parts": {"train": 12, "valid": 3}, "sequence": 1}
    left = preparations.report(json.dumps({"reason": "Completed", "message": "", "trainerStatus": {"rfuav": own}}))
    shown = preparations.view(held({"conditions": [condition("Complete")]}), ENGLISH, left)
    assert shown.stats == {"train": 12, "valid": 3, "total": 15, "unreadable": 1}
    left = preparations.report(json.dumps({"reason": "InputMissing", "message": "no such folder", "trainerStatus": {}}))
    failed = held({"conditions": [condition("Failed", reason="BackoffLimitExceeded", message="x")]})
    assert preparations.view(failed, ENGLISH, left).message == "InputMissing: no such folder"
    assert preparations.view(failed, ENGLISH).message == "BackoffLimitExceeded: x"


@pytest.mark.parametrize("text", ["", "{", "[]", "killed", '{"trainerStatus": 3}', "[" * 4096])
def test_a_termination_message_of_something_else_says_nothing(text):
    assert preparations.report(text) is None
