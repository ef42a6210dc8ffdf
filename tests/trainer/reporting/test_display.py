"""What people and machines read: JSON lines without a terminal, a bar and a table with one."""

import io
import json

import pytest
import structlog
from rich.console import Console

from rfuav_trainer.process import logs
from rfuav_trainer.reporting.display import Display, duration
from rfuav_trainer.reporting.heartbeat import Heartbeat

TRAINING = {
    "progressPercentage": 41,
    "metrics": [{"name": "trainLoss", "value": "0.52"}, {"name": "valAccuracy", "value": "0.9"}],
    "rfuav": {
        "epoch": 41,
        "totalEpochs": 100,
        "step": 3,
        "totalSteps": 9,
        "samplesPerSecond": 310.4,
        "outputs": {"bestWeights": "pvc://m/best.safetensors"},
    },
    "estimatedRemainingSeconds": 185,
    "live": {"loss": 0.52},
}
INFERENCE = {"progressPercentage": 50, "metrics": [], "rfuav": {"processed": 5, "failed": 1, "total": 12}}


@pytest.fixture(autouse=True)
def _restore():
    yield
    structlog.reset_defaults()


def shown(act):
    stream = io.StringIO()
    act(Console(file=stream, force_terminal=True, width=140))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (TRAINING, ["41%", "epoch 42/100  step 3/9  loss 0.520  310/s  3m05s left"]),
        ({**TRAINING, "live": {"validated": "8/90"}}, ["epoch 42/100  validating 8/90  310/s"]),
        (INFERENCE, ["50%", "5 of 12  1 unreadable"]),
    ],
)
def test_the_bar(status, words):
    def act(console):
        with Display(console) as display:
            display(status)

    assert all(word in shown(act) for word in words)


EPOCH = {
    "epoch": 1,
    "epochs": 3,
    "trainLoss": 0.9,
    "valLoss": 1.1,
    "valAccuracy": 0.3,
    "macroF1": 0.2,
    "learningRate": 1e-3,
    "seconds": 82,
}


def test_an_epoch_is_a_row_and_the_headings_stand_above_the_first(capsys):
    display = Display(Console(width=140))
    logs.configure(human=True, lines=display.render)
    log = structlog.get_logger()
    log.info("epoch", **EPOCH, best=True)
    log.info("checkpoint", file="step-1.pt")
    log.info("epoch", **{**EPOCH, "epoch": 2})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["epoch", "loss", "val", "loss", "accuracy", "macro", "F1", "lr", "time"],
        ["1/3", "0.9000", "1.1000", "0.3000", "0.2000", "1.0e-03", "1m22s", "best"],
        ["2/3", "0.9000", "1.1000", "0.3000", "0.2000", "1.0e-03", "1m22s"],
    ]


def test_other_events_are_sentences_and_warnings_stand_out(capsys):
    logs.configure(human=True, lines=Display(Console(width=140)).render)
    log = structlog.get_logger().bind(job="drones")
    log.info("resumed", epoch=3, step=5)
    log.warning("skipping unreadable file", file="a.png", problem="not a readable image")
    log.error("no such folder", reason="InputMissing", exitCode=3)
    try:
        raise ValueError("boom")
    except ValueError as error:
        log.error("Crashed", exc_info=error)  # noqa: TRY400  (as the runner does)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "resumed (epoch 3, step 5)",
        "warning: skipping unreadable file (file a.png, problem not a readable image)",
        "error: no such folder",
    ]
    assert lines[3] == "error: Crashed"
    assert lines[-1] == "ValueError: boom"


def test_results_leave_stdout_to_themselves(capsys):
    logs.configure(human=False, quiet=True)
    structlog.get_logger().info("classifying")
    structlog.get_logger().warning("skipping unreadable file")
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["skipping unreadable file"]


def test_a_heartbeat_a_minute(capsys):
    logs.configure(human=False)
    moments = iter([0, 59, 61, 120, 122])
    heartbeat = Heartbeat(lambda: next(moments))
    for _ in range(4):
        heartbeat(TRAINING)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["progress", "progress"]
    assert {"percent": 41, "epoch": 41, "step": 3, "loss": 0.52, "samplesPerSecond": 310.4}.items() <= lines[0].items()


@pytest.mark.parametrize(("seconds", "words"), [(0.44, "0.4s"), (59.4, "59s"), (185, "3m05s"), (7620, "2h07m")])
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_one_json_object_a_line_for_machines(capsys):
    assert logs.configure() is False
    structlog.get_logger().info("epoch", epoch=1, path=None)
    (line,) = capsys.readouterr().out.splitlines()
    assert {"event": "epoch", "epoch": 1, "level": "info"}.items() <= json.loads(line).items()
    assert json.loads(line)["time"].endswith("Z")


def test_words_for_people(capsys):
    assert logs.configure(human=True) is True
    structlog.get_logger().info("epoch", epoch=1)
    text = capsys.readouterr().out
    assert "epoch" in text
    assert not text.startswith("{")


def test_a_traceback_is_part_of_the_json_line(capsys):
    logs.configure()
    try:
        raise ValueError("boom")
    except ValueError as error:
        structlog.get_logger().error("Crashed", exc_info=error)
    (line,) = capsys.readouterr().out.splitlines()
    assert "ValueError: boom" in json.loads(line)["exception"]
