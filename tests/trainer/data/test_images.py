"""Files that hold no picture, or too large a one, or one that is stored in an unusual way."""

import hashlib
import io
import json
import os
import resource
import struct
import threading
import time
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from trainer.trainer_kit import image_set, in_child, inference_spec, training_spec

from rfuav_trainer import errors
from rfuav_trainer.data import files, images, samples
from rfuav_trainer.data.batches import batches
from rfuav_trainer.data.images import Room, in_colours, read_picture
from rfuav_trainer.data.samples import Preprocessing, Reader, Sample, list_samples
from rfuav_trainer.errors import StoppedError, StorageError, UnreadableFileError
from rfuav_trainer.networks import weights
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.training import auto_settings, train

ORIENTATION = 0x0112


def encoded(pixels, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=kind, **options)
    return stream.getvalue()


def colours(height=24, width=20):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tiff_of_one_wrong_byte():
    """A 16-bit TIFF whose offset of the strip (tag 273) is said to be of type DOUBLE (12) instead of LONG (4)."""
    content = bytearray(encoded((np.arange(480).reshape(24, 20) * 100).astype(np.uint16), "TIFF"))
    at = int.from_bytes(content[4:8], "little")
    for number in range(int.from_bytes(content[at : at + 2], "little")):
        entry = at + 2 + 12 * number
        if int.from_bytes(content[entry : entry + 2], "little") == 273:
            content[entry + 2] = 12
    return bytes(content)


def png_of_many_pixels(side, bits=16):
    """A small file of side x side grey levels, all black."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    row = bytes(1 + side * bits // 8)
    packer = zlib.compressobj(9)
    packed = b"".join([packer.compress(row) for _ in range(side)] + [packer.flush()])
    header = struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


SEEDS = {
    "png": encoded(colours(), "PNG"),
    "grey16.png": encoded((np.arange(480).reshape(24, 20) * 100).astype(np.uint16), "PNG"),
    "palette.png": encoded(np.arange(480, dtype=np.uint8).reshape(24, 20), "PNG", optimize=True),
    "jpg": encoded(colours(), "JPEG"),
    "progressive.jpg": encoded(colours(), "JPEG", progressive=True),
    "bmp": encoded(colours(), "BMP"),
    "tif": encoded(colours(), "TIFF"),
    "grey16.tif": encoded((np.arange(480).reshape(24, 20) * 100).astype(np.uint16), "TIFF"),
    "float.tif": encoded(np.linspace(0, 1, 480, dtype="<f4").reshape(24, 20), "TIFF"),
    "lzw.tif": encoded(colours(), "TIFF", compression="tiff_lzw"),
    "deflate.tif": encoded(colours(), "TIFF", compression="tiff_deflate"),
    "jpeg.tif": encoded(colours(), "TIFF", compression="jpeg"),
    "webp": encoded(colours(), "WEBP"),
    "gif": encoded(colours(), "GIF"),
}


def mutated(content, random):
    """The content with a few bytes changed, cut out, repeated, or cut off."""
    content = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        at, way = int(random.integers(len(content))), int(random.integers(5))
        if way == 0:
            content[at] = int(random.integers(256))
        elif way == 1:
            content[at] ^= 1 << int(random.integers(8))
        elif way == 2:
            content[at : at + 4] = random.choice([b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f"])
        elif way == 3:
            del content[at : at + int(random.integers(1, 9))]
        else:
            content = content[: max(1, at)]
    return bytes(content)


def fuzz(path, content, seed, count):
    """Read `count` mutated files; whatever is in one, it is a picture or unreadable."""
    random = np.random.default_rng(seed)
    room = Room(64 * 2**20)
    unreadable = 0
    for number in range(count):
        changed = mutated(content, random)
        path.write_bytes(changed)
        try:
            assert read_picture(path, 16, room=room).shape == (3, 16, 16)
        except UnreadableFileError as error:
            unreadable += 1
            assert str(error).strip(": "), number
    return unreadable


@pytest.mark.parametrize("kind", SEEDS)
def test_a_damaged_file_is_a_picture_or_unreadable(tmp_path, kind):
    """By hand with more: `RFUAV_FUZZ=20000 pytest -k damaged_file`."""
    count = int(os.environ.get("RFUAV_FUZZ", "200"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an operator may run Python with -W error
        assert fuzz(tmp_path / "a.png", SEEDS[kind], 1, count) > count // 20


def test_one_wrong_byte_makes_one_file_unreadable(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_of_one_wrong_byte())
    with pytest.raises(UnreadableFileError, match="not a readable image"):
        read_picture(tmp_path / "a.tif", 16)


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, MemoryError, SyntaxError, struct.error, zlib.error,
                                   RecursionError, KeyError, OverflowError, AssertionError, UserWarning])  # fmt: skip
def test_whatever_a_decoder_raises(tmp_path, monkeypatch, error):
    (tmp_path / "a.png").write_bytes(SEEDS["png"])

    def fail(*_):
        raise error

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(UnreadableFileError, match=error.__name__):
        read_picture(tmp_path / "a.png", 16)


def test_a_store_that_does_not_answer_is_no_damaged_file():
    with pytest.raises(StorageError), errors.as_unreadable("x"):
        raise StorageError("s3 does not answer")


def test_one_damaged_file_does_not_end_a_job(image_desk):
    """It ended training, inference and preparation."""
    for folder in ("train", "test"):
        image_set(image_desk / "captures" / folder, count=15)
        (image_desk / f"captures/{folder}/alpha/damaged.tif").write_bytes(tiff_of_one_wrong_byte())
    ended = image_desk.pod("TrainingJob", training_spec(training__epochs=1, training__batchSize=8))
    assert ended.code == 0, ended.output[-2000:]
    spec = inference_spec(model__weights="pvc://models/out/best.safetensors", output__annotate="all")
    classified = image_desk.pod("InferenceJob", spec, uid="u2")
    assert classified.code == 0, classified.output[-2000:]
    cropped = image_desk.run(
        "prepare", "crop", str(image_desk / "captures/test"), str(image_desk / "cropped"), "--box", "0,0,20,20"
    )
    assert cropped.code == 0, cropped.output[-2000:]
    for ending in (ended, classified, cropped):
        named = [e for e in ending.events if e["event"] == "skipping unreadable file"]
        assert named
        assert {e["file"] for e in named} == {"alpha/damaged.tif"}


def peak(path, room, most):
    """Exit code 0 if reading the file takes at most `most` bytes and says unreadable."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read_picture(path, 16, room=Room(room))
    except UnreadableFileError as error:
        assert "too large: decoding takes about" in str(error)
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < most
        return
    raise AssertionError("it was read")


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(png_of_many_pixels(13000))
    assert (tmp_path / "a.png").stat().st_size < 400_000
    assert in_child(peak, tmp_path / "a.png", 512 * 2**20, 50 * 2**20) == 0


def test_a_progressive_jpeg_counts_in_full(tmp_path):
    """Its decoder keeps the whole picture, although a small one is wanted."""
    (tmp_path / "a.jpg").write_bytes(encoded(np.zeros((2000, 2000), np.uint8), "JPEG", progressive=True))
    (tmp_path / "b.jpg").write_bytes(encoded(np.zeros((2000, 2000), np.uint8), "JPEG"))
    assert read_picture(tmp_path / "b.jpg", 16, room=Room(10 * 2**20)).shape == (3, 16, 16)
    with pytest.raises(UnreadableFileError, match="too large"):
        read_picture(tmp_path / "a.jpg", 16, room=Room(10 * 2**20))


@pytest.mark.parametrize("kind", ["png", "grey16.png", "float.tif", "grey16.tif", "deflate.tif", "webp", "jpg"])
def test_decoding_takes_no_more_than_is_held(tmp_path, kind):
    name, _, suffix = kind.rpartition(".")
    form = {"png": "PNG", "tif": "TIFF", "webp": "WEBP", "jpg": "JPEG"}[suffix or name]
    shape = (3000, 3000)
    level = {"grey16": np.zeros(shape, np.uint16), "float": np.zeros(shape, np.float32)}
    pixels = level.get(name, np.zeros((*shape, 3), np.uint8))
    options = {"compression": "tiff_deflate"} if name == "deflate" else {}
    (tmp_path / f"a.{suffix or name}").write_bytes(encoded(pixels, form, **options))
    assert in_child(takes, tmp_path / f"a.{suffix or name}") == 0


def takes(path):
    (path.parent / "small.png").write_bytes(SEEDS["png"])
    held = []
    room = Room(2**40)
    whole = room.held
    room.held = lambda wanted: held.append(wanted) or whole(wanted)
    read_picture(path.parent / "small.png", 64)  # what is loaded once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read_picture(path, 64, room=room)
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert taken <= held[0] + 4 * 2**20, (taken, held)


def test_readers_share_the_room_and_each_gets_its_turn(tmp_path):
    room, inside, most = Room(100), [], []

    def hold():
        with room.held(60):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=hold) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [1] * 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_picture_is_read_upright(tmp_path, kind, orientation):
    """The corners, by what the orientation means."""
    corners = np.zeros((32, 32), np.uint8)
    corners[:16, :16], corners[:16, 16:], corners[16:, :16], corners[16:, 16:] = 0, 80, 160, 240
    upright = {
        1: corners, 2: corners[:, ::-1], 3: corners[::-1, ::-1], 4: corners[::-1], 5: corners.T, 6: np.rot90(corners, -1),
        7: np.rot90(corners, 2).T, 8: np.rot90(corners),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(corners).save(tmp_path / "a", format=kind, exif=exif, **options)
    found = read_picture(tmp_path / "a", 32)[0].numpy().astype(int)
    assert np.abs(found - upright).max() <= 3
    if kind != "TIFF":  # which Pillow has always turned
        assert np.abs(read_picture(tmp_path / "a", 32, transform=1)[0].numpy().astype(int) - corners).max() <= 3


def test_an_orientation_that_cannot_be_read_is_none(tmp_path):
    content = bytearray(encoded(colours(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage"))
    (tmp_path / "a.jpg").write_bytes(content)
    assert read_picture(tmp_path / "a.jpg", 16).shape == (3, 16, 16)


def test_floats_up_to_one_are_scaled_and_old_weights_see_what_they_saw(tmp_path):
    levels = np.tile(np.linspace(0, 1, 64, dtype="<f4"), (64, 1))
    (tmp_path / "a.tif").write_bytes(encoded(levels, "TIFF"))
    found = read_picture(tmp_path / "a.tif", 64).numpy()
    assert np.abs(found - np.round(levels * 255)).max() <= 1
    assert set(np.unique(read_picture(tmp_path / "a.tif", 64, transform=1).numpy())) == {0, 1}


@pytest.mark.parametrize("kind", ["<u2", ">u2"])
def test_16_bits_are_divided_by_their_range(kind):
    levels = np.arange(65536, dtype=kind).reshape(256, 256)
    mode = "I;16" if kind == "<u2" else "I;16B"
    found = np.asarray(in_colours(Image.frombytes(mode, (256, 256), levels.tobytes())))[..., 0]
    assert np.array_equal(found, np.round(levels.astype(np.float64) * (255.0 / 65535.0)).astype(np.uint8))


def test_weights_without_a_version_see_the_first_transform():
    stored = Preprocessing("image", 32).to_json()
    assert Preprocessing.from_json(stored).transform == images.TRANSFORM
    del stored["transform"]
    assert Preprocessing.from_json(stored).transform == 1


def test_a_training_of_an_earlier_version_goes_on_with_its_transform(image_desk, monkeypatch):
    """Its checkpoint says no version, and its pictures must not change in the middle."""
    spec = training_spec(training__epochs=2)
    job = image_desk.job("TrainingJob", spec)
    whole, seen = samples.read_picture, []
    monkeypatch.setattr(samples, "read_picture", lambda *a, **b: seen.append(b["transform"]) or whole(*a, **b))
    monkeypatch.setattr(auto_settings, "TRANSFORM", 1)
    stop = StopSignal()
    monkeypatch.setattr(train.artifacts, "write_history", lambda *_: stop.request())  # after the first epoch
    with pytest.raises(StoppedError):
        train.run(job, Progress(None), stop)
    *_, state = sorted((image_desk / "models/out/checkpoints/u1").glob("*.pt"))
    content = torch.load(state, weights_only=True)
    del content["resolved"]["transform"]
    torch.save(content, state)
    manifest = json.loads(state.with_suffix(".json").read_bytes())
    assert "transform" not in manifest["signature"]["preprocessing"]
    manifest["sha256"] = hashlib.sha256(state.read_bytes()).hexdigest()
    state.with_suffix(".json").write_text(json.dumps(manifest))
    monkeypatch.undo()
    monkeypatch.setattr(samples, "read_picture", lambda *a, **b: seen.append(b["transform"]) or whole(*a, **b))
    train.run(job, Progress(None), StopSignal())
    assert set(seen) == {1}
    assert weights.read_card(image_desk / "models/out/last.safetensors").preprocessing.transform == 1


def test_a_webp_is_a_picture(tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "A/a.webp").write_bytes(SEEDS["webp"])
    (found,), kind = files.find_files(tmp_path, where="x")
    assert (found.name, kind) == ("a.webp", "image")
    assert read_picture(found, 16).shape == (3, 16, 16)


def test_what_ends_the_process_names_the_file(tmp_path, monkeypatch):
    image_set(tmp_path, count=1)

    def broken(*_, **__):
        raise ZeroDivisionError("no reader foresaw this")

    monkeypatch.setattr(samples, "read_picture", broken)
    listing = list_samples([tmp_path / "alpha/000.png"], tmp_path, None)
    with pytest.raises(ZeroDivisionError) as raised:
        list(batches([listing.samples], Reader(Preprocessing("image", 16)), 2))
    assert errors.describe(raised.value).message == (
        "ZeroDivisionError while reading alpha/000.png: no reader foresaw this"
    )


def test_a_file_that_shrinks_while_it_is_read_does_not_kill_the_process(tmp_path):
    """A mapped file would: Pillow maps an uncompressed one that it opens by name."""
    assert in_child(shrinking, tmp_path / "a.bmp") == 0


def shrinking(path):
    path.write_bytes(encoded(np.zeros((1024, 1024), np.uint8), "BMP"))
    with pytest.raises(UnreadableFileError), images.decoded(path, Room(2**30)) as image:
        assert image.getpixel((0, 0)) is not None
        with path.open("r+b") as stream:
            stream.truncate(100)
        torch.from_numpy(np.array(image)).sum()
        raise ValueError("the body may say so too")


def test_a_sample_that_is_unreadable_is_listed_with_the_others(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_of_one_wrong_byte())
    (tmp_path / "b.png").write_bytes(SEEDS["png"])
    both = [Sample(tmp_path / name, name, label=0) for name in ("a.tif", "b.png")]
    (found,) = batches([both], Reader(Preprocessing("image", 16)), 2)
    assert [s.name for s in found.samples] == ["b.png"]
    assert [s.name for s, _ in found.unreadable] == ["a.tif"]
