"""Results for the status fit whatever a training or an evaluation brings."""

import json
import random

import pytest

from rfuav_crds.status import RESULTS_BYTES
from rfuav_crds.status import Results as Schema
from rfuav_trainer.reporting import results


def size(found):
    return len(json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode())


def rows(count, **more):
    return [
        {
            "epoch": n + 1,
            "trainLoss": 1 / (n + 1),
            "valLoss": 2 / (n + 1),
            "trainAccuracy": 0.123456789,
            "valAccuracy": 0.5,
            "learningRate": 1.23456e-05,
            "macroF1": 0.5,
            **more,
        }
        for n in range(count)
    ]


def matrix(classes, seed=1):
    draw = random.Random(seed)
    return [[draw.randrange(100_000) for _ in range(classes)] for _ in range(classes)]


NAMES = {
    "short": lambda n: f"c{n}",
    "long": lambda n: f"{n}" + "x" * 1000,
    "Chinese": lambda n: f"{n}" + "无人机图传" * 60,
    "escaped": lambda n: f"{n}" + '"\\\n' * 90,
    "no text": lambda n: f"{n}\ud800\x00\u202e" * 90,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [0, 2, 64, 65])
@pytest.mark.parametrize("epochs", [0, 1, 65, 2000])
def test_results_fit_and_the_last_epoch_is_among_them(epochs, classes, name):
    found = results.summary(
        history=rows(epochs),
        classes=[NAMES[name](n) for n in range(classes)],
        confusion=matrix(min(classes, 65)),
        by_snr=[(level / 3 - 40, 123_456, 0.98765) for level in range(100)],
    )
    assert size(found) <= RESULTS_BYTES
    Schema.model_validate(found)
    assert found["truncated"]  # SNRs
    if epochs:
        curves = found["history"]
        assert curves["epochs"][-1] == epochs
        assert curves["epochs"] == sorted(set(curves["epochs"]))
        assert len(curves["valLoss"]) == len(curves["epochs"]) == min(epochs, 64)
    assert ("confusion" in found) is (0 < classes <= 64)
    if 0 < classes <= 64:
        assert {(row, row) for row in range(classes)} <= {(row, column) for row, column, _ in found["confusion"]}


def test_what_fits_is_whole():
    confusion = [[5, 0, 1], [0, 0, 0], [0, 2, 7]]
    found = results.summary(
        history=rows(3), classes=["a", "b", "c"], confusion=confusion, by_snr=[(-10.0, 4, 0.5), (10.0, 11, 1.0)]
    )
    assert found == {
        "history": {
            "epochs": [1, 2, 3],
            "trainLoss": [1.0, 0.5, 0.3333],
            "valLoss": [2.0, 1.0, 0.6667],
            "trainAccuracy": [0.1235] * 3,
            "valAccuracy": [0.5] * 3,
            "learningRate": [1.235e-05] * 3,
        },
        "classes": ["a", "b", "c"],
        "confusion": [[0, 0, 5], [0, 2, 1], [2, 1, 2], [2, 2, 7]],
        "bySNR": [[-10.0, 4, 0.5], [10.0, 11, 1.0]],
        "truncated": False,
    }


def test_of_cells_that_do_not_fit_the_largest_stay():
    found = results.summary(classes=[f"c{n}" for n in range(64)], confusion=matrix(64))
    kept = {(row, column) for row, column, _ in found["confusion"]}
    left = [(c, r, k) for r, line in enumerate(matrix(64)) for k, c in enumerate(line) if (r, k) not in kept]
    smallest = min(count for row, column, count in found["confusion"] if row != column)
    assert found["truncated"]
    assert max(left)[0] <= smallest
    assert size(found) > RESULTS_BYTES - 20


def test_a_curve_with_a_gap_is_left_out():
    history = [*rows(1), *rows(2)[1:]]
    del history[0]["valLoss"]
    history[1]["trainLoss"] = float("nan")
    assert "valLoss" not in results.summary(history=history)["history"]
    assert "trainLoss" not in results.summary(history=history)["history"]
