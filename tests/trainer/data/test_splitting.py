"""Splits: no recording on both sides, every class and every SNR on each, the same for the same seed."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfuav_trainer.data.samples import Sample, list_labelled
from rfuav_trainer.data.splitting import split
from rfuav_trainer.errors import InputError


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


def test_a_class_with_one_picture_cannot_be_split():
    with pytest.raises(InputError, match="a has 1: add recordings, separate them"):
        split([Sample(Path("x"), "a/0", 0, None, "a/0")], ["a"], 0.2, 0)


@given(
    frames=st.integers(2, 100),
    files=st.integers(1, 5),
    levels=st.lists(st.sampled_from([-10.0, 0.0, 10.0]), min_size=1, max_size=4),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_a_single_recording_gives_blocks_of_its_time(frames, files, levels, fraction, seed):
    """Both sides have samples, the moments of validation are whole, and no neighbour of theirs is training data."""
    samples = [
        Sample(Path("x"), f"a/r_{n}.iq", 0, frame, "a/r", levels[n % len(levels)])
        for n in range(files)
        for frame in range(frames)
    ]
    train, validation = split(samples, ["a"], fraction, seed)
    assert train
    assert validation
    assert split(samples, ["a"], fraction, seed) == (train, validation)
    of_file = files > 1
    sides = [{int(s.name[4:-3]) if of_file else s.frame for s in part} for part in (train, validation)]
    assert not sides[0] & sides[1]
    assert not {s.group for s in train} & {s.group for s in validation}
    moments = files if of_file else frames
    if len(set(levels)) == 1:
        assert sides[1] == set(range(min(sides[1]), max(sides[1]) + 1))
        assert abs(len(sides[1]) - fraction * moments) <= 1
        if moments > 20 and fraction < 0.5:
            assert min(abs(a - b) for a in sides[0] for b in sides[1]) > 1


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


LAYOUTS = [
    "{label}/snr_{snr}/{colours}/rec{n}.png",
    "{label}/{colours}/{snr}dB/rec{n}.png",
    "{label}/SNR{snr}/{colours}_rec{n}.png",
    "{label}/rec{n}_{snr}dB_{colours}.png",
    "{label}/{colours}/rec{n}/snr_{snr}.png",
    "{label}/snr_{snr}/rec{n}/{colours}/0.png",
    "{label}/rec{n}_{snr}db/{colours}.png",
]


@given(
    layout=st.sampled_from(LAYOUTS),
    levels=st.lists(st.integers(-20, 20), min_size=1, max_size=3, unique=True),
    colours=st.lists(st.sampled_from(["jet", "hot", "viridis"]), min_size=1, max_size=2, unique=True),
    each=st.integers(5, 9),
    own=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=60)
def test_conditions_in_a_path_are_no_recordings(*, layout, levels, colours, each, own, seed):
    """One recording, in whatever colours or at whatever SNR, is on one side; every SNR gives its share to both."""
    made = {}
    for label in ("a", "hot"):
        for place, snr in enumerate(levels):
            for n in range(each):
                number = n + 100 * place * own  # of this SNR alone, or the same recordings at every SNR
                for colour in colours:
                    made[layout.format(label=label, snr=snr, colours=colour, n=number)] = (label, number, snr)
    with TemporaryDirectory() as folder:
        for name in made:
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        samples = list_labelled(Path(folder), ["a", "hot"], "image", None, where="x").samples
    assert {s.name: s.snr for s in samples} == {name: snr for name, (_, _, snr) in made.items()}
    train, validation = (
        {made[s.name] for s in part} for part in split(samples, ["a", "hot"], 0.2, seed)
    )  # fmt: skip
    assert not {(label, n) for label, n, _ in train} & {(label, n) for label, n, _ in validation}
    for label in ("a", "hot"):
        for snr in levels:
            taken = sum((name, level) == (label, snr) for name, _, level in validation)
            assert abs(taken - 0.2 * each) <= 1
