"""The frames of a recording vote, and accuracies say how far they may be off."""

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from rfuav_trainer.evaluation import evaluate, report
from rfuav_trainer.evaluation.intervals import Clusters, interval
from rfuav_trainer.evaluation.recordings import Ballot, recordings_of

CLASSES = ["a", "b", "c"]


def line(path, *scores, **more):
    order = np.argsort(scores)[::-1]
    top = [{"class": CLASSES[c], "score": scores[c]} for c in order]
    return {
        "path": path,
        "class": top[0]["class"],
        "score": top[0]["score"],
        "top": top,
        "scores": list(scores),
        **more,
    }


FRAMES = [
    line("a/1.iq", 0.4, 0.5, 0.1, frame=0),
    line("a/1.iq", 0.4, 0.5, 0.1, frame=1),
    line("a/1.iq", 0.9, 0.0, 0.1, frame=2),
    {"path": "a/1.iq", "frame": 3, "dead": "dead: all zero", "class": None, "score": None, "top": []},
    line("b/2.iq", 0.2, 0.7, 0.1, frame=0),
    {"path": "b/3.iq", "frame": 0, "dead": "dead: all zero", "class": None, "score": None, "top": []},
]


def voted(ballot, lines):
    """The lines of the recordings, from those of their frames."""
    found = []
    ballot.listeners.append(lambda vote: found.append(vote.line(CLASSES)))
    assert list(ballot.watching(lines)) == lines
    assert ballot.count == len(found)
    return found


def test_frames_vote_with_their_mean_log_score():
    first, second, third = voted(Ballot(CLASSES, {}), FRAMES)
    means = np.exp(np.log([[0.4, 0.5, 0.1], [0.4, 0.5, 0.1], [0.9, 1e-6, 0.1]]).mean(axis=0))
    scores = means / means.sum()
    assert first["class"] == "a"  # two frames of three say b, and less surely
    assert [entry["score"] for entry in first["top"]] == pytest.approx([scores[0], scores[2], scores[1]])
    assert (first["recording"], first["frames"], first["agree"], first["dead"]) == ("a/1.iq", 3, 1, 1)
    assert (second["class"], second["frames"], second["agree"]) == ("b", 1, 1)
    assert (third["class"], third["score"], third["frames"], third["dead"]) == (None, None, 0, 1)


def test_without_all_scores_the_likeliest_decide():
    short = [{**one, "top": one["top"][:2]} for one in FRAMES]
    for one in short:
        one.pop("scores", None)
    assert [one["class"] for one in voted(Ballot(CLASSES, {}), short)] == ["a", "b", None]


def test_a_picture_of_its_own_is_counted_at_once():
    """And those of one recording when all lines are there."""
    lines = [line("a/1.png", 0.4, 0.5, 0.1), line("a/x (1).png", 0.9, 0.1, 0), line("b/2.png", 0.1, 0.7, 0.2)]
    lines.append(line("a/x (2).png", 0.8, 0.2, 0))
    ballot, found = Ballot(CLASSES, recordings_of(lines, labelled=True)), []
    ballot.listeners.append(lambda vote: found.append(vote.recording))
    counted = [len(found) for _ in ballot.watching(lines)]
    assert counted == [1, 1, 2, 2]
    assert found == ["a/1", "b/2", "a/x"]
    assert [ballot.recording(one) for one in lines] == [None, "a/x", None, "a/x"]


def many(count):
    classes = [f"drone-{number:02}" for number in range(37)]
    scores = [0.01] * 37
    for number in range(count):
        name = classes[number % 37]
        top = [{"class": name, "score": 0.64}]
        yield {"path": f"{name}/f{number:07}x.png", "class": name, "score": 0.64, "top": top, "scores": scores}


def kept(count):
    """Bytes that an evaluation of so many pictures holds at its end, and at most; without what it returns."""
    classes = [f"drone-{number:02}" for number in range(37)]
    recordings = recordings_of(many(count), labelled=True)
    tracemalloc.start()
    try:
        evaluate.evaluate(many(count), classes, Path("/nowhere"), Ballot(classes, recordings))
        _, most = tracemalloc.get_traced_memory()
        # The table of interned strings, to which pathlib adds for a moment, doubles once: its size says nothing.
        rest = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, "*pathlib*")])
        return sum(trace.size for trace in rest.traces), most
    finally:
        tracemalloc.stop()


def test_an_evaluation_of_pictures_of_their_own_keeps_nothing_of_them():
    """It was 1.2 kB for each, with 37 classes."""
    kept(100)  # what is imported and cached
    (few, few_most), (more, more_most) = kept(1000), kept(21_000)
    assert (more - few) / 20_000 < 10
    assert (more_most - few_most) / 20_000 < 400  # the names are collected while repeated ones are looked for


@pytest.mark.parametrize(
    ("lines", "labelled", "expected"),
    [
        ([{"path": "a/f1/1.png"}, {"path": "a/f1/2.png"}], True, {"a/f1/1.png": "a/f1", "a/f1/2.png": "a/f1"}),
        ([{"path": "f1/1.png"}, {"path": "f1/2.png"}], False, {"f1/1.png": "f1", "f1/2.png": "f1"}),
        ([{"path": "x.iq", "frame": 0}, {"path": "y.iq", "frame": 0}], False, {"x.iq": "x", "y.iq": "y"}),
        ([{"path": f"a/r ({n}).png"} for n in (1, 2)], True, {f"a/r ({n}).png": "a/r" for n in (1, 2)}),
        (
            [{"path": f"p_{n}-{n + 1}s.iq", "frame": 0} for n in (0, 1)],
            False,
            {f"p_{n}-{n + 1}s.iq": "p" for n in (0, 1)},
        ),
        ([{"path": "snr_10.png"}], False, {"snr_10.png": "snr_10.png"}),
        (
            [{"path": "x.png", "label": "a", "recording": "r"}, {"path": "y.png", "label": "b", "recording": "r"}],
            True,
            {"x.png": "a/r", "y.png": "b/r"},
        ),
    ],
)
def test_an_input_is_of_the_recording_that_a_split_would_give_it(lines, labelled, expected):
    assert recordings_of(lines, labelled=labelled) == expected


def test_metrics_by_recording_stand_beside_those_by_frame(tmp_path):
    found = evaluate.evaluate(FRAMES, CLASSES, tmp_path)
    assert (found["samples"], found["dead"], found["accuracy"]) == (4, 2, 0.5)
    own = found["byRecording"]
    assert (own["samples"], own["accuracy"]) == (2, 1.0)
    assert own["confusionMatrix"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert found["macroOver"] == {"classes": ["a", "b"], "leftOut": ["c"]}
    assert own["macroOver"] == {"classes": ["a", "b"], "leftOut": ["c"]}
    report.write(tmp_path, found, "title")
    text = (tmp_path / "evaluation.txt").read_text()
    assert "4 samples of 2 recordings, 2 more hold nothing; macro averages over 2 of 3 classes (none of c)" in text
    assert "confusion matrix of recordings" in text
    assert "<h2>By recording</h2>" in (tmp_path / "evaluation.html").read_text()


def test_an_interval_is_that_of_a_bootstrap_over_recordings():
    random = np.random.default_rng(3)
    total = random.integers(1, 30, 40)
    right = random.binomial(total, random.uniform(0.3, 1, 40))
    drawn = random.integers(0, 40, (20_000, 40))
    expected = np.quantile(right[drawn].sum(axis=1) / total[drawn].sum(axis=1), [0.025, 0.975])
    found = interval(right.tolist(), total.tolist())
    assert found == pytest.approx(expected, abs=0.01)
    assert found == interval(right.tolist(), total.tolist())  # the seed is fixed
    low, high = found
    assert low < right.sum() / total.sum() < high


def test_many_frames_of_few_recordings_say_little():
    frames = interval([90] * 5 + [10] * 5, [100] * 10)
    alone = interval([1] * 500 + [0] * 500, [1] * 1000)
    assert frames[1] - frames[0] > 5 * (alone[1] - alone[0])


def test_a_perfect_score_of_few_recordings_is_not_certain():
    assert interval([9, 9, 9], [9, 9, 9]) == pytest.approx([0.2924, 1], abs=1e-4)
    assert interval([0, 0, 0], [9, 9, 9]) == pytest.approx([0, 0.7076], abs=1e-4)
    assert interval([9], [9]) is None
    assert Clusters().interval() is None


def test_a_million_pictures_take_no_time():
    right = np.random.default_rng(0).integers(0, 2, 1_000_000).tolist()
    began = time.process_time()
    low, high = interval(right, [1] * len(right))
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 1000, rel=0.1)
    assert time.process_time() - began < 10


@pytest.mark.parametrize("part", ["bySnr", "byColorMap", "perClass"])
def test_every_accuracy_has_its_interval(tmp_path, part):
    random = np.random.default_rng(5)
    lines = []
    for number in range(60):
        scores = random.dirichlet(np.ones(3) + 3 * np.eye(3)[number % 3])
        lines.append(line(f"{CLASSES[number % 3]}/snr_{number % 2}/jet/{number}.png", *scores.tolist()))
    found = evaluate.evaluate(lines, CLASSES, tmp_path)
    rows = found[part].values() if part == "perClass" else found[part]
    value = "recall" if part == "perClass" else "accuracy"
    for row in (*rows, *([found] if value == "accuracy" else [])):
        low, high = row[f"{value}Interval"]
        assert low <= row[value] <= high
    assert {*found["intervals"]} == {"top1"}
    assert found["intervals"]["top1"] == found["accuracyInterval"] == found["byRecording"]["accuracyInterval"]
