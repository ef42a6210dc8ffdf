"""Packs: recordings of another sample rate, what their sidecars state, and where these disagree with job and files."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import scipy.signal
import torch
from trainer.runs import run, stopped
from trainer.signals.test_sidecar import xml
from trainer.trainer_kit import IQ, inference_spec, training_spec, weights_file

from rfuav_trainer import prepare
from rfuav_trainer.data import files, inputs
from rfuav_trainer.data.augment_signals import ChangingReader
from rfuav_trainer.data.dataset import open_dataset
from rfuav_trainer.data.files import find_files
from rfuav_trainer.data.samples import SPECTROGRAM, Preprocessing, Reader, list_labelled, list_samples
from rfuav_trainer.errors import DeadInputError, InvalidConfigurationError, UnreadableFileError
from rfuav_trainer.inference import finish, infer
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.signals import recording
from rfuav_trainer.signals.resampling import design
from rfuav_trainer.signals.spectrogram import SpectrogramParameters
from rfuav_trainer.storage import marks
from rfuav_trainer.training import setup

JOB = SpectrogramParameters(1e6, 0.004096, 128, 64)
CLASSES = ("alpha", "beta")


def noise(count, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * (rng.normal(size=count) + 1j * rng.normal(size=count))).astype("<c8")


def pack(folder, name="pack1", seconds=2, samples=12_000, seed=0, **stated):
    """One pack with a sidecar. The rate is 2.5 MHz, that of the job 1 MHz."""
    folder.mkdir(parents=True, exist_ok=True)
    for second in range(seconds):
        noise(samples, [seed, second]).tofile(folder / f"{name}_{second}-{second + 1}s.iq")
    told = {"SampleRate": "2500000", "SampleCount": str(seconds * samples), "IQFileName": None, **stated}
    (folder / f"{name}.xml").write_bytes(xml(**told))
    return folder


def listing(folder, parameters=JOB):
    return list_samples(find_files(folder, where="x")[0], folder, parameters)


def test_the_sidecar_says_how_a_pack_was_recorded(tmp_path):
    found = listing(pack(tmp_path)).samples[0].info
    assert (found.rate_hz, found.captures[0].frequency_hz, found.said_by) == (2.5e6, 2.44e9, "pack1.xml")
    assert found.kind == np.dtype("<f4")
    pack(tmp_path, "pack2", DataType="Complex Short")
    infos = {sample.name: sample.info for sample in listing(tmp_path).samples}
    assert infos["pack2_0-1s.iq"].kind == np.dtype("<i2")
    stated = listing(tmp_path, replace(JOB, sample_format="float32")).samples
    assert {sample.info.kind for sample in stated} == {np.dtype("<f4")}


def test_sigmf_metadata_takes_precedence_over_a_sidecar(tmp_path):
    pack(tmp_path, seconds=1)
    meta = {"global": {"core:datatype": "cf32_le", "core:sample_rate": 1e6}, "captures": [{"core:frequency": 5e9}]}
    (tmp_path / "pack1_0-1s.sigmf-meta").write_text(json.dumps(meta))
    found = listing(tmp_path)
    assert found.samples[0].info.rate_hz == 1e6
    assert found.packs == {"packs": 1}


@pytest.mark.parametrize("rate", [1e6, 2.5e6, 400e3, 1.5625e6])
def test_frames_of_another_rate_are_those_of_scipy(tmp_path, rate):
    """Also across frames: a frame begins with the past of the one before it, not with silence."""
    samples = noise(30_000)
    samples.tofile(tmp_path / "pack1_0-1s.iq")
    (tmp_path / "pack1.xml").write_bytes(xml(SampleRate=str(rate), SampleCount=None))
    ratio = Fraction(1_000_000) / Fraction(rate)
    taps = design(ratio.numerator, ratio.denominator) / ratio.numerator
    expected = (
        samples
        if ratio == 1
        else scipy.signal.resample_poly(samples.astype(complex), *ratio.as_integer_ratio(), window=taps)
    )
    found = listing(tmp_path).samples
    assert len(found) == len(expected) // 4096
    for sample in found:
        frame = recording.read_frame(sample.info, sample.frame, JOB).numpy()
        begin = sample.frame * 4096
        assert np.abs(frame - expected[begin : begin + 4096]).max() <= (0 if ratio == 1 else 1e-6)
        assert recording.first_sample(sample.info, sample.frame, JOB)[1] == begin


def test_frames_are_the_same_in_any_order(tmp_path):
    pack(tmp_path, samples=60_000)
    found = listing(tmp_path).samples
    in_order = [recording.read_raw(sample.info, sample.frame, JOB) for sample in found]
    assert in_order[0].dtype == torch.float32
    for index in np.random.default_rng(0).permutation(len(found)):
        again = recording.read_raw(found[index].info, found[index].frame, JOB)
        assert torch.equal(again, in_order[index])


@pytest.mark.parametrize("kind", ["<i2", "i1", "u1", ">i2"])
def test_integers_are_resampled_at_full_scale_one(tmp_path, kind):
    samples = 0.5 * np.exp(2j * np.pi * 0.03 * np.arange(30_000))
    kind = np.dtype(kind)
    scale = 2.0 ** (8 * kind.itemsize - 1)
    stored = np.round(samples.view(float) * scale) + (scale if kind.kind == "u" else 0)
    stored.astype(kind).tofile(tmp_path / "a.sigmf-data")
    name = f"c{kind.kind}{8 * kind.itemsize}" + {1: ""}.get(kind.itemsize, "_be" if kind.byteorder == ">" else "_le")
    meta = {"global": {"core:datatype": name, "core:sample_rate": 2e6}}
    (tmp_path / "a.sigmf-meta").write_text(json.dumps(meta))
    found = listing(tmp_path).samples
    assert len(found) == 3
    frame = recording.read_frame(found[1].info, 1, JOB).numpy()
    expected = 0.5 * np.exp(2j * np.pi * 0.06 * np.arange(4096, 8192))
    assert np.abs(frame - expected).max() <= 1.5 / scale


def test_captures_are_resampled_each_on_its_own(tmp_path):
    """No sample of one capture reaches into the other, and time is that of the recording."""
    values = np.concatenate([np.full(20_000, 0.25), np.full(20_000, -0.5)]).astype("<c8")
    values.tofile(tmp_path / "a.sigmf-data")
    captures = [{"core:sample_start": 0}, {"core:sample_start": 20_000}]
    meta = {"global": {"core:datatype": "cf32_le", "core:sample_rate": 2e6}, "captures": captures}
    (tmp_path / "a.sigmf-meta").write_text(json.dumps(meta))
    found = listing(tmp_path).samples
    assert [recording.first_sample(s.info, s.frame, JOB)[1] for s in found] == [0, 4096, 10_000, 14_096]
    inside = [recording.read_raw(s.info, s.frame, JOB)[100:-100, 0] for s in found]
    assert [float(part.mean()) for part in inside] == pytest.approx([0.25, 0.25, -0.5, -0.5], abs=1e-5)
    assert float(recording.read_raw(found[2].info, 2, JOB)[:, 0].max()) < 0.1


def test_a_rate_with_too_large_terms_makes_one_recording_unreadable(tmp_path):
    pack(tmp_path)
    pack(tmp_path, "pack2", SampleRate="1000312.7")
    found = listing(tmp_path)
    assert {sample.name for sample in found.samples} == {"pack1_0-1s.iq", "pack1_1-2s.iq"}
    assert found.unreadable["pack2_0-1s.iq"] == (
        "1000312.7 samples/s cannot be resampled to 1000000: their ratio is not one of whole numbers up to 1000 "
        "(pack2.xml says the first, iq.sampleRate the second): write iq.sampleRate: 1000312.7, or resample the file"
    )


def test_dead_frames_are_found_before_they_are_resampled(tmp_path):
    """A filter makes silence of a few different values of a constant, and hides clipping."""
    pack(tmp_path, seconds=1, samples=60_000)
    path = tmp_path / "pack1_0-1s.iq"
    samples = np.fromfile(path, "<c8")
    samples[:10_300] = 0.3
    samples.view("<f4")[2 * 20_400 : 2 * 30_800] = np.sign(samples.view("<f4")[2 * 20_400 : 2 * 30_800])
    samples.tofile(path)
    reader = Reader(Preprocessing("iq", 32, *SPECTROGRAM, JOB))
    found = listing(tmp_path).samples
    for read in (reader.read, ChangingReader(reader, ["AddNoise"], seed=1, epoch=1).read):
        with pytest.raises(DeadInputError, match="constant"):
            read(found[0])
        with pytest.raises(DeadInputError, match="clipped"):
            read(found[2])
        assert read(found[4]).shape == (1, 32, 32)


def test_a_frame_of_another_rate_with_nan_is_unreadable(tmp_path):
    pack(tmp_path, seconds=1, samples=60_000)
    path = tmp_path / "pack1_0-1s.iq"
    samples = np.fromfile(path, "<c8")
    samples[15_000] = np.nan
    samples.tofile(path)
    reader = Reader(Preprocessing("iq", 32, *SPECTROGRAM, JOB))
    found = listing(tmp_path).samples
    with pytest.raises(UnreadableFileError, match="frame 1 contains NaN"):
        reader.read(found[1])
    assert reader.read(found[3]).shape == (1, 32, 32)


def test_disagreements_are_warned_of_once_a_pack_and_counted(tmp_path, capsys):
    pack(tmp_path / "a", "pack1", SampleRate="1000000")
    pack(tmp_path / "a", "pack2", SampleRate="2000000")
    pack(tmp_path / "a", "pack3", SampleCount="12000", SampleRate="fast")
    pack(tmp_path / "a", "pack4", SampleCount="99", SampleRate=None)
    pack(tmp_path / "a", "pack5", SampleRate=None)
    (tmp_path / "a/pack5.xml").write_bytes(b"<SignalHoundIQFile><SampleRate>")
    pack(tmp_path / "a", "pack6", SampleRate=None, DataType="Complex Short")
    found = listing(tmp_path, replace(JOB, sample_format="float32"))
    assert found.packs == {
        "packs": 6, "otherSampleRate": 1, "otherSampleCount": 1, "unreadableSidecars": 1, "otherSampleFormat": 1,
        "resampledFiles": 2,
    }  # fmt: skip
    said = [line for line in capsys.readouterr().out.splitlines() if "sidecar" in line]
    assert [next(name for name in ("pack2", "pack3", "pack4", "pack5", "pack6") if name in line) for line in said] == [
        "pack2", "pack3", "pack4", "pack5", "pack6",
    ]  # fmt: skip
    assert "job=1000000.0" in said[0]
    assert "sidecar=2000000.0" in said[0]
    assert "{'SampleRate': 'fast'}" in said[1]
    assert "sidecar=99" in said[2]
    assert "files=24000" in said[2]
    assert "is not XML" in said[3]


@pytest.mark.parametrize("uri", ["packs", "packs/pack1_0-1s.iq", "packs/set.jsonl"])
def test_packs_in_a_store_have_their_sidecars(desk, bucket, uri):
    """Of a folder, of a single file, and of the files of a manifest: whatever they are called."""
    pack(desk / "up", "pack1")
    pack(desk / "up", "pack2", CenterFrequency="9e8")
    (desk / "up/vtsbw10_pack1.xml").write_bytes((desk / "up/pack1.xml").read_bytes())
    (desk / "up/pack1.xml").unlink()
    (desk / "up/set.jsonl").write_text('{"path": "pack1_1-2s.iq"}')
    for path in (desk / "up").iterdir():
        bucket.client.put_object(Bucket=bucket.name, Key=f"packs/{path.name}", Body=path.read_bytes())
    job = desk.job("InferenceJob", inference_spec(input__uri=bucket.uri(uri)))
    found = inputs.find(job, job.spec)
    samples = found.samples(found.names, JOB).samples
    stated = {(sample.info.said_by, sample.info.rate_hz, sample.info.captures[0].frequency_hz) for sample in samples}
    both = {("vtsbw10_pack1.xml", 2.5e6, 2.44e9), ("pack2.xml", 2.5e6, 9e8)}
    assert stated == (both if uri == "packs" else {("vtsbw10_pack1.xml", 2.5e6, 2.44e9)})


def test_metadata_of_another_name_is_found_beside_what_a_manifest_in_a_store_lists(desk, bucket):
    noise(9000).tofile(desk / "a.dat")
    meta = {"global": {"core:datatype": "cf32_le", "core:sample_rate": 2e6, "core:dataset": "a.dat"}, "captures": []}
    for name, content in (
        ("a.dat", (desk / "a.dat").read_bytes()),
        ("about.sigmf-meta", json.dumps(meta).encode()),
        ("set.jsonl", b'{"path": "a.dat"}'),
    ):
        bucket.client.put_object(Bucket=bucket.name, Key=f"set/{name}", Body=content)
    job = desk.job("InferenceJob", inference_spec(input__uri=bucket.uri("set/set.jsonl")))
    found = inputs.find(job, job.spec)
    assert {sample.info.rate_hz for sample in found.samples(found.names, JOB).samples} == {2e6}


def test_a_mark_covers_the_sidecars_of_packs(desk):
    weights_file(desk / "models/out/best.safetensors", recordings=True)
    for seed, name in enumerate(CLASSES):
        pack(desk / "captures/train" / name, seed=seed)
        (desk / "captures/train" / name / "other.xml").write_text("<annotation/>")
    training = desk.job("TrainingJob", training_spec(dataset__iq=IQ))
    inference = desk.job("InferenceJob", inference_spec(input__uri="pvc://captures/train"))

    def made_from():
        theirs = infer.made_from(inference, inference.spec, inputs.find(inference, inference.spec))
        return [setup.made_from(training, training.spec, open_dataset(training, training.spec)), theirs]

    before = made_from()
    (desk / "captures/train/alpha/other.xml").write_text("<annotation>of something else</annotation>")
    assert made_from() == before
    (desk / "captures/train/alpha/pack1.xml").write_bytes(xml(SampleRate="2000000"))
    for then, today in zip(before, made_from(), strict=True):
        assert [part.partition(": ")[2] for part in marks.differences(then, today)] == ["alpha has other contents"]


def test_a_pack_counts_in_one_shard(tmp_path):
    """In that of its first file; its number of samples is that of all its files."""
    pack(tmp_path)
    found, _ = find_files(tmp_path, where="x")
    assert list_samples(found[:1], tmp_path, JOB).packs == {"packs": 1, "otherSampleRate": 1, "resampledFiles": 1}
    assert list_samples(found[1:], tmp_path, JOB).packs == {"resampledFiles": 1}


def test_the_snr_of_a_sidecar_counts_where_the_name_has_none(tmp_path):
    pack(tmp_path / "alpha")
    pack(tmp_path / "alpha", "pack2_snr10")
    pack(tmp_path / "beta")
    (tmp_path / "beta/pack1_0-1s.json").write_text('{"snrDb": 4}')
    for parameters in (JOB, None):
        found = list_labelled(tmp_path, CLASSES, "iq", parameters, where="x").samples
        levels = {sample.name: sample.snr for sample in found}
        assert levels == {
            "alpha/pack1_0-1s.iq": -6, "alpha/pack1_1-2s.iq": -6, "alpha/pack2_snr10_0-1s.iq": 10,
            "alpha/pack2_snr10_1-2s.iq": 10, "beta/pack1_0-1s.iq": 4, "beta/pack1_1-2s.iq": -6,
        }  # fmt: skip


def test_a_job_on_packs(desk):
    """Trained at the rate of the job; predictions have time and frequency, and the metrics their SNR."""
    for split, seed in (("train", 0), ("test", 90)):
        for label, name in enumerate(("alpha", "beta")):
            for number in (1, 2):
                place = desk / "captures" / split / name
                pack(place, f"pack{number}", seed=seed + 10 * label + number, ReferenceSNRLevel=str(number))
    run(desk, training_spec(training__epochs=1, dataset__iq=IQ))
    report = json.loads((desk / "models/out/report.json").read_bytes())
    assert report["packs"] == {"packs": 4, "otherSampleRate": 4, "resampledFiles": 8}
    run(desk, inference_spec(evaluation={}))
    mark = json.loads((desk / "results/out/_SUCCESS-0").read_bytes())
    assert mark["packs"] == {"packs": 4, "otherSampleRate": 4, "resampledFiles": 8}
    lines = [json.loads(line) for line in (desk / "results/out/predictions-0.jsonl").read_text().splitlines()]
    assert {line["centerHz"] for line in lines} == {2.44e9}
    assert {(line["startSeconds"], line["endSeconds"], line["highHz"]) for line in lines} == {(0, 0.004096, 5e5)}
    evaluated = json.loads((desk / "results/out/evaluation.json").read_bytes())
    assert [row["snrDb"] for row in evaluated["bySnr"]] == [1, 2]


def test_a_stopped_inference_goes_on_with_the_same_frames(desk):
    """Frame by frame the same scores as without a stop."""
    weights_file(desk / "models/out/best.safetensors", recordings=True)
    pack(desk / "captures/test/alpha", samples=80_000)
    run(desk, inference_spec(output__uri="pvc://results/whole"))
    stopped(desk, inference_spec(batchSize=2), 4)
    run(desk, inference_spec(batchSize=2))
    whole, resumed = (
        (desk / "results" / name / "predictions-0.jsonl").read_text().splitlines() for name in ("whole", "out")
    )
    assert len(whole) == 14
    assert [json.loads(line)["frame"] for line in whole] == [json.loads(line)["frame"] for line in resumed]
    for one, other in zip(whole, resumed, strict=True):
        assert json.loads(one)["score"] == pytest.approx(json.loads(other)["score"], abs=1e-5)


def several(path, channels, samples=9000, rate=1e6, **more):
    """A recording of several channels, interleaved sample by sample, of which each holds its own number."""
    values = np.arange(samples * channels) % channels + 1.0
    values.astype("<c8").tofile(path)
    meta = {"global": {"core:datatype": "cf32_le", "core:sample_rate": rate, "core:num_channels": channels}, **more}
    path.with_suffix(".sigmf-meta").write_text(json.dumps(meta))


@pytest.mark.parametrize("rate", [1e6, 2e6])
def test_a_channel_of_several_is_chosen(tmp_path, rate):
    several(tmp_path / "a.sigmf-data", 3, samples=20_000, rate=rate)
    for channel in range(3):
        job = replace(JOB, channel=channel)
        found = listing(tmp_path, job).samples
        assert len(found) == int(20_000 * 1e6 / rate) // 4096
        raw = recording.read_raw(found[0].info, found[0].frame, job)
        assert raw.shape == (4096, 2)
        assert raw[100:, 0].numpy() == pytest.approx(channel + 1, abs=1e-4)
        assert not raw[:, 1].any()


def test_captures_of_several_channels(tmp_path):
    captures = [{"core:sample_start": 0, "core:header_bytes": 4}, {"core:sample_start": 4100, "core:header_bytes": 8}]
    several(tmp_path / "a.sigmf-data", 2, captures=captures)
    values = (tmp_path / "a.sigmf-data").read_bytes()
    (tmp_path / "a.sigmf-data").write_bytes(b"h" * 4 + values[: 16 * 4100] + b"h" * 8 + values[16 * 4100 :])
    job = replace(JOB, channel=1)
    found = listing(tmp_path, job).samples
    assert [recording.read_raw(s.info, s.frame, job)[:, 0].unique().tolist() for s in found] == [[2], [2]]


@pytest.mark.parametrize(
    ("channels", "channel", "message"),
    [
        (2, 2, "has 2 channels, iq.channel is 2: write 0 to 1"),
        (1, 1, "has one channel, iq.channel is 1: write 0, or how many as iq.channels"),
    ],
)
def test_a_channel_that_is_not_there_is_refused(tmp_path, channels, channel, message):
    several(tmp_path / "a.sigmf-data", channels)
    found = listing(tmp_path, replace(JOB, channel=channel))
    assert found.unreadable == {"a.sigmf-data": message}


@pytest.mark.parametrize("rate", [1e6, 2e6])
def test_a_channel_of_a_raw_file_is_chosen(tmp_path, rate):
    several(tmp_path / "pack1_0-1s.iq", 3, rate=rate)
    (tmp_path / "pack1_0-1s.sigmf-meta").unlink()
    (tmp_path / "pack1.xml").write_bytes(xml(SampleRate=str(rate), SampleCount="9000"))
    for channel in (0, 2):
        job = replace(JOB, channel=channel, channels=3)
        found = listing(tmp_path, job)
        assert found.packs["otherSampleCount"] == 0
        assert len(found.samples) == 9000 * JOB.sample_rate / rate // 4096
        frame = recording.read_frame(found.samples[0].info, 0, job)[100:-100]
        assert torch.allclose(frame, torch.full_like(frame, complex(channel + 1)), atol=1e-4)


def test_the_channel_is_of_the_input_and_no_part_of_the_weights(desk):
    weights_file(desk / "models/out/best.safetensors", recordings=True)
    (desk / "captures/test").mkdir()
    several(desk / "captures/test/a.sigmf-data", 2)
    found = {}
    for channel in (0, 1):
        job = desk.job("InferenceJob", inference_spec(iq={**IQ, "channel": channel}))
        found[channel] = infer.open_classifier(job, job.spec, "iq", torch.device("cpu"))
        assert found[channel].preprocessing.spectrogram.channel == channel
        assert "channel" not in found[channel].preprocessing.to_json()["spectrogram"]
    job = desk.job("InferenceJob", inference_spec())
    assert infer.open_classifier(job, job.spec, "iq", torch.device("cpu")).digest == found[0].digest
    assert found[0].digest != found[1].digest  # predictions of one channel are not continued with another


def test_a_job_without_a_sample_rate_takes_that_of_most_recordings(desk, capsys):
    """Its weights have it, so that other recordings are resampled to it later."""
    for name, seed in (("alpha", 1), ("beta", 2)):
        pack(desk / "captures/train" / name, "pack1", seed=seed, SampleRate="1000000")
        pack(desk / "captures/train" / name, "pack2", seed=seed + 10, seconds=1, SampleCount="12000")
    iq = {key: value for key, value in IQ.items() if key != "sampleRate"}
    job = desk.job("TrainingJob", training_spec(dataset__iq=iq))
    found = open_dataset(job, job.spec)
    assert found.preprocessing.spectrogram.sample_rate == 1e6
    assert found.packs == {"packs": 4, "otherSampleRate": 2, "resampledFiles": 2}
    assert "taking that of most recordings" in capsys.readouterr().out
    job = desk.job("TrainingJob", training_spec(dataset__iq={**iq, "sampleRate": "2500k"}))
    assert open_dataset(job, job.spec).preprocessing.spectrogram.sample_rate == 2.5e6
    weights_file(desk / "models/out/best.safetensors")  # of pictures
    job = desk.job("InferenceJob", inference_spec(input__uri="pvc://captures/train", iq=iq))
    there = inputs.find(job, job.spec)
    work = infer.Inference(job, job.spec, desk / "results", progress=None, stop=None, found=there)
    assert work.classifier.preprocessing.spectrogram.sample_rate == 1e6


def test_a_frame_that_is_too_short_at_the_rate_of_the_recordings(desk):
    for name in CLASSES:
        pack(desk / "captures/train" / name)
    job = desk.job("TrainingJob", training_spec(dataset__iq={"frameSeconds": 0.0004, "fftSize": 1024}))
    with pytest.raises(
        InvalidConfigurationError, match=r"0.0004 s at the 2500000 samples/s .* are 1000 samples, fftSize"
    ):
        open_dataset(job, job.spec)


def test_jobs_of_earlier_versions_keep_their_fingerprint(desk):
    """What has finished stays finished: 100M was the default, and is what it means where no file says more."""
    iq = {key: value for key, value in IQ.items() if key != "sampleRate"}
    specs = [training_spec(dataset__iq={**iq, **more}) for more in ({}, {"sampleRate": "100M"}, {"channel": 1})]
    found = [desk.job("TrainingJob", spec).fingerprint() for spec in specs]
    assert found[0] == found[1] != found[2]


def test_the_files_of_a_data_set_are_listed_once(desk, monkeypatch):
    for seed, name in enumerate(CLASSES):
        pack(desk / "captures/train" / name, seed=seed)
    listed = []
    walk = files._walk
    monkeypatch.setattr(files, "_walk", lambda root: listed.append(root) or walk(root))
    job = desk.job("TrainingJob", training_spec(dataset__iq={key: IQ[key] for key in IQ if key != "sampleRate"}))
    open_dataset(job, job.spec)
    assert listed == [desk / "captures/train"]


def test_a_split_takes_the_sidecars_with_their_packs(tmp_path):
    """Each to the side of its pack, whatever its name; without it the rate would be lost."""
    for seed, name in enumerate(CLASSES):
        pack(tmp_path / "all" / name, "pack1", seed=seed)
        pack(tmp_path / "all" / name, "pack2", seed=seed + 10)
        (tmp_path / "all" / name / "pack2.xml").rename(tmp_path / "all" / name / "vtsbw10_pack2.xml")
    task = prepare.Task(tmp_path / "all", tmp_path / "parts", overwrite=False, stop=StopSignal())
    prepare.split(task, fraction=0.5, seed=1, link=False)
    sides = [list_labelled(tmp_path / "parts" / side, CLASSES, "iq", JOB, where="x") for side in ("train", "val")]
    assert [side.packs["packs"] for side in sides] == [2, 2]
    assert {sample.info.rate_hz for side in sides for sample in side.samples} == {2.5e6}
    assert {path.name for path in (tmp_path / "parts").rglob("*.xml")} == {"pack1.xml", "vtsbw10_pack2.xml"}


def test_a_file_of_a_pack_that_cannot_be_opened_is_unreadable_alone(tmp_path):
    pack(tmp_path)
    (tmp_path / "pack1_2-3s.iq").symlink_to(tmp_path / "gone")
    found = listing(tmp_path)
    assert {sample.name for sample in found.samples} == {"pack1_0-1s.iq", "pack1_1-2s.iq"}
    assert found.unreadable == {"pack1_2-3s.iq": "cannot be opened: No such file or directory"}
    assert found.packs == {"packs": 1, "otherSampleRate": 1, "resampledFiles": 2}


def test_the_pictures_of_an_inference_are_of_the_channel_that_was_classified(desk, monkeypatch):
    weights_file(desk / "models/out/best.safetensors", recordings=True)
    (desk / "captures/test").mkdir()
    several(desk / "captures/test/a.sigmf-data", 2)
    read = []
    monkeypatch.setattr(finish, "Reader", lambda how, **more: read.append(how) or Reader(how, **more))
    run(desk, inference_spec(iq={**IQ, "channel": 1}))
    assert read[0].spectrogram.channel == 1
