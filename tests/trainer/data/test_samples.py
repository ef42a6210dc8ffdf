"""Finding and reading inputs: formats, frames, splits, and everything that can be wrong with a folder."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trainer.trainer_kit import image_set, in_child, tone_set

from rfuav_trainer import prepare
from rfuav_trainer.data import picture_cache
from rfuav_trainer.data.batches import batches, cut
from rfuav_trainer.data.files import find_classes, find_files
from rfuav_trainer.data.samples import (
    Preprocessing,
    Reader,
    Sample,
    list_labelled,
    read_label_file,
    read_picture,
)
from rfuav_trainer.errors import InputError, UnreadableFileError
from rfuav_trainer.inference import drawing
from rfuav_trainer.process.stop import StopSignal


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".PNG"])
def test_image_formats(tmp_path, suffix):
    Image.new("RGB", (30, 50), (200, 10, 10)).save(tmp_path / f"a{suffix}")
    (path,), kind = find_files(tmp_path, where="x")
    assert kind == "image"
    found = read_picture(path, 32)
    assert found.shape == (3, 32, 32)
    assert found.float().mean(dim=(1, 2)).tolist() == pytest.approx([200, 10, 10], abs=4)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16"])
def test_image_modes(tmp_path, mode):
    Image.new(mode, (20, 20)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", 16).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("kind", "suffix", "top", "brightest"),
    [("<u2", "png", 65535, 255), ("<u2", "tif", 32768, 128), ("<i4", "tif", 70000, 255), ("<f4", "tif", 1000, 255),
     ("<f4", "tif", 100, 100)],
)  # fmt: skip
def test_levels_of_more_than_8_bits_are_scaled(tmp_path, kind, suffix, top, brightest):
    """The same picture for training, inference, the drawn answer and prepare."""
    path = tmp_path / f"all/a/x.{suffix}"
    levels = np.tile(np.linspace(0, top, 64), (64, 1))
    for name in ("a", "b"):
        (tmp_path / "all" / name).mkdir(parents=True)
        Image.fromarray(levels.astype(kind)).save(tmp_path / f"all/{name}/x.{suffix}")
    expected = np.tile(np.linspace(0, brightest, 64), (64, 1))
    read = read_picture(path, 64).numpy()
    assert np.abs(read - expected).max() <= 1
    drawing.draw_image(tmp_path / "drawn.jpg", path, "a 1.00")
    drawn = np.asarray(Image.open(tmp_path / "drawn.jpg").convert("L")).astype(int)[-1]
    assert abs(drawn.max() - brightest) <= 1
    assert abs(np.median(drawn) - brightest / 2) <= brightest / 60
    task = prepare.Task(tmp_path / "all", tmp_path / "more", overwrite=False, stop=StopSignal())
    prepare.augmented(task, changes=["GaussNoise"], copies=1, seed=0)
    assert np.array_equal(read_picture(tmp_path / f"more/a/x.{suffix}/x.{suffix}", 64).numpy(), read)


@pytest.mark.parametrize("value", [-5.0, float("nan"), float("inf")])
def test_levels_that_say_no_grey_are_unreadable(tmp_path, value):
    Image.fromarray(np.array([[0, value]], "<f4")).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableFileError, match="mode F: store 8 or 16 bits per level"):
        read_picture(tmp_path / "a.tif", 16)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"hello", "cut"])
def test_corrupt_images(tmp_path, content):
    image_set(tmp_path, count=1)
    path = tmp_path / "alpha/000.png"
    path.write_bytes(path.read_bytes()[:500] if content == "cut" else content)
    with pytest.raises(UnreadableFileError, match="not a readable image"):
        read_picture(path, 32)


def _mixed(root):
    image_set(root / "m", count=1)
    tone_set(root / "m", count=1)
    return root / "m"


@pytest.mark.parametrize(
    ("make", "pattern", "kind", "message"),
    [
        (lambda root: root / "nowhere", "**/*", "auto", "nowhere does not exist: put the data there"),
        (lambda root: root, "**/*", "auto", r"no \.bmp, .* files in"),
        (_mixed, "**/*", "auto", "3 images and 3 recordings: write format image or iq"),
        (_mixed, "**/*.xyz", "image", r"pattern \*\*/\*\.xyz"),
    ],
)
def test_nothing_to_find(tmp_path, make, pattern, kind, message):
    with pytest.raises(InputError, match=message):
        find_files(make(tmp_path), pattern, kind, where="input.uri")


def test_hidden_files_and_other_kinds_are_left_out(tmp_path):
    image_set(tmp_path, count=1)
    (tmp_path / ".cache").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / ".cache/a.png")
    (tmp_path / "readme.txt").write_text("hello")
    files, _ = find_files(tmp_path, where="x")
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        "alpha/000.png",
        "beta/000.png",
        "gamma/000.png",
    ]


def test_links_are_followed_but_not_around(tmp_path):
    image_set(tmp_path / "store", count=2)
    image_set(tmp_path / "more", classes=("r2",), count=2)
    root = tmp_path / "train"
    root.mkdir()
    for name in ("alpha", "beta"):
        (root / name).symlink_to(tmp_path / "store" / name)
    (tmp_path / "store/alpha/r2").symlink_to(tmp_path / "more/r2")
    (tmp_path / "more/r2/round").symlink_to(tmp_path / "store/alpha")
    (root / "alpha/gone.png").symlink_to(tmp_path / "nowhere.png")
    assert find_classes(root, where="x") == ["alpha", "beta"]
    files, _ = find_files(root, where="x")
    assert [path.relative_to(root).as_posix() for path in files] == [
        "alpha/000.png",
        "alpha/001.png",
        "alpha/gone.png",  # who reads it says that it leads nowhere
        "alpha/r2/000.png",
        "alpha/r2/001.png",
        "beta/000.png",
        "beta/001.png",
    ]
    files, _ = find_files(root, "alpha/*.png", where="x")
    assert [path.name for path in files] == ["000.png", "001.png", "gone.png"]
    with pytest.raises(UnreadableFileError, match="No such file"):
        read_picture(root / "alpha/gone.png", 32)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*/000.png", ["alpha/000.png", "beta/000.png"]),
        ("**/*[12].png", ["alpha/deep/001.png", "beta/001.png"]),
        ("alpha/**", ["alpha/000.png", "alpha/deep/001.png"]),
        ("alpha/**/001.png", ["alpha/deep/001.png"]),
    ],
)
def test_patterns(tmp_path, pattern, found):
    image_set(tmp_path, classes=("alpha", "beta"), count=2)
    (tmp_path / "alpha/deep").mkdir()
    (tmp_path / "alpha/001.png").rename(tmp_path / "alpha/deep/001.png")
    files, _ = find_files(tmp_path, pattern, where="x")
    assert [path.relative_to(tmp_path).as_posix() for path in files] == found


def _list_as_a_stranger(root):
    os.setuid(65534)
    find_files(root, where="x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_may_not_be_read_is_no_empty_one(tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o755)
    root = image_set(tmp_path / "train", count=1)
    assert in_child(_list_as_a_stranger, root) == 0
    (root / "beta").chmod(0o700)
    assert in_child(_list_as_a_stranger, root) == 1


def test_what_the_file_system_keeps_at_the_root_of_a_volume_is_no_class(tmp_path):
    image_set(tmp_path, count=1)
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lost+found/000.png").write_bytes(b"")
    assert find_classes(tmp_path, where="x") == ["alpha", "beta", "gamma"]
    assert len(find_files(tmp_path, where="x")[0]) == 3


def test_a_class_whose_name_is_no_text(tmp_path):
    image_set(tmp_path, count=1)
    (tmp_path / os.fsdecode(b"gr\xfcn")).mkdir()
    with pytest.raises(InputError, match=r"class 'gr\\udcfcn' is not UTF-8: rename it"):
        find_classes(tmp_path, where="x")


def test_a_torn_file_beside_a_recording_is_said(tmp_path, capsys):
    (tmp_path / "a.json").write_text('{"snrDb": ')
    assert read_label_file(tmp_path / "a.iq") == {}
    assert "a.json" in capsys.readouterr().out
    assert read_label_file(tmp_path / "b.iq") == {}
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "nowhere", "is not a folder"),
        (lambda root: root, r"contains 0 class folders \(none\): at least two"),
        (lambda root: image_set(root / "one", classes=("alpha",), count=1), r"contains 1 class folders \(alpha\)"),
    ],
)
def test_no_classes(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        find_classes(make(tmp_path), where="dataset.train.uri")


def test_an_empty_class_folder(tmp_path):
    image_set(tmp_path, count=1)
    (tmp_path / "delta").mkdir()
    with pytest.raises(InputError, match=r"no .* files in .*delta"):
        list_labelled(tmp_path, find_classes(tmp_path, where="x"), "image", None, where="x")


def test_pictures_of_one_recording_lie_in_one_folder(tmp_path):
    for name in ("alpha", "beta"):
        for recording in ("r1", "r2"):
            (tmp_path / name / recording).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (8, 8)).save(tmp_path / name / recording / f"{number}.png")
    listing = list_labelled(tmp_path, ["alpha", "beta"], "image", None, where="x")
    assert {sample.group for sample in listing.samples} == {"alpha/r1", "alpha/r2", "beta/r1", "beta/r2"}


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_keep_the_order_and_name_what_cannot_be_read(tmp_path, workers):
    image_set(tmp_path, count=5)
    (tmp_path / "beta/002.png").write_bytes(b"torn")
    listing = list_labelled(tmp_path, ["alpha", "beta", "gamma"], "image", None, where="x")
    reader = Reader(Preprocessing("image", 16))
    found = list(batches(cut(listing.samples, 4), reader, workers))
    assert [len(batch.samples) for batch in found] == [4, 3, 4, 3]
    assert [s.name for batch in found for s in batch.samples] == [
        s.name for s in listing.samples if s.name != "beta/002.png"
    ]
    assert [(s.name, reason.split(":")[0]) for batch in found for s, reason in batch.unreadable] == [
        ("beta/002.png", "not a readable image")
    ]
    assert all(batch.pictures.shape == (len(batch.samples), 3, 16, 16) for batch in found)
    assert found[0].labels.tolist() == [0, 0, 0, 0]


def test_the_cache_holds_as_much_as_it_may(tmp_path):
    image_set(tmp_path, count=2)
    files = sorted(tmp_path.rglob("*.png"))
    reader = Reader(Preprocessing("image", 16), homes=[picture_cache.Memory(2 * 3 * 16 * 16)])
    first = [reader.read(Sample(path, path.name)) for path in files]
    for path in files:
        path.write_bytes(b"gone")
    assert torch.equal(reader.read(Sample(files[1], "x")), first[1])
    with pytest.raises(UnreadableFileError):
        reader.read(Sample(files[2], "x"))


@given(width=st.integers(1, 90), height=st.integers(1, 90), size=st.integers(16, 64), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_a_picture_is_resized_as_pillow_does_it(tmp_path_factory, width, height, size, seed):
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    image.save(path)
    expected = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    found = read_picture(path, size)
    assert found.is_contiguous()
    assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() <= 1


def test_a_large_jpeg_is_read_as_if_it_had_been_decoded_in_full(tmp_path):
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    large = Image.fromarray(pixels).resize((800, 600), Image.Resampling.BICUBIC)
    large.save(tmp_path / "a.jpg", quality=95)
    expected = Image.open(tmp_path / "a.jpg").resize((64, 64), Image.Resampling.BILINEAR)
    found = read_picture(tmp_path / "a.jpg", 64).permute(1, 2, 0).numpy().astype(int)
    difference = np.abs(found - np.asarray(expected))
    assert difference.mean() < 2
    assert difference.max() < 20


@pytest.mark.parametrize("channels", [1, 3])
def test_normalising_is_what_it_says_and_leaves_the_pictures_alone(channels):
    preprocessing = Preprocessing("image", 8)
    pictures = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8).repeat(1, channels, 1, 1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    for levels in (pictures, pictures.float()):
        before = levels.clone()
        assert torch.equal(preprocessing.normalise(levels), (levels.float() / 255.0 - mean) / std)
        assert torch.equal(levels, before)
