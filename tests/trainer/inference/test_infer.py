"""Inference end to end: every input once, in shards, over restarts, with its evaluation; and what is refused."""

import json
import os
import signal
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn import metrics as sk
from trainer.runs import Watcher, die_in, hanging, run, stopped
from trainer.signals.test_archive import packed
from trainer.trainer_kit import CLASSES, IQ, TONES, image_set, in_child, inference_spec, tone_set, weights_file
from trainer.training import test_memory

from rfuav_trainer.data import inputs
from rfuav_trainer.data.batches import side_by_side
from rfuav_trainer.data.samples import Preprocessing, Reader, Sample
from rfuav_trainer.errors import InputError, InvalidConfigurationError, StoppedError
from rfuav_trainer.inference import infer
from rfuav_trainer.job import from_file
from rfuav_trainer.networks import weights
from rfuav_trainer.process import resources
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.signals import recording
from rfuav_trainer.signals.spectrogram import SpectrogramParameters

PARAMETERS = SpectrogramParameters(*TONES)


def lines(desk, name="predictions-0.jsonl", folder="results/out"):
    return [json.loads(line) for line in (desk / folder / name).read_text().splitlines()]


def test_pictures(pictures):
    watcher = Watcher()
    run(pictures, inference_spec(output__annotate="all"), watcher=watcher)
    found = lines(pictures)
    assert [line["path"] for line in found] == [f"{name}/{number:03d}.png" for name in CLASSES for number in range(5)]
    for line in found:
        assert line["class"] == line["top"][0]["class"]
        assert line["score"] == max(entry["score"] for entry in line["top"])
        assert sum(entry["score"] for entry in line["top"]) == pytest.approx(1, abs=1e-4)
        picture = Image.open(pictures / f"results/out/annotated/{line['path']}.jpg")
        assert min(picture.size) >= 384
    assert lines(pictures, "errors-0.jsonl") == []
    mark = json.loads((pictures / "results/out/_SUCCESS").read_text())
    assert (mark["uid"], mark["processed"], mark["failed"], mark["files"]) == ("u1", 15, 0, 15)
    last = watcher.last
    assert last["progressPercentage"] == 100
    assert last["rfuav"]["outputs"]["predictions"] == "pvc://results/out/predictions-0.jsonl"
    assert (last["rfuav"]["processed"], last["rfuav"]["total"]) == (15, 15)


def test_recordings_are_classified_frame_by_frame(recordings):
    run(recordings, inference_spec(output__annotate="all"))
    found = lines(recordings)
    assert len(found) == 3 * 2 * 3
    assert [(line["frame"], line["startSeconds"]) for line in found[:3]] == [(0, 0.0), (1, 0.004096), (2, 0.008192)]
    assert [line["endSeconds"] for line in found[:3]] == [0.004096, 0.008192, 0.012288]
    assert {(line["lowHz"], line["highHz"]) for line in found} == {(-500_000.0, 500_000.0)}
    for name in {line["path"] for line in found}:
        assert len(video(recordings / f"results/out/annotated/{name}.mp4")) == 3


def test_a_frame_begins_with_its_capture_and_has_its_frequency(recordings):
    first = min((recordings / "captures/test").rglob("*.iq"))
    content = {
        "global": {"core:datatype": "cf32_le"},
        "captures": [
            {"core:sample_start": begin, "core:frequency": frequency}
            for begin, frequency in ((0, 2.437e9), (4096 + 1000, 5.8e9))
        ],
    }
    first.with_suffix(".sigmf-meta").write_text(json.dumps(content))
    run(recordings, inference_spec())
    found = [line for line in lines(recordings) if first.as_posix().endswith(line["path"])]
    assert [(line["startSeconds"], line["centerHz"]) for line in found] == [(0.0, 2.437e9), (0.005096, 5.8e9)]
    others = [line for line in lines(recordings) if line not in found]
    assert others
    assert not any("centerHz" in line for line in others)
    votes = {line["recording"]: line.get("centersHz") for line in lines(recordings, "recordings.jsonl")}
    assert [centers for centers in votes.values() if centers] == [[2.437e9, 5.8e9]]
    assert len(votes) > 1


def test_recordings_in_an_archive_are_classified_one_by_one(recordings):
    """Also for the overview, which finds them by their names, and by the streams of a collection."""
    files = sorted((recordings / "captures/test/alpha").glob("*.iq"))
    members = [(f"{path.stem}.sigmf-{what}", content) for path in files for what, content in (
        ("meta", json.dumps({"global": {"core:datatype": "cf32_le"}, "captures": [{"core:frequency": 1e9}]}).encode()),
        ("data", path.read_bytes()),
    )]  # fmt: skip
    streams = json.dumps({"collection": {"core:streams": [{"name": path.stem} for path in files]}}).encode()
    packed(recordings / "captures/test/beta/x.sigmf", *members, ("both.sigmf-collection", streams))
    run(recordings, inference_spec(output__annotate="default"))
    found = {(line["path"], line["frame"]): line for line in lines(recordings)}
    inside = {key: line for key, line in found.items() if ".sigmf/" in key[0]}
    assert len(inside) == 3 * len(files) == 6
    for (path, frame), line in inside.items():
        same = found[path.replace("beta/x.sigmf", "alpha").replace(".sigmf-data", ".iq"), frame]
        assert (line["class"], line["score"]) == (same["class"], same["score"])
        assert (line["centerHz"], line["recording"]) == (1e9, "beta/x.sigmf/both")
    votes = {line["recording"]: line["frames"] for line in lines(recordings, "recordings.jsonl")}
    assert votes["beta/x.sigmf/both"] == 6
    drawn = [path.name for path in (recordings / "results/out/overview/least-certain").iterdir()]
    assert any("x.sigmf_000.sigmf-data-frame" in name for name in drawn)
    assert json.loads((recordings / "results/out/_SUCCESS").read_text())["files"] == 8


def video(path):
    """The pictures of a video."""
    import av

    with av.open(str(path)) as opened:
        assert [stream.type for stream in opened.streams] == ["video"]
        return [frame.to_ndarray(format="gray") for frame in opened.decode(video=0)]


def test_training_and_inference_see_the_same_picture(recordings):
    path = recordings / "captures/test/alpha/000.iq"
    job = recordings.job("InferenceJob", inference_spec(iq=IQ))
    trained = Preprocessing("iq", 64, spectrogram=PARAMETERS)
    classifier = infer.open_classifier(job, job.spec, "iq", torch.device("cpu"))
    sample = Sample(path, "alpha/000.iq", frame=1, info=recording.described(path))
    assert torch.equal(Reader(trained).read(sample), Reader(classifier.preprocessing).read(sample))


def test_a_pattern_chooses_files(pictures):
    run(pictures, inference_spec(input__pattern="beta/*.png"))
    assert {line["path"].split("/")[0] for line in lines(pictures)} == {"beta"}


@pytest.mark.parametrize("shards", [2, 20])
def test_shards_share_the_input_and_the_last_one_finishes_the_job(pictures, shards):
    spec = inference_spec(shards=shards, evaluation={})
    out = pictures / "results/out"
    for shard in range(shards):
        assert not (out / "_SUCCESS").exists()
        run(pictures, spec, shard=shard, shards=shards)
    paths = [line["path"] for shard in range(shards) for line in lines(pictures, f"predictions-{shard}.jsonl")]
    assert sorted(paths) == [f"{name}/{number:03d}.png" for name in CLASSES for number in range(5)]
    assert json.loads((out / "evaluation.json").read_text())["samples"] == 15
    assert json.loads((out / "_SUCCESS").read_text())["processed"] == 15


def test_the_last_shard_alone_reports_the_whole_jobs_metrics(pictures):
    spec = inference_spec(shards=3, evaluation={})
    reports, shown = [], []
    for shard in (2, 0, 1):
        watcher = Watcher()
        run(pictures, spec, watcher=watcher, shard=shard, shards=3)
        assert watcher.last["progressPercentage"] == 100
        reports.append({metric["name"]: metric["value"] for metric in watcher.last["metrics"]})
        shown.append(watcher.summary)
    found = json.loads((pictures / "results/out/evaluation.json").read_text())
    assert found["samples"] == 15
    values = {name: f"{value:.4g}" for name, value in found["metrics"].items()}
    assert reports == [{}, {}, {**values, "recordings": "15", "dead": "0"}]
    matrix = [[r, c, n] for r, row in enumerate(found["confusionMatrix"]) for c, n in enumerate(row) if n]
    assert shown == [None, None, {"classes": found["classes"], "confusion": matrix, "truncated": False}]


def test_finishing_twice_changes_nothing_and_a_lost_end_is_made_up(pictures):
    spec = inference_spec(evaluation={})
    run(pictures, spec)
    out = pictures / "results/out"
    before = (out / "evaluation.json").read_bytes()
    (out / "_SUCCESS").unlink()  # as if killed between the shard's mark and the job's
    (out / "evaluation.json").unlink()
    watcher = Watcher()
    run(pictures, spec, watcher=watcher)
    assert (out / "evaluation.json").read_bytes() == before
    assert (out / "_SUCCESS").exists()
    assert watcher.last["progressPercentage"] == 100
    assert {metric["name"] for metric in watcher.last["metrics"]} >= {"top1", "macroF1"}


def test_stopped_and_started_again_no_line_is_lost_or_doubled(pictures, place):
    run(pictures, inference_spec(batchSize=4, output__uri="pvc://results/whole"), uid="u2")
    spec = inference_spec(batchSize=4, output__uri=place.uri("results/out"))
    stopped(pictures, spec, 8, match="after 8 of 15 inputs")
    assert "predictions-0.jsonl" not in place.names("results/out")
    watcher = Watcher()
    run(pictures, spec, watcher=watcher)
    assert watcher.reports[0]["rfuav"]["processed"] == 12  # the eight were kept
    assert place.get("results/out/predictions-0.jsonl") == (pictures / "results/whole/predictions-0.jsonl").read_bytes()
    assert not [name for name in place.names("results/out") if name.startswith(".")]


@pytest.mark.parametrize("cpus", ["1", "2"])
def test_a_stop_does_not_wait_for_a_reader_that_hangs(pictures, monkeypatch, cpus):
    changes, stop = {"batchSize": 4, "resources__cpu": cpus}, StopSignal()
    with hanging(monkeypatch, 9, stop), pytest.raises(StoppedError, match="after [48] of 15 inputs"):
        run(pictures, inference_spec(**changes), stop=stop)
    run(pictures, inference_spec(**changes))
    run(pictures, inference_spec(**changes, output__uri="pvc://results/whole"), uid="u2")
    assert lines(pictures) == lines(pictures, folder="results/whole")


@pytest.mark.parametrize("other", ["weights", "precision"])
def test_it_starts_over_when_restarted_with_another_network(pictures, capsys, other):
    """A file of the same name and size, or another precision: no line of the first network stays."""
    stopped(pictures, inference_spec(batchSize=4, precision="fp32"), 8, match="after 8 of 15 inputs")
    path = pictures / "models/out/best.safetensors"
    state, card = load_file(path), weights.read_card(path)
    changes = {"batchSize": 4, "precision": "bf16" if other == "precision" else "fp32"}
    if other == "weights":
        weights.save(path, {**state, "classifier.3.bias": torch.tensor([9.0, 0.0, 0.0])}, card)
    watcher = Watcher()
    run(pictures, inference_spec(**changes, output__overwrite=True), watcher=watcher)
    assert watcher.reports[0]["rfuav"]["processed"] == 4
    assert "starting over" in capsys.readouterr().out
    run(pictures, inference_spec(**changes, output__uri="pvc://results/whole"), uid="u2")
    assert lines(pictures) == lines(pictures, folder="results/whole")


def test_shards_of_other_weights_are_not_combined(pictures):
    """The file is replaced between two shards: nobody takes predictions of two networks for one job's."""
    spec = inference_spec(shards=3, evaluation={})
    run(pictures, spec, shard=0)
    path, out = pictures / "models/out/best.safetensors", pictures / "results/out"
    state, card = load_file(path), weights.read_card(path)
    weights.save(path, {**state, "classifier.3.bias": torch.tensor([9.0, 0.0, 0.0])}, card)
    run(pictures, spec, shard=1)
    for _ in range(2):  # started again, it says so again
        with pytest.raises(InvalidConfigurationError, match=r"different weights \(0; 1, 2\)") as caught:
            run(pictures, spec, shard=2)
        assert caught.value.reason == "WeightsMismatch"
        assert not (out / "_SUCCESS").exists()
        assert not (out / "evaluation.json").exists()
    (out / "_SUCCESS-0").unlink()
    run(pictures, spec, shard=0)  # done again, as the error says
    assert json.loads((out / "_SUCCESS").read_text())["processed"] == 15
    found = [line for shard in range(3) for line in lines(pictures, f"predictions-{shard}.jsonl")]
    assert {line["class"] for line in found} == {"alpha"}


def test_pictures_that_are_asked_for_between_two_starts_are_all_there(pictures):
    stopped(pictures, inference_spec(batchSize=4), 4)
    run(pictures, inference_spec(batchSize=4, output__annotate="all", output__overwrite=True))
    assert len(list((pictures / "results/out/annotated").glob("*/*.png.jpg"))) == 15


@pytest.mark.parametrize("changes", [{"input__pattern": "beta/*"}, {"shards": 3}], ids=["pattern", "shards"])
def test_shards_of_an_edited_job_are_not_combined(pictures, capsys, changes):
    """On a laptop the job's name is all that tells it from others, so its file may be edited between two shards."""
    out = pictures / "results/out"
    for shard in (0, 1):
        run(pictures, inference_spec(shards=2), uid="local-job", shard=shard)
    edited = inference_spec(**{"shards": 2, "output__overwrite": True, **changes})
    for shard in range(edited["shards"]):
        assert (out / "_SUCCESS").exists() == (shard == 0)
        run(pictures, edited, uid="local-job", shard=shard)
    assert "some shards finished with different settings" in capsys.readouterr().out
    assert json.loads((out / "_SUCCESS").read_text())["processed"] == (15 if "shards" in changes else 5)
    found = [
        line["path"] for shard in range(edited["shards"]) for line in lines(pictures, f"predictions-{shard}.jsonl")
    ]
    assert len(found) == len({*found}) == (15 if "shards" in changes else 5)


def test_an_edited_job_overwrites_what_it_made_before(pictures):
    """With overwrite its own earlier results, evaluation and all, as another job's; without, it is refused."""
    out = pictures / "results/out"
    run(pictures, inference_spec(evaluation={}), uid="local-job")
    evaluation = {"evaluation.json", "evaluation.txt", "evaluation.html", "confusion-matrix.png"}
    assert evaluation <= {path.name for path in out.iterdir()}
    edited = inference_spec(input__pattern="beta/*")
    with pytest.raises(InvalidConfigurationError, match=r"finished there with different settings.*overwrite: true"):
        run(pictures, edited, uid="local-job")
    edited["output"]["overwrite"] = True
    run(pictures, edited, uid="local-job")
    assert {path.name for path in out.iterdir()} == {
        *("_SUCCESS", "_SUCCESS-0", "errors-0.jsonl", "job.json", "predictions-0.jsonl", "recordings.jsonl")
    }
    assert len(lines(pictures)) == 5
    before = (out / "predictions-0.jsonl").stat().st_mtime_ns
    run(pictures, edited, uid="local-job")  # the same once more: done before
    assert (out / "predictions-0.jsonl").stat().st_mtime_ns == before


def test_files_that_people_put_beside_results_stay(pictures):
    theirs = ["errors-notes.jsonl", "predictions-merged.jsonl", "predictions-01.jsonl", "_SUCCESS-old"]
    out = pictures / "results/out"
    out.mkdir()
    for name in theirs:
        (out / name).write_text("mine")
    run(pictures, inference_spec())
    run(pictures, inference_spec(output__overwrite=True, input__pattern="beta/*"), uid="u2")
    assert [(out / name).read_text() for name in theirs] == ["mine"] * 4


@pytest.mark.parametrize("name", ["_SUCCESS", "_SUCCESS-3", "errors-0.jsonl", "predictions-7.jsonl", "evaluation.json"])
def test_what_would_be_replaced_makes_an_output_in_use(pictures, name):
    """Also where no job.json says whose it is: `_SUCCESS` may be a training's."""
    out = pictures / "results/out"
    out.mkdir()
    (out / name).write_text("theirs")
    with pytest.raises(InvalidConfigurationError, match=f"contains {name}: write another output.uri"):
        run(pictures, inference_spec())
    assert (out / name).read_text() == "theirs"
    run(pictures, inference_spec(output__overwrite=True))
    assert len(lines(pictures)) == 15


@pytest.mark.parametrize("name", ["predictions-1.jsonl", "errors-0.jsonl"])
def test_lines_that_were_removed_after_their_mark_are_missed(pictures, name):
    spec = inference_spec(shards=2, evaluation={})
    run(pictures, spec, shard=0)
    run(pictures, spec, shard=1)
    out, mark = pictures / "results/out", f"_SUCCESS-{name[-7]}"
    (out / name).unlink()
    (out / "_SUCCESS").unlink()
    with pytest.raises(InputError, match=f"{name} is missing, but {mark} .* remove {mark} and run that shard"):
        run(pictures, spec, shard=1)
    (out / mark).unlink()
    run(pictures, spec, shard=int(name[-7]))
    assert json.loads((out / "_SUCCESS").read_text())["processed"] == 15


@pytest.mark.parametrize(
    ("uri", "output"),
    [
        ("pvc://captures/test", "pvc://captures/test/out"),
        ("pvc://captures/test", "pvc://captures/test"),
        ("pvc://captures", "pvc://captures/results"),
        ("FILE/link", "pvc://captures/test/out"),
        ("pvc://captures/test", "FILE/link/out"),
        ("s3://captures/test", "s3://captures/test/out/"),
        ("s3://captures/test/", "s3://captures/test"),
        ("s3://captures", "s3://captures/out"),
    ],
)
def test_an_output_in_the_input_is_refused(pictures, uri, output):
    """Else a second start, or another shard, would classify the annotated pictures of the first."""
    (pictures / "captures/link").symlink_to("test")
    uri, output = (text.replace("FILE", f"file://{pictures / 'captures'}") for text in (uri, output))
    # As on a laptop, which may write to file://.
    job = from_file(
        pictures.write_job("InferenceJob", inference_spec(input__uri=uri, output__uri=output, output__annotate="all")),
        mounts={name: pictures / name for name in ("captures", "models", "results")},
    )
    with pytest.raises(InvalidConfigurationError, match=r"is inside input.uri .*: write an output.uri outside that"):
        inputs.find(job, job.spec)


def test_an_output_beside_the_input_is_none_in_it(pictures):
    (pictures / "captures/list.jsonl").write_text('{"path": "test/alpha/000.png"}\n')
    for number, uri in enumerate(["test", "test/alpha/000.png", "list.jsonl"]):
        spec = inference_spec(input__uri=f"pvc://captures/{uri}", output__uri=f"pvc://captures/test{number}")
        run(pictures, spec)
    run(pictures, inference_spec(input__uri="pvc://captures/test/beta/001.png", output__uri="pvc://captures/test/beta"))
    assert [line["path"] for line in lines(pictures, folder="captures/test/beta")] == ["001.png"]


@pytest.mark.parametrize("change", ["none", "added", "torn"])
def test_stopped_before_the_first_batch_the_unreadable_are_listed_once(recordings, monkeypatch, change):
    folder, stop = recordings / "captures/test/beta", StopSignal()
    (folder / "torn.iq").write_bytes(b"torn")
    go_on = infer.Inference._go_on

    def go_on_and_stop(inference, shard):
        go_on(inference, shard)
        stop.request()

    spec = inference_spec(errorThreshold=0.5)
    with monkeypatch.context() as patch, pytest.raises(StoppedError, match="after 0 of 18 inputs"):
        patch.setattr(infer.Inference, "_go_on", go_on_and_stop)
        patch.setattr(infer, "batches", lambda *_, **__: iter(()))  # as several readers give none by then
        run(recordings, spec, stop=stop)
    expected = ["beta/torn.iq"]
    if change != "none":  # of the samples to read, `added` changes none
        name = "added.iq" if change == "added" else "001.iq"
        (folder / name).write_bytes(b"torn")
        expected = sorted([*expected, f"beta/{name}"])
    run(recordings, spec)
    assert [line["path"] for line in lines(recordings, "errors-0.jsonl")] == expected
    mark = json.loads((recordings / "results/out/_SUCCESS-0").read_text())
    assert (mark["processed"], mark["failed"]) == (15 if change == "torn" else 18, len(expected))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("method", "at"),
    [
        ("inference.results:ShardResults.write", 7),
        ("inference.results:ShardResults.commit", 2),
        ("inference.results:ShardResults.commit", 4),
        ("inference.results:ShardResults.restart", 2),
        ("inference.results:ShardResults.publish", 1),
        ("inference.video:Video.save", 3),
    ],
)
def test_killed_at_any_point_and_started_again_nothing_is_lost_or_doubled(recordings, method, at, after):
    (recordings / "captures/test/beta/001.iq").write_bytes(b"torn")
    changes = {"batchSize": 2, "errorThreshold": 0.5, "output__annotate": "all"}
    run(recordings, inference_spec(**changes, output__uri="pvc://results/whole"), uid="u2")
    environment = recordings.environment("InferenceJob", inference_spec(**changes))
    assert in_child(die_in, environment, method, at, after) == -signal.SIGKILL
    left = 0 if method.endswith("publish") and not after else -signal.SIGKILL
    assert in_child(die_in, environment, "inference.results:ShardResults.write", 3, after) == left
    run(recordings, inference_spec(**changes))
    for name in ("predictions-0.jsonl", "errors-0.jsonl"):
        assert lines(recordings, name) == lines(recordings, name, folder="results/whole")
    whole = sorted((recordings / "results/whole/annotated").rglob("*.mp4"))
    assert len(whole) == 5
    for path in whole:
        ours = recordings / "results/out/annotated" / path.relative_to(recordings / "results/whole/annotated")
        for mine, theirs in zip(video(ours), video(path), strict=True):
            assert abs(mine.astype(int) - theirs).mean() < 3  # a cut changes how the encoder spends its bits
    assert not list((recordings / "results/out").glob(".*"))


def test_two_shards_killed_again_and_again_share_the_input_without_loss(pictures):
    spec = inference_spec(batchSize=2, shards=2)
    for shard in (1, 0, 1, 1):
        environment = pictures.environment("InferenceJob", spec, shard=shard)
        assert in_child(die_in, environment, "inference.results:ShardResults.write", 4, True) == -signal.SIGKILL
    for shard in (0, 1):
        run(pictures, spec, shard=shard)
    paths = [line["path"] for shard in (0, 1) for line in lines(pictures, f"predictions-{shard}.jsonl")]
    assert sorted(paths) == [f"{name}/{number:03d}.png" for name in CLASSES for number in range(5)]


def test_unreadable_inputs_are_listed_and_tolerated_up_to_the_threshold(pictures):
    (pictures / "captures/test/beta/001.png").write_bytes(b"torn")
    run(pictures, inference_spec(errorThreshold=0.1))
    (error,) = lines(pictures, "errors-0.jsonl")
    assert error["path"] == "beta/001.png"
    assert "not a readable image" in error["reason"]
    assert len(lines(pictures)) == 14
    with pytest.raises(InputError, match="1 of 15 files cannot be read, more than 5%: beta/001.png") as caught:
        run(pictures, inference_spec(output__uri="pvc://results/strict"), uid="u2")
    assert (caught.value.reason, caught.value.exit_code) == ("TooManyUnreadable", 3)
    assert len(lines(pictures, folder="results/strict")) == 14  # what it has is written, but not marked
    assert not (pictures / "results/strict/_SUCCESS-0").exists()


SHARDS = 4


def broken(path, frames):
    """Put no numbers into some frames of a recording of `tone_set`."""
    samples = np.fromfile(path, "<f4")
    for frame in frames:
        samples[2 * 4096 * frame] = np.nan
    samples.tofile(path)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_frame_that_cannot_be_read_is_one_of_many(recordings, shards):
    """A recording of an hour is not lost for a tenth of a second of it; of 18 frames two are."""
    broken(recordings / "captures/test/beta/001.iq", [1])
    broken(recordings / "captures/test/alpha/000.iq", [2])
    for shard in range(shards):
        run(recordings, inference_spec(shards=shards, errorThreshold=2 / 18), shard=shard)
    mark = json.loads((recordings / "results/out/_SUCCESS").read_text())
    assert (mark["processed"], mark["failed"]) == (16, 2)
    spec = inference_spec(shards=shards, errorThreshold=0.1, output__uri="pvc://results/strict")
    with pytest.raises(InputError, match=r"2 of 18 frames cannot be read, more than 10%: .*/00\d.iq, frame \d: frame"):
        for shard in range(shards):
            run(recordings, spec, shard=shard)


def test_what_holds_nothing_is_counted_and_not_classified(recordings):
    folder = recordings / "captures/test"
    path = next(iter(sorted(folder.rglob("*.iq"))))
    values = np.fromfile(path, "<f4")
    values[: len(values) // 3] = 0  # the first of three frames
    values.tofile(path)
    watcher = Watcher()
    run(recordings, inference_spec(errorThreshold=0, evaluation={}), watcher=watcher)
    dead, *alive = lines(recordings)
    assert (dead["path"], dead["frame"]) == (path.relative_to(folder).as_posix(), 0)
    assert (dead["dead"], dead["class"], dead["score"], dead["top"]) == ("dead: all zero", None, None, [])
    assert not any("dead" in line for line in alive)
    assert lines(recordings, "errors-0.jsonl") == []
    mark = json.loads((recordings / "results/out/_SUCCESS").read_text())
    assert (mark["dead"], mark["processed"], mark["failed"]) == (1, len(alive) + 1, 0)
    evaluation = json.loads((recordings / "results/out/evaluation.json").read_text())
    assert (evaluation["dead"], evaluation["samples"]) == (1, len(alive))
    voted = lines(recordings, "recordings.jsonl")
    assert [row["recording"] for row in voted] == sorted({line["path"].removesuffix(".iq") for line in alive})
    assert [row["dead"] for row in voted] == [1, *[0] * (len(voted) - 1)]
    for row in voted:
        assert row["frames"] == sum(line["path"] == f"{row['recording']}.iq" for line in alive)
        assert row["agree"] == sum(
            line["class"] == row["class"] for line in alive if line["path"] == f"{row['recording']}.iq"
        )
    own = evaluation["byRecording"]
    assert sum(map(sum, own["confusionMatrix"])) == len(voted)
    assert all("recallInterval" in row for row in own["perClass"].values() if row["samples"])
    status = {metric["name"]: metric["value"] for metric in watcher.last["metrics"]}
    assert (status["recordings"], status["dead"]) == (str(len(voted)), "1")
    assert status["recordingAccuracy"] == f"{own['accuracy']:.4g}"
    assert status["recordingMacroF1"] == f"{own['metrics']['macroF1']:.4g}"


def test_with_shards_the_threshold_is_the_whole_jobs(pictures):
    torn, names = "beta/001.png", [f"{name}/{number:03d}.png" for name in CLASSES for number in range(5)]
    (pictures / f"captures/test/{torn}").write_bytes(b"torn")
    hit = next(shard for shard in range(SHARDS) if infer.in_shard(torn, shard, SHARDS))
    assert sum(infer.in_shard(name, hit, SHARDS) for name in names) < 10  # its own share is above both thresholds
    for shard in range(SHARDS):
        run(pictures, inference_spec(shards=SHARDS, errorThreshold=0.1), shard=shard)
    mark = json.loads((pictures / "results/out/_SUCCESS").read_text())
    assert (mark["files"], mark["processed"], mark["failed"]) == (15, 14, 1)

    spec = inference_spec(shards=SHARDS, errorThreshold=0.05, output__uri="pvc://results/strict")
    *others, last = [hit, *(shard for shard in range(SHARDS) if shard != hit)]
    for shard in others:
        run(pictures, spec, uid="u2", shard=shard)
    for _ in range(2):  # started again, it fails again
        with pytest.raises(InputError, match="1 of 15 files cannot be read, more than 5%: beta/001.png") as caught:
            run(pictures, spec, uid="u2", shard=last)
        assert (caught.value.reason, caught.value.exit_code) == ("TooManyUnreadable", 3)
    assert not (pictures / "results/strict/_SUCCESS").exists()


def test_a_shard_in_which_nothing_can_be_read_finishes_its_part_but_a_whole_job_does_not(pictures):
    spec = inference_spec(shards=SHARDS, errorThreshold=1)
    paths = sorted((pictures / "captures/test").rglob("*.png"))
    for path in paths:
        if infer.in_shard(path.relative_to(pictures / "captures/test").as_posix(), 0, SHARDS):
            path.write_bytes(b"torn")
    for shard in range(SHARDS):
        run(pictures, spec, shard=shard)
    assert json.loads((pictures / "results/out/_SUCCESS-0").read_text())["processed"] == 0
    assert (pictures / "results/out/_SUCCESS").exists()

    for path in paths:
        path.write_bytes(b"torn")
    spec["output"]["uri"] = "pvc://results/nothing"
    with pytest.raises(InputError, match="15 of 15 files cannot be read"):
        for shard in range(SHARDS):
            run(pictures, spec, uid="u2", shard=shard)
    assert len(list((pictures / "results/nothing").glob("_SUCCESS-*"))) == SHARDS
    assert not (pictures / "results/nothing/_SUCCESS").exists()


def test_torn_recordings(recordings):
    path = recordings / "captures/test/gamma/000.iq"
    path.write_bytes(path.read_bytes()[:-3])
    short = recordings / "captures/test/gamma/001.iq"
    short.write_bytes(short.read_bytes()[: 8 * 100])
    run(recordings, inference_spec(errorThreshold=0.5))
    assert {line["path"]: line["reason"].split(":")[0] for line in lines(recordings, "errors-0.jsonl")} == {
        "gamma/001.iq": "shorter than one frame",
    }
    assert (
        sum(line["path"] == "gamma/000.iq" for line in lines(recordings, "predictions-0.jsonl")) == 2
    )  # of three frames


def test_an_output_with_another_jobs_results_is_refused(pictures, place):
    changes = {"output__uri": place.uri("results/out")}
    for shard in (0, 1):
        run(pictures, inference_spec(**changes, shards=2), shard=shard)
    where = place.uri("results/out").removeprefix("pvc://")
    words = f"{where} contains results of job: write another output.uri, or output.overwrite"
    with pytest.raises(InvalidConfigurationError, match=words):
        run(pictures, inference_spec(**changes), uid="u2")
    run(pictures, inference_spec(**changes, output__overwrite=True, input__pattern="beta/*"), uid="u2")
    assert len(place.get("results/out/predictions-0.jsonl").splitlines()) == 5
    assert "predictions-1.jsonl" not in place.names("results/out")
    assert json.loads(place.get("results/out/_SUCCESS"))["uid"] == "u2"


def test_an_owners_file_that_a_kill_left_empty_is_nobodys(pictures):
    (pictures / "results/out").mkdir()
    (pictures / "results/out/job.json").touch()
    run(pictures, inference_spec())
    assert json.loads((pictures / "results/out/job.json").read_text())["uid"] == "u1"
    assert len(lines(pictures)) == 15


def test_a_shard_that_takes_over_late_leaves_what_another_has_written(pictures, monkeypatch):
    from rfuav_trainer.inference import results

    run(pictures, inference_spec(shards=3, evaluation={}), uid="old", shard=1, shards=3)
    run(pictures, inference_spec(shards=3, evaluation={}), uid="old", shard=2, shards=3)
    spec = inference_spec(shards=2, output__overwrite=True)
    out = pictures / "results/out"
    look = results._patiently

    def look_and_wait(owner):
        """Shard 1 has seen the old owner; now shard 0 does all of its work."""
        found = look(owner)
        monkeypatch.setattr(results, "_patiently", look)
        run(pictures, spec, uid="new", shard=0, shards=2)
        return found

    monkeypatch.setattr(results, "_patiently", look_and_wait)
    run(pictures, spec, uid="new", shard=1, shards=2)
    assert json.loads((out / "_SUCCESS").read_text())["uid"] == "new"
    assert len(lines(pictures) + lines(pictures, "predictions-1.jsonl")) == 15
    assert not [*out.glob("*-2*")]


def test_evaluation_by_class_and_snr(recordings):
    watcher = Watcher()
    run(recordings, inference_spec(evaluation={}), watcher=watcher)
    out = recordings / "results/out"
    found = json.loads((out / "evaluation.json").read_text())
    predictions = lines(recordings)
    right = [line["class"] == line["path"].split("/")[0] for line in predictions]
    assert found["accuracy"] == pytest.approx(sum(right) / 18, abs=1e-5)
    assert [(row["snrDb"], row["samples"]) for row in found["bySnr"]] == [(-10, 9), (10, 9)]
    weighted = sum(row["accuracy"] * row["samples"] for row in found["bySnr"]) / 18
    assert weighted == pytest.approx(found["accuracy"], abs=1e-5)
    assert [sum(row) for row in found["confusionMatrix"]] == [6, 6, 6]
    assert "SNR (dB)" in (out / "evaluation.txt").read_text()
    assert min(Image.open(out / "confusion-matrix.png").size) > 300
    assert {metric["name"] for metric in watcher.last["metrics"]} >= {"macroF1", "top1", "meanAveragePrecision"}


def test_scores_next_to_nothing_and_to_one_are_written_as_the_network_gives_them(desk, monkeypatch):
    """4,000 samples of a confident network: the lines hold its very scores, and the evaluation is scikit-learn's."""
    classes, count = test_memory.CLASSES, 4000
    test_memory.pictures(desk / "captures/test", count)
    card = weights.Card("custom", list(classes), Preprocessing("image", 16))
    weights.save(desk / "models/w.safetensors", test_memory.tiny(len(classes), 16).state_dict(), card)
    rng = np.random.default_rng(1)
    # As they are read: class by class, and in their order.
    labels = np.sort(np.arange(count) % len(classes))
    logits = 10 * (rng.normal(size=(count, len(classes))) + 2.5 * np.eye(len(classes))[labels])
    scores = torch.from_numpy(logits).float().softmax(1)
    rows = iter(scores)
    monkeypatch.setattr(infer.Classifier, "scores", lambda _, batch: torch.stack([next(rows) for _ in batch]))
    run(
        desk,
        inference_spec(
            model={"weights": "pvc://models/w.safetensors", "custom": "trainer.training.test_memory:tiny"},
            resources__cpu="1",  # one batch after the other
            evaluation={},
        ),
    )
    found = lines(desk)
    assert [classes.index(line["path"].split("/")[0]) for line in found] == labels.tolist()
    assert torch.equal(torch.tensor([line["scores"] for line in found]), scores)
    assert torch.equal(torch.tensor([[entry["score"] for entry in line["top"]] for line in found]), scores.topk(5)[0])
    metrics = json.loads((desk / "results/out/evaluation.json").read_text())["metrics"]
    for k in (1, 3, 5):
        assert metrics[f"top{k}"] == pytest.approx(sk.top_k_accuracy_score(labels, scores.numpy(), k=k), abs=1e-6)
    precisions = [sk.average_precision_score(labels == c, scores[:, c]) for c in range(len(classes))]
    assert metrics["meanAveragePrecision"] == pytest.approx(np.mean(precisions), abs=5e-4)


def test_evaluate_measures_predictions_that_are_there_without_making_them_again(pictures, place, monkeypatch):
    spec = inference_spec(output__uri=place.uri("results/out"))
    run(pictures, spec)
    monkeypatch.setattr(infer.Classifier, "scores", lambda *_: pytest.fail("classified again"))
    text = infer.evaluate(pictures.job("InferenceJob", spec), Watcher(), StopSignal())
    assert text == place.get("results/out/evaluation.txt").decode()
    assert "15 samples" in text


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_precision_changes_the_scores_a_little_and_is_said(pictures, precision):
    from torch import nn

    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, _, output: seen.append(output.dtype) if isinstance(module, nn.Linear) else None
    )
    try:
        run(pictures, inference_spec(precision=precision))
    finally:
        handle.remove()
    found = {torch.bfloat16: "bf16", torch.float32: "fp32"}[seen[-1]]
    assert found == json.loads((pictures / "results/out/_SUCCESS-0").read_text())["precision"]
    if precision != "auto":
        assert found == precision
    run(pictures, inference_spec(precision="fp32", output__uri="pvc://results/whole"), uid="u2")
    for ours, exact in zip(lines(pictures), lines(pictures, folder="results/whole"), strict=True):
        assert ours["score"] == pytest.approx(exact["score"], abs=0.01)


@pytest.mark.parametrize("kind", ["image", "iq"])
def test_batches_side_by_side_give_the_same_predictions(desk, monkeypatch, kind):
    """Four at a time with a thread each, against one after the other: every input once, in order, the same answer."""
    (tone_set if kind == "iq" else image_set)(desk / "captures/test", count=5)
    (desk / "models/out").mkdir()
    weights_file(desk / "models/out/best.safetensors", recordings=kind == "iq")
    spec = inference_spec(batchSize=2, precision="fp32", evaluation={})
    run(desk, spec)
    monkeypatch.setattr(resources, "cpus", lambda _: 4)
    workers = set()
    whole = infer.Classifier.scores
    monkeypatch.setattr(
        infer.Classifier, "scores", lambda *a: workers.add(threading.current_thread().name) or whole(*a)
    )
    run(desk, {**spec, "output": {"uri": "pvc://results/four", "annotate": "none"}}, uid="u2")
    assert len(workers) > 1
    assert torch.get_num_threads() == 4
    for one, four in zip(lines(desk), lines(desk, folder="results/four"), strict=True):
        assert (one["path"], one["class"], one.get("frame")) == (four["path"], four["class"], four.get("frame"))
        assert four["scores"] == pytest.approx(one["scores"], abs=1e-5)


def test_torch_has_its_threads_back_after_working_side_by_side():
    torch.set_num_threads(3)
    found = side_by_side(lambda _: torch.get_num_threads(), range(9), 2, 1)
    assert [threads for _, threads in found] == [1] * 9
    assert torch.get_num_threads() == 3
    stopped = side_by_side(lambda _: torch.get_num_threads(), range(9), 2, 1)
    assert next(stopped) == (0, 1)
    stopped.close()
    assert torch.get_num_threads() == 3


def test_a_batch_that_is_too_large_for_the_memory_is_halved(pictures, monkeypatch):
    sizes = []
    whole = infer.Classifier.scores

    def scores(self, batch):
        sizes.append(len(batch))
        if len(batch) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, batch)

    monkeypatch.setattr(infer.Classifier, "scores", scores)
    run(pictures, inference_spec())
    assert len(lines(pictures)) == 15
    assert sizes[:4] == [8, 4, 4, 4]
    with pytest.raises(torch.OutOfMemoryError):
        run(pictures, inference_spec(batchSize=8, output__uri="pvc://results/fixed"), uid="u2")


@pytest.mark.parametrize(("precision", "advice"), [("fp32", "did not diverge"), ("fp16", "write precision: fp32")])
def test_scores_that_are_no_numbers_are_refused(pictures, precision, advice):
    path = pictures / "models/out/best.safetensors"
    state, card = load_file(path), weights.read_card(path)
    weights.save(path, {**state, "classifier.3.bias": torch.full((3,), torch.nan)}, card)
    with pytest.raises(InputError, match=rf"network of {path} gives non-finite scores:.*{advice}") as caught:
        run(pictures, inference_spec(precision=precision, evaluation={}))
    assert caught.value.reason == "WeightsUnreadable"
    assert not (pictures / "results/out/predictions-0.jsonl").exists()


def test_int16_recordings_of_a_float32_model(recordings):
    tone_set(recordings / "captures/short", count=2, kind="int16")
    run(recordings, inference_spec(input__uri="pvc://captures/short", iq={**IQ, "sampleFormat": "int16"}))
    assert len(lines(recordings)) == 3 * 2 * 2


def test_the_advice_for_recordings_of_another_format_can_be_followed(recordings):
    tone_set(recordings / "captures/short", count=2, kind="int16")
    spec = inference_spec(input__uri="pvc://captures/short", iq={"sampleFormat": "int16"})
    with pytest.raises(InvalidConfigurationError, match="omitted fields have their defaults") as caught:
        run(recordings, spec)
    advice = json.loads(str(caught.value).partition("write all of it: iq: ")[2])
    assert advice["sampleFormat"] == "int16"
    run(recordings, {**spec, "iq": advice})
    assert len(lines(recordings)) == 3 * 2 * 2


def test_a_files_name_need_not_be_text(pictures):
    folder = pictures / "captures/test/alpha"
    (folder / "000.png").rename(folder / os.fsdecode(b"gr\xfcn.png"))
    (folder / os.fsdecode(b"torn\xfc.png")).write_bytes(b"torn")
    ended = pictures.pod("InferenceJob", inference_spec(errorThreshold=0.2))
    assert ended.code == 0, ended.output
    assert any(line["path"] == "alpha/gr\udcfcn.png" for line in lines(pictures))
    assert [line["path"] for line in lines(pictures, "errors-0.jsonl")] == ["alpha/torn\udcfc.png"]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"iq": {**IQ, "fftSize": 256}}, "iq", "fftSize 128 in the weights, 256 in the job"),
        (
            {"evaluation": {}, "input__uri": "pvc://captures/strange"},
            "image",
            "labels strange of inputs in .* are not classes of the weights",
        ),
        (
            {"model__architecture": "resnet18"},
            "image",
            "contains a mobilenet_v3_small, model.architecture says resnet18",
        ),
        ({"model__classes": ["x", "y", "z"]}, "image", "trained on other classes"),
        ({"model__custom": "my_networks:build"}, "image", "this is mobilenet_v3_small: remove model.custom"),
        ({"input__uri": "pvc://captures/iq"}, "image", "trained on images, the input is recordings: write spec.iq"),
        (
            {"model__weights": "pvc://models/out/plain.safetensors"},
            "image",
            "has no metadata: write model.classes",
        ),
        (
            {
                "model__weights": "pvc://models/out/plain.safetensors",
                "model__architecture": "resnet18",
                "model__classes": ["a", "b"],
            },
            "image",
            "fits none of resnet18; nearest is resnet18",
        ),
    ],
)
def test_what_does_not_fit_together(desk, changes, kind, message):
    (desk / "models/out").mkdir()
    weights_file(desk / "models/out/best.safetensors", recordings=kind == "iq")
    save_file(load_file(desk / "models/out/best.safetensors"), desk / "models/out/plain.safetensors")
    (tone_set if kind == "iq" else image_set)(desk / "captures/test", count=1)
    image_set(desk / "captures/strange", classes=("strange", "alpha"), count=1)
    tone_set(desk / "captures/iq", count=1)
    with pytest.raises(InvalidConfigurationError, match=message):
        run(desk, inference_spec(**changes))
    assert not list((desk / "results").iterdir())  # found before anything is written
