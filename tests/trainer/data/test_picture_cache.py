"""Decoded pictures between epochs: in memory, on disk, within bounds, and never at the price of the job."""

import errno
import json
import os
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from structlog.testing import capture_logs
from trainer.runs import history, run, same_weights, stopped
from trainer.trainer_kit import IQ, image_set, tone_set, training_spec

from rfuav_crds import contract
from rfuav_trainer.data import batches, picture_cache
from rfuav_trainer.data.dataset import open_dataset
from rfuav_trainer.data.samples import Preprocessing, Reader, Sample, pictures, read_picture
from rfuav_trainer.distributed.process_group import World
from rfuav_trainer.errors import InvalidConfigurationError, UnreadableFileError
from rfuav_trainer.storage import inputs
from rfuav_trainer.training import kept_pictures

SHAPE = (3, 16, 16)
BYTES = 3 * 16 * 16


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A scratch folder that may be used, and no memory."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TRAINER_CACHE", str(folder))
    monkeypatch.setenv("TRAINER_PICTURES_BYTES", "64Mi")
    monkeypatch.setattr(kept_pictures, "MEMORY_SHARE", 0)
    return folder


def disk(path, count=4, **fields):
    """Room for pictures 0, 1, ..."""
    path.touch()
    return picture_cache.Disk(path, [(path, number) for number in range(count)], SHAPE, **{"limit": 10**6, **fields})


def picture(level=1):
    return torch.full(SHAPE, level, dtype=torch.uint8)


def test_what_the_memory_cannot_hold_lies_on_the_disk(tmp_path):
    image_set(tmp_path / "in", count=2)
    samples = [Sample(path, path.name) for path in sorted((tmp_path / "in").rglob("*.png"))]
    (tmp_path / "file").touch()
    keys = [(sample.path, None) for sample in samples]
    homes = [picture_cache.Memory(2 * BYTES), picture_cache.Disk(tmp_path / "file", keys, SHAPE, limit=5 * (1 + BYTES))]
    reader = Reader(Preprocessing("image", 16), homes=homes)
    first = [reader.read(sample) for sample in samples]
    for sample in samples:
        sample.path.write_bytes(b"gone")
    assert [[home.holds(key) for key in keys] for home in homes] == [
        [True, True, False, False, False, False],
        [False, False, True, True, True, False],
    ]
    for sample, before in zip(samples[:5], first, strict=False):
        assert torch.equal(reader.read(sample), before)
    with pytest.raises(UnreadableFileError):
        reader.read(samples[5])


def test_processes_share_a_file_and_see_only_whole_pictures(tmp_path, monkeypatch):
    mine, other = disk(tmp_path / "file"), disk(tmp_path / "file")
    (tmp_path / "file").unlink()
    key = (tmp_path / "file", 2)
    assert mine.put(key, picture(7))
    assert torch.equal(other.get(key), picture(7))
    assert other.get((tmp_path / "file", 1)) is None
    whole = os.pwrite

    def dies(file, content, at):
        whole(file, content, at)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", dies)  # after the picture's bytes, before the one that says they are whole
    with pytest.raises(KeyboardInterrupt):
        mine.put((tmp_path / "file", 3), picture())
    assert other.get((tmp_path / "file", 3)) is None


@pytest.mark.parametrize("way", ["no space", "a part written", "others need it"])
def test_a_full_disk_is_said_once_and_takes_nothing_more(tmp_path, monkeypatch, way):
    home = disk(tmp_path / "file", left_free=0.2 if way == "others need it" else 0.0)
    whole, room = os.pwrite, os.fstatvfs(home._file)
    assert way == "others need it" or home.put((tmp_path / "file", 0), picture())

    def full(file, content, at):
        if way == "no space":
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(file, memoryview(content)[:1], at)

    if way == "others need it":
        taken = SimpleNamespace(f_bavail=room.f_blocks // 5, f_blocks=room.f_blocks, f_frsize=room.f_frsize)
        monkeypatch.setattr(os, "fstatvfs", lambda _: taken)
    else:
        monkeypatch.setattr(os, "pwrite", full)
    with capture_logs() as logs:
        assert not any(home.put((tmp_path / "file", number), picture()) for number in (1, 2, 3))
    assert [entry["log_level"] for entry in logs] == ["warning"]
    monkeypatch.undo()
    assert [home.holds((tmp_path / "file", number)) for number in range(4)] == [way != "others need it", *[False] * 3]


def test_a_disk_that_cannot_be_read_is_no_disk(tmp_path, monkeypatch):
    home = disk(tmp_path / "file")
    key = (tmp_path / "file", 0)
    home.put(key, picture())

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    assert home.get(key) is None
    monkeypatch.setattr(os, "pread", broken)
    assert not home.holds(key)


def homes_of(desk, **changes):
    job = desk.job("TrainingJob", training_spec(**changes))
    return kept_pictures.homes(job, open_dataset(job, job.spec), World())


def kinds(desk, **changes):
    with homes_of(desk, **changes) as homes:
        return [type(home).__name__ for home in homes]


def test_the_disk_is_used_for_what_is_read_again_and_does_not_fit(image_desk, scratch, monkeypatch):
    assert kinds(image_desk) == ["Memory", "Disk"]
    assert kinds(image_desk, training__epochs=1) == ["Memory"]
    monkeypatch.setenv("TRAINER_PICTURES_BYTES", "0")
    assert kinds(image_desk) == ["Memory"]
    monkeypatch.setenv("TRAINER_PICTURES_BYTES", "64Mi")
    monkeypatch.setattr(kept_pictures, "MEMORY_SHARE", 0.25)
    assert kinds(image_desk) == ["Memory"]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # what the others have read is not in this one's memory
    assert kinds(image_desk) == ["Disk", "Memory"]


def test_the_file_has_no_name_that_a_killed_process_could_leave(image_desk, scratch):
    with homes_of(image_desk) as homes:
        assert len(homes) == 2
        assert not list(scratch.iterdir())


def test_a_reader_that_continues_after_the_end_writes_to_no_other_file(image_desk, scratch, tmp_path):
    with homes_of(image_desk) as homes:
        home, file = homes[1], homes[1]._file
    with (tmp_path / "another").open("w+b") as another:  # given the number of a file that was closed
        home.put(next(iter(home._places)), torch.full(home._shape, 7, dtype=torch.uint8))
        assert another.read() == b""
    del home, homes
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_a_folder_that_cannot_be_written_is_said_and_done_without(image_desk, scratch, monkeypatch):
    monkeypatch.setenv("TRAINER_CACHE", str(scratch / "missing"))
    with capture_logs() as logs:
        assert kinds(image_desk) == ["Memory"]
    assert any("not caching pictures on the scratch disk" in entry["event"] for entry in logs)


def test_a_bound_that_is_no_number_of_bytes(image_desk, scratch, monkeypatch):
    monkeypatch.setenv("TRAINER_PICTURES_BYTES", "much")
    with pytest.raises(InvalidConfigurationError, match="TRAINER_PICTURES_BYTES is 'much': write bytes, as in 20Gi"):
        kinds(image_desk)


def test_the_bound_when_nobody_said_one(scratch, monkeypatch):
    monkeypatch.delenv("TRAINER_PICTURES_BYTES")
    monkeypatch.setattr(kept_pictures, "_in_memory", lambda _: False)
    assert kept_pictures._disk_limit() == (10 * 1024**3, 0.2)
    monkeypatch.setenv(contract.EPHEMERAL_STORAGE, str(8 * 1024**3))
    assert kept_pictures._disk_limit() == (2 * 1024**3, 0.2)


def test_a_volume_in_memory_is_left_alone(small_volume, monkeypatch):
    monkeypatch.setenv("TRAINER_CACHE", str(small_volume))
    assert kept_pictures._disk_limit()[0] == 0
    monkeypatch.setenv("TRAINER_PICTURES_BYTES", "1Mi")
    assert kept_pictures._disk_limit()[0] == 1024**2


def decoded(monkeypatch):
    """The pictures that are decoded from now on, without those of the report, which are read again."""
    found, whole = [], read_picture
    for sheet in ("of_training", "of_mistakes"):
        monkeypatch.setattr(f"rfuav_trainer.training.pictures.{sheet}", lambda *_: None)
    monkeypatch.setattr(
        "rfuav_trainer.data.samples.read_picture",
        lambda path, *more, **others: found.append(path) or whole(path, *more, **others),
    )
    return found


@pytest.mark.parametrize("workers", [0, 3])
def test_a_training_decodes_every_picture_once_and_ends_with_the_same_bits(image_desk, scratch, monkeypatch, workers):
    files = decoded(monkeypatch)
    run(image_desk, training_spec(training__workers=workers))
    assert len(files) == len(set(files)) == 24
    monkeypatch.setenv("TRAINER_PICTURES_BYTES", "0")
    run(image_desk, training_spec(output__uri="pvc://models/without"), uid="u2")
    assert len(files) == 4 * 24
    with_disk, without = image_desk / "models/out", image_desk / "models/without"
    assert same_weights(with_disk / "last.safetensors", without / "last.safetensors")
    assert history(with_disk) == history(without)
    assert not list(scratch.iterdir())


def test_stopped_and_resumed_with_pictures_on_the_disk_gives_the_same_bits(image_desk, scratch, monkeypatch):
    stopped(image_desk, training_spec(), 7)
    files = decoded(monkeypatch)
    run(image_desk, training_spec())
    assert len(files) == len(set(files))
    monkeypatch.setenv("TRAINER_PICTURES_BYTES", "0")
    run(image_desk, training_spec(output__uri="pvc://models/without"), uid="u2")
    assert same_weights(image_desk / "models/out/last.safetensors", image_desk / "models/without/last.safetensors")


@pytest.mark.parametrize("colours", ["gray", "jet"])
def test_frames_of_recordings_are_transformed_once(desk, scratch, monkeypatch, colours):
    tone_set(desk / "captures/train")
    found, whole = [], pictures
    monkeypatch.setattr("rfuav_trainer.data.samples.pictures", lambda *given: found.append(1) or whole(*given))
    run(desk, training_spec(dataset__iq={**IQ, "colorMap": colours}))
    assert len(found) == 24


def test_a_training_continues_when_the_scratch_disk_is_full(image_desk, small_volume, monkeypatch):
    monkeypatch.setenv("TRAINER_CACHE", str(small_volume))
    monkeypatch.setenv("TRAINER_PICTURES_BYTES", "64Mi")
    monkeypatch.setattr(kept_pictures, "MEMORY_SHARE", 0)
    room = os.statvfs(small_volume)
    (small_volume / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize - 100_000))
    files = decoded(monkeypatch)
    with capture_logs() as logs:
        run(image_desk, training_spec())
    said = [entry for entry in logs if entry["event"].startswith("the picture cache on the scratch disk is full")]
    assert [entry["log_level"] for entry in said] == ["warning"]
    assert 24 < len(files) < 3 * 24  # seven pictures found room
    assert json.loads((image_desk / "models/out/report.json").read_text())["unreadable"] == {}


def test_what_is_kept_is_not_fetched_ahead(tmp_path, monkeypatch):
    samples = []
    for number in range(3):
        Image.linear_gradient("L").resize((16, 16)).save(tmp_path / f"{number}.png")
        samples.append(Sample(tmp_path / f"{number}.png", f"{number}.png"))
    reader = Reader(Preprocessing("image", 16), homes=[picture_cache.Memory(2 * BYTES)])
    fetched = []
    monkeypatch.setattr(inputs, "fetch_ahead", lambda paths: fetched.append([path.name for path in paths]))
    for workers in (0, 1, 0, 1):
        list(batches.batches([samples[:1], samples[1:]], reader, workers))
    assert [name for names in fetched for name in names] == ["1.png", "2.png", "2.png", "2.png", "2.png"]
