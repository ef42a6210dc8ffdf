"""Annotations as labels: what is cut out of recordings, in time and frequency, and on which side of a split it stands."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from trainer.signals.test_archive import packed
from trainer.trainer_kit import IQ, training_spec

from rfuav_crds import load_job
from rfuav_trainer.data.annotations import list_annotated
from rfuav_trainer.data.samples import SPECTROGRAM, Preprocessing, Reader, Sample, read_frame, read_recorded
from rfuav_trainer.data.splitting import split
from rfuav_trainer.errors import InputError
from rfuav_trainer.signals.annotated import Box, only
from rfuav_trainer.signals.spectrogram import SpectrogramParameters

PARAMETERS = SpectrogramParameters(1e6, 0.001024, 64, 32)
LENGTH = PARAMETERS.frame_samples
CENTER = 2.4e9


def tone(hertz, count, first=0):
    return np.exp(2j * np.pi * hertz / PARAMETERS.sample_rate * np.arange(first, first + count))


def noise(count, seed=0):
    rng = np.random.default_rng(seed)
    return 0.01 * (rng.normal(size=count) + 1j * rng.normal(size=count))


def annotation(label, begin=0, count=None, low=None, high=None, **more):
    found = {"core:sample_start": begin, "core:label": label}
    found |= {} if count is None else {"core:sample_count": count}
    found |= {} if low is None else {"core:freq_lower_edge": low, "core:freq_upper_edge": high}
    return {key: value for key, value in {**found, **more}.items() if value is not None}


def described(annotations, captures=None, **stated):
    captures = [{"core:sample_start": 0, "core:frequency": CENTER}] if captures is None else captures
    content = {"global": {"core:datatype": "cf32_le", "core:sample_rate": 1e6}, "captures": captures}
    content["global"] |= {f"core:{name}": value for name, value in stated.items()}
    return json.dumps({**content, "annotations": annotations})


def written(path, samples, annotations, captures=None, **stated):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples.astype("<c8").tofile(path.with_suffix(".sigmf-data"))
    path.with_suffix(".sigmf-meta").write_text(described(annotations, captures, **stated))


def listed(root, **options):
    return list_annotated(root, PARAMETERS, where="x", **{"pattern": None, **options})


OTHERS = [annotation("other", 0, LENGTH)]


def test_samples_are_whole_frames_of_the_annotated_time(tmp_path):
    samples = np.arange(20 * LENGTH) + 1 + 0j
    written(
        tmp_path / "a", samples, [annotation("long", 500, 3 * LENGTH + 7), annotation("rest", 17 * LENGTH), *OTHERS]
    )
    found = listed(tmp_path)
    assert found.classes == ["long", "other", "rest"]
    firsts = {}
    for sample in found.listing.samples:
        raw = read_recorded(sample, PARAMETERS)
        assert raw[:, 0].tolist() == [*range(int(raw[0, 0]), int(raw[0, 0]) + LENGTH)]
        firsts.setdefault(found.classes[sample.label], []).append(int(raw[0, 0]) - 1)
    assert firsts == {
        "long": [500, 500 + LENGTH, 500 + 2 * LENGTH],
        "other": [0],
        "rest": [17 * LENGTH, 18 * LENGTH, 19 * LENGTH],
    }
    assert [sample.frame for sample in found.listing.samples] == [*range(7)]  # in the order of time
    assert all(sample.box is None for sample in found.listing.samples)


def test_the_samples_of_a_part_of_a_recording_are_counted_from_its_offset(tmp_path):
    written(tmp_path / "a", np.arange(4 * LENGTH) + 0j, [annotation("x", 1000 + LENGTH, LENGTH), annotation("y", 1000, LENGTH)],
            [{"core:sample_start": 1000}], offset=1000)  # fmt: skip
    found = listed(tmp_path)
    firsts = {found.classes[s.label]: int(read_recorded(s, PARAMETERS)[0, 0]) for s in found.listing.samples}
    assert firsts == {"x": LENGTH, "y": 0}


def test_a_burst_is_the_frame_around_it_without_what_else_is_there(tmp_path):
    """Before and after it is another signal in the same band, which is not what the label says."""
    whole = noise(4 * LENGTH) + tone(100e3, 4 * LENGTH)
    begin, count = 2 * LENGTH - 60, 120
    whole[begin : begin + count] = noise(count, 1) + tone(-200e3, count)
    written(tmp_path / "a", whole, [annotation("burst", begin, count), annotation("first", 0, 60), *OTHERS])
    found = listed(tmp_path)
    one, two = (next(s for s in found.listing.samples if found.classes[s.label] == name) for name in ("burst", "first"))
    assert one.box == Box((LENGTH - count) // 2, (LENGTH + count) // 2)
    assert two.box == Box(0, 60)  # at the edge of the recording the frame is beside it
    frame = read_frame(one, PARAMETERS).numpy()
    inside = slice(one.box.begin, one.box.end)
    assert np.abs(frame[inside] - whole[begin : begin + count]).max() < 1e-5
    rest = np.delete(frame, np.r_[inside])
    assert 0.2 < np.abs(rest).std() / np.abs(noise(LENGTH)).std() < 5
    assert np.abs(rest).max() < 0.2  # the other signal has 1


@pytest.mark.parametrize("center", [CENTER, None])
def test_only_the_band_of_the_annotation_is_left(tmp_path, center):
    """Edges are absolute where the capture has a frequency, else relative to it."""
    samples = noise(8 * LENGTH) + sum(tone(hertz, 8 * LENGTH) for hertz in (-300e3, 50e3, 350e3))
    captures = [{"core:sample_start": 0} | ({"core:frequency": center} if center else {})]
    around = [annotation(str(hertz), 0, None, (center or 0) + hertz - 40e3, (center or 0) + hertz + 40e3)
              for hertz in (-300e3, 50e3, 350e3)]  # fmt: skip
    written(tmp_path / "a", samples, around, captures)
    found = listed(tmp_path)
    assert len(found.listing.samples) == 3 * 8
    floor = np.median(np.abs(np.fft.fft(noise(LENGTH))))
    for sample in found.listing.samples:
        spectrum = np.abs(np.fft.fft(read_frame(sample, PARAMETERS).numpy()))
        places = np.fft.fftfreq(LENGTH, 1e-6)
        kept = float(found.classes[sample.label])
        for hertz in (-300e3, 50e3, 350e3):
            level = spectrum[np.abs(places - hertz) < 5e3].max()
            assert (level > 0.5 * LENGTH) if hertz == kept else (level < 10 * floor)
        outside = spectrum[np.abs(places - kept) > 60e3]
        assert 0.5 < np.median(outside) / floor < 2  # noise as it was, no silence


def test_the_picture_of_a_band_is_where_an_inference_sees_it(tmp_path):
    samples = noise(2 * LENGTH) + tone(-300e3, 2 * LENGTH) + tone(200e3, 2 * LENGTH)
    band = (CENTER + 150e3, CENTER + 250e3)
    written(tmp_path / "a", samples, [annotation("band", 0, LENGTH, *band), annotation("all", 0, LENGTH)])
    found = listed(tmp_path)
    reader = Reader(Preprocessing("iq", 64, *SPECTROGRAM, PARAMETERS))
    pictures = {found.classes[s.label]: reader.read(s)[0].float().mean(dim=1) for s in found.listing.samples}
    rows = {name: {int(row) for row in torch.topk(levels, 4).indices} for name, levels in pictures.items()}
    high, low = 64 - round((200e3 + 500e3) / 1e6 * 64), 64 - round((-300e3 + 500e3) / 1e6 * 64)
    assert all(any(abs(row - place) < 2 for row in rows["all"]) for place in (high, low))
    assert any(abs(row - high) < 2 for row in rows["band"])
    assert not any(abs(row - low) < 2 for row in rows["band"])


def test_recordings_of_another_rate_are_cut_at_theirs(tmp_path):
    """Twice the rate of the job: an annotation has twice the samples, and its band must be one that frames show."""
    samples = noise(8 * LENGTH) + tone(100e3, 8 * LENGTH) + tone(-150e3, 8 * LENGTH)  # 200 and -300 kHz at 2 MHz
    band = annotation("x", 2 * LENGTH, 4 * LENGTH, CENTER + 150e3, CENTER + 250e3)
    outside = annotation("y", 0, 2 * LENGTH, CENTER + 700e3, CENTER + 800e3)
    burst = annotation("z", 4 * LENGTH, 100, CENTER - 350e3, CENTER - 250e3)
    written(tmp_path / "a", samples, [band, outside, burst], sample_rate=2e6)
    found = listed(tmp_path)
    assert [found.classes[s.label] for s in found.listing.samples] == ["x", "x", "z"]
    assert list(found.left_out.values()) == [1]
    first, _, short = found.listing.samples
    spectrum = np.abs(np.fft.fft(read_frame(first, PARAMETERS).numpy()))
    places = np.fft.fftfreq(LENGTH, 1e-6)
    assert spectrum[np.abs(places - 200e3) < 5e3].max() > 0.5 * LENGTH
    assert spectrum[np.abs(places + 300e3) < 5e3].max() < 0.02 * LENGTH
    assert (short.box.begin, short.box.end) == (LENGTH // 2 - 25, LENGTH // 2 + 25)


def test_the_noise_is_the_same_whenever_a_frame_is_read():
    samples = torch.from_numpy(noise(LENGTH).astype(np.complex64))
    box = Box(100, 200, -1e5, 1e5)
    assert torch.equal(only(box, samples, PARAMETERS, 1), only(box, samples, PARAMETERS, 1))
    assert not torch.equal(only(box, samples, PARAMETERS, 1), only(box, samples, PARAMETERS, 2))
    silent = only(box, torch.zeros(LENGTH, dtype=torch.complex64), PARAMETERS, 1)
    assert silent.abs().max() == 0


def test_annotations_of_several_captures_are_cut_at_their_borders(tmp_path):
    captures = [{"core:sample_start": 0, "core:frequency": 1e9}, {"core:sample_start": LENGTH + 500, "core:frequency": 2e9},
                {"core:sample_start": 3 * LENGTH, "core:frequency": 3e9}]  # fmt: skip
    annotations = [annotation("all", 0, 9 * LENGTH), annotation("second", LENGTH + 600, None, 2e9 - 1e5, 2e9 + 1e5)]
    written(tmp_path / "a", np.arange(5 * LENGTH) + 1 + 0j, annotations, captures)
    found = listed(tmp_path)
    seen = [(found.classes[s.label], int(read_recorded(s, PARAMETERS)[0, 0]) - 1, s.info.captures[0].frequency_hz)
            for s in found.listing.samples]  # fmt: skip
    assert seen == [
        ("all", 0, 1e9), ("all", LENGTH + 500, 2e9), ("second", LENGTH + 600, 2e9),
        ("all", 3 * LENGTH, 3e9), ("all", 4 * LENGTH, 3e9),
    ]  # fmt: skip


LEFT_OUT = [
    (annotation(None, 0, LENGTH, **{"core:comment": "a drone"}), "it has no core:label"),
    (annotation("  ", 0, LENGTH), "it has no core:label"),
    (annotation("x", 0, LENGTH, **{"core:freq_lower_edge": 1.0}), "one of core:freq_lower_edge and core:freq_upper"),
    (annotation("x", 0, LENGTH, CENTER + 9, CENTER + 9), "not below"),
    (annotation("x", 0, LENGTH, 1e3, 2e3), "its band lies outside that of the frames"),
    (annotation("x", 99 * LENGTH, 10), "it has no samples in the recording"),
    (annotation("x", 0, 0), "it has no samples in the recording"),
    (annotation("x", "soon", 1), "are not numbers"),
    (annotation("x", 0, 1, float("nan"), 1), "are not numbers"),
    ("x", "it is no JSON object"),
    (annotation("x", 5 * LENGTH, 10), "its capture is shorter than a frame"),
]


@pytest.mark.parametrize(("odd", "reason"), LEFT_OUT)
def test_an_annotation_that_gives_no_sample_is_left_out_and_counted(tmp_path, capsys, odd, reason):
    captures = [{"core:sample_start": 0, "core:frequency": CENTER}, {"core:sample_start": 5 * LENGTH}]
    written(tmp_path / "a", noise(5 * LENGTH + 100), [annotation("x", 0, LENGTH), odd, odd, *OTHERS], captures)
    found = listed(tmp_path)
    assert len(found.listing.samples) == 2
    assert [(count, reason in why) for why, count in found.left_out.items()] == [(2, True)]


def test_recordings_without_annotations_are_counted(tmp_path):
    written(tmp_path / "a", noise(LENGTH), [*OTHERS, annotation("x", 0, LENGTH)])
    noise(2 * LENGTH).astype("<c8").tofile(tmp_path / "plain.iq")
    found = listed(tmp_path)
    assert {s.name for s in found.listing.samples} == {"a.sigmf-data"}
    assert found.left_out == {"recordings without annotations": 1}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["one"], r"have 1 labels \(one\): at least two are needed, in core:label"),
        ([], r"have 0 labels \(none\).*1 left out: it has no core:label"),
        (["one", "\ud800"], "is not UTF-8: rename it"),
        (["one", "o" * 300], "has more than 255 bytes"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, labels, message):
    annotations = [annotation(label, 0, LENGTH) for label in labels or [None]]
    written(tmp_path / "a", noise(LENGTH), annotations)
    with pytest.raises(InputError, match=message):
        listed(tmp_path)


def test_samples_of_one_recording_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("rfuav_trainer.data.annotations.MOST_SAMPLES", 10)
    written(tmp_path / "a", noise(4 * LENGTH), [annotation("x")] * 3)
    written(tmp_path / "b", noise(LENGTH), [annotation("x"), annotation("y")])
    found = listed(tmp_path)
    assert {s.name for s in found.listing.samples} == {"b.sigmf-data"}
    assert found.listing.unreadable == {"a.sigmf-data": "its annotations give more than 10 frames"}


def test_a_split_keeps_recordings_with_several_classes_whole():
    """What one class has chosen for the validation counts for the others, or the validation would grow with each."""
    rng = np.random.default_rng(0)
    samples = [
        Sample(Path(f"r{number}"), f"r{number}", label=label, frame=frame, group=f"r{number}")
        for number in range(30)
        for label in range(6)
        if rng.random() < 0.5
        for frame in range(rng.integers(1, 20))
    ]
    shares = []
    for seed in range(20):
        train, validation = split(samples, [*"abcdef"], 0.25, seed)
        assert {s.group for s in train}.isdisjoint(s.group for s in validation)
        assert {s.label for s in validation} == {s.label for s in train} == {*range(6)}
        shares.append(len(validation) / len(samples))
    assert 0.2 < np.mean(shares) < 0.4  # it was 0.64


def test_the_streams_of_a_collection_are_one_recording(tmp_path):
    own = [annotation("x", 0, LENGTH), annotation("y", 0, LENGTH)]
    for name in ("west", "east", "alone"):
        written(tmp_path / name, noise(LENGTH), own)
    content = {"collection": {"core:streams": [{"name": "west"}, {"name": "east"}]}}
    (tmp_path / "both.sigmf-collection").write_text(json.dumps(content))
    assert {s.name: s.group for s in listed(tmp_path).listing.samples} == {
        "west.sigmf-data": "both", "east.sigmf-data": "both", "alone.sigmf-data": "alone",
    }  # fmt: skip


def test_recordings_are_recognised_in_folders_with_several_classes(tmp_path):
    for name in ("one/a", "two/b", "two/c"):
        written(tmp_path / name, noise(LENGTH), [annotation("x", 0, LENGTH), annotation("y", 0, LENGTH)])
    assert {s.group for s in listed(tmp_path).listing.samples} == {"one", "two"}
    found = listed(tmp_path, pattern="(?P<recording>[abc])[.]").listing.samples
    assert {(s.group, s.recognised_by) for s in found} == {(name, "pattern") for name in "abc"}


def test_a_class_of_one_recording_is_split_in_time_without_overlap(tmp_path):
    twice = [annotation("x", begin, LENGTH) for begin in range(0, 40 * LENGTH, LENGTH // 2)]
    written(tmp_path / "a", noise(42 * LENGTH), twice)
    for name in ("b", "c"):
        written(tmp_path / name, noise(LENGTH), [annotation("y", 0, LENGTH)])
    alone = [annotation("x", begin, LENGTH) for begin in range(0, 40 * LENGTH, 2 * LENGTH)]
    samples = listed(tmp_path).listing.samples
    with pytest.raises(InputError, match="needs two recordings or images of every class, x has 1"):
        split(samples, ["x", "y"], 0.25, 1)  # all of it overlaps
    written(tmp_path / "a", noise(42 * LENGTH), alone + alone)
    samples = listed(tmp_path).listing.samples
    train, validation = split(samples, ["x", "y"], 0.25, 1)
    times = [{s.info.captures[0].begin for s in side if s.label == 0} for side in (train, validation)]
    assert times[0].isdisjoint(times[1])
    assert min(map(len, times)) > 3


def test_of_several_channels_the_chosen_one_is_cut(tmp_path):
    samples = np.stack([np.arange(4 * LENGTH), -1 - np.arange(4 * LENGTH)], axis=1).reshape(-1) + 0j
    own = [annotation("x", LENGTH + 5, LENGTH), annotation("y", 0, 9)]
    written(tmp_path / "a", samples, own, num_channels=2)
    found = list_annotated(tmp_path, replace(PARAMETERS, channel=1), where="x", pattern=None)
    firsts = [int(read_recorded(s, replace(PARAMETERS, channel=1))[0, 0]) for s in found.listing.samples]
    assert firsts == [-1, -1 - LENGTH - 5]


def test_archives_have_annotations_too(tmp_path):
    content = described([annotation("x", 0, LENGTH), annotation("y", LENGTH, LENGTH)]).encode()
    data = (np.arange(2 * LENGTH) + 0j).astype("<c8").tobytes()
    packed(tmp_path / "a.sigmf", ("r.sigmf-meta", content), ("r.sigmf-data", data))
    found = listed(tmp_path)
    assert [(s.name, found.classes[s.label]) for s in found.listing.samples] == [
        ("a.sigmf/r.sigmf-data", "x"), ("a.sigmf/r.sigmf-data", "y"),
    ]  # fmt: skip
    assert [int(read_recorded(s, PARAMETERS)[0, 0]) for s in found.listing.samples] == [0, LENGTH]


def tones(root):
    """Recordings with three emitters at once, each in its own band and for some of the time."""
    for number in range(6):
        count = 12 * LENGTH
        samples, own = noise(count, number), []
        for index, (label, hertz) in enumerate((("low", -300e3), ("middle", 0), ("high", 300e3))):
            begin = (index + number) % 3 * 2 * LENGTH
            samples[begin : begin + 6 * LENGTH] += 0.3 * tone(hertz, 6 * LENGTH)
            own.append(annotation(label, begin, 6 * LENGTH, CENTER + hertz - 60e3, CENTER + hertz + 60e3))
        written(root / f"flight{'abcdef'[number]}", samples, [*own, annotation(None, 0, 9)])
    return root


def spec_of(**changes):
    found = training_spec(**{"training__epochs": 6, **changes})
    iq = {**IQ, "frameSeconds": 0.001024, "fftSize": 64, "hopSize": 32}
    found["dataset"] |= {"labels": "annotations", "iq": iq, "validation": {"fraction": 0.3}}
    del iq["sampleRate"]  # the recordings say it
    return found


def test_a_training_on_annotations_learns_their_classes(desk):
    """Validation reads the frames as they are, training changes them."""
    tones(desk / "captures/train")
    ended = desk.pod("TrainingJob", spec_of(training__augment=["AddNoise"]))
    assert ended.code == 0, ended.output
    report = json.loads((desk / "models/out/report.json").read_text())
    assert report["classes"] == ["high", "low", "middle"]
    assert report["leftOut"] == {"it has no core:label": 6}
    assert report["best"]["valAccuracy"] > 0.9
    assert {name: row["train"] + row["validation"] for name, row in report["recordings"].items()} == dict.fromkeys(
        report["classes"], 6
    )


def test_a_manifest_states_labels_itself(desk):
    (desk / "captures/m.jsonl").write_text('{"path": "a.iq", "label": "x"}\n')
    ended = desk.pod("TrainingJob", spec_of(dataset__train__uri="pvc://captures/m.jsonl"))
    assert ended.code == 2
    assert "is a manifest, which states labels itself" in ended.output


def test_annotations_of_pictures_are_refused():
    spec = spec_of(dataset__format="image")
    content = {"apiVersion": "rfuav.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "x"}, "spec": spec}
    with pytest.raises(Exception, match="annotations are of raw recordings"):
        load_job(content)
