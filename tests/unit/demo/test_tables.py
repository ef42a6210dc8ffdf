"""What the demo prints."""

import io
import re

import pytest
from rich.console import Console

from demo import picture, tables
from demo.rows import History, Row


def printed(table):
    out = io.StringIO()
    Console(file=out, width=140).print(table)
    return out.getvalue()


WAITING = Row("flight-1", "InferenceJob", "Queued", reason="WaitingForCapacity", message="0 of 4 slots free", waited=12)
RUNNING = Row(
    "resnet",
    "TrainingJob",
    "Running",
    percent=41,
    loss=0.2134,
    accuracy=0.9412,
    done="3/8",
    node="n1",
    waited=5,
    ran=130,
)


def test_the_live_table_shows_state_numbers_node_time_and_why():
    text = printed(tables.live([RUNNING, WAITING], 61.4))
    for part in ("train resnet", "41% 3/8", "0.213", "0.941", "n1", "2 min 10 s", "infer flight-1", "12 s", "61 s"):
        assert part in text
    assert "WaitingForCapacity: 0 of 4 slots free" in " ".join(text.split())


def test_brackets_in_a_message_are_shown_as_they_are():
    quoting = Row("a", "TrainingJob", "Failed", reason="Error", message="[/mnt/x] [red]no[dim]")
    assert "[/mnt/x] [red]no[dim]" in " ".join(printed(tables.live([quoting], 0)).split())
    assert "[/a].iq" in printed(tables.predictions([{"path": "[/a].iq", "top": [{"class": "idle", "score": 1.0}]}]))


def test_a_line_leaves_out_what_is_not_known():
    assert tables.line(RUNNING, 7).split() == [
        "7",
        "s",
        "train",
        "resnet",
        "Running",
        "done",
        "41%",
        "3/8",
        "loss",
        "0.213",
        "accuracy",
        "0.941",
    ]
    assert tables.line(WAITING, 7).endswith("Queued     WaitingForCapacity: 0 of 4 slots free")


def test_the_summary_shows_what_each_job_waited_for():
    history = History()
    history.note([WAITING])
    assert "WaitingForCapacity" in printed(tables.summary([WAITING], history))


def test_phases_add_up():
    text = printed(tables.phases([("cluster", 10.2), ("jobs", 120.1)]))
    assert "2 min 10 s" in text  # 130.3 s in all


EVALUATION = {
    "samples": 5,
    "accuracy": 0.8,
    "classes": ["fm-video", "idle"],
    "confusionMatrix": [[2, 1], [0, 2]],
    "bySnr": [{"snrDb": -20, "samples": 2, "accuracy": 0.5}, {"snrDb": 10, "samples": 3, "accuracy": 1.0}],
}


def test_the_confusion_matrix_has_true_classes_as_rows():
    lines = [line.split() for line in printed(tables.confusion(EVALUATION)).replace("│", " ").splitlines()]
    assert ["1", "fm-video", "2", "1", "0.67"] in lines
    assert ["2", "idle", ".", "2", "1.00"] in lines


def test_a_class_without_recordings_has_no_recall():
    assert "0.00" in printed(tables.confusion({**EVALUATION, "confusionMatrix": [[0, 0], [0, 5]]}))


def test_accuracy_by_snr():
    lines = [line.split() for line in printed(tables.by_snr(EVALUATION)).replace("│", " ").splitlines()]
    assert ["-20", "2", "0.500"] in lines


def test_predictions_of_one_class_have_no_second():
    text = printed(tables.predictions([{"path": "a.iq", "top": [{"class": "idle", "score": 1.0}]}]))
    assert "idle" in text
    assert "1.000" in text


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.4, "0 s"), (119.4, "119 s"), (120, "2 min 00 s"), (3599, "59 min 59 s")]
)
def test_seconds(value, text):
    assert tables.seconds(value) == text


def test_the_picture_has_the_table_and_loads_nothing():
    drawn = picture.svg([RUNNING, WAITING], 61.4)
    text = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", drawn)).replace("&#160;", " ")
    for part in ("$ make demo", "train resnet", "41% 3/8", "0.941", "WaitingForCapacity"):
        assert part in text
    assert "url(http" not in drawn
    assert "@font-face" not in drawn
