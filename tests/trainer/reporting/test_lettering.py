"""Names in any script, in pictures."""

import warnings

import numpy as np
import pytest
from PIL import Image

from rfuav_trainer.evaluation import report
from rfuav_trainer.inference import drawing
from rfuav_trainer.reporting import lettering
from rfuav_trainer.training import artifacts

ODD = [
    "DJI $mavic$",
    "$",
    "a$b_{c",
    "x^2$$",
    "\u65e0\u4eba\u673a",
    "\u98de\u884c\u5668",
    "\ud55c\uad6d",
    "\U0001f681",
    "x" * 300,
    "\\alpha",
    "\u00fc\u00df",
]


@pytest.fixture(autouse=True)
def _strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of every glyph that it does not have
        yield


def test_any_name_is_drawn_beside_the_confusion_matrix():
    matrix = np.eye(len(ODD), dtype=int).tolist()
    picture = report._png(report._matrix(matrix, ODD))
    assert picture.startswith(b"\x89PNG")


def test_any_job_is_drawn_above_its_curves(tmp_path):
    history = [{"epoch": 1, "trainLoss": 1.0, "valLoss": 1.0, "trainAccuracy": 0.5, "valAccuracy": 0.5}]
    artifacts.write_curves(tmp_path / "a.png", history, " ".join(ODD[:8]))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (1400, 400)


def test_a_dollar_is_a_dollar():
    figure = report._matrix([[1, 0], [0, 1]], ["$mu$", "b"])
    (label, _) = figure.axes[0].get_xticklabels()
    assert (label.get_text(), label.get_parse_math()) == ("$mu$", False)


def test_what_no_font_has_is_readable(monkeypatch):
    points = frozenset(range(32, 256))
    monkeypatch.setattr(lettering, "_fonts", lambda: {lettering.PLAIN: ("here.ttf", points)})
    assert lettering.drawable("DJI \u65e0\u4eba\u673a") == "DJI \\u65e0\\u4eba\\u673a"
    more = frozenset({0x65E0, 0x4EBA})
    monkeypatch.setattr(lettering, "_fonts", lambda: {lettering.PLAIN: ("a.ttf", points), "Unifont": ("b.ttf", more)})
    assert lettering.drawable("DJI \u65e0\u4eba\u673a") == "DJI \u65e0\u4eba\\u673a"
    assert lettering.in_one_font("\u65e0\u4eba") == ("b.ttf", "\u65e0\u4eba")
    assert lettering.in_one_font("a\u00e4\u65e0") == ("a.ttf", "a\u00e4\\u65e0")


@pytest.mark.parametrize("name", ODD)
def test_any_name_is_drawn_above_a_picture(name):
    blank = drawing.with_bar(Image.new("RGB", (400, 300)), "")
    drawn = drawing.with_bar(Image.new("RGB", (400, 300)), name)
    assert np.asarray(drawn).astype(int).sum() > np.asarray(blank).astype(int).sum()
