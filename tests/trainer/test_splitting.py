"""Splits: no recording on both sides, every class and every SNR on each, the same for the same seed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfuav_trainer.data import Sample
from rfuav_trainer.errors import InputError
from rfuav_trainer.splitting import split


@given(
    groups=st.lists(st.lists(st.integers(1, 5), min_size=2, max_size=8), min_size=2, max_size=4),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=100)
def test_a_split_parts_no_recording_and_leaves_every_class_on_both_sides(groups, fraction, seed):
    classes = [f"c{index}" for index in range(len(groups))]
    samples = [
        Sample(Path("x"), f"{classes[label]}/{number}", label, frame, f"{classes[label]}/{number}")
        for label, sizes in enumerate(groups)
        for number, frames in enumerate(sizes)
        for frame in range(frames)
    ]
    train, validation = split(samples, classes, fraction, seed)
    assert sorted(train + validation, key=repr) == sorted(samples, key=repr)
    assert not {s.group for s in train} & {s.group for s in validation}
    for side in (train, validation):
        assert {s.label for s in side} == set(range(len(groups)))
    assert split(samples, classes, fraction, seed) == (train, validation)
    for label, sizes in enumerate(groups):
        wanted = fraction * sum(sizes)
        taken = sum(s.label == label for s in validation)
        assert taken <= wanted + max(sizes)
        assert taken >= wanted - max(sizes) or taken == sum(sizes) - max(sizes)


def test_a_class_with_one_recording_cannot_be_split():
    samples = [Sample(Path("x"), f"a/{n}", 0, n, "a/0") for n in range(3)]
    with pytest.raises(InputError, match="a has 1: add recordings, or keep validation data"):
        split(samples, ["a"], 0.2, 0)


@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.sampled_from([None, -10, 0, 10])), min_size=2, max_size=60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)  # fmt: skip
@settings(deadline=None, max_examples=300)
def test_recordings_with_several_classes_never_part_either(rows, fraction, seed):
    """Whatever a manifest says: a split, or an error that says why there is none."""
    classes = ["a", "b", "c"]
    samples = [Sample(Path("x"), str(n), label, None, f"r{group}", snr) for n, (label, group, snr) in enumerate(rows)]
    try:
        train, validation = split(samples, classes, fraction, seed)
    except InputError:
        return
    assert not {s.group for s in train} & {s.group for s in validation}
    assert len(train) + len(validation) == len(samples)
    assert {s.label for s in train} == {s.label for s in validation} == {0, 1, 2}


@given(levels=st.integers(2, 8), each=st.integers(5, 20), seed=st.integers(0, 50))
@settings(deadline=None, max_examples=100)
def test_every_snr_gives_its_share(levels, each, seed):
    samples = [
        Sample(Path("x"), f"{label}/{snr}/{n}", label, None, f"{label}/{snr}/{n}", float(snr))
        for label in (0, 1)
        for snr in range(levels)
        for n in range(each)
    ]
    _, validation = split(samples, ["a", "b"], 0.2, seed)
    for label in (0, 1):
        for snr in range(levels):
            taken = sum(s.label == label and s.snr == snr for s in validation)
            assert abs(taken - 0.2 * each) <= 1


def test_another_seed_draws_others():
    samples = [Sample(Path("x"), f"{label}/{n}", label, None, f"{label}/{n}") for label in (0, 1) for n in range(20)]
    drawn = {tuple(s.name for s in split(samples, ["a", "b"], 0.2, seed)[1]) for seed in range(20)}
    assert len(drawn) == 20
