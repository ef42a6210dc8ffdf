"""Names as long as file systems take, and those that would be longer."""

import os

import pytest
from PIL import Image

from rfuav_trainer.data import files
from rfuav_trainer.inference import annotate, drawing
from rfuav_trainer.prepare import Task, augmented, cropped
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.storage.files import LONGEST_NAME, TEMPORARY, atomic_writer, fitting


@pytest.mark.parametrize("name", ["a", "x" * 251, "x" * 252, "x" * 300, "\u98de" * 90, os.fsdecode(b"\xff" * 260)])
def test_a_name_fits_and_stays_its_own(name):
    found = fitting(name, ".png")
    assert len(os.fsencode(found)) <= LONGEST_NAME
    assert found.endswith(".png")
    if len(os.fsencode(name)) <= 251:
        assert found == f"{name}.png"
    else:
        assert found != fitting(name + "y", ".png")


def test_a_file_of_the_longest_name_is_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".png")
    with atomic_writer(path) as stream:
        assert all(TEMPORARY.fullmatch(name) for name in [path.name for path in tmp_path.iterdir()])
        stream.write(b"here")
    assert path.read_bytes() == b"here"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "\u98de" * 83 + ".png"])
def test_a_picture_of_the_longest_name_is_drawn_and_prepared(tmp_path, name):
    for label in ("a", "b"):
        (tmp_path / "all" / label).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "all" / label / name)
    drawn = annotate.Annotations.__new__(annotate.Annotations)
    drawn._folder = tmp_path / "drawn"
    drawing.draw_image(drawn._file(f"a/{name}", ".jpg"), tmp_path / "all/a" / name, "a 1.00")
    assert len([*(tmp_path / "drawn/a").iterdir()]) == 1
    made = cropped(Task(tmp_path / "all", tmp_path / "cropped", overwrite=False, stop=StopSignal()), box=(0, 0, 16, 16))
    assert (made.files, made.unreadable) == (2, {})
    task = Task(tmp_path / "all", tmp_path / "more", overwrite=False, stop=StopSignal())
    assert augmented(task, changes=["GaussNoise"], copies=2, seed=0).files == 6
    assert len(files.find_files(tmp_path / "more", where="x")[0]) == 6
