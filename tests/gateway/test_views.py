"""Jobs as tasks: what clients of the model service see."""

import json
from datetime import UTC, datetime

import msgspec
import pytest

from rfuav_crds import METRICS
from rfuav_crds.bounds import EARLIEST, LATEST
from rfuav_gateway.tasks import bodies, jobs, views
from rfuav_gateway.tasks.words import CHINESE, ENGLISH, said
from rfuav_kube.objects import leniently

CREATED = "2026-01-31T12:00:00Z"


def stored(*, annotations=None, spec=None, status=None, **meta):
    """A job as the API server has it."""
    return {
        "apiVersion": "rfuav.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {
            "name": "x",
            "namespace": "team-a",
            "uid": "u-1",
            "resourceVersion": "7",
            "creationTimestamp": CREATED,
            "annotations": {"rfuav.io/task-id": "my task", "rfuav.io/task-device": "cuda:1"}
            if annotations is None
            else annotations,
        }
        | meta,
        "spec": {"training": {"epochs": 10}, "priorityClassName": "rfuav-training-p5"} | (spec or {}),
    } | ({} if status is None else {"status": status})


def job(kind="training", **parts):
    read, unreadable = leniently(msgspec.json.encode(stored(**parts)), jobs.JobObject)
    return jobs.job(kind, read, unreadable)


def shown(kind="training", phrases=ENGLISH, **parts):
    return json.loads(views.encode(views.view(job(kind, **parts), phrases)))


RUNNING = {
    "phase": "Running",
    "message": "pod x-1 runs on gpu-03",
    "progress": {"percent": 42, "epoch": 4, "totalEpochs": 10, "updatedAt": "2026-01-31T12:34:56Z"},
    "metrics": {
        "trainLoss": 0.5,
        "trainAccuracy": 0.9123,
        "valLoss": 0.75,
        "valAccuracy": 0.875,
        "bestValAccuracy": 1,
        "macroF1": 0.81,
        "microF1": 0.82,
        "meanAveragePrecision": 0.83,
        "top1": 0.875,
        "top3": 0.95,
        "top5": 0.9999,
        "macroPrecision": 0.84,
        "macroRecall": 0.85,
        "microPrecision": 0.86,
        "microRecall": 0.87,
        "learningRate": 0.0001,
    },
    "startedAt": "2026-01-31T12:01:00Z",
}


def test_every_field_of_a_running_training():
    assert shown(status=RUNNING) == {
        "task_id": "my task",
        "task_type": "training",
        "status": "running",
        "message": "pod x-1 runs on gpu-03",
        "progress": 42.0,
        "device": "cuda:1",
        "priority": 5,
        "created_at": "2026-01-31T12:00:00",
        "updated_at": "2026-01-31T12:34:56",
        "current_epoch": 4,
        "total_epochs": 10,
        "latest_metrics": {
            "epoch": 4,
            "total_epochs": 10,
            "train_loss": 0.5,
            "train_acc": 91.23,
            "val_loss": 0.75,
            "val_acc": 87.5,
            "macro_f1": 0.81,
            "micro_f1": 0.82,
            "mAP": 0.83,
            "top1_acc": 87.5,
            "top3_acc": 95.0,
            "top5_acc": 99.99,
            "macro_precision": 0.84,
            "macro_recall": 0.85,
            "micro_precision": 0.86,
            "micro_recall": 0.87,
            "precision": 0.84,
            "recall": 0.85,
            "learning_rate": 0.0001,
            "best_acc": 100.0,
        },
    }


def test_what_is_not_known_is_null():
    task = shown(status={"phase": "Running", "message": "runs", "metrics": {"trainLoss": 0.5}}, spec={"training": {}})
    assert task["latest_metrics"] == dict.fromkeys(bodies.Metrics.model_fields) | {"train_loss": 0.5}
    assert (task["current_epoch"], task["total_epochs"], task["progress"]) == (None, None, 0.0)
    assert shown()["latest_metrics"] is None


def test_an_inference_has_no_epochs():
    task = shown(
        "inference",
        spec={"priorityClassName": "rfuav-inference-p3", "resources": {"gpus": 0}},
        annotations={},
        status={"phase": "Running", "message": "runs", "progress": {"percent": 5, "processed": 5, "total": 100}},
    )
    assert task == {
        "task_id": "team-a/x",
        "task_type": "inference",
        "status": "running",
        "message": "runs",
        "progress": 5.0,
        "device": "cpu",
        "priority": 3,
        "created_at": "2026-01-31T12:00:00",
        "updated_at": "2026-01-31T12:00:00",
        "current_epoch": None,
        "total_epochs": None,
        "latest_metrics": None,
    }


QUEUE = {"position": 7, "of": 12, "estimatedStart": "2026-01-31T15:20:59+01:00"}
QUEUED = {"phase": "Queued", "message": "team-a uses 8 of 8 GPUs", "queue": QUEUE}


@pytest.mark.parametrize(
    ("status", "spec", "annotations", "word", "english", "chinese"),
    [
        (None, {}, {}, "pending", "Waits for the operator", "等待 Operator 处理"),
        ({"phase": "Queued"}, {}, {}, "queued", "Waits for the operator", "等待 Operator 处理"),
        (
            QUEUED, {}, {}, "queued",
            "Place 7 of 12: team-a uses 8 of 8 GPUs; start expected at 2026-01-31 14:20 UTC",
            "排队第 7 位，共 12 个: team-a uses 8 of 8 GPUs; 预计 2026-01-31 14:20 UTC 开始",
        ),
        ({"phase": "Queued", "queue": {"position": 1, "of": 1}}, {}, {}, "queued", "Place 1 of 1", "排队第 1 位，共 1 个"),
        (
            {"phase": "Admitted", "message": "pod x-1: pulling"}, {}, {}, "queued",
            "Its pods are being started: pod x-1: pulling", "正在启动其 Pod: pod x-1: pulling",
        ),
        ({"phase": "Running", "message": "runs"}, {}, {}, "running", "runs", "runs"),
        ({"phase": "Suspended", "message": "m"}, {"suspend": True}, {}, "queued", ENGLISH.suspended, CHINESE.suspended),
        ({"phase": "Succeeded", "message": "done"}, {}, {}, "completed", "done", "done"),
        ({"phase": "Succeeded", "message": "done"}, {"cancel": True}, {}, "completed", "done", "done"),
        (
            {"phase": "Failed", "reason": "OutOfMemory", "message": "raise memory"}, {}, {}, "failed",
            "OutOfMemory: raise memory", "OutOfMemory：raise memory",
        ),
        ({"phase": "Cancelled", "message": "m"}, {"cancel": True}, {}, "cancelled", "Cancelled", "已取消"),
        (
            {"phase": "Cancelled", "message": "m"}, {"cancel": True}, {"rfuav.io/cancelled-by": "eve"}, "cancelled",
            "Cancelled by eve", "已被 eve 取消",
        ),
        ({"phase": "Running", "message": "m"}, {"cancel": True}, {}, "cancelled", ENGLISH.cancelling, CHINESE.cancelling),
        (
            QUEUED, {"cancel": True}, {"rfuav.io/cancelled-by": "eve"}, "cancelled",
            ENGLISH.cancelling_by.format(user="eve"), CHINESE.cancelling_by.format(user="eve"),
        ),
        ({"phase": "Elsewhere", "message": "m"}, {}, {}, "pending", "Waits for the operator", "等待 Operator 处理"),
    ],
)  # fmt: skip
def test_the_story(status, spec, annotations, word, english, chinese):  # noqa: PLR0917  a row of the table
    parts = {"status": status, "spec": spec, "annotations": annotations}
    assert [shown(**parts)[name] for name in ("status", "message")] == [word, english]
    assert shown(phrases=CHINESE, **parts)["message"] == chinese
    assert views.ended(job(**parts)) == (word in ("completed", "failed", "cancelled"))


def test_progress_of_what_is_done_is_whole():
    assert shown(status={"phase": "Succeeded", "message": "done", "progress": {"percent": 99}})["progress"] == 100.0


def test_the_time_of_the_last_change():
    times = {
        "queuedAt": "2026-01-31T12:00:01Z",
        "admittedAt": "2026-01-31T12:00:02Z",
        "startedAt": "2026-01-31T12:00:03Z",
        "finishedAt": "2026-01-31T12:00:05Z",
    }
    condition = {"type": "Admitted", "status": "True", "reason": "R"}
    for last, expected in (("2026-01-31T12:00:04Z", "05"), ("2026-01-31T14:00:06+02:00", "06")):
        status = {
            "phase": "Succeeded",
            "message": "m",
            "conditions": [condition | {"lastTransitionTime": last}],
        } | times
        assert shown(status=status)["updated_at"] == f"2026-01-31T12:00:{expected}"


def test_a_message_is_short_in_lists():
    long = job(status={"phase": "Running", "message": "x" * 30_000})
    assert views.view(long, ENGLISH).message == "x" * 30_000
    assert views.view(long, ENGLISH, brief=True).message == "x" * 197 + "..."
    assert views.view(job(status={"phase": "Running", "message": "x" * 200}), ENGLISH, brief=True).message == "x" * 200


def test_notes_are_added_to_the_message():
    notes = [said("device_is_chosen", device="cuda:1"), said("always_shuffled")]
    text = views.view(job(), ENGLISH, notes=notes).message
    assert text == f"Waits for the operator; device cuda:1: the cluster chooses the GPU; {ENGLISH.always_shuffled}"


def test_priorities_of_other_classes_are_null():
    assert [shown(spec={"priorityClassName": name})["priority"] for name in ("", "drones-urgent")] == [None, None]


@pytest.mark.parametrize(
    ("struct", "model"),
    [(views.Task, bodies.Task), (views.Metrics, bodies.Metrics), (views.TaskList, bodies.TaskList)],
)
def test_struct_and_body_have_the_same_fields(struct, model):
    assert list(model.model_fields) == list(struct.__struct_fields__)


def examples():
    yield shown(status=RUNNING)
    yield shown()
    yield shown(creationTimestamp="2026-01-31T12:00:00.5Z", status=QUEUED)


@pytest.mark.parametrize("task", list(examples()))
def test_struct_and_body_are_the_same_json(task):
    assert json.loads(bodies.Task.model_validate(task).model_dump_json()) == task


def test_struct_and_body_have_the_same_types():
    """What the one cannot be, the other refuses."""
    for struct, model in ((views.Metrics, bodies.Metrics), (views.Task, bodies.Task)):
        for field in msgspec.structs.fields(struct):
            theirs = model.model_fields[field.name].annotation
            mine = field.type
            if field.name == "latest_metrics":
                assert (mine, theirs) == (views.Metrics | None, bodies.Metrics | None)
            else:
                assert mine == theirs, field.name


def test_the_metrics_that_are_read_are_those_that_jobs_report():
    unknown_to_the_model_service = {"dead", "recordings", "recordingAccuracy", "recordingMacroF1"}
    read = {field.encode_name for field in msgspec.structs.fields(jobs.Metrics)}
    assert read == set(METRICS) - unknown_to_the_model_service


def test_what_cannot_be_read_is_left_out():
    found = job(status={"phase": "Running", "message": "runs", "metrics": {"trainLoss": "many"}})
    assert found.unreadable
    assert (views.status_of(found), found.status.metrics) == ("running", None)
    assert found.task_id == "my task"
    assert job(creationTimestamp=None).created == EARLIEST
    assert job(status={"phase": "Running", "message": "m", "startedAt": "9999-12-31T23:59:59-14:00"}).changed == LATEST


def test_instants_are_utc():
    assert job(creationTimestamp="2026-01-31T14:00:00+02:00").created == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_thousand_tasks_are_seen_in_a_moment():
    """3,000 a second would be ten times this long; the bound is loose, for machines that do much else."""
    import time

    one = job(status=RUNNING)
    times = []
    for _ in range(5):
        before = time.perf_counter()
        for _ in range(1000):
            views.encode(views.view(one, ENGLISH))
        times.append(time.perf_counter() - before)
    assert min(times) < 0.1
