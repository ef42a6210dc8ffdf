"""SigMF: what the metadata says about a recording, and the parts of the format besides a pair of files."""

import json
from collections import Counter

import numpy as np
import pytest

from rfuav_trainer import prepare
from rfuav_trainer.data import manifest
from rfuav_trainer.data.files import find_files
from rfuav_trainer.data.samples import list_labelled, list_samples
from rfuav_trainer.data.splitting import split
from rfuav_trainer.errors import UnreadableFileError
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.signals import recording, sigmf
from rfuav_trainer.signals.spectrogram import SpectrogramParameters
from rfuav_trainer.storage import marks
from rfuav_trainer.storage.contents import Contents

PARAMETERS = SpectrogramParameters(1e6, 256e-6, 64, 32)
LENGTH = PARAMETERS.frame_samples


def ramp(count, first=0):
    """Samples that say their own index."""
    return (np.arange(first, first + count) + 0j).astype("<c8").tobytes()


def written(path, captures=(), annotations=(), **stated):
    """Write metadata of cf32_le samples at 1 MHz, `core:` left out of the names in `stated`."""
    content = {
        "global": {"core:datatype": "cf32_le", "core:version": "1.2.5", "core:sample_rate": 1e6}
        | {f"core:{name}": value for name, value in stated.items()},
        "captures": list(captures),
        "annotations": list(annotations),
    }
    path.write_text(json.dumps(content))
    return path


def test_each_capture_may_have_a_header_and_a_frequency(tmp_path):
    """As in the example of the specification: the second header lies before the samples of the second capture."""
    path = tmp_path / "a.dat"
    path.write_bytes(b"h" * 4 + ramp(300) + b"H" * 12 + ramp(600, 300) + b"t" * 8)
    captures = [
        {"core:sample_start": 0, "core:header_bytes": 4, "core:frequency": 2.4e9},
        {"core:sample_start": 300, "core:header_bytes": 12, "core:frequency": 5.8e9},
    ]
    written(tmp_path / "a.sigmf-meta", captures, trailing_bytes=8)
    info = recording.described(path)
    assert info.captures == (recording.Capture(0, 300, 4, 2.4e9), recording.Capture(300, 600, 4 + 2400 + 12, 5.8e9))
    assert (info.rate_hz, info.channels) == (1e6, 1)
    assert recording.count_frames(info, PARAMETERS) == 1 + 2
    firsts = [recording.read_raw(info, frame, PARAMETERS)[:, 0].tolist() for frame in range(3)]
    assert firsts == [[*range(begin, begin + LENGTH)] for begin in (0, 300, 300 + LENGTH)]
    assert [info.place(frame, LENGTH)[0].frequency_hz for frame in range(3)] == [2.4e9, 5.8e9, 5.8e9]


def test_a_capture_does_not_inherit_a_frequency(tmp_path):
    (tmp_path / "a.dat").write_bytes(ramp(600))
    written(tmp_path / "a.sigmf-meta", [{"core:sample_start": 0, "core:frequency": 1e9}, {"core:sample_start": 300}])
    assert [capture.frequency_hz for capture in recording.described(tmp_path / "a.dat").captures] == [1e9, None]


def test_metadata_that_is_corrected_counts(tmp_path):
    """The layout of a file was kept for the life of the process, also after its metadata had been corrected."""
    (tmp_path / "a.dat").write_bytes(ramp(600))
    written(tmp_path / "a.sigmf-meta", sample_rate=2e6)
    assert recording.described(tmp_path / "a.dat").rate_hz == 2e6
    written(tmp_path / "a.sigmf-meta")
    assert recording.described(tmp_path / "a.dat").rate_hz == 1e6


@pytest.mark.parametrize(
    ("captures", "stated", "message"),
    [
        ([{"core:sample_start": 0, "core:frequency": "2.4 GHz"}], {}, "is not valid SigMF metadata"),
        ([{"core:sample_start": 0, "core:frequency": float("inf")}], {}, "is not valid SigMF metadata"),
        ([{"core:sample_start": -1}], {}, "a negative number of bytes or samples"),
        (
            [{"core:sample_start": 0}, {"core:sample_start": 9, "core:header_bytes": -1}],
            {},
            "a negative number of bytes",
        ),
        ([], {"trailing_bytes": -1}, "a negative number of bytes"),
        ([], {"num_channels": 0}, "must be positive"),
        ([], {"sample_rate": 0}, "must be positive"),
    ],
)
def test_metadata_that_cannot_be_true(tmp_path, captures, stated, message):
    (tmp_path / "a.dat").write_bytes(ramp(600))
    written(tmp_path / "a.sigmf-meta", captures, **stated)
    with pytest.raises(UnreadableFileError, match=message):
        recording.described(tmp_path / "a.dat")


def test_metadata_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(sigmf, "MOST_BYTES", 100)
    (tmp_path / "a.dat").write_bytes(ramp(600))
    written(tmp_path / "a.sigmf-meta")
    with pytest.raises(UnreadableFileError, match=r"a.sigmf-meta has \d+ bytes, 100 are allowed"):
        recording.described(tmp_path / "a.dat")


def test_metadata_may_have_another_name_than_its_data(tmp_path):
    """core:dataset was ignored in silence: the data was read by its suffix, or not at all."""
    (tmp_path / "plain.iq").write_bytes(ramp(LENGTH))
    (tmp_path / "other.iq").write_bytes(b"h" * 8 + (ramp(2 * LENGTH)))
    (tmp_path / "recorder.wav").write_bytes(ramp(3 * LENGTH))
    header = [{"core:sample_start": 0, "core:header_bytes": 8, "core:frequency": 1e9}]
    written(tmp_path / "one.sigmf-meta", header, dataset="other.iq")
    written(tmp_path / "two.sigmf-meta", dataset="recorder.wav", metadata_only=True)
    files, kind = find_files(tmp_path, where="x")
    assert ([path.name for path in files], kind) == (["other.iq", "plain.iq", "recorder.wav"], "iq")
    listing = list_samples(files, tmp_path, PARAMETERS)
    assert listing.unreadable == {}
    assert Counter(sample.name for sample in listing.samples) == {"other.iq": 1 + 1, "plain.iq": 1, "recorder.wav": 3}
    (first, *_) = (sample for sample in listing.samples if sample.name == "other.iq")
    assert recording.read_raw(first.info, 0, PARAMETERS)[:3, 0].tolist() == [0, 1, 2]
    assert first.info.captures[0].frequency_hz == 1e9
    (alone, *_) = list_samples([tmp_path / "other.iq"], tmp_path, PARAMETERS).samples  # another shard has the rest
    assert alone.info == first.info


def test_metadata_of_the_same_name_that_describes_other_data(tmp_path):
    (tmp_path / "a.iq").write_bytes(ramp(LENGTH))
    written(tmp_path / "a.sigmf-meta", dataset="b.iq")
    with pytest.raises(UnreadableFileError, match=r"a.sigmf-meta describes b.iq \(core:dataset\), not this file"):
        recording.described(tmp_path / "a.iq")


@pytest.mark.parametrize("name", ["../b.iq", "/etc/passwd", "x/b.iq", "..", "b\\c"])
def test_data_in_another_folder_is_not_read(tmp_path, name):
    (tmp_path / "a.iq").write_bytes(ramp(LENGTH))
    written(tmp_path / "a.sigmf-meta", dataset=name)
    with pytest.raises(UnreadableFileError, match="write the name of a file in the same folder"):
        recording.described(tmp_path / "a.iq")


def test_missing_data_is_unreadable_unless_it_is_left_out_on_purpose(tmp_path, capsys):
    (tmp_path / "a.iq").write_bytes(ramp(LENGTH))
    written(tmp_path / "a.sigmf-meta")
    written(tmp_path / "gone.sigmf-meta")
    written(tmp_path / "named.sigmf-meta", dataset="other.raw")
    written(tmp_path / "alone.sigmf-meta", metadata_only=True)
    (tmp_path / "torn.sigmf-meta").write_text("{")
    files, _ = find_files(tmp_path, where="x")
    assert "leaving out SigMF metadata without data (core:metadata_only)" in capsys.readouterr().out
    listing = list_samples(files, tmp_path, PARAMETERS)
    assert [sample.name for sample in listing.samples] == ["a.iq"]
    assert set(listing.unreadable) == {"gone.sigmf-data", "other.raw", "torn.sigmf-data"}
    assert listing.unreadable["gone.sigmf-data"].endswith("No such file or directory, but gone.sigmf-meta describes it")
    assert "named.sigmf-meta describes it" in listing.unreadable["other.raw"]
    assert "torn.sigmf-meta is not valid" in listing.unreadable["torn.sigmf-data"]
    assert listing.files == 4


def test_metadata_beside_pictures_describes_no_recording(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    written(tmp_path / "a.sigmf-meta")
    assert [path.name for path in find_files(tmp_path, where="x")[0]] == ["a.png", "b.png"]


def test_metadata_says_what_a_bin_file_is(tmp_path):
    (tmp_path / "a.bin").write_bytes(ramp(LENGTH))
    (tmp_path / "b.iq").write_bytes(ramp(LENGTH))
    written(tmp_path / "a.sigmf-meta")
    files, _ = find_files(tmp_path, where="x")
    assert [sample.name for sample in list_samples(files, tmp_path, PARAMETERS).samples] == ["a.bin", "b.iq"]


def collection(path, *names):
    path.write_text(json.dumps({"collection": {"core:version": "1.2.5", "core:streams": [*names]}}))


def antennas(root):
    """Two classes of four captures each, by two antennas whose names do not say so."""
    for label in ("A", "B"):
        (root / label).mkdir(parents=True)
        for number in range(4):
            names = [f"x{9 * number + 4}q{label}", f"{label}y{number * 7 + 5}p"]
            for name in names:
                (root / label / f"{name}.sigmf-data").write_bytes(ramp(3 * LENGTH))
                written(root / label / f"{name}.sigmf-meta")
            collection(root / label / f"c{number}.sigmf-collection", {"name": names[0]}, [names[1], "hash"])
    return root


def test_the_streams_of_a_collection_are_one_recording(tmp_path):
    root = antennas(tmp_path / "d")
    for parameters in (PARAMETERS, None):
        listing = list_labelled(root, ["A", "B"], "iq", parameters, where="x")
        assert listing.unreadable == {}
        assert {s.recognised_by for s in listing.samples} == {"collection"}
        assert {s.group for s in listing.samples} == {f"{label}/c{number}" for label in "AB" for number in range(4)}
        for seed in range(5):
            train, validation = split(listing.samples, ["A", "B"], 0.25, seed)
            assert {s.group for s in train}.isdisjoint(s.group for s in validation)
            assert len({s.name for s in validation}) == 2 * 2


def test_collections_that_share_a_stream_are_one_recording(tmp_path):
    root = antennas(tmp_path / "d")
    collection(root / "A/z.sigmf-collection", {"name": "x4qA"}, {"name": "x13qA"})
    groups = {s.group for s in list_labelled(root, ["A", "B"], "iq", PARAMETERS, where="x").samples}
    assert groups == {"A/c0", "A/c2", "A/c3", *(f"B/c{number}" for number in range(4))}


def test_what_the_user_states_precedes_a_collection(tmp_path):
    root = antennas(tmp_path / "d")
    found = list_labelled(root, ["A", "B"], "iq", PARAMETERS, where="x", pattern="(?P<recording>x|y)")
    assert {s.group for s in found.samples} == {"A/x", "A/y", "B/x", "B/y"}
    rows = [
        manifest.Row(f"{label}/x4q{label}.sigmf-data", label, None, "stated" if label == "A" else None)
        for label in "AB"
    ]
    found = manifest.list_rows(root / "m.jsonl", rows, ["A", "B"], "iq", PARAMETERS, where="x")
    assert {s.group for s in found.samples} == {"stated", "B/c0"}


def test_a_torn_collection_is_warned_of(tmp_path, capsys):
    root = antennas(tmp_path / "d")
    (root / "A/c0.sigmf-collection").write_text("{")
    groups = {s.group for s in list_labelled(root, ["A", "B"], "iq", PARAMETERS, where="x").samples}
    assert "A/c0" not in groups
    assert "ignoring a collection that cannot be read" in capsys.readouterr().out


def test_a_prepared_split_keeps_collections_and_their_metadata_together(tmp_path):
    root = antennas(tmp_path / "d")
    (root / "A/x4qA.sigmf-data").rename(root / "A/renamed.raw")
    written(root / "A/x4qA.sigmf-meta", dataset="renamed.raw")
    (root / "B/x4qB.sigmf-data").unlink()
    task = prepare.Task(root, tmp_path / "out", overwrite=False, stop=StopSignal(), error_threshold=0.5)
    made = prepare.split(task, fraction=0.25, seed=1, link=False)
    assert list(made.unreadable) == ["B/x4qB.sigmf-data"]
    assert made.files == 15
    found = {}
    for side in ("train", "val"):
        listing = list_labelled(tmp_path / "out" / side, ["A", "B"], "iq", PARAMETERS, where="x")
        assert listing.unreadable == {}
        assert {s.recognised_by for s in listing.samples} == {"collection"}
        found[side] = {s.group for s in listing.samples}
    assert found["train"].isdisjoint(found["val"])


def test_a_mark_notices_metadata_of_another_name(tmp_path):
    (tmp_path / "other.iq").write_bytes(ramp(LENGTH))
    written(tmp_path / "one.sigmf-meta", dataset="other.iq")
    before = marks.of_files({"other.iq": tmp_path / "other.iq"}, Contents())
    written(tmp_path / "one.sigmf-meta", [{"core:sample_start": 9}], dataset="other.iq")
    assert marks.of_files({"other.iq": tmp_path / "other.iq"}, Contents()) != before
