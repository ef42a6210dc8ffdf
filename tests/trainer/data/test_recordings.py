"""Which recording a file was cut from: by every name that people give to cuts, and what the trainer says of it."""

import json
import os
import time

import numpy as np
import pytest
import structlog
from PIL import Image
from trainer.trainer_kit import IQ, image_set, tone_set, training_spec

from rfuav_trainer.data.dataset import open_dataset
from rfuav_trainer.data.recordings import name_of, recognise
from rfuav_trainer.errors import InputError, InvalidConfigurationError


@pytest.mark.parametrize(
    ("stem", "found"),
    [
        ("rec (3)", ("rec", "name")),
        ("rec(3)", ("rec", "name")),
        ("rec [3]", ("rec", "name")),
        ("rec_3", ("rec", "name")),
        ("rec-0003", ("rec", "name")),
        ("rec.0003", ("rec", "name")),
        ("day 1 rec_3", ("day 1 rec", "name")),
        ("rec1_frame12", ("rec1", "name")),
        ("rec1_frame_12", ("rec1", "name")),
        ("rec1-img (12)", ("rec1", "name")),
        ("rec1 slice #4", ("rec1", "name")),
        ("dji_0001", ("dji", "name")),
        ("rec_20240101_120000", ("rec_20240101", "name")),
        ("pack1_0-1s", ("pack1", "pack")),
        ("vtsbw10_pack1_10-11s", ("vtsbw10_pack1", "pack")),
        ("pack1_0-1s (4)", ("pack1", "pack")),
        ("pack1_0-1s_frame4", ("pack1", "pack")),
        ("0001", ("0001", "number")),
        ("(12)", ("(12)", "number")),
        ("img 3", ("img 3", "number")),
        ("frame12", ("frame12", "number")),
        ("rec3", ("rec3", "file")),
        ("parrot", ("parrot", "file")),
        ("", ("", "file")),
    ],
)
def test_what_a_name_says(stem, found):
    assert name_of(stem) == found


def groups(names, kind="image", **options):
    found = recognise(names, kind, **options)
    return {name: recording.name for name, recording in found.items()}, {r.by for r in found.values()}


@pytest.mark.parametrize(
    ("kind", "names", "found", "by"),
    [
        ("image", ["A/a (1).png", "A/a (2).png", "A/b (1).PNG"], ["A/a", "A/a", "A/b"], {"name"}),
        ("image", ["A/Rec_1.png", "A/rec_2.JPG"], ["A/rec", "A/rec"], {"name"}),
        ("image", ["A/0001.png", "A/0002.png"], ["A/0001", "A/0002"], {"number"}),
        ("image", ["A/r1/x.png", "A/r1/y.png", "A/r2/x.png"], ["A/r1", "A/r1", "A/r2"], {"folder"}),
        ("image", ["A/flight1/a_1.png", "A/flight2/img 3.jpg"], ["A/flight1", "A/flight2"], {"folder"}),
        ("image", ["A/site/r1/x.png", "A/site/r2/x.png"], ["A/site/r1", "A/site/r2"], {"folder"}),
        ("image", ["A/images/a_1.png", "A/images/a_2.png", "A/images/b_1.png"], ["A/images/a"] * 2 + ["A/images/b"], {"name"}),
        ("image", ["A/images/0001.png", "A/images/0002.png"], ["A/images"] * 2, {"folder"}),
        ("image", ["A/r1/x.png", "A/y_1.png", "A/y_2.png"], ["A/r1", "A/y", "A/y"], {"folder", "name"}),
        ("image", ["A/snr_-10/jet/x.png", "A/snr_10/hot/x.png"], ["A/x", "A/x"], {"file"}),
        ("image", ["A/rec1_-10dB/7.png", "A/rec2_-10dB/7.png"], ["A/rec1", "A/rec2"], {"folder"}),
        ("image", ["A/rec1snr10.png", "A/rec2snr10.png"], ["A/rec1", "A/rec2"], {"file"}),
        ("image", ["A/hotel/jets.png", "A/motel/jets.png"], ["A/hotel", "A/motel"], {"folder"}),
        ("image", ["jet/5dB/x.png", "A/snr_10/jet.png"], ["jet/x", "A"], {"file"}),
        ("image", ["A/r (1).png/r (1).png", "A/r (1).png/r (1).copy-1.png", "A/r (2).png/r (2).png"], ["A/r"] * 3, {"name"}),
        ("image", ["A/x.png", "a/x.png"], ["A/x", "a/x"], {"file"}),
        ("image", ["A/caf\u00e9_1.png", "A/cafe\u0301_2.png"], ["A/caf\u00e9"] * 2, {"name"}),
        ("iq", ["A/x.iq", "A/y.iq"], ["A/x", "A/y"], {"file"}),
        ("iq", ["A/0001.iq", "A/0002.iq"], ["A/0001", "A/0002"], {"file"}),
        ("iq", ["A/snr_-10/x.iq", "A/x_10dB.iq"], ["A/x", "A/x"], {"file"}),
        ("iq", ["A/flight1/pack1.iq", "A/flight1/pack2.iq", "A/flight2/pack1.iq"], ["A/flight1"] * 2 + ["A/flight2"], {"folder"}),
        ("iq", ["A/iq/pack1.iq", "A/iq/pack2.iq"], ["A/iq/pack1", "A/iq/pack2"], {"file"}),
        ("iq", ["A/pack1_0-1s.iq", "A/Pack1_1-2s.iq", "A/pack2_0-1s.iq"], ["A/pack1"] * 2 + ["A/pack2"], {"pack"}),
        ("iq", ["A/d/pack1_0-1s.iq", "A/d/pack2_0-1s.iq", "A/e/pack1_0-1s.iq"], ["A/d/pack1", "A/d/pack2", "A/e/pack1"], {"pack"}),
        ("iq", ["A/cap_1.iq", "A/cap_2.iq", "B/cap_1.iq"], ["A/cap_1", "A/cap_2", "B/cap_1"], {"file"}),
        ("iq", ["A/a_1.iq", "A/a_2.iq", "A/b_1.iq"], ["A/a", "A/a", "A/b"], {"name"}),
        ("iq", ["A/a_1.sigmf-data", "A/a_2.sigmf-data"], ["A/a_1", "A/a_2"], {"file"}),
        ("iq", ["A/a.sigmf-data", "A/b.sigmf-data"], ["A/a", "A/b"], {"sigmf"}),
    ],
)  # fmt: skip
def test_which_recording_a_file_is_of(kind, names, found, by):
    assert groups(names, kind) == (dict(zip(names, found, strict=True)), by)


def test_the_pictures_of_a_folder_with_several_classes_are_told_by_their_names():
    names = ["A/all/1.png", "A/all/2.png", "A/all/r_1.png", "A/all/r_2.png"]
    assert groups(names, loose=names)[0] == dict(zip(names, ["A/all/1", "A/all/2", "A/all/r", "A/all/r"], strict=True))


def test_a_pattern_names_the_recordings():
    names = ["A/x-flight1-7.png", "A/x-flight1-8.png", "B/x-flight2-7.png"]
    assert groups(names, pattern="(?P<recording>flight[0-9]+)") == (
        {names[0]: "A/flight1", names[1]: "A/flight1", names[2]: "B/flight2"},
        {"pattern"},
    )


def test_a_pattern_that_misses_files_is_refused_with_their_names():
    with pytest.raises(InputError, match=r"finds no recording in 2 of 3 paths \(A/b.png, A/c.png\): write one"):
        recognise(["A/flight1.png", "A/b.png", "A/c.png"], "image", pattern="(?P<recording>flight[0-9]+)")


@pytest.mark.parametrize(
    "pattern", ["(?P<recording>a", r"(?P<recording>a)\1", "(?P<recording>a(b))", "(?P<recording>(?=a))"]
)
def test_a_pattern_that_re2_cannot_read_is_refused(pattern):
    with pytest.raises(InvalidConfigurationError, match="is not a regular expression of RE2"):
        recognise(["A/a.png"], "image", pattern=pattern)


def test_no_pattern_takes_long():
    """Any backtracking engine takes for ever on these; and a name need not be UTF-8."""
    names = [f"A/{'a' * 240}{number}.png" for number in range(200)] + [os.fsdecode(b"A/\xff\xfe.png")]
    started = time.monotonic()
    for pattern in ("(?P<recording>(?:a+)+)b$", "(?P<recording>(?:a|a?)+b)", "(?P<recording>.*.*.*.*.*.*b)"):
        with pytest.raises(InputError, match="finds no recording in 201"):
            recognise(names, "image", pattern=pattern)
    assert time.monotonic() - started < 10


# --- the split of a whole data set


def opened(desk, **changes):
    """The data set of a job, and what was logged meanwhile."""
    job = desk.job("TrainingJob", training_spec(**changes))
    with structlog.testing.capture_logs() as logs:
        return open_dataset(job, job.spec), logs


def pictures(root, names, seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(root / name)


def warnings(logs):
    return [entry["event"] for entry in logs if entry["log_level"] == "warning"]


LAYOUTS = {
    "numbered": "{c}/rec{r} ({k}).png",
    "underscore": "{c}/rec{r}_{k}.png",
    "dash": "{c}/Rec{r}-{k:04d}.png",
    "frames": "{c}/rec{r}_frame{k}.png",
    "folders": "{c}/flight{r}/img {k}.png",
    "one folder": "{c}/all/rec{r} ({k}).png",
    "packs": "{c}/pack{r}_{k}-{k}s.png",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_cuts_of_one_recording_stay_on_one_side(desk, layout):
    made = {LAYOUTS[layout].format(c=c, r=r, k=k): (c, r) for c in "AB" for r in range(5) for k in range(6)}
    pictures(desk / "captures/train", made)
    data, logs = opened(desk)
    sides = [{made[s.name] for s in part} for part in (data.train, data.validation)]
    assert not sides[0] & sides[1]
    assert len(data.train) + len(data.validation) == len(made)
    by = {"folders": "folder", "packs": "pack"}.get(layout, "name")
    assert data.recordings == {c: {"train": 4, "validation": 1, "recognisedBy": {by: 5}} for c in "AB"}
    assert not warnings(logs)


def test_the_packs_of_a_flight_stay_on_one_side(desk):
    for flight in range(3):
        tone_set(desk / f"captures/more/{flight}", classes=("A", "B"), count=2, seed=flight)
        for c in "AB":
            (desk / f"captures/train/{c}/flight{flight}").mkdir(parents=True)
            for k in range(2):
                source = desk / f"captures/more/{flight}/{c}/{k:03d}.iq"
                source.rename(desk / f"captures/train/{c}/flight{flight}/pack{k}.iq")
    data, _ = opened(desk, dataset__iq=IQ)
    assert not {s.name.rpartition("/")[0] for s in data.train} & {s.name.rpartition("/")[0] for s in data.validation}
    assert data.recordings["A"] == {"train": 2, "validation": 1, "recognisedBy": {"folder": 3}}


def test_bare_numbers_count_each_with_a_warning(desk):
    image_set(desk / "captures/train", classes=("A", "B"), count=8)
    data, logs = opened(desk)
    assert data.recordings["A"] == {"train": 6, "validation": 2, "recognisedBy": {"number": 8}}
    (event,) = warnings(logs)
    assert "each picture counts as a recording" in event
    assert "dataset.recordingPattern" in event
    assert not warnings(opened(desk, dataset__recordingPattern="(?P<recording>[0-9])[.]png")[1])


@pytest.mark.parametrize("name", ["{c}/DJI_{k:04d}.png", "{c}/rec ({k}).png", "{c}/flight/{k}.png"])
def test_a_single_recording_is_split_in_blocks_of_time(desk, name):
    made = {name.format(c=c, k=k): k for c in "AB" for k in range(1, 101)}
    pictures(desk / "captures/train", made)
    data, logs = opened(desk, dataset__validation={"fraction": 0.2})
    for c in "AB":
        train, validation = (
            sorted(made[s.name] for s in part if s.name[0] == c) for part in (data.train, data.validation)
        )
        assert validation == list(range(validation[0], validation[0] + 20))
        assert min(abs(a - b) for a in train for b in validation) == 3  # neighbours may overlap
        assert 76 <= len(train) <= 78
        assert data.recordings[c] == {"train": 1, "validation": 1, "recognisedBy": {"time": 2}}
    assert [event for event in warnings(logs) if "single recording" in event] == warnings(logs)
    assert len(warnings(logs)) == 2
    assert opened(desk, dataset__validation={"fraction": 0.2})[0].validation == data.validation


def test_the_frames_of_a_single_raw_recording_are_split_in_blocks(desk):
    tone_set(desk / "captures/train", classes=("A", "B"), count=1, frames=20)
    data, _ = opened(desk, dataset__iq=IQ, dataset__validation={"fraction": 0.2})
    for label in (0, 1):
        train, validation = ([s.frame for s in part if s.label == label] for part in (data.train, data.validation))
        assert validation == list(range(validation[0], validation[0] + 4))
        assert min(abs(a - b) for a in train for b in validation) == 2


def test_blocks_of_time_have_every_snr_on_both_sides(desk):
    made = {f"{c}/snr_{snr}/rec_{k:03d}.png": k for c in "AB" for k in range(60) for snr in ((-10, 0, 10)[k // 20],)}
    pictures(desk / "captures/train", made)
    data, _ = opened(desk, dataset__validation={"fraction": 0.2})
    for part in (data.train, data.validation):
        assert {(s.label, s.snr) for s in part} == {(label, snr) for label in (0, 1) for snr in (-10, 0, 10)}
    for c in "AB":
        train, validation = ([made[s.name] for s in part if s.name[0] == c] for part in (data.train, data.validation))
        assert min(abs(a - b) for a in train for b in validation) > 1


def test_one_moment_at_several_snrs_is_not_parted(desk):
    made = {f"{c}/snr_{snr}/rec_{k}.png": k for c in "AB" for k in range(20) for snr in (-10, 10)}
    pictures(desk / "captures/train", made)
    data, _ = opened(desk)
    for c in "AB":
        sides = [{made[s.name] for s in part if s.name[0] == c} for part in (data.train, data.validation)]
        assert not sides[0] & sides[1]
        assert all(sides)


def test_copies_of_training_files_do_not_validate(desk):
    root = image_set(desk / "captures/train", classes=("A", "B"), count=20)
    data, _ = opened(desk)
    copied = data.train[0]
    (root / data.validation[0].name).write_bytes((root / copied.name).read_bytes())
    again, logs = opened(desk)
    assert len(again.validation) == len(data.validation) - 1
    assert any("copies of others" in event for event in warnings(logs))


def test_validation_files_that_are_training_files_are_refused(desk):
    train = image_set(desk / "captures/train", classes=("A", "B"), count=8)
    val = image_set(desk / "captures/val", classes=("A", "B"), count=4, seed=1)
    apart = {"dataset__validation": {"uri": "pvc://captures/val"}}
    opened(desk, **apart)
    (val / "B/other.png").write_bytes((train / "B/003.png").read_bytes())
    with pytest.raises(
        InvalidConfigurationError,
        match=r"dataset.validation.uri: 1 of its 9 files are also in dataset.train.uri \(val/B/other.png is "
        r"train/B/003.png\).*remove them from one of the two, or write validation: \{fraction: 0.2\}",
    ):
        opened(desk, **apart)
    with pytest.raises(InvalidConfigurationError, match="16 of its 16 files"):
        opened(desk, dataset__validation={"uri": "pvc://captures/train"})


def test_equal_ends_of_unequal_sizes_are_not_equal_files(desk):
    """The size, and the first and last MiB, decide: what is between them is not read."""
    for folder, middle in (("train", 0), ("val", 1)):
        tone_set(desk / f"captures/{folder}", classes=("A", "B"), count=2, frames=90, seed=middle)
    path = [desk / f"captures/{folder}/A/000.iq" for folder in ("train", "val")]
    content = path[0].read_bytes()
    assert len(content) > 2 * 2**20 + 8
    changed = content[: 2**20] + bytes(len(content) - 2 * 2**20) + content[-(2**20) :]
    apart = {"dataset__validation": {"uri": "pvc://captures/val"}, "dataset__iq": IQ}
    path[1].write_bytes(changed)
    with pytest.raises(InvalidConfigurationError, match="val/A/000.iq is train/A/000.iq"):
        opened(desk, **apart)
    path[1].write_bytes(changed[:-8])
    opened(desk, **apart)


def test_recordings_of_one_name_on_both_sides_are_said(desk):
    pictures(desk / "captures/train", [f"{c}/rec{r} ({k}).png" for c in "AB" for r in range(2) for k in range(0, 8, 2)])
    pictures(desk / "captures/val", [f"{c}/rec{r} ({k}).png" for c in "AB" for r in range(2) for k in (1, 3)], seed=1)
    data, logs = opened(desk, dataset__validation={"uri": "pvc://captures/val"})
    assert "recordings of the same names" in warnings(logs)[0]
    assert data.recordings["A"] == {"train": 2, "validation": 2, "recognisedBy": {"name": 4}}


def test_a_stated_recording_wins(desk):
    root = image_set(desk / "captures", classes=("A", "B"), count=8)
    rows = [
        {
            "path": p.relative_to(root).as_posix(),
            "label": p.parent.name,
            "recording": f"{p.parent.name}{int(p.stem) // 2}",
        }
        for p in sorted(root.rglob("*.png"))
    ]
    (root / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data, logs = opened(desk, dataset__train__uri="pvc://captures/train.jsonl")
    assert data.recordings["A"] == {"train": 3, "validation": 1, "recognisedBy": {"manifest": 4}}
    assert not warnings(logs)
