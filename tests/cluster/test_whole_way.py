"""The whole way of the data: recordings are trained on, the weights used and evaluated, and the status tells all of it."""

import json
import math

import pytest
from cluster import data
from cluster.jobs import CAPTURES, inference, training
from cluster.running import Running

RECORDINGS = f"pvc://{CAPTURES}/recordings"
SHARDS = 2
LEARN = training(
    "learn",
    dataset={
        "train": {"uri": f"{RECORDINGS}/train"},
        "validation": {"uri": None, "fraction": 0.25},
        "format": "iq",
        "iq": data.IQ,
    },
)
FLY = inference(
    "fly",
    model={"weights": None, "fromTrainingJob": "learn"},
    input={"uri": f"{RECORDINGS}/test"},
    output={"annotate": "all"},
    shards=SHARDS,
    parallelism=SHARDS,
)
JUDGE = inference(
    "judge", model={"weights": None, "fromTrainingJob": "base"}, evaluation={}, output={"annotate": "none"}
)
pytestmark = pytest.mark.submits(LEARN, FLY, JUDGE)
EVERY_EPOCH = {
    *(
        "trainLoss",
        "trainAccuracy",
        "valLoss",
        "valAccuracy",
        "bestValAccuracy",
        "macroF1",
        "microF1",
        "meanAveragePrecision",
    ),
    *("top1", "top3", "macroPrecision", "macroRecall", "microPrecision", "microRecall", "learningRate"),
}


def test_a_training_over_recordings_reports_progress_and_metrics(running: Running) -> None:
    kube = running.kube
    end = kube.wait_finished("TrainingJob", "learn")
    assert (end["phase"], end["attempt"]) == ("Succeeded", 1), kube.story("TrainingJob", "learn")
    assert (end["progress"]["percent"], end["progress"]["epoch"], end["progress"]["totalEpochs"]) == (100, 2, 2)
    assert end["metrics"].keys() >= EVERY_EPOCH
    assert all(math.isfinite(value) for value in end["metrics"].values())
    assert 0 <= end["metrics"]["valAccuracy"] <= end["metrics"]["bestValAccuracy"] <= 1
    assert end["queuedAt"] <= end["admittedAt"] <= end["startedAt"] <= end["finishedAt"]
    conditions = {c["type"]: c["status"] for c in end["conditions"]}
    assert conditions["Complete"] == conditions["Admitted"] == "True"
    assert conditions.get("Reconciling", "False") == conditions.get("Stalled", "False") == "False"
    uid = kube.job("TrainingJob", "learn")["metadata"]["uid"]
    phases = [phase for _, phase, _ in running.observer.audit.history[uid]]
    # Where there is room at once, the first write says Admitted.
    assert [phase for phase in dict.fromkeys(phases) if phase != "Queued"] == ["Admitted", "Running", "Succeeded"]


def test_its_outputs_are_where_the_status_says(running: Running) -> None:
    kube = running.kube
    end = kube.wait_finished("TrainingJob", "learn")
    assert {"bestWeights", "lastWeights", "report"} <= end["outputs"].keys()
    assert end["results"]["history"]["epochs"][-1] == end["progress"]["totalEpochs"]
    assert end["results"]["history"]["valLoss"][-1] == end["metrics"]["valLoss"]
    assert sum(count for _, _, count in end["results"]["confusion"]) > 0
    for uri in end["outputs"].values():
        assert kube.exec(data.POD, "stat", "--format=%s", data.path(uri)).strip() != "0", uri
    uid = kube.job("TrainingJob", "learn")["metadata"]["uid"]
    assert f"/checkpoints/{uid}" in end["checkpoint"]["uri"]
    assert end["checkpoint"]["epoch"] == 2


def test_kubectl_get_tells_the_story_in_a_line(running: Running) -> None:
    end = running.kube.wait_finished("TrainingJob", "learn")
    line = running.kube.line("TrainingJob", "learn")
    assert (line["PHASE"], line["PROGRESS"], line["EPOCH"], line["GPUS"]) == ("Succeeded", "100", "2", "0")
    assert float(line["LOSS"]) == end["metrics"]["valLoss"]
    assert float(line["ACC"]) == end["metrics"]["valAccuracy"]
    assert line["NODE"] == running.node


def test_a_dependent_inference_waits_and_takes_the_best_weights(running: Running) -> None:
    kube = running.kube
    end = kube.wait_finished("InferenceJob", "fly")
    source, uid = kube.job("TrainingJob", "learn"), kube.job("InferenceJob", "fly")["metadata"]["uid"]
    assert end["phase"] == "Succeeded", kube.story("InferenceJob", "fly")
    reasons = [reason for _, _, reason in running.observer.audit.history[uid]]
    assert "WaitingForTrainingJob" in reasons
    assert end["source"] == {
        "name": "learn",
        "uid": source["metadata"]["uid"],
        "weights": source["status"]["outputs"]["bestWeights"],
    }
    done = running.observer.audit.first(source["metadata"]["uid"], "Succeeded")
    assert done < running.observer.audit.first(uid, "Admitted")


def test_its_shards_share_the_input_and_sum_up(running: Running) -> None:
    kube = running.kube
    end = kube.wait_finished("InferenceJob", "fly")
    inputs = data.RECORDINGS["test"] * len(data.CLASSES)
    assert {key: end["progress"][key] for key in ("percent", "processed", "total")} == {
        "percent": 100,
        "processed": inputs,
        "total": inputs,
    }
    assert end["shards"]["completed"] == f"0-{SHARDS - 1}"
    folder = end["outputs"]["predictions"]
    found = data.files(kube, folder)
    assert "_SUCCESS" in found
    parts = [name for name in found if name.startswith("predictions") and name.endswith(".jsonl")]
    lines = [json.loads(line) for name in parts for line in data.read(kube, f"{folder}/{name}").splitlines()]
    assert len(parts) == SHARDS
    assert len({line["path"] for line in lines}) == len(lines) == inputs
    assert {line["class"] for line in lines} <= set(data.CLASSES)
    assert sum(name.startswith("annotated/") for name in found) == inputs
    assert kube.line("InferenceJob", "fly")["DONE"] == str(inputs)


def test_an_evaluation_gives_metrics_and_a_confusion_matrix(running: Running) -> None:
    kube = running.kube
    end = kube.wait_finished("InferenceJob", "judge")
    assert end["phase"] == "Succeeded", kube.story("InferenceJob", "judge")
    assert 0 <= end["metrics"]["top1"] <= 1
    picture = data.path(end["outputs"]["confusionMatrix"])
    assert kube.exec(data.POD, "sh", "-c", f"head -c 4 {picture} | tail -c 3") == "PNG"
    assert json.loads(data.read(kube, end["outputs"]["evaluation"]))
