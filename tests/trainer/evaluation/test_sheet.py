"""Contact sheets: any name is drawn, none runs into the next picture, and what cannot be read is left out."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from rfuav_trainer.data.samples import Preprocessing, Reader, Sample
from rfuav_trainer.evaluation import sheet
from rfuav_trainer.reporting import lettering

WHITE = torch.full((3, 32, 32), 255, dtype=torch.uint8)
NAMES = ["alpha", "DJI AVATA 2 FPV with an O3 Air Unit, 5.8 GHz", "$mu$", "\u98de\u884c\u5668", "f\u00fcnf", ""]


def drawn(tiles):
    return np.asarray(Image.open(io.BytesIO(sheet.sheet(tiles))).convert("L")).astype(int)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_any_name_is_drawn_and_none_runs_into_the_next(name):
    tile = sheet.SIDE + sheet.GAP
    found = drawn([(WHITE, [name * 3, "grey"]), (WHITE, ["", ""])])
    below = found[sheet.GAP + sheet.SIDE + 8 :]
    assert below[:, sheet.GAP : tile].min() < 100
    assert below[:, tile:].min() > 240


def test_a_font_of_the_machine_is_used_for_what_the_first_does_not_have(monkeypatch):
    asked = []
    whole = lettering.in_one_font
    monkeypatch.setattr(lettering, "in_one_font", lambda text: asked.append(text) or whole(text))
    drawn([(WHITE, ["\u98de 99.0%", "is alpha"])])
    assert asked == ["\u98de 99.0%"]


def test_long_names_keep_their_beginning_and_their_end():
    font, text = lettering.for_pillow("pack1/" + "x" * 100 + "-frame12.png", sheet.LETTERS)
    shown = sheet._fitting(text, font)
    assert shown.startswith("pack1/")
    assert shown.endswith("frame12.png")
    assert font.getlength(shown) <= sheet.SIDE


def test_samples_that_cannot_be_read_are_left_out(tmp_path):
    Image.effect_noise((20, 20), 50).save(tmp_path / "b.png")
    reader = Reader(Preprocessing("image", 32))
    one, gone = Sample(tmp_path / "b.png", "b.png"), Sample(tmp_path / "gone.png", "gone.png")
    found = sheet.of_samples({gone: ["x"], one: ["y"]}, reader)
    assert Image.open(io.BytesIO(found)).width == sheet.SIDE + 2 * sheet.GAP
    assert sheet.of_samples({gone: ["x"]}, reader) is None
