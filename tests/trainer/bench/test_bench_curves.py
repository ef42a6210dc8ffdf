"""`make bench-curves`: the sides train alike, and are judged by the spread over the seeds."""

import numpy as np
import pytest
import torch
from bench import curves
from bench.train import job_file
from PIL import Image
from scipy import stats

from rfuav_trainer.job import from_file
from rfuav_trainer.synthesis import synthesize
from rfuav_trainer.synthesis.spec import make_spec


def test_a_curves_job_has_the_references_recipe(tmp_path):
    spec = curves.job_spec("resnet18", tmp_path, tmp_path, epochs=3, seed=4, threads=1)
    training = from_file(job_file(tmp_path, spec)).spec.training
    assert (training.epochs, training.seed, training.batch_size) == (3, 4, 8)
    assert (training.optimizer.name, training.optimizer.learning_rate) == ("adam", 1e-4)
    assert training.schedule.name == "constant"


def test_in_float32_a_whole_job_learns_as_plain_pytorch_does(tmp_path):
    made = make_spec(output=tmp_path, splits={"train": 3, "val": 2}, snr_db=[15], format="image", image_size=256)
    synthesize.synthesize(made)
    shared = {"epochs": 3, "seed": 1}
    ours = curves.ours("resnet18", tmp_path, threads=1, number_format="fp32", **shared)
    theirs = curves.reference("resnet18", tmp_path, device=torch.device("cpu"), **shared)
    one_recording = 1.01 / 18  # two of each of nine classes
    for measure, tolerance in (("valLoss", {"rel": 0.01}), ("valAccuracy", {"abs": one_recording})):
        assert [row[measure] for row in ours] == pytest.approx([row[measure] for row in theirs], **tolerance)
    assert len({row["valLoss"] for row in ours}) == 3  # each epoch changed the weights


def curve(losses, seconds):
    """An epoch's seconds are all alike; accuracy is 1 - loss / 10."""
    return [
        {"valLoss": loss, "valAccuracy": 1 - loss / 10, "seconds": seconds * number}
        for number, loss in enumerate(losses, 1)
    ]


LOSSES = np.array([[5, 4, 3, 2, 1.5, 1.2], [5, 4.2, 3.1, 2.2, 1.4, 1.3], [5, 3.9, 3.2, 1.9, 1.6, 1.1]])


def test_differences_are_judged_by_students_t_over_the_seeds():
    ours, theirs = (
        [curve(row, 1) for row in LOSSES + np.array([[0.2], [0.5], [0.1]])],
        [curve(row, 1) for row in LOSSES],
    )
    found = curves.difference(ours, theirs, "valLoss")
    low, high = stats.ttest_1samp([0.2, 0.5, 0.1], 0).confidence_interval(0.95)
    assert found["mean"] == pytest.approx(0.8 / 3, abs=1e-4)
    assert found["interval95"] == [pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4)]
    assert found["verdict"] == "alike"  # the interval holds 0: three seeds are that few


@pytest.mark.parametrize(("shift", "verdict"), [(0.5, "worse"), (-0.5, "better"), (0.0, "alike")])
def test_less_loss_is_better_and_less_accuracy_is_worse(shift, verdict):
    noise = np.array([[0.01], [-0.02], [0.01]])
    ours, theirs = [curve(row, 1) for row in LOSSES + shift + noise], [curve(row, 1) for row in LOSSES]
    assert {curves.difference(ours, theirs, measure)["verdict"] for measure in curves.MEASURES} == {verdict}


def test_a_history_is_rounded_and_that_is_no_difference():
    ours, theirs = [curve(row - 1e-6, 1) for row in LOSSES], [curve(row, 1) for row in LOSSES]
    assert {curves.difference(ours, theirs, measure)["verdict"] for measure in curves.MEASURES} == {"alike"}


def test_in_equal_time_the_slower_side_has_taken_fewer_epochs():
    noise = np.array([[0.01], [-0.02], [0.01]])
    found = curves.compare([curve(row, 1) for row in LOSSES + noise], [curve(row, 2) for row in LOSSES])
    assert found["seconds_per_epoch"] == {"ours": 1, "reference": 2, "ratio": 2}
    assert found["equal_time"]["reference_epochs"] == 3
    expected = np.mean(LOSSES[:, 3:].mean(axis=1) - LOSSES[:, :3].mean(axis=1))
    assert found["equal_time"]["valLoss"]["mean"] == pytest.approx(expected, abs=1e-4)
    assert curves.holds(found)
    slow = curves.compare([curve(row, 2) for row in LOSSES + noise], [curve(row, 1) for row in LOSSES])
    assert not curves.holds(slow)
    worse = curves.compare([curve(row, 1) for row in LOSSES + 0.5 + noise], [curve(row, 3) for row in LOSSES])
    assert not curves.holds(worse)


def test_an_epoch_that_is_not_completed_does_not_count_but_the_first_does():
    assert [len(curves.until(curve(LOSSES[0], 2), seconds)) for seconds in (1, 2, 5.9, 6)] == [1, 1, 2, 3]


def test_both_sides_are_trained_and_drawn(tmp_path):
    data = tmp_path / "data"
    rng = np.random.default_rng(0)
    for part, count in (("train", 2), ("val", 1)):
        for name in ("a", "b"):
            (data / part / name).mkdir(parents=True)
            (data / part / name / "beside.json").write_text("{}")
            for number in range(count):
                Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(
                    data / part / name / f"{number}.png"
                )
    shared = {"epochs": 2, "seed": 0}
    ours = curves.ours("mobilenet_v3_small", data, threads=1, **shared)
    theirs = curves.reference("mobilenet_v3_small", data, device=torch.device("cpu"), **shared)
    for side in (ours, theirs):
        assert len(side) == 2
        assert 0 < side[0]["seconds"] < side[1]["seconds"]
    curves.draw(tmp_path / "curves.png", {"mobilenet_v3_small": {"ours": [ours], "reference": [theirs]}})
    assert Image.open(tmp_path / "curves.png").width > 800
