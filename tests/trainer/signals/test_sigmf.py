"""SigMF: what the metadata says about a recording, and the parts of the format besides a pair of files."""

import json

import numpy as np
import pytest

from rfuav_trainer.errors import UnreadableFileError
from rfuav_trainer.signals import recording, sigmf
from rfuav_trainer.signals.spectrogram import SpectrogramParameters

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
