"""Our numbers against scikit-learn's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from rfuav_trainer.evaluation import metrics


def drawn(classes, count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    scores = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    return torch.from_numpy(scores).float().softmax(1), torch.from_numpy(labels)


def calibration_error(scores, labels):
    """By scikit-learn's reliability curve of the most likely class."""
    confidence, right = scores.max(1).values.double().numpy(), (scores.argmax(1) == labels).numpy()
    edges = np.linspace(0, 1, metrics.CONFIDENCES + 1)
    counts = np.histogram(confidence, edges)[0]
    true, expected = calibration_curve(right, confidence, n_bins=metrics.CONFIDENCES)
    return (np.abs(true - expected) * counts[counts > 0]).sum() / len(labels)


def mean_average_precision(scores, labels):
    present = labels.unique().tolist()
    return np.mean([sk.average_precision_score((labels == c).numpy(), scores[:, c]) for c in present])


def compute(scores, labels, classes):
    tally = metrics.Tally(classes)
    tally.add(scores, labels)
    return tally.metrics()


@given(classes=st.integers(2, 9), count=st.integers(1, 60), seed=st.integers(0, 999), parts=st.integers(1, 5))
@settings(deadline=None, max_examples=25)
def test_the_same_as_scikit_learn(classes, count, seed, parts):
    scores, labels = drawn(classes, count, seed)
    tally, others = metrics.Tally(classes), metrics.Tally(classes)
    for part in range(parts):  # in parts or at once is the same, and so is in two tallies that are summed
        (others if part % 2 else tally).add(scores[part::parts], labels[part::parts])
    for counts, more in zip(tally.counts, others.counts, strict=True):
        np.add(counts, more, out=counts)
    found = tally.metrics()
    assert found == compute(scores, labels, classes)
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
    assert found["calibrationError"] == pytest.approx(calibration_error(scores, labels), abs=1e-5)
    assert tally.confusion.tolist() == sk.confusion_matrix(labels, guesses, labels=range(classes)).tolist()
    precision, recall, f1, samples = sk.precision_recall_fscore_support(
        labels, guesses, labels=range(classes), zero_division=0
    )
    for c, row in enumerate(tally.per_class()):
        expected = (samples[c], precision[c], recall[c], f1[c])
        assert (row["samples"], row["precision"], row["recall"], row["f1"]) == pytest.approx(expected)


@given(classes=st.integers(2, 40), count=st.integers(1, 400), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=25)
def test_mean_average_precision_is_scikit_learns_up_to_the_steps_of_the_scores(classes, count, seed):
    """Exactly, of scores that are rounded to those steps, and so close to that of the scores themselves."""
    scores, labels = drawn(classes, count, seed)
    rounded = metrics.steps(scores.double().numpy(), min(metrics.LEVELS, metrics.MOST_LEVELS // classes))
    found = compute(scores, labels, classes)["meanAveragePrecision"]
    assert found == pytest.approx(mean_average_precision(rounded, labels), abs=1e-5)
    assert found == pytest.approx(mean_average_precision(scores, labels), abs=0.01 if count > 100 else 0.1)


def test_many_samples():
    scores, labels = drawn(37, 20_000, 1)
    found = compute(scores, labels, 37)["meanAveragePrecision"]
    assert found == pytest.approx(mean_average_precision(scores, labels), abs=5e-4)


@pytest.mark.parametrize("scale", [3, 10, 30])
def test_a_confident_network(scale):
    """Scores from 1e-45 to 1: where almost all are next to nothing, their order still counts."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 37, 4000)
    logits = scale * (rng.normal(size=(4000, 37)) + 1.5 * np.eye(37)[labels])
    scores, labels = torch.from_numpy(logits).float().softmax(1), torch.from_numpy(labels)
    found = compute(scores, labels, 37)
    assert found["meanAveragePrecision"] == pytest.approx(mean_average_precision(scores, labels), abs=5e-4)
    for k in (1, 3, 5):
        assert found[f"top{k}"] == pytest.approx(sk.top_k_accuracy_score(labels, scores.numpy(), k=k), abs=1e-6)


def test_certain_and_impossible():
    found = compute(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), 2)
    assert (found["top1"], found["meanAveragePrecision"], found["calibrationError"]) == (0.5, 1.0, 0.5)


def test_nothing_gives_nothing():
    assert compute(torch.empty(0, 3), torch.empty(0, dtype=torch.int64), 3) == {}


def test_never_nan():
    assert metrics.finite({"a": float("nan"), "b": float("inf"), "c": 1 / 3}) == {"c": 0.333333}
