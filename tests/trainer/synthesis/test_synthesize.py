"""The data set writer: what it accepts, what it writes, and that nothing is lost on the way."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import rfuav_trainer.synthesis.synthesize as module
from rfuav_trainer.errors import DiskFullError, InvalidConfigurationError, JobError
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.synthesis.emitters.catalogue import EMITTERS
from rfuav_trainer.synthesis.spec import from_options, load_spec, make_spec
from rfuav_trainer.synthesis.synthesize import recording, run, synthesize


def small(output, **changes):
    fields = {"splits": {"train": 2}, "classes": ["fhss-chirp", "idle"], "seconds": 0.001, "snrDb": [10, 0]}
    return make_spec(output=output, **(fields | changes))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


BAD = [
    ({"classes": ["quadcopter"]}, "quadcopter is not known; write some of ofdm-5mhz"),
    ({"classes": []}, "classes"),
    ({"classes": ["idle", "idle"]}, "once"),
    ({"splits": {}}, "splits"),
    ({"splits": {"train": 0}}, "splits.train.recordings"),
    ({"splits": {"train": "many"}}, "splits.train.recordings"),
    ({"splits": {"../up": 1}}, "splits"),
    ({"snrDb": []}, "snrDb"),
    ({"snrDb": [200]}, "snrDb.0"),
    ({"snrDb": {"start": 0, "stop": 10}}, "{start: -20, stop: 20, step: 2}"),
    ({"snrDb": {"start": 0, "stop": 10, "step": 0}}, "step > 0"),
    ({"sampleRate": 1e6}, "sampleRate"),
    ({"sampleRate": "30MHz"}, "write a number with an optional suffix"),
    ({"sampleRate": "20M", "classes": ["fhss-gmsk-fast"]}, "needs a sampleRate of 21.8M"),
    ({"seconds": 0}, "seconds"),
    ({"seconds": 1e-5}, "write at least 0.000033"),
    ({"format": "wav"}, "format"),
    ({"imageSize": 8}, "imageSize"),
    ({"interference": 2}, "interference"),
    ({"seed": -1}, "seed"),
    ({"snr": 3}, "snr"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[str(changes) for changes, _ in BAD])
def test_bad_values_are_named_with_the_remedy(tmp_path, changes, message):
    with pytest.raises(InvalidConfigurationError) as caught:
        small(tmp_path, **changes)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_defaults_hold_all_classes_in_three_splits(tmp_path):
    spec = make_spec(output=tmp_path)
    assert spec.classes == tuple(EMITTERS)
    assert set(spec.splits) == {"train", "val", "test"}


def test_a_file_is_read_and_flags_win(tmp_path):
    path = tmp_path / "synthesis.yaml"
    path.write_text(
        "kind: Synthesis\nspec:\n  output: out\n  sampleRate: 40M\n  seed: 3\n"
        "  snrDb: {start: -20, stop: 20, step: 10}\n  splits: {train: 4, test: {recordings: 2, snrDb: [10]}}\n",
        encoding="utf-8",
    )
    spec = load_spec(path, seed=5)
    assert (spec.sample_rate, spec.seed, spec.snr_db) == (40e6, 5, (-20, -10, 0, 10, 20))
    assert (spec.splits["train"].recordings, spec.splits["test"].snr_db) == (4, (10,))


def test_flags_alone_make_a_spec(tmp_path):
    spec = from_options(output=tmp_path, split=["train=4", "val=1"], snr=[10.0], seed=None, classes=[])
    assert {name: split.recordings for name, split in spec.splits.items()} == {"train": 4, "val": 1}
    assert (spec.snr_db, spec.seed, spec.classes) == ((10,), 0, tuple(EMITTERS))
    for flags, message in [({}, "--output"), ({"output": tmp_path, "split": ["train"]}, "as in train=40")]:
        with pytest.raises(InvalidConfigurationError, match=message):
            from_options(**flags)


@pytest.mark.parametrize("text", ["", "- 1", "kind: TrainingJob\nspec: {}", "kind: Synthesis", "a: [", "\x00"])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidConfigurationError, match=r"job\.yaml"):
        load_spec(path)
    with pytest.raises(InvalidConfigurationError, match="missing"):
        load_spec(tmp_path / "missing.yaml")


def test_iq_files_with_their_parameters(tmp_path, capsys):
    spec = small(tmp_path / "set")
    run(spec, Progress(None))
    assert "4 recordings" in capsys.readouterr().out
    folder = tmp_path / "set" / "train" / "fhss-chirp"
    assert [p.name for p in sorted(folder.iterdir())] == [
        f"fhss-chirp-0000{i}.{end}" for i in range(2) for end in ("iq", "json")
    ]
    for index, snr_db in enumerate([10, 0]):
        samples = np.fromfile(folder / f"fhss-chirp-0000{index}.iq", dtype="<c8")
        parameters = json.loads((folder / f"fhss-chirp-0000{index}.json").read_text())
        assert len(samples) == spec.sample_count == 30_720
        assert np.isfinite(samples).all()
        expected = {"class": "fhss-chirp", "snrDb": snr_db, "sampleRate": 30.72e6, "sampleFormat": "float32", "seed": 0}
        assert parameters.items() >= expected.items()
        assert {"centerOffsetHz", "startSeconds", "fadingTaps", "hopPattern", "version"} <= set(parameters)


def test_pictures_are_those_of_the_trainer(tmp_path):
    spec = small(tmp_path / "set", format="image", imageSize=32)
    report = synthesize(spec)
    path = tmp_path / "set" / "train" / "fhss-chirp" / "fhss-chirp-00001.png"
    received, _ = recording(spec, "train", "fhss-chirp", 1)
    expected = module.picture(module.torch.from_numpy(received.samples), spec.spectrogram, 32)
    assert np.array_equal(np.asarray(Image.open(path)), expected[0].numpy())
    assert report.recordings == 4
    assert report.bytes < spec.byte_estimate


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        synthesize(small(tmp_path / name, seed=seed))
    one, two, other = (contents(tmp_path / name / "train") for name in ("one", "two", "other"))
    assert one == two
    assert all(one[name] != other[name] for name in one)


def test_a_recording_depends_on_its_own_name_alone(tmp_path):
    spec = small(tmp_path)
    wider = small(tmp_path, classes=list(EMITTERS), splits={"val": 3, "train": 9}, interference=0.2)
    first, parameters = recording(wider, "train", "fhss-chirp", 1)
    assert np.array_equal(first.samples, recording(spec, "train", "fhss-chirp", 1)[0].samples)
    assert not np.array_equal(first.samples, recording(wider, "val", "fhss-chirp", 1)[0].samples)
    assert parameters["index"] == 1


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(sorted(EMITTERS)),
    rate=st.floats(22e6, 60e6),
    seconds=st.floats(2e-4, 2e-3),
    snr_db=st.floats(-30, 30),
)
def test_any_rate_and_length_gives_finite_samples_in_full_scale(tmp_path_factory, name, rate, seconds, snr_db):
    spec = small(tmp_path_factory.getbasetemp(), classes=[name], sampleRate=rate, seconds=seconds, snrDb=[snr_db])
    received, parameters = recording(spec, "train", name, 0)
    assert len(received.samples) == spec.sample_count
    assert np.isfinite(received.samples).all()
    assert 0.01 < np.sqrt(np.mean(np.abs(received.samples) ** 2)) < 0.2
    assert np.abs(received.samples).max() < 1
    json.dumps(parameters, allow_nan=False)


def test_existing_output_is_kept_unless_overwrite_is_set(tmp_path):
    output = tmp_path / "set"
    synthesize(small(output))
    before = contents(output)
    with pytest.raises(InvalidConfigurationError, match="--overwrite"):
        synthesize(small(output, seed=1))
    assert contents(output) == before
    synthesize(small(output, splits={"test": 1}))
    assert (output / "test").is_dir()
    synthesize(small(output, seed=1, splits={"train": 1}, overwrite=True))
    assert len(list(output.glob("train/*/*.iq"))) == 2
    assert not [p for p in output.iterdir() if p.name.startswith(".")]


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path):
    mine = tmp_path / "train" / "flight.iq"
    mine.parent.mkdir()
    mine.write_bytes(b"precious")
    with pytest.raises(InvalidConfigurationError, match="was not created by synthesize"):
        synthesize(small(tmp_path, overwrite=True))
    assert mine.read_bytes() == b"precious"


def test_a_run_that_breaks_off_leaves_no_half_split(tmp_path, monkeypatch):
    def broken(spec, split, name, index):
        if name == "idle":
            raise OSError(28, "No space left on device")
        return recording(spec, split, name, index)

    with monkeypatch.context() as patched:
        patched.setattr(module, "recording", broken)
        with pytest.raises(OSError, match="No space"):
            synthesize(small(tmp_path))
    assert not (tmp_path / "train").exists()
    synthesize(small(tmp_path))
    assert len(list(tmp_path.glob("train/*/*.iq"))) == 4


def test_too_little_room_is_found_before_anything_is_written(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=65 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(DiskFullError, match="fewer or shorter recordings"):
        synthesize(make_spec(output=tmp_path))
    assert contents(tmp_path) == {}


def test_an_output_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(JobError, match="write another output"):
        synthesize(small(tmp_path / "file" / "set"))
