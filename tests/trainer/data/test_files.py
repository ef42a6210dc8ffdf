"""Folders as people and their file servers fill them."""

import os
import sys
from pathlib import Path

import pytest
from PIL import Image
from trainer.trainer_kit import CLASSES, image_set, tone_set

from rfuav_trainer.data.files import find_classes, find_files, of_kind
from rfuav_trainer.data.samples import Preprocessing, Reader, list_labelled
from rfuav_trainer.errors import InputError

LEFT = [
    "@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "System Volume Information", ".Trash-1000", ".Trashes", "lost+found",
    ".ipynb_checkpoints", "@Recycle", ".snapshot", "#snapshot", ".Spotlight-V100",
]  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_what_systems_leave_is_no_class_and_no_picture(tmp_path, name):
    image_set(tmp_path, count=2)
    for folder in (tmp_path, tmp_path / "alpha"):
        (folder / name / "deep").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / name / "a.png")
        Image.new("RGB", (8, 8)).save(folder / name / "deep/b.png")
    assert find_classes(tmp_path, where="x") == list(CLASSES)
    assert len(find_files(tmp_path, where="x")[0]) == 6
    assert len(list_labelled(tmp_path, CLASSES, "image", None, where="x").samples) == 6


def test_what_systems_leave_among_files_is_not_even_counted(tmp_path, capsys):
    image_set(tmp_path, count=1)
    for name in ("Thumbs.db", ".DS_Store", "._000.png", "desktop.ini", "ehthumbs.db"):
        (tmp_path / "alpha" / name).write_bytes(b"x")
    assert len(find_files(tmp_path, where="x")[0]) == 3
    assert "ignoring" not in capsys.readouterr().out


def test_unknown_kinds_are_counted(tmp_path, capsys):
    tone_set(tmp_path, count=2)
    for name in ("a.rfp", "b.rfp", "c.wav", "none"):
        (tmp_path / "alpha" / name).write_bytes(b"x")
    (tmp_path / "beta/pack1.xml").write_text("<a/>")  # belongs to recordings, like .json
    find_files(tmp_path, where="x")
    said = capsys.readouterr().out
    assert "ignoring files of unknown kinds" in said
    assert "{'.rfp': 2, '.wav': 1, 'none': 1}" in said


def test_a_folder_of_unknown_kinds_says_what_is_there(tmp_path):
    (tmp_path / "a.rfp").write_bytes(b"x")
    with pytest.raises(InputError, match=r"there are 1 \.rfp"):
        find_files(tmp_path, where="x")


def test_bin_beside_pictures_is_no_recording_unless_somebody_says_so(tmp_path):
    image_set(tmp_path, count=1)
    (tmp_path / "alpha/a.bin").write_bytes(b"x")
    assert find_files(tmp_path, where="x")[1] == "image"
    with pytest.raises(InputError, match="3 images and 1 recordings"):
        find_files(tmp_path, where="x", sample_format="int16")
    assert [p.name for p in find_files(tmp_path, kind="iq", where="x")[0]] == ["a.bin"]


def test_a_pipe_is_no_picture(tmp_path):
    image_set(tmp_path, count=1)
    os.mkfifo(tmp_path / "alpha/pipe.png")
    (tmp_path / "beta/link.png").symlink_to(tmp_path / "alpha/pipe.png")
    assert len(find_files(tmp_path, where="x")[0]) == 3


def test_of_kind_keeps_the_order():
    files = [Path(name) for name in ("a.bin", "b.iq", "c.png", "d.bin")]
    assert of_kind(files, "iq") == [Path("b.iq")]
    assert of_kind(files, "iq", "int16") == [Path("a.bin"), Path("b.iq"), Path("d.bin")]
    assert of_kind(files, "image") == [Path("c.png")]


CALLS = []
_HOOKED = []


def hook(event, arguments):
    if CALLS is not None and event in {"open", "os.scandir", "os.listdir"} and CALLS:
        CALLS.append((event, str(arguments[0])))


def test_a_listing_asks_for_no_file_and_reading_opens_each_once(tmp_path, monkeypatch):
    """Each call is a round trip on NFS; folders tell what is a file, and whether it has a label file."""
    image_set(tmp_path, count=20)
    (tmp_path / "alpha/003.json").write_text('{"snrDb": 5}')
    for name in ("stat", "lstat"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os,
            name,
            lambda path, *a, _name=name, _real=real, **b: (CALLS.append((_name, str(path))), _real(path, *a, **b))[1],
        )
    if not _HOOKED:
        sys.addaudithook(hook)
        _HOOKED.append(True)
    CALLS[:] = [("start", "")]
    try:
        _, kind = find_files(tmp_path, where="x")
        listing = list_labelled(tmp_path, find_classes(tmp_path, where="x"), kind, None, where="x")
        listed = list(CALLS)
        CALLS[:] = [("start", "")]
        reader = Reader(Preprocessing("image", 16))
        for sample in listing.samples:
            reader.read(sample)
        read = list(CALLS)
    finally:
        CALLS.clear()
    below = [(what, path) for what, path in listed if path.endswith((".png", ".json"))]
    assert below == [("open", str(tmp_path / "alpha/003.json"))]
    assert [what for what, path in read if path.endswith((".png", ".json"))] == ["open"] * 60
    assert {s.snr for s in listing.samples} == {None, 5.0}
