"""Marks of success: whose they are, what is none, and what they were made from."""

import json
import shutil
import threading

import pytest
import structlog
from trainer.trainer_kit import inference_spec, training_spec, until, weights_file

from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.inference import infer
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.storage import contents, marks
from rfuav_trainer.storage.contents import Contents
from rfuav_trainer.training import train
from rfuav_trainer.training.learner import Learner


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_damaged_mark_is_no_mark(desk, content):
    path = desk / "_SUCCESS"
    path.write_text(content)
    assert marks.finished_before(path, desk.job("TrainingJob", training_spec())) is None


def test_the_mark_of_another_job_is_not_this_jobs(desk):
    path = desk / "_SUCCESS"
    path.write_text(json.dumps({"uid": "someone"}))
    assert marks.finished_before(path, desk.job("TrainingJob", training_spec())) is None


@pytest.mark.parametrize(
    ("then", "today", "found"),
    [
        ({}, {}, []),
        ({"a": {"x": {"files": 1, "digest": "1"}}}, {"a": {"x": {"files": 1, "digest": "1"}}}, []),
        ({"a": {"x": {"files": 8, "digest": "1"}}}, {"a": {}}, ["a: x is gone (8 files then)"]),
        ({}, {"a": {"x": {"files": 2, "digest": "1"}}}, ["a: x is new (2 files)"]),
        ({"a": {"": {"files": 8, "digest": "1"}}}, {"a": {"": {"files": 7, "digest": "2"}}}, ["a: the folder itself has 7 files, 8 then"]),
        ({"a": {"x": {"files": 8, "digest": "1"}}}, {"a": {"x": {"files": 8, "digest": "2"}}}, ["a: x has other contents"]),
    ],
)  # fmt: skip
def test_differences_are_said_in_words(then, today, found):
    assert marks.differences(then, today) == found


def test_a_listing_notices_names_contents_and_what_lies_beside(tmp_path):
    for name in ("A/1.iq", "A/2.iq", "B/1.iq", "c.iq"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 1000)
    files = {name: tmp_path / name for name in ("A/1.iq", "A/2.iq", "B/1.iq", "c.iq")}
    first = marks.of_files(files, Contents())
    assert {part: found["files"] for part, found in first.items()} == {"": 1, "A": 2, "B": 1}

    def changed():
        return marks.differences({"x": first}, {"x": marks.of_files(files, Contents())})

    content = (tmp_path / "A/1.iq").read_bytes()
    (tmp_path / "A/1.iq").write_bytes(content[:2000] + b"!" + content[2001:])
    assert changed() == ["x: A has other contents"]
    (tmp_path / "A/1.iq").write_bytes(content)
    assert changed() == []
    (tmp_path / "A/1.iq").touch()
    assert changed() == []
    (tmp_path / "B/1.json").write_text('{"snrDb": 3}')
    assert changed() == ["x: B has 2 files, 1 then"]
    (tmp_path / "B/1.json").unlink()
    (tmp_path / "c.iq").unlink()
    assert changed() == ["x: the folder itself has other contents"]


# --- run again


def ran(job):
    """Run a job in this process; what was logged."""
    with structlog.testing.capture_logs() as logs:
        work = train.run if job.kind == "TrainingJob" else infer.run
        work(job, Progress(None), StopSignal())
    return [entry["event"] for entry in logs]


DONE = "already finished, nothing to do"


def test_a_training_is_finished_while_its_files_are_the_same(image_desk):
    spec = training_spec(training__epochs=1)
    job = image_desk.laptop("TrainingJob", spec)
    assert DONE not in ran(job)
    assert DONE in ran(job)
    out, train_folder = image_desk / "models/out", image_desk / "captures/train"
    content = (out / "best.safetensors").read_bytes()
    (out / "best.safetensors").write_bytes(bytes(len(content)))
    with pytest.raises(InvalidConfigurationError, match=r"output.uri: best.safetensors has other contents\): write"):
        ran(job)
    (out / "best.safetensors").write_bytes(content)
    shutil.rmtree(train_folder / "gamma")
    (train_folder / "beta/000.png").unlink()
    with pytest.raises(
        InvalidConfigurationError,
        match=r"other files \(dataset.train.uri: beta has 7 files, 8 then; dataset.train.uri: gamma is gone \(8 files "
        r"then\)\): write output.overwrite: true",
    ) as refused:
        ran(job)
    assert refused.value.exit_code == 2
    again = image_desk.laptop("TrainingJob", training_spec(training__epochs=1, output__overwrite=True))
    assert {"training", "done"} < {*ran(again)}
    assert json.loads((out / "report.json").read_text())["classes"] == ["alpha", "beta"]
    assert DONE in ran(again)
    shutil.rmtree(train_folder)
    with pytest.raises(InputError, match="does not exist|is not a folder"):
        ran(again)


def watched(monkeypatch):
    """The files that are read to tell their contents, and the steps of the training, in their order."""
    events, whole, step = [], contents._looked_at, Learner.step

    def looked_at(path, *bounds):
        events.append(path)
        return whole(path, *bounds)

    def stepped(self, *given):
        events.append("step")
        return step(self, *given)

    monkeypatch.setattr(contents, "_looked_at", looked_at)
    monkeypatch.setattr(Learner, "step", stepped)
    return events


@pytest.fixture
def sized_desk(image_desk):
    """Pictures of different sizes, as cameras and compressors make them: none can be a copy of another."""
    for number, path in enumerate(sorted((image_desk / "captures/train").rglob("*.png"))):
        path.write_bytes(path.read_bytes() + bytes(1000 * number))
    return image_desk


def test_the_first_step_waits_for_no_digest_and_each_file_is_read_once(sized_desk, monkeypatch):
    events = watched(monkeypatch)
    ran(sized_desk.laptop("TrainingJob", training_spec(training__epochs=1)))
    read = [event for event in events if event != "step"]
    assert sorted(read) == sorted((sized_desk / "captures/train").rglob("*.png"))
    assert events[0] == "step"


def test_a_training_of_other_files_reads_each_once(sized_desk, monkeypatch):
    """It knows them from the comparison with the mark."""
    spec = training_spec(training__epochs=1, output__overwrite=True)
    ran(sized_desk.laptop("TrainingJob", spec))
    (sized_desk / "captures/train/beta/000.png").unlink()
    events = watched(monkeypatch)
    ran(sized_desk.laptop("TrainingJob", spec))
    read = [event for event in events if event != "step"]
    assert "step" in events
    assert sorted(read) == sorted((sized_desk / "captures/train").rglob("*.png"))


def test_a_job_of_the_cluster_reads_no_file_to_tell_its_contents(sized_desk, monkeypatch):
    """Its mark is never compared with files."""
    events = watched(monkeypatch)
    ran(sized_desk.job("TrainingJob", training_spec(training__epochs=1)))
    assert {*events} == {"step"}


def test_a_training_that_fails_does_not_go_on_reading(sized_desk, monkeypatch):
    begun, may = threading.Event(), threading.Event()
    whole = contents._looked_at

    def slow(*given):
        begun.set()
        may.wait(60)
        return whole(*given)

    def fails(self, *given):
        if given[1].step:
            assert begun.wait(60)
            raise InputError("the volume is gone")
        return step(self, *given)

    step = Learner.step
    monkeypatch.setattr(contents, "TOGETHER", 1)
    monkeypatch.setattr(contents, "_looked_at", slow)
    monkeypatch.setattr(Learner, "step", fails)
    with pytest.raises(InputError, match="the volume is gone"):
        ran(sized_desk.laptop("TrainingJob", training_spec(training__epochs=1)))
    monkeypatch.setattr(contents, "_looked_at", lambda *_: pytest.fail("it reads on"))
    may.set()
    until(lambda: not any(thread.name.startswith(("sources", "digest")) for thread in threading.enumerate()))


def test_the_weights_that_a_training_began_with_count(image_desk):
    weights_file(image_desk / "models/start.safetensors")
    spec = training_spec(training__epochs=1, model__weights="pvc://models/start.safetensors")
    ran(image_desk.laptop("TrainingJob", spec))
    with (image_desk / "models/start.safetensors").open("ab") as stream:
        stream.write(b"!")
    with pytest.raises(InvalidConfigurationError, match="model.weights: start.safetensors has other contents"):
        ran(image_desk.laptop("TrainingJob", spec))


def test_a_job_of_the_cluster_stays_finished(image_desk):
    """A pod that vanished and came back has the same UID, and its job may have finished before the data was removed."""
    spec = training_spec(training__epochs=1)
    ran(image_desk.job("TrainingJob", spec))
    shutil.rmtree(image_desk / "captures/train/gamma")
    assert DONE in ran(image_desk.job("TrainingJob", spec))
    shutil.rmtree(image_desk / "captures/train")
    assert DONE in ran(image_desk.job("TrainingJob", spec))
    shutil.rmtree(image_desk / "captures")
    with pytest.raises(InputError, match="claim 'captures' of pvc://captures/train is not mounted"):
        ran(image_desk.job("TrainingJob", spec))


def test_an_evaluation_is_of_the_weights_and_inputs_of_now(pictures):
    def evaluated(**changes):
        return infer.evaluate(pictures.laptop("InferenceJob", inference_spec(**changes)), Progress(None), StopSignal())

    first = evaluated()
    assert evaluated() == first
    weights = pictures / "models/out/best.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(bytes(len(content)))
    (pictures / "captures/test/beta/000.png").unlink()
    with pytest.raises(
        InvalidConfigurationError,
        match=r"_SUCCESS-0 .*input.uri: beta has 4 files, 5 then; model.weights: best.safetensors has other contents\)",
    ) as refused:
        evaluated()
    assert refused.value.exit_code == 2
    weights.write_bytes(content)
    again = evaluated(output__overwrite=True)
    assert "14 samples" in again
    assert evaluated() == again
    weights.unlink()
    with pytest.raises(InputError, match="no weights file at"):
        evaluated()


def test_every_shard_counts_in_an_evaluation(pictures):
    spec = inference_spec(shards=2)
    for shard in range(2):
        ran(pictures.laptop("InferenceJob", spec, shard=shard))
    work = pictures.laptop("InferenceJob", spec, shard=0)
    infer.evaluate(work, Progress(None), StopSignal())
    root = pictures / "captures/test"
    other = next(p for p in sorted(root.rglob("*.png")) if infer.in_shard(p.relative_to(root).as_posix(), 1, 2))
    other.write_bytes(other.read_bytes() + b"!")
    with pytest.raises(InvalidConfigurationError, match=r"_SUCCESS-1 .*has other contents"):
        infer.evaluate(work, Progress(None), StopSignal())


def test_a_mark_of_an_older_version_says_so(pictures):
    job = pictures.laptop("InferenceJob", inference_spec())
    ran(job)
    path = pictures / "results/out/_SUCCESS-0"
    content = json.loads(path.read_text())
    del content["madeFrom"]
    path.write_text(json.dumps(content))
    with pytest.raises(InvalidConfigurationError, match="the mark does not say what it was made from"):
        ran(job)
