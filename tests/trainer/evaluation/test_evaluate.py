"""The evaluation against scikit-learn's, over conditions, and its page."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk

from rfuav_trainer.errors import InputError
from rfuav_trainer.evaluation import evaluate, report

CLASSES = ["alpha", "<b>eta", "gamma"]
MAPS = ("jet", "hot")


@pytest.fixture(scope="module")
def lines():
    """600 predictions, better ones at a higher SNR; the names tell SNR and colour map."""
    rng = np.random.default_rng(4)
    found = []
    for number in range(600):
        label, snr = int(rng.integers(3)), int(rng.integers(-2, 3)) * 10
        chances = np.exp(rng.normal(size=3) + (snr / 10 + 2) * np.eye(3)[label])
        scores = [round(float(value), 6) for value in chances / chances.sum()]
        order = np.argsort(scores)[::-1]
        top = [{"class": CLASSES[c], "score": scores[c]} for c in order]
        name = f"{CLASSES[label]}/snr_{snr}/{MAPS[number % 2]}/{number}.png"
        found.append({"path": name, "class": top[0]["class"], "top": top, "scores": scores})
    return found


def expected(lines):
    """scikit-learn's accuracy, macro F1 and mAP."""
    labels = np.array([CLASSES.index(line["path"].split("/")[0]) for line in lines])
    scores = np.array([line["scores"] for line in lines])
    guesses = scores.argmax(1)
    precisions = [sk.average_precision_score(labels == c, scores[:, c]) for c in range(3)]
    return {
        "samples": len(lines),
        "accuracy": sk.accuracy_score(labels, guesses),
        "macroF1": sk.f1_score(labels, guesses, average="macro"),
        "meanAveragePrecision": np.mean(precisions),
    }


def chosen(row):
    return {name: row[name] for name in ("samples", "accuracy", "macroF1", "meanAveragePrecision")}


def test_all_and_every_condition_as_scikit_learn_has_them(lines, tmp_path):
    found = evaluate.evaluate(iter(lines), CLASSES, tmp_path)
    assert chosen({**found, **found["metrics"]}) == pytest.approx(expected(lines), abs=2e-3)
    assert [row["snrDb"] for row in found["bySnr"]] == [-20, -10, 0, 10, 20]
    for row in found["bySnr"]:
        theirs = [line for line in lines if f"/snr_{row['snrDb']:g}/" in line["path"]]
        assert chosen(row) == pytest.approx(expected(theirs), abs=2e-3)
    assert [row["colorMap"] for row in found["byColorMap"]] == ["hot", "jet"]
    for row in found["byColorMap"]:
        theirs = [line for line in lines if f"/{row['colorMap']}/" in line["path"]]
        assert chosen(row) == pytest.approx(expected(theirs), abs=2e-3)
    assert sum(row["samples"] for row in found["calibration"]) == 600
    assert json.loads(json.dumps(found)) == found


def test_without_all_scores_there_is_no_average_precision(lines, tmp_path):
    short = [{**line, "top": line["top"][:2]} for line in lines]
    for line in short:
        del line["scores"]
    found = evaluate.evaluate(short, CLASSES, tmp_path)
    whole = evaluate.evaluate(lines, CLASSES, tmp_path)
    assert "meanAveragePrecision" in whole["metrics"]
    assert "veragePrecision" not in json.dumps(found)
    assert found["accuracy"] == whole["accuracy"]
    report.write(tmp_path, found, "short")
    assert "avg. prec." in (tmp_path / "evaluation.txt").read_text()


def test_nothing_to_evaluate(tmp_path):
    with pytest.raises(InputError, match="nothing to evaluate"):
        evaluate.evaluate([], CLASSES, tmp_path)


@pytest.mark.parametrize(
    ("name", "beside", "found"),
    [
        ("dji/a.iq", {}, (None, None)),
        ("dji/a.iq", {"snrDb": -4, "colorMap": "mine"}, (-4.0, "mine")),
        ("dji/snr_10/a.png", {}, (10.0, None)),
        ("dji/SNR-12dB_jet_003.png", {}, (-12.0, "jet")),
        ("dji/jet/a_-2.6db.png", {}, (-3.0, "jet")),
        ("dji/a.iq", {"snrDb": 9.7431}, (10.0, None)),
        ("dji/a.iq", {"snrDb": float("nan")}, (None, None)),
        ("dji/snr4/a.iq", {"snrDb": float("inf")}, (4.0, None)),
        ("dji/a.iq", {"snrDb": True}, (None, None)),
        ("dji/a.iq", {"snrDb": "10"}, (None, None)),
        ("dji/snr4/a.png", {"snrDb": 6}, (6.0, None)),
        ("hot_10dB/a.png", {}, (None, None)),
        ("dji/hotel/a_10dbm.png", {}, (None, None)),
    ],
)
def test_where_conditions_are_read_from(name, beside, found):
    assert evaluate.conditions(name, beside) == found


def test_measured_snrs_make_a_bounded_number_of_groups(lines, tmp_path, capsys):
    many = [{**line, "path": f"{line['path'].split('/')[0]}/snr_{n}/{n}.png"} for n, line in enumerate(lines)]
    found = evaluate.evaluate(many, CLASSES, tmp_path)
    assert found["samples"] == 600
    assert len(found["bySnr"]) == evaluate.MOST_GROUPS
    assert "too many different conditions" in capsys.readouterr().out
    measured = [{**line, "path": f"alpha/snr_{n / 1000}/{n}.png"} for n, line in enumerate(lines)]
    assert [row["snrDb"] for row in evaluate.evaluate(measured, CLASSES, tmp_path)["bySnr"]] == [0, 1]


def test_long_names_leave_room_for_the_matrix_and_its_scale():
    figure = report._matrix([[3, 0], [0, 3]], ["DJI AVATA 2 FPV with an O3 Air Unit", "b"])
    report._png(figure)  # lays it out
    _, scale = figure.axes
    label = scale.yaxis.label.get_window_extent()
    assert label.y0 >= 0
    assert label.y1 <= figure.bbox.height


def test_the_matrix_of_many_classes_is_a_picture_of_bounded_size():
    names = [f"class-{number:03}" for number in range(200)]
    figure = report._matrix([[int(a == b) for b in range(200)] for a in range(200)], names)
    assert max(figure.get_size_inches()) <= report.MOST_INCHES + 1
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown[0] == "class-000"
    assert 50 < len(shown) < 200


class Page(HTMLParser):
    """Collects tags, text and images, and what a page would fetch from elsewhere."""

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.images, self.links = [], "", [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "src":
                self.images.append(value)
            if name in ("href", "srcset") or (value or "").startswith("http"):
                self.links.append(value)

    def handle_data(self, data):
        self.text += data


def test_the_page_stands_alone(lines, tmp_path):
    found = evaluate.evaluate(lines, CLASSES, tmp_path)
    report.write(tmp_path, found, "flight <7>")
    text = (tmp_path / "evaluation.html").read_text()
    page = Page()
    page.feed(text)
    assert page.links == []
    assert not re.search(r"https?:|url\(|<script|<link", text)
    assert "b" not in page.tags  # names are words, not markup
    assert "<b>eta" in page.text
    assert "flight <7>" in page.text
    assert f"{found['metrics']['macroF1']:.4f}" in page.text
    assert len(page.images) == 3
    for image in page.images:
        picture = Image.open(io.BytesIO(base64.b64decode(image.removeprefix("data:image/png;base64,"))))
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 10
