"""Recordings: sample formats, SigMF metadata, frames, and files that are torn or say something else than the job."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trainer.data.test_images import mutated
from trainer.trainer_kit import IQ, inference_spec, tone_set, training_spec

from rfuav_trainer.data.files import find_files
from rfuav_trainer.data.samples import SPECTROGRAM, Preprocessing, Reader, Sample, list_samples
from rfuav_trainer.errors import InvalidConfigurationError, UnreadableFileError
from rfuav_trainer.inference import infer
from rfuav_trainer.networks import weights
from rfuav_trainer.signals import recording
from rfuav_trainer.signals.spectrogram import SpectrogramParameters, pictures

PARAMETERS = SpectrogramParameters(1e6, 0.004096, 128, 64)


def noise(count, seed=0):
    """Complex samples below full scale."""
    rng = np.random.default_rng(seed)
    return (0.1 * (rng.normal(size=count) + 1j * rng.normal(size=count))).astype(np.complex64)


def pairs(samples, kind):
    """The samples as a receiver would store them in `kind`, a NumPy type."""
    kind = np.dtype(kind)
    values = samples.view(np.float32)
    if kind.kind == "f":
        return values.astype(kind).tobytes()
    scale = 2.0 ** (8 * kind.itemsize - 1)
    return (np.round(values.astype(np.float64) * scale) + (scale if kind.kind == "u" else 0)).astype(kind).tobytes()


def sigmf(path, datatype, rate=1e6, header=0, **stated):
    """Write the metadata that goes with a recording."""
    captures = [{"core:sample_start": 0, **({"core:header_bytes": header} if header else {})}]
    content = {"global": {"core:datatype": datatype, "core:sample_rate": rate, **stated}, "captures": captures}
    path.with_suffix(".sigmf-meta").write_text(json.dumps(content))


def info(path, parameters=PARAMETERS):
    """What is known of a recording, for a job with these parameters."""
    return recording.described(path, parameters.sample_format)


def scipy_picture(samples, size, dynamic_range=40.0):
    """The same picture by other hands: SciPy's transform, Pillow's antialiased bilinear resizing of 32-bit floats."""
    _, _, z = scipy.signal.stft(
        samples, window="hamming", nperseg=128, noverlap=64, return_onesided=False, boundary=None, padded=False,
        scaling="spectrum",
    )  # fmt: skip
    levels = 10 * np.log10(np.maximum(np.abs(np.fft.fftshift(z, axes=0)), 1e-15))[::-1].astype(np.float32)
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(levels)).resize((size, size), Image.Resampling.BILINEAR))
    return np.clip((resized - resized.max() + dynamic_range) * 255 / dynamic_range, 0, 255)


@pytest.mark.parametrize("kind", ["float32", "int16", "int8"])
@pytest.mark.parametrize("size", [32, 64, 224])
def test_the_picture_is_that_of_scipy_and_pillow(tmp_path, kind, size):
    """Within half a level of 255, which is what rounding takes, and a hundredth for the order of sums."""
    samples = noise(4096 * 3) + 0.5 * np.exp(2j * np.pi * 0.2 * np.arange(4096 * 3)).astype(np.complex64)
    path = tmp_path / "a.iq"
    path.write_bytes(pairs(samples, {"float32": "<f4", "int16": "<i2", "int8": "i1"}[kind]))
    stored = np.fromfile(path, {"float32": "<f4", "int16": "<i2", "int8": "i1"}[kind]).astype(np.float32)
    samples = (stored / {"float32": 1, "int16": 32768, "int8": 128}[kind]).astype(np.float32).view(np.complex64)
    raw = torch.stack([recording.read_raw(recording.described(path, kind), frame, PARAMETERS) for frame in (1, 2)])
    found, good = pictures(raw, PARAMETERS, size)
    assert found.shape == (2, 1, size, size)
    assert good.tolist() == [True, True]
    for index in (0, 1):
        expected = scipy_picture(samples[4096 * (index + 1) : 4096 * (index + 2)], size)
        assert np.abs(found[index, 0].numpy() - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("datatype", "kind"),
    [("cf32_le", "<f4"), ("cf32_be", ">f4"), ("cf64_le", "<f8"), ("ci32_le", "<i4"), ("ci16_le", "<i2"), ("ci16_be", ">i2"),
     ("cu16_le", "<u2"), ("ci8", "i1"), ("cu8", "u1")],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".sigmf-data", ".iq"])
def test_sigmf_says_how_the_samples_are_stored(tmp_path, datatype, kind, suffix):
    samples = noise(4096 * 2)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"h" * 16 + pairs(samples, kind))
    sigmf(path, datatype, header=16)
    (found,), _ = find_files(tmp_path, where="x")
    assert recording.count_frames(info(found), PARAMETERS) == 2
    raw = recording.read_raw(info(found), 1, PARAMETERS)
    values = raw.numpy().astype(np.float64) - (128 if raw.dtype == torch.uint8 else 0)
    values /= {torch.int16: 32768, torch.int8: 128, torch.uint8: 128}.get(raw.dtype, 1)
    steps = {"1": 128, "2": 32768}.get(kind[-1], 1e6)
    assert np.abs(values.reshape(-1) - samples[4096:].view(np.float32)).max() <= 0.51 / steps


@pytest.mark.parametrize(
    ("datatype", "stated", "message"),
    [
        ("rf32_le", {}, "core:datatype rf32_le is not supported: use a complex one"),
        ("cf8", {}, "core:datatype cf8"),
        ("nonsense", {}, "core:datatype nonsense"),
        ("cf32_le", {"core:num_channels": 2}, "shorter than one frame: 2048 samples"),
        ("cf32_le", {"core:sample_rate": 2e7}, "shorter than one frame: 205 samples, 4096 needed"),
        ("cf32_le", {"core:sample_rate": 1000312.5}, r"to 1000000: their ratio is not one .* \(a.sigmf-meta says the first"),
        ("cf32_le", {"core:trailing_bytes": 5}, "shorter than one frame: 4095 samples"),
    ],
)  # fmt: skip
def test_sigmf_that_does_not_fit(tmp_path, datatype, stated, message):
    path = tmp_path / "a.sigmf-data"
    path.write_bytes(pairs(noise(4096), "<f4"))
    sigmf(path, datatype, **stated)
    with pytest.raises(UnreadableFileError, match=message):
        recording.count_frames(info(path), PARAMETERS)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"global": 3}'])
def test_torn_sigmf(tmp_path, content):
    path = tmp_path / "a.sigmf-data"
    path.write_bytes(pairs(noise(4096), "<f4"))
    path.with_suffix(".sigmf-meta").write_text(content)
    with pytest.raises(UnreadableFileError, match="is not valid SigMF metadata"):
        recording.count_frames(info(path), PARAMETERS)


@pytest.mark.parametrize(
    "content",
    [
        {"global": {"core:datatype": "cf32_le", "core:sample_rate": "40 MHz"}},
        {"global": {"core:datatype": "cf32_le", "core:sample_rate": [1]}},
        {"global": {"core:datatype": "cf32_le"}, "captures": [{}, "x"]},
        {"global": {"core:datatype": "cf32_le"}, "captures": {"a": 1}},
        {"global": {"core:datatype": "cf32_le"}, "captures": [{"core:header_bytes": 1e999}]},
    ],
)
def test_sigmf_with_values_of_other_kinds(tmp_path, content):
    """Such a file is unreadable, as any other; it does not end the job."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.iq").write_bytes(pairs(noise(4096), "<f4"))
    (tmp_path / "a.sigmf-meta").write_text(json.dumps(content))
    files, _ = find_files(tmp_path, where="x")
    listing = list_samples(files, tmp_path, PARAMETERS)
    assert [sample.name for sample in listing.samples] == ["b.iq"]
    assert "a.sigmf-meta is not valid SigMF metadata" in listing.unreadable["a.iq"]


def test_sigmf_with_a_negative_header(tmp_path):
    (tmp_path / "a.iq").write_bytes(pairs(noise(4096), "<f4"))
    sigmf(tmp_path / "a.iq", "cf32_le", header=-8)
    with pytest.raises(UnreadableFileError, match="a negative number of bytes"):
        recording.count_frames(info(tmp_path / "a.iq"), PARAMETERS)


def test_frames_are_cut_without_a_gap_and_the_tail_left_out(tmp_path):
    samples = (np.arange(4096 * 2 + 100) + 0j).astype("<c8")
    path = tmp_path / "a.dat"
    path.write_bytes(samples.tobytes())
    assert recording.count_frames(info(path), PARAMETERS) == 2
    assert recording.read_raw(info(path), 1, PARAMETERS)[0].tolist() == [4096, 0]


@given(
    length=st.integers(1, 9),
    parts=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    before=st.integers(0, 5),
    offset=st.integers(0, 9),
)
@settings(deadline=None, max_examples=60)
def test_no_frame_reaches_from_one_capture_into_the_next(tmp_path_factory, length, parts, before, offset):
    """Every frame is of neighbours of one capture, and no capture has room for another."""
    path = tmp_path_factory.mktemp("captures") / "a.iq"
    begins = np.cumsum([before, *parts[:-1]])
    samples = np.concatenate([np.full(count, number + 1j * 0) for number, count in enumerate([*parts], 1)])
    samples = np.concatenate([np.zeros(before), samples]) + 1j * np.arange(before + sum(parts))
    path.write_bytes(samples.astype("<c8").tobytes())
    sigmf(path, "cf32_le", **({"core:offset": offset} if offset else {}))
    content = json.loads(path.with_suffix(".sigmf-meta").read_text())
    content["captures"] = [{"core:sample_start": int(begin) + offset} for begin in begins]
    path.with_suffix(".sigmf-meta").write_text(json.dumps(content))
    parameters = replace(PARAMETERS, frame_seconds=length / PARAMETERS.sample_rate)
    expected = sum(count // length for count in parts)
    if not expected:
        with pytest.raises(UnreadableFileError, match="shorter than one frame"):
            recording.count_frames(info(path), parameters)
        return
    assert recording.count_frames(info(path), parameters) == expected
    places = [info(path).place(frame, length) for frame in range(expected)]
    starts = [capture.begin + begin for capture, begin in places]
    assert all(later - one >= length for one, later in pairwise(starts))
    for frame, start in enumerate(starts):
        found = recording.read_raw(info(path), frame, parameters).numpy()
        assert len({*found[:, 0].tolist()}) == 1
        assert found[0, 0] > 0
        assert found[:, 1].tolist() == list(range(start, start + length))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x" * 8 * 4095, "shorter than one frame: 4095 samples, 4096 needed"),
        (b"x" * (8 * 4095 + 3), "shorter than one frame: 4095 samples, 4096 needed"),
        (b"", "shorter than one frame: 0 samples"),
    ],
)
def test_torn_recordings(tmp_path, content, message):
    (tmp_path / "a.iq").write_bytes(content)
    with pytest.raises(UnreadableFileError, match=message):
        recording.count_frames(info(tmp_path / "a.iq"), PARAMETERS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 4095, 8191])
def test_a_frame_that_is_no_numbers(tmp_path, value, place):
    values = noise(3 * 4096).view("<f4").copy()
    values[8192 + place] = value
    (tmp_path / "a.iq").write_bytes(values.tobytes())
    reader = Reader(Preprocessing("iq", 32, *SPECTROGRAM, PARAMETERS))
    with pytest.raises(UnreadableFileError, match="frame 1 contains NaN or infinite samples: is sampleFormat right"):
        reader.read(Sample(tmp_path / "a.iq", "a.iq", frame=1, info=info(tmp_path / "a.iq")))
    raw = torch.stack([recording.read_raw(info(tmp_path / "a.iq"), frame, PARAMETERS) for frame in range(3)])
    assert pictures(raw, PARAMETERS, 32)[1].tolist() == [True, False, True]
    with pytest.raises(UnreadableFileError, match="frame 1 contains NaN"):
        recording.read_frame(info(tmp_path / "a.iq"), 1, PARAMETERS)


@pytest.mark.parametrize("more", [1, 3, 7])
def test_a_torn_last_sample_is_dropped(tmp_path, capsys, more):
    """Three stray bytes refused a whole recording."""
    whole = noise(3 * 4096).astype("<c8").tobytes()
    (tmp_path / "a.iq").write_bytes(whole + b"x" * more)
    assert recording.count_frames(info(tmp_path / "a.iq"), PARAMETERS) == 3
    said = capsys.readouterr().out
    assert "dropping the torn last sample" in said
    assert f"bytes={more}" in said
    found = recording.read_frame(info(tmp_path / "a.iq"), 2, PARAMETERS).numpy()
    assert found.tobytes() == whole[-8 * 4096 :]


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(".cfile", "float32"), (".cf32", "float32"), (".cs16", "int16"), (".cs8", "int8"), (".cu8", "uint8"),
     (".CS16", "int16"), (".iq", "float32"), (".dat", "float32")],
)  # fmt: skip
def test_the_suffix_says_how_the_samples_are_stored(tmp_path, suffix, kind):
    samples = noise(4096) * 0.2
    (tmp_path / f"a{suffix}").write_bytes(pairs(samples.astype(np.complex64), kind))
    (found,), chosen = find_files(tmp_path, where="x")
    assert chosen == "iq"
    assert PARAMETERS.sample_format == "auto"
    assert np.abs(recording.read_frame(info(found), 0, PARAMETERS).numpy() - samples).max() < 0.02
    stated = replace(PARAMETERS, sample_format=kind)
    assert torch.equal(
        recording.read_frame(info(found, stated), 0, stated), recording.read_frame(info(found), 0, PARAMETERS)
    )
    other = replace(PARAMETERS, sample_format="int8" if kind != "int8" else "int16")
    if suffix in {".iq", ".dat"}:
        recording.count_frames(info(found, other), other)
    else:
        with pytest.raises(
            UnreadableFileError, match=f"{suffix.lower()} means {kind}, iq.sampleFormat is {other.sample_format}"
        ):
            recording.count_frames(info(found, other), other)


def test_a_suffix_that_says_nothing_needs_a_stated_format(tmp_path):
    samples = noise(4096) * 0.2
    (tmp_path / "a.bin").write_bytes(pairs(samples.astype(np.complex64), "int16"))
    (found,), kind = find_files(tmp_path, where="x")
    assert kind == "iq"
    with pytest.raises(UnreadableFileError, match=r"\.bin says nothing about the samples: write iq.sampleFormat"):
        recording.count_frames(info(found), PARAMETERS)
    assert recording.count_frames(recording.described(found, "int16"), PARAMETERS) == 1
    (tmp_path / "b.iq").write_bytes(b"")
    assert [p.name for p in find_files(tmp_path, where="x")[0]] == ["b.iq"]
    assert [p.name for p in find_files(tmp_path, where="x", sample_format="int16")[0]] == ["a.bin", "b.iq"]


def test_unsigned_samples_are_centred_on_the_middle(tmp_path):
    """The picture is that of the same samples as floats, and that of SigMF's cu8."""
    raw = np.random.default_rng(0).integers(0, 256, (4096, 2), dtype=np.uint8)
    raw.tofile(tmp_path / "a.cu8")
    ((raw.astype(np.float32) - 128) / 128).tofile(tmp_path / "b.cf32")
    raw.tofile(tmp_path / "c.sigmf-data")
    sigmf(tmp_path / "c.sigmf-data", "cu8")
    seen = [
        pictures(recording.read_raw(info(tmp_path / name), 0, PARAMETERS)[None], PARAMETERS, 32)[0]
        for name in ("a.cu8", "b.cf32", "c.sigmf-data")
    ]
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_damaged_metadata_makes_one_recording_unreadable(tmp_path):
    random = np.random.default_rng(1)
    noise(3 * 4096).astype("<c8").tofile(tmp_path / "a.sigmf-data")
    sigmf(tmp_path / "a.sigmf-data", "cf32_le", header=8)
    content = (tmp_path / "a.sigmf-meta").read_bytes()
    unreadable = 0
    odd = [b"[" * 100_000, b'{"global": {"core:datatype": "cf32_le", "core:offset": 1e400}}', b"\xff\xfe", b"null"]
    for changed in [*odd, *(mutated(content, random) for _ in range(300))]:
        (tmp_path / "a.sigmf-meta").write_bytes(changed)
        try:
            for frame in range(min(3, recording.count_frames(info(tmp_path / "a.sigmf-data"), PARAMETERS))):
                recording.read_raw(info(tmp_path / "a.sigmf-data"), frame, PARAMETERS)
        except UnreadableFileError:
            unreadable += 1
    assert unreadable > 100


@pytest.mark.parametrize("kind", ["float32", "int16", "int8"])
def test_sample_formats_give_the_same_frame(tmp_path, kind):
    tone_set(tmp_path / "f", count=1)
    tone_set(tmp_path / "k", count=1, kind=kind)
    reference = recording.read_frame(info(tmp_path / "f/alpha/000.iq"), 1, PARAMETERS)
    found = recording.read_frame(recording.described(tmp_path / "k/alpha/000.iq", kind), 1, PARAMETERS)
    assert found.dtype == torch.complex64
    scale = 1 if kind == "float32" else 0.9
    assert (found / scale - reference).abs().max() < {"float32": 1e-6, "int16": 1e-4, "int8": 0.02}[kind]


def test_a_frame_that_went_away(tmp_path):
    tone_set(tmp_path, count=1)
    known = info(tmp_path / "alpha/000.iq")
    with pytest.raises(UnreadableFileError, match="frame 7 is incomplete"):
        recording.read_raw(known, 7, PARAMETERS)
    known.file.unlink()
    with pytest.raises(UnreadableFileError, match="cannot be read: No such file"):
        recording.read_raw(known, 0, PARAMETERS)
    with pytest.raises(UnreadableFileError, match="cannot be opened: No such file"):
        info(known.file)


def test_a_model_sees_no_other_rendering_than_it_was_trained_on(desk):
    """All through the files: trained on jet, its weights say so, and a job that says otherwise is refused."""
    tone_set(desk / "captures/train", count=2, classes=("a", "b"))
    iq = {**IQ, "colorMap": "jet", "dynamicRange": 50}
    data_set = {"train": {"uri": "pvc://captures/train"}, "validation": {"fraction": 0.5}, "imageSize": 64, "iq": iq}
    assert desk.pod("TrainingJob", {**training_spec(training__epochs=1), "dataset": data_set}).code == 0
    carried = weights.read_card(desk / "models/out/best.safetensors").preprocessing.spectrogram
    assert (carried.color_map, carried.dynamic_range) == ("jet", 50)
    spec = inference_spec(input__uri="pvc://captures/train")
    job = desk.job("InferenceJob", {**spec, "iq": iq})
    assert infer.open_classifier(job, job.spec, "iq", torch.device("cpu")).preprocessing.spectrogram == carried
    for asked, message in [
        ({"colorMap": "hot"}, "colorMap jet in the weights, hot in the job"),
        ({"dynamicRange": 60}, "dynamicRange 50.0 in the weights, 60.0 in the job"),
        ({"hopSize": 32}, "hopSize 64 in the weights, 32 in the job"),
    ]:
        job = desk.job("InferenceJob", {**spec, "iq": {**iq, **asked}})
        with pytest.raises(InvalidConfigurationError, match=message) as refused:
            infer.open_classifier(job, job.spec, "iq", torch.device("cpu"))
        assert refused.value.reason == "PreprocessingMismatch"
