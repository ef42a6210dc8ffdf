"""In the validation the samples of a recording vote, as the frames of an evaluation do."""

import json

import numpy as np
import pytest
import torch
from trainer.runs import run
from trainer.trainer_kit import IQ, tone_set, training_spec

from rfuav_trainer.data.samples import Sample
from rfuav_trainer.evaluation import evaluate
from rfuav_trainer.evaluation.recordings import Ballot
from rfuav_trainer.training.recording_votes import RecordingVotes

CLASSES = ["a", "b", "c"]


def samples():
    """Of each class a recording of three pictures, one of two, and two pictures of their own."""
    for label, name in enumerate(CLASSES):
        for group in ("x", "x", "x", "y", "y", "1", "2"):
            yield Sample(None, "", label=label, group=f"{name}/{group}")


def test_the_votes_are_those_of_an_evaluation(tmp_path):
    """Also of several processes, whose counts are summed."""
    given = list(samples())
    scores = torch.from_numpy(np.random.default_rng(5).dirichlet([0.3] * 3, len(given)))
    parts = [RecordingVotes(given, 3) for _ in range(2)]
    for start in range(0, len(given), 4):
        parts[start // 4 % 2].add(given[start : start + 4], scores[start : start + 4])
    for mine, other in zip(parts[0].counts, parts[1].counts, strict=True):
        np.add(mine, other, out=mine)
    lines = [
        {
            "path": f"{sample.group}/{number}.png",
            "class": CLASSES[int(row.argmax())],
            "score": float(row.max()),
            "top": [],
            "scores": row.tolist(),
        }
        for number, (sample, row) in enumerate(zip(given, scores, strict=True))
    ]
    ballot = Ballot(CLASSES, {line["path"]: line["path"].rpartition("/")[0] for line in lines})
    own = evaluate.evaluate(lines, CLASSES, tmp_path, ballot)["byRecording"]
    assert own["samples"] == 12
    assert 0 < own["accuracy"] < 1
    assert parts[0].metrics() == {
        "recordingAccuracy": pytest.approx(own["accuracy"]),
        "recordingMacroF1": pytest.approx(own["metrics"]["macroF1"], abs=1e-6),
    }


def test_there_are_none_where_every_sample_is_its_own_recording():
    votes = RecordingVotes([Sample(None, "", label=0, group="a/1"), Sample(None, "", label=1, group="b/1")], 2)
    assert len(votes.counts) == len(votes._alone.counts)
    votes.add([Sample(None, "", label=0, group="a/1")], torch.tensor([[0.9, 0.1]], dtype=torch.float64))
    assert votes.metrics() == {}


def test_a_training_on_recordings_reports_them(desk):
    tone_set(desk / "captures/train")
    run(desk, training_spec(training__epochs=1, dataset__iq=IQ))
    (row,) = map(json.loads, (desk / "models/out/history.jsonl").read_text().splitlines())
    assert {"recordingAccuracy", "recordingMacroF1"} <= row.keys()


def test_the_classes_of_one_recording_vote_apart():
    """Annotations of one recording have several classes: a vote of all of them means nothing."""
    samples = [Sample(None, "", label=label, frame=frame, group="r") for label in (0, 1) for frame in (0, 1)]
    votes = RecordingVotes(samples, 2)
    votes.add(samples, torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]], dtype=torch.float64))
    assert votes.metrics() == {"recordingAccuracy": 1.0, "recordingMacroF1": 1.0}
