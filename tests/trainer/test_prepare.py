"""Preparing data sets on files: splits, changed copies, crops; nothing lost, nothing overwritten, the same by the seed."""

import errno
import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from trainer.trainer_kit import image_set, tone_set

from rfuav_trainer import prepare
from rfuav_trainer.data.samples import read_label_file
from rfuav_trainer.errors import InputError, InvalidConfigurationError, StoppedError
from rfuav_trainer.process.stop import StopSignal


def task(source, output, *, overwrite=False, stop=None):
    return prepare.Task(source, output, overwrite, stop or StopSignal())


def content(root):
    """Every file below a folder and a hash of it."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != prepare.MARK
    }


def test_a_split_takes_every_file_once_with_what_lies_beside_it(tmp_path):
    source = tone_set(tmp_path / "all", count=10)
    made = prepare.split(task(source, tmp_path / "out"), fraction=0.2, seed=1, link=False)
    assert made.parts == {"train": 24, "val": 6}
    before, after = content(source), content(tmp_path / "out")
    assert {name.partition("/")[2]: digest for name, digest in after.items()} == before
    for part in ("train", "val"):
        for name in ("alpha", "beta", "gamma"):
            found = [json.loads(p.read_text())["snrDb"] for p in (tmp_path / "out" / part / name).glob("*.json")]
            assert {-10, 10} == set(found)  # one of each SNR on each side
    again = prepare.split(task(source, tmp_path / "again"), fraction=0.2, seed=1, link=True)
    assert again == made
    assert content(tmp_path / "again") == after
    assert next((tmp_path / "again/val/alpha").glob("*.iq")).stat().st_nlink == 2
    prepare.split(task(source, tmp_path / "other"), fraction=0.2, seed=2, link=False)
    assert content(tmp_path / "other").keys() != after.keys()


def test_pictures_of_one_recording_go_to_one_side(tmp_path):
    for recording in range(6):
        for name in ("a", "b"):
            image_set(tmp_path / "all" / name, classes=(f"r{recording}",), count=3, seed=recording)
    prepare.split(task(tmp_path / "all", tmp_path / "out"), fraction=0.3, seed=0, link=False)
    places = recordings_of(tmp_path / "out")
    assert not places[0] & places[1]
    assert len(places[0] | places[1]) == 12


def recordings_of(output):
    """The folders of pictures below train/ and below val/."""
    sides = [output / part for part in ("train", "val")]
    return [{p.parent.relative_to(side) for p in side.rglob("*.png") if p.is_file()} for side in sides]


@pytest.mark.parametrize("change", prepare.CHANGES)
def test_every_change_changes_and_is_the_same_by_the_seed(tmp_path, change):
    source = image_set(tmp_path / "all", count=2, size=192)  # CLAHE's clip limit says nothing in tiles of 8 pixels
    made = prepare.augmented(task(source, tmp_path / "one"), changes=[change], copies=2, seed=3)
    assert made.files == 6 * 3
    prepare.augmented(task(source, tmp_path / "two"), changes=[change], copies=2, seed=3)
    prepare.augmented(task(source, tmp_path / "three"), changes=[change], copies=2, seed=4)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    original = np.asarray(Image.open(source / "alpha/000.png").convert("RGB"))
    folder = tmp_path / "one/alpha/000.png"
    assert np.array_equal(np.asarray(Image.open(folder / "000.png")), original)
    copies = [np.asarray(Image.open(folder / f"000.copy-{number}.png")) for number in (1, 2)]
    other = np.asarray(Image.open(tmp_path / "three/alpha/000.png/000.copy-1.png"))
    for first, second in [(copies[0], original), (copies[0], copies[1]), (copies[0], other)]:
        assert first.shape == second.shape
        assert not np.array_equal(first, second)
    # None is left as it was; a blur narrower than a pixel may leave one so.
    for path in (tmp_path / "one").rglob("*.copy-?.png") if change != "AdvancedBlur" else ():
        unchanged = Image.open(path.parent / f"{path.stem.partition('.')[0]}.png")
        assert not np.array_equal(np.asarray(Image.open(path)), np.asarray(unchanged))


def test_copies_never_part_from_their_picture_in_a_later_split(tmp_path):
    source = image_set(tmp_path / "all", count=6)
    prepare.augmented(task(source, tmp_path / "more"), changes=["GaussNoise"], copies=3, seed=0)
    prepare.split(task(tmp_path / "more", tmp_path / "out"), fraction=0.3, seed=0, link=False)
    places = recordings_of(tmp_path / "out")
    assert not places[0] & places[1]
    assert len(places[0] | places[1]) == 18


def test_pictures_below_their_conditions_keep_their_copies_too(tmp_path):
    for snr in (-10, 10):
        for colours in ("jet", "hot"):
            for name in ("a", "b"):
                image_set(tmp_path / f"all/{name}/snr_{snr}", classes=(colours,), count=5)
    prepare.augmented(task(tmp_path / "all", tmp_path / "more"), changes=["GaussNoise"], copies=1, seed=0)
    prepare.split(task(tmp_path / "more", tmp_path / "out"), fraction=0.2, seed=0, link=False)
    sides = [list((tmp_path / "out" / part).rglob("*.png")) for part in ("train", "val")]
    found = [{(p.parts[-5], p.parts[-2], p.parts[-4]) for p in side if p.is_file()} for side in sides]
    assert not {row[:2] for row in found[0]} & {row[:2] for row in found[1]}
    assert {row[2] for row in found[0]} == {row[2] for row in found[1]} == {"snr_-10", "snr_10"}
    assert sum(p.is_file() for side in sides for p in side) == 2 * 2 * 2 * 5 * 2


def test_a_picture_called_as_a_copy_used_to_be_is_not_lost(tmp_path):
    source = image_set(tmp_path / "all", classes=("a/r", "b/r"), count=2)
    for name in ("a", "b"):
        (source / name / "r/001.png").rename(source / name / "r/000-1.png")
    made = prepare.augmented(task(source, tmp_path / "out"), changes=["GaussNoise"], copies=1, seed=0)
    assert made.files == 8 == len(content(tmp_path / "out"))
    for name in content(source):
        assert np.array_equal(np.asarray(Image.open(source / name)), np.asarray(Image.open(tmp_path / "out" / name)))
    with pytest.raises(InvalidConfigurationError, match=r"would have the name 000\.copy-1\.png: rename"):
        (source / "a/r/000-1.png").rename(source / "a/r/000.copy-1.png")
        prepare.augmented(task(source, tmp_path / "more"), changes=["GaussNoise"], copies=1, seed=0)
    assert not (tmp_path / "more").exists()


def beside_two(root):
    """Pictures in two formats with one file beside both."""
    for name in ("a", "b"):
        image_set(root, classes=(name,), count=4)
        for path in sorted((root / name).glob("*.png")):
            Image.open(path).save(path.with_suffix(".jpg"))
            path.with_suffix(".json").write_text('{"snrDb": 3}')
    return root


@pytest.mark.parametrize("link", [True, False])
def test_what_lies_beside_two_files_comes_with_both(tmp_path, link):
    source = beside_two(tmp_path / "all")
    prepare.split(task(source, tmp_path / "out"), fraction=0.4, seed=0, link=link)
    found = content(tmp_path / "out")
    assert {name.partition("/")[2]: digest for name, digest in found.items()} == content(source)
    for name in found:
        assert name.endswith(".json") or f"{name.rpartition('.')[0]}.json" in found


def test_links_over_two_volumes_are_refused_with_what_to_do(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    source = image_set(tmp_path / "all", count=4)
    with pytest.raises(InvalidConfigurationError, match="Invalid cross-device link.*: leave --link out"):
        prepare.split(task(source, tmp_path / "out"), fraction=0.4, seed=0, link=True)
    assert [p.name for p in tmp_path.iterdir()] == ["all"]


def test_a_copy_has_the_conditions_of_its_picture(tmp_path):
    source = image_set(tmp_path / "all", count=1)
    (source / "alpha/000.json").write_text('{"snrDb": 5}')
    prepare.augmented(task(source, tmp_path / "out"), changes=["Sharpen"], copies=1, seed=0)
    assert read_label_file(tmp_path / "out/alpha/000.png/000.copy-1.png") == {"snrDb": 5}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff"])
def test_crop(tmp_path, suffix):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30, 20:50] = (200, 100, 50)
    for name in ("a", "b"):
        (tmp_path / "all" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "all" / name / f"x{suffix}")
    made = prepare.cropped(task(tmp_path / "all", tmp_path / "out"), box=prepare.read_box("20,10,30,20"))
    assert made.files == 2
    found = np.asarray(Image.open(tmp_path / f"out/a/x{suffix}"))
    assert found.shape == (20, 30, 3)
    assert np.abs(found[5:-5, 5:-5].astype(int) - [200, 100, 50]).max() <= 25 * (suffix == ".jpg")


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "I;16"])
def test_a_picture_whose_name_says_a_format_without_its_colours(tmp_path, mode):
    pixels = np.full((40, 60, 3), 200, np.uint8)
    image = Image.fromarray(pixels)
    image = (
        Image.fromarray(np.full((40, 60), 200 * 257, np.uint16))
        if mode == "I;16"
        else image.convert(mode, palette=Image.Palette.ADAPTIVE)
    )
    (tmp_path / "all/a").mkdir(parents=True)
    image.save(tmp_path / "all/a/x.jpg", format="PNG")
    assert prepare.cropped(task(tmp_path / "all", tmp_path / "out"), box=(20, 10, 30, 20)).files == 1
    found = Image.open(tmp_path / "out/a/x.jpg")
    assert (found.format, found.size) == ("JPEG", (30, 20))
    assert np.abs(np.asarray(found.convert("RGB")).astype(int) - 200).max() <= 5
    made = prepare.augmented(task(tmp_path / "all", tmp_path / "more"), changes=["Sharpen"], copies=1, seed=0)
    assert made.files == 2


def test_levels_that_no_other_format_can_hold_make_an_unreadable_picture(tmp_path):
    source = image_set(tmp_path / "all", count=10)
    Image.fromarray(np.full((64, 64), -1.0, np.float32)).save(source / "beta/003.jpg", format="TIFF")
    made = prepare.cropped(task(source, tmp_path / "out"), box=(0, 0, 8, 8))
    assert made.unreadable.keys() == {"beta/003.jpg"}
    assert "negative or non-finite levels" in made.unreadable["beta/003.jpg"]
    assert not (tmp_path / "out/beta/003.jpg").exists()


@pytest.mark.parametrize("box", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,0,4", "-1,0,5,5", "1.5,0,5,5"])
def test_no_box(box):
    with pytest.raises(InvalidConfigurationError, match="write LEFT,TOP,WIDTH,HEIGHT"):
        prepare.read_box(box)


def test_unreadable_pictures_are_listed_up_to_a_share(tmp_path):
    source = image_set(tmp_path / "all", count=10)
    (source / "beta/003.png").write_bytes(b"torn")
    made = prepare.cropped(task(source, tmp_path / "out"), box=(0, 0, 8, 8))
    assert made.files == 29
    assert made.unreadable.keys() == {"beta/003.png"}
    with pytest.raises(InputError, match=r"30 of 30 files cannot be read.*64 x 64 pixels: the box does not fit"):
        prepare.cropped(task(source, tmp_path / "none"), box=(0, 0, 65, 8))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all", "out"]


def test_nothing_is_overwritten_that_prepare_did_not_make(tmp_path):
    source = image_set(tmp_path / "all", count=2)
    before = content(source)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("dear")
    with pytest.raises(InvalidConfigurationError, match="mine exists: add --overwrite"):
        prepare.cropped(task(source, tmp_path / "mine"), box=(0, 0, 8, 8))
    with pytest.raises(InvalidConfigurationError, match="mine was not created by prepare: remove it"):
        prepare.cropped(task(source, tmp_path / "mine", overwrite=True), box=(0, 0, 8, 8))
    prepare.cropped(task(source, tmp_path / "out"), box=(0, 0, 8, 8))
    with pytest.raises(InvalidConfigurationError, match="out exists"):
        prepare.cropped(task(source, tmp_path / "out"), box=(0, 0, 9, 9))
    prepare.cropped(task(source, tmp_path / "out", overwrite=True), box=(0, 0, 9, 9))
    assert Image.open(tmp_path / "out/alpha/000.png").size == (9, 9)
    for output in (source, source / "inside", tmp_path):
        with pytest.raises(InvalidConfigurationError, match="contains the other"):
            prepare.cropped(task(source, output, overwrite=True), box=(0, 0, 8, 8))
    assert content(source) == before
    assert (tmp_path / "mine/notes.txt").read_text() == "dear"


def test_a_failed_or_stopped_run_leaves_nothing_and_keeps_the_older_output(tmp_path):
    source = image_set(tmp_path / "all", count=4)
    prepare.cropped(task(source, tmp_path / "out"), box=(0, 0, 8, 8))
    before = content(tmp_path / "out")
    stop = StopSignal()
    stop.request()
    with pytest.raises(StoppedError):
        prepare.cropped(task(source, tmp_path / "out", overwrite=True, stop=stop), box=(0, 0, 9, 9))
    assert content(tmp_path / "out") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all", "out"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda t: prepare.split(t, fraction=1.0, seed=0, link=False),
            "--validation 1.0: write a fraction between 0 and 1",
        ),
        (
            lambda t: prepare.augmented(t, changes=["Mirror"], copies=1, seed=0),
            "--change Mirror: write AdvancedBlur, CLAHE",
        ),
        (lambda t: prepare.augmented(t, changes=[], copies=1, seed=0), "--change is missing"),
        (lambda t: prepare.augmented(t, changes=["CLAHE"], copies=0, seed=0), "--copies 0: write 1 or more"),
    ],
)
def test_wrong_options(tmp_path, call, message):
    with pytest.raises(InvalidConfigurationError, match=message):
        call(task(tmp_path, tmp_path / "out"))


def test_too_few_recordings_to_split(tmp_path):
    source = image_set(tmp_path / "all", count=1)
    with pytest.raises(InputError, match="--validation needs two recordings or images of every class, alpha has 1"):
        prepare.split(task(source, tmp_path / "out"), fraction=0.5, seed=0, link=False)


def test_the_command_line(desk):
    image_set(desk / "all", count=5)
    out = str(desk / "out")
    ended = desk.run("prepare", "split", str(desk / "all"), out, "--validation", "0.4", "--seed", "2")
    assert ended.code == 0, ended.output
    assert ended.events[-1].items() >= {"event": "prepared", "files": 15, "train": 9, "val": 6, "unreadable": 0}.items()
    ended = desk.run(
        "prepare",
        "augment",
        out + "/train",
        str(desk / "more"),
        "--change",
        "CLAHE",
        "--change",
        "Sharpen",
        "--copies",
        "2",
    )
    assert ended.code == 0, ended.output
    assert len(list((desk / "more").rglob("*.png"))) == 9 * 3 + 9  # each in a folder of its own
    ended = desk.run("prepare", "crop", str(desk / "all"), out, "--box", "0,0,8,8")
    assert ended.code == 2
    assert "exists: add --overwrite" in ended.output


def test_a_third_part_is_for_tests_and_the_second_may_have_another_name(tmp_path):
    source, reports = image_set(tmp_path / "all", count=10), []
    given = prepare.Task(
        source, tmp_path / "out", overwrite=False, stop=StopSignal(), report=lambda *done: reports.append(done)
    )
    made = prepare.split(given, fraction=0.2, seed=1, link=False, test=0.2, validation_folder="valid")
    assert made.parts == {"train": 18, "valid": 6, "test": 6}
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["test", "train", "valid"]
    after = content(tmp_path / "out")
    assert {name.partition("/")[2]: digest for name, digest in after.items()} == content(source)
    assert reports == [(done, 30) for done in range(30)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": 0.8}, "--test 0.8: write a fraction that leaves training data"),
        ({"validation_folder": "train"}, "--validation-folder train: write a name such as valid"),
        ({"validation_folder": "../x"}, "--validation-folder ../x: write a name such as valid"),
    ],
)
def test_parts_that_cannot_be(tmp_path, options, message):
    source = image_set(tmp_path / "all", count=4)
    with pytest.raises(InvalidConfigurationError, match=message):
        prepare.split(task(source, tmp_path / "out"), fraction=0.2, seed=1, link=False, **options)


def test_a_data_set_with_its_parts_keeps_them_when_it_is_augmented(tmp_path):
    for part in ("train", "valid"):
        image_set(tmp_path / "all" / part, count=2)
    prepare.augmented(task(tmp_path / "all", tmp_path / "all_aug"), changes=["Sharpen"], copies=1, seed=0)
    assert {name.rpartition("/")[0] for name in content(tmp_path / "all_aug")} == {
        f"{part}/{name}" for part in ("train", "valid") for name in ("alpha", "beta", "gamma")
    }


def test_a_single_picture_is_cropped(tmp_path):
    source = image_set(tmp_path / "all", count=1) / "alpha/000.png"
    made = prepare.cropped(task(source, tmp_path / "out"), box=(1, 2, 3, 4))
    assert (made.files, Image.open(tmp_path / "out/000.png").size) == (1, (3, 4))


def test_the_command_says_what_it_made_when_it_ends(desk):
    image_set(desk / "captures/all", count=5)
    ended = desk.run(
        *("prepare", "split", str(desk / "captures/all"), str(desk / "captures/out"), "--validation-folder", "valid")
    )
    assert ended.code == 0, ended.output
    own = ended.termination["trainerStatus"]["rfuav"]
    assert (own["processed"], own["files"], own["failed"]) == (15, 15, 0)
    assert own["parts"] == {"train": 12, "valid": 3}
