"""The log of a job in its output: what the pod logged, over attempts, bounded, and never in the way of the job."""

import json
import threading

import pytest
import structlog
from trainer.trainer_kit import inference_spec, training_spec

from rfuav_trainer.errors import InputError, StoppedError
from rfuav_trainer.process import logs
from rfuav_trainer.storage import kept_log, outputs

log = structlog.get_logger()


@pytest.fixture(autouse=True)
def _for_machines():
    logs.configure(human=False, keep=True)
    structlog.contextvars.bind_contextvars(job="job", attempt=1)
    yield
    structlog.contextvars.clear_contextvars()
    logs.configure(human=False)


def job_of(desk, place, **fields):
    return desk.job("TrainingJob", training_spec(output__uri=place.uri("models/out")), **fields)


def keep(job, *events, error=None):
    with outputs.opened(job) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        with kept_log.kept(folder, job):
            for event in events:
                log.info(event)
            if error is not None:
                raise error


def lines(place, path="models/out/log.jsonl"):
    return [json.loads(line) for line in place.get(path).splitlines()]


def events(place, path="models/out/log.jsonl"):
    return [line["event"] for line in lines(place, path)]


def test_lines_are_those_of_stdout_also_those_logged_before(desk, place, capsys):
    log.info("before the output is known", number=1)
    keep(job_of(desk, place), "training", "done")
    log.info("afterwards")
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines(place)[0] == {"event": "log", "level": "info", "job": "job", "uid": "u1"}
    assert lines(place)[1:] == shown[:-1]


def test_attempts_append_and_another_job_starts_over(desk, place):
    keep(job_of(desk, place), "first attempt")
    keep(job_of(desk, place), "second attempt")
    assert events(place) == ["log", "first attempt", "second attempt"]
    keep(job_of(desk, place, uid="u2"), "another job")
    assert events(place) == ["log", "another job"]


def test_what_a_killed_attempt_tore_does_not_spoil_the_next_line(desk, place):
    keep(job_of(desk, place), "first")
    place.put("models/out/log.jsonl", place.get("models/out/log.jsonl") + b'{"event": "to')
    keep(job_of(desk, place), "second")
    *_, torn, last = place.get("models/out/log.jsonl").splitlines()
    assert torn == b'{"event": "to'
    assert json.loads(last)["event"] == "second"


@pytest.mark.parametrize("content", [b"", b"\n", b"[" * 5000, b"\xff\xfe", b'{"event": "log"}\n'])
def test_a_file_of_somebody_else_is_replaced(desk, content):
    path = desk / "models/out/log.jsonl"
    path.parent.mkdir()
    path.write_bytes(content)
    with kept_log.kept(path.parent, desk.job("TrainingJob", training_spec())):
        log.info("ours")
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["log", "ours"]


@pytest.mark.parametrize(
    ("error", "level", "code"),
    [
        (InputError("no data: write another uri"), "error", 3),
        (StoppedError("saved"), "info", 75),
        (ZeroDivisionError("oh"), "error", 1),
    ],
)
def test_how_it_failed_is_the_last_line(desk, place, error, level, code):
    with pytest.raises(type(error)):
        keep(job_of(desk, place), "working", error=error)
    last = lines(place)[-1]
    assert (last["level"], last["exitCode"], last["job"], last["attempt"]) == (level, code, "job", 1)
    assert str(error) in last["event"]
    assert ("Traceback" in last.get("exception", "")) == isinstance(error, ZeroDivisionError)


def test_the_file_is_bounded_and_keeps_the_newest_lines(desk, monkeypatch):
    monkeypatch.setattr(kept_log, "MOST_BYTES", 4000)
    monkeypatch.setattr(kept_log, "WRITE_SECONDS", 0.0)
    path = desk / "models/out/log.jsonl"
    path.parent.mkdir()
    sizes = set()
    with kept_log.kept(path.parent, desk.job("TrainingJob", training_spec())):
        for number in range(300):
            log.info("line", number=number)
            sizes.add(path.stat().st_size)
    assert max(sizes) <= 4000
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert kept[0]["uid"] == "u1"
    numbers = [line["number"] for line in kept[1:]]
    assert numbers == list(range(numbers[0], 300))
    assert len(numbers) >= 15


def test_lines_of_other_threads_are_kept_and_never_written_by_them(desk, monkeypatch):
    monkeypatch.setattr(kept_log, "WRITE_SECONDS", 0.0)
    path = desk / "models/out/log.jsonl"
    path.parent.mkdir()
    with kept_log.kept(path.parent, desk.job("TrainingJob", training_spec())):
        before = path.stat().st_size
        thread = threading.Thread(target=log.info, args=("from an upload",))
        thread.start()
        thread.join()
        assert path.stat().st_size == before
    assert "from an upload" in path.read_text()


def test_a_file_that_cannot_be_written_is_given_up_with_one_warning(desk, capsys):
    path = desk / "models/out/log.jsonl"
    path.mkdir(parents=True)
    with kept_log.kept(path.parent, desk.job("TrainingJob", training_spec())):
        log.info("going on")
        log.info("to the end")
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in shown] == ["the log is not kept in the output", "going on", "to the end"]


def test_nothing_is_kept_for_a_person(desk):
    logs.configure(human=True, keep=True)
    with kept_log.kept(desk / "models", desk.job("TrainingJob", training_spec())):
        log.info("shown")
    assert not list((desk / "models").iterdir())


def test_the_log_of_a_training_in_a_pod(image_desk):
    ended = image_desk.pod("TrainingJob", training_spec(training__epochs=1))
    assert ended.code == 0, ended.output
    kept = [json.loads(line) for line in (image_desk / "models/out/log.jsonl").read_text().splitlines()]
    assert kept[1:] == ended.events[: len(kept) - 1]
    found = [line["event"] for line in kept if line["event"] in {"training", "epoch", "done"}]
    assert found == ["training", "epoch", "done"]


def test_each_shard_has_its_own_log(pictures):
    for shard in range(2):
        assert pictures.pod("InferenceJob", inference_spec(shards=2), shard=shard).code == 0
    assert {path.name for path in (pictures / "results/out").glob("log*")} == {"log-0.jsonl", "log-1.jsonl"}
    text = (pictures / "results/out/log-1.jsonl").read_text()
    assert [json.loads(line)["event"] for line in text.splitlines() if "shard done" in line] == ["shard done"]


def test_another_job_removes_the_logs_of_shards_that_it_does_not_have(pictures):
    for shard in range(2):
        assert pictures.pod("InferenceJob", inference_spec(shards=2), shard=shard).code == 0
    ended = pictures.pod("InferenceJob", inference_spec(output__overwrite=True), uid="u2")
    assert ended.code == 0, ended.output
    assert {path.name for path in (pictures / "results/out").glob("log*")} == {"log.jsonl"}
