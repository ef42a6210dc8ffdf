"""Our numbers against scikit-learn's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from rfuav_trainer import metrics


def drawn(classes, count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    scores = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    return torch.from_numpy(scores).float().softmax(1), torch.from_numpy(labels)


@given(classes=st.integers(2, 9), count=st.integers(1, 60), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=25)
def test_the_same_as_scikit_learn(classes, count, seed):
    scores, labels = drawn(classes, count, seed)
    found = metrics.compute(scores, labels, classes)
    guesses = scores.argmax(1)
    for name, function in (("F1", sk.f1_score), ("Precision", sk.precision_score), ("Recall", sk.recall_score)):
        for average in ("macro", "micro"):
            expected = function(labels, guesses, average=average, zero_division=0)
            assert found[f"{average}{name}"] == pytest.approx(expected, abs=1e-5), (name, average)
    for k in (1, 3, 5):
        top = np.argsort(-scores.numpy(), axis=1)[:, :k]
        assert found[f"top{k}"] == pytest.approx(
            np.mean([label in row for label, row in zip(labels, top, strict=True)]), abs=1e-5
        )
    present = [c for c in range(classes) if (labels == c).any()]
    average = np.mean([sk.average_precision_score((labels == c).numpy(), scores[:, c]) for c in present])
    assert found["meanAveragePrecision"] == pytest.approx(average, abs=1e-4)
    matrix = metrics.confusion_matrix(guesses, labels, classes)
    assert matrix.tolist() == sk.confusion_matrix(labels, guesses, labels=range(classes)).tolist()


def test_nothing_gives_nothing():
    assert metrics.compute(torch.empty(0, 3), torch.empty(0, dtype=torch.int64), 3) == {}


def test_never_nan():
    assert metrics.finite({"a": float("nan"), "b": float("inf"), "c": 1 / 3}) == {"c": 0.333333}
