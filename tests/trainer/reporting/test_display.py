"""What people and machines read: JSON lines without a terminal, a bar and a table with one."""

import io
import json

import pytest
import structlog
from rich.console import Console

from rfuav_trainer.process import logs
from rfuav_trainer.reporting.display import Display

TRAINING = {
    "progressPercentage": 41,
    "metrics": [{"name": "trainLoss", "value": "0.52"}, {"name": "valAccuracy", "value": "0.9"}],
    "rfuav": {
        "epoch": 41,
        "totalEpochs": 100,
        "step": 3,
        "totalSteps": 9,
        "outputs": {"bestWeights": "pvc://m/best.safetensors"},
    },
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
        (TRAINING, ["41%", "epoch 41/100  step 3/9  loss 0.52  val accuracy 0.9"]),
        (INFERENCE, ["50%", "5 of 12, 1 unreadable"]),
    ],
)
def test_the_bar(status, words):
    def act(console):
        with Display(console) as display:
            display(status)

    assert all(word in shown(act) for word in words)


def test_the_table():
    text = shown(lambda console: Display(console).summary(TRAINING))
    assert "valAccuracy" in text
    assert "pvc://m/best.safetensors" in text


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
