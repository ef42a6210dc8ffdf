"""Manifests: rows of JSON Lines and Parquet, what is wrong with them, and trainings on them."""

import json

import pyarrow as pa
import pytest
from pyarrow import parquet
from trainer.stores import s3_client, s3_environment, upload
from trainer.trainer_kit import IQ, image_set, tone_set, training_spec

from rfuav_trainer.data import manifest
from rfuav_trainer.data.dataset import open_dataset
from rfuav_trainer.errors import InputError


def write(path, rows):
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    return path


def rows_of(root, **more):
    """The files of a folder set as rows; SNRs in turn."""
    files = sorted(p for p in root.rglob("*") if p.suffix in {".png", ".iq"})
    return [
        {
            "path": p.relative_to(root).as_posix(),
            "label": p.parent.name,
            "snr": [-10, 0.5][n % 2],
            "operator": "x",
            **more,
        }
        for n, p in enumerate(files)
    ]


@pytest.mark.parametrize("name", ["all.jsonl", "all.parquet", "ALL.JSONL"])
def test_rows(tmp_path, name):
    path = tmp_path / name
    content = [
        {"path": "b/2.png", "label": "b", "snr": None, "recording": "r1"},
        {"path": "a/1.png", "label": "a", "snr": -3, "recording": None},
    ]
    if name == "ALL.JSONL":
        path.write_text(
            '{"path": "b/2.png", "label": "b", "recording": "r1"}\n\n{"path": "a/1.png", "label": "a", "snr": -3}'
        )
    else:
        write(path, content)
    assert manifest.read(path, where="x") == [
        manifest.Row("a/1.png", "a", -3.0, None),
        manifest.Row("b/2.png", "b", None, "r1"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"dataset.train.uri: m.jsonl, line 1 is not JSON"),
        ("[1]", "row 1: write an object with path and label"),
        ('{"path": "a.png"}', "row 1: label None: write the name of the class"),
        ('{"label": "a"}', "row 1: path None"),
        ('{"path": "../a.png", "label": "a"}', "path '../a.png': write a path below the manifest's folder"),
        ('{"path": "/etc/a.png", "label": "a"}', "path '/etc/a.png'"),
        ('{"path": "a.png", "label": "a", "snr": "high"}', "snr 'high': write a number of dB"),
        ('{"path": "a.png", "label": "a", "snr": NaN}', "snr nan"),
        ('{"path": "a.png", "label": "a", "snr": -Infinity}', "snr -inf: write a number of dB"),
        (f'{{"path": "a.png", "label": "a", "snr": 1{"0" * 400}}}', "snr 1000"),
        ('{"path": "a.png", "label": "\\udcfc"}', r"the name of the class '\\udcfc' is not UTF-8: rename it"),
        ('{"path": "a.png", "label": "a", "recording": 3}', "recording 3: write a name"),
        ('{"path": "a.png", "label": "a"}\n{"path": "a.png", "label": "b"}', "row 2: a.png is listed twice"),
        ("", "is empty"),
    ],
)
def test_wrong_rows(tmp_path, content, message):
    (tmp_path / "m.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        manifest.read(tmp_path / "m.jsonl", where="dataset.train.uri")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"hello" * 100])
def test_torn_parquet(tmp_path, content):
    (tmp_path / "m.parquet").write_bytes(content)
    with pytest.raises(InputError, match="is not a complete Parquet file"):
        manifest.read(tmp_path / "m.parquet", where="x")


@pytest.mark.parametrize(
    ("rows", "wanted", "message"),
    [
        ([("a.png", "a"), ("b.iq", "b")], "auto", r"lists pictures \(a.png\) and recordings \(b.iq\): write format"),
        ([("a.iq", "a"), ("b.iq", "b")], "image", "has no files of format image: write iq, or auto"),
        ([("a.png", "a"), ("b.txt", "b")], "auto", "b.txt has the suffix of neither a picture nor a recording"),
    ],
)
def test_kinds_that_cannot_be(rows, wanted, message):
    with pytest.raises(InputError, match=message):
        manifest.kind_of([manifest.Row(p, label, None, p) for p, label in rows], wanted, where="x")


def opened(desk, spec):
    job = desk.job("TrainingJob", spec)
    return open_dataset(job, job.spec)


def manifest_spec(name="train.jsonl", **changes):
    return training_spec(dataset__train__uri=f"pvc://captures/{name}", **changes)


def test_a_manifest_and_its_folder_are_the_same_data(desk):
    root = image_set(desk / "captures/train")
    write(root / "all.parquet", rows_of(root))
    write(root / "plain.jsonl", [{"path": row["path"], "label": row["label"]} for row in rows_of(root)])
    folder = opened(desk, training_spec())
    plain = opened(desk, manifest_spec("train/plain.jsonl"))
    listed = opened(desk, manifest_spec("train/all.parquet"))
    assert listed.classes == plain.classes == folder.classes
    assert plain.validation == folder.validation
    assert {(s.name, s.label) for s in listed.train + listed.validation} == {
        (s.name, s.label) for s in folder.train + folder.validation
    }
    assert {s.snr for s in listed.validation} == {-10, 0.5}


def test_frames_of_one_recording_stay_on_one_side(desk):
    root = tone_set(desk / "captures", count=6, frames=3)
    rows = rows_of(root)
    for number, row in enumerate(rows):
        row["recording"] = f"flight-{row['label']}-{number % 3}"
    write(root / "train.jsonl", rows)
    found = opened(desk, manifest_spec(dataset__iq=IQ))
    sides = [{s.group for s in side} for side in (found.train, found.validation)]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 9
    assert len(found.train) + len(found.validation) == 18 * 3


@pytest.mark.parametrize(
    ("layout", "together"),
    [
        ("{label}/rec{n}/{frame}.png", True),
        ("2024/{label}/rec{n}/{frame}.png", True),
        ("flights/{label}-{n}/{frame}.png", True),
        ("{label}/snr_{level}/rec{n}.png", True),
        ("all/{label}-{n}-{frame}.png", True),
        ("all/{label}{n}{frame}.png", False),  # a folder of several classes is no recording
        ("{label}{n}{frame}.png", False),
    ],
)
def test_without_the_column_a_recording_is_what_it_is_in_a_folder(layout, together):
    names = {
        layout.format(label=label, n=n, frame=frame, level=10 * frame): (label, n)
        for label in ("A", "B")
        for n in range(4)
        for frame in range(3)
    }
    rows = [manifest.Row(name, label, None, None) for name, (label, _) in names.items()]
    found = manifest._recordings(rows, "image", None)
    groups = {}
    for name, made in names.items():
        groups.setdefault(found[name].name, set()).add(made)
    assert len(groups) == (8 if together else len(names))
    assert all(len(made) == 1 for made in groups.values())


def test_one_recording_at_two_levels_stays_on_one_side(desk):
    root = tone_set(desk / "captures/train", classes=("alpha", "beta"), count=6)
    for label in ("alpha", "beta"):
        for level in (-10, 10):
            (root / label / f"snr_{level}").mkdir()
            for n in range(6):
                there = root / label / f"{n:03d}.iq"
                (root / label / f"snr_{level}/{n:03d}.iq").write_bytes(there.read_bytes())
        for path in (*(root / label).glob("*.iq"), *(root / label).glob("*.json")):
            path.unlink()
    write(root / "all.jsonl", [{"path": r["path"], "label": r["path"].split("/")[0]} for r in rows_of(root)])
    for spec in (training_spec(dataset__iq=IQ), manifest_spec("train/all.jsonl", dataset__iq=IQ)):
        found = opened(desk, spec)
        sides = [{(s.label, s.path.name) for s in side} for side in (found.train, found.validation)]
        assert not sides[0] & sides[1]
        assert len(sides[0] | sides[1]) == 12


def test_an_impossible_path_is_a_missing_file(desk):
    root = image_set(desk / "captures", count=4)
    name = f"alpha/{'x' * 300}.png"
    write(root / "train.jsonl", [*rows_of(root), {"path": name, "label": "alpha"}])
    assert opened(desk, manifest_spec(dataset__errorThreshold=0.1)).unreadable.files == {name: manifest.MISSING}


def test_missing_and_corrupt_files_are_listed_up_to_the_threshold(desk):
    root = image_set(desk / "captures", count=10)
    rows = [*rows_of(root), {"path": "alpha/gone.png", "label": "alpha"}]
    write(root / "train.jsonl", rows)
    (root / "beta/003.png").write_bytes(b"torn")
    ended = desk.pod("TrainingJob", manifest_spec(dataset__errorThreshold=0.1, training__epochs=1))
    assert ended.code == 0, ended.output
    report = json.loads((desk / "models/out/report.json").read_bytes())
    assert report["unreadable"].keys() == {"alpha/gone.png", "beta/003.png"}
    with pytest.raises(InputError, match="1 of 31 files cannot be read, more than 2%: alpha/gone.png: does not exist"):
        opened(desk, manifest_spec(dataset__errorThreshold=0.02))


def test_a_class_of_which_nothing_can_be_read(desk):
    root = image_set(desk / "captures", count=4)
    write(root / "train.jsonl", [*rows_of(root), {"path": "gone.png", "label": "delta"}])
    with pytest.raises(
        InputError, match=r"no file of class delta can be read \(for example gone.png: does not exist\)"
    ):
        opened(desk, manifest_spec())


def test_the_validation_may_be_a_manifest_and_has_the_same_classes(desk):
    image_set(desk / "captures/train", count=4)
    root = image_set(desk / "captures/more", count=4, seed=1)
    rows = rows_of(root)
    write(root / "val.jsonl", [row for row in rows if row["path"].endswith("3.png")])
    spec = training_spec(dataset__validation={"uri": "pvc://captures/more/val.jsonl"})
    assert len(opened(desk, spec).validation) == 3
    write(root / "val.jsonl", [row for row in rows if row["label"] != "beta"])
    with pytest.raises(Exception, match="missing beta, unknown none"):
        opened(desk, spec)


def test_the_number_of_classes_is_checked(desk):
    root = image_set(desk / "captures", count=4)
    write(root / "train.jsonl", rows_of(root))
    with pytest.raises(Exception, match="model.numClasses is 5, but .* has 3 classes"):
        opened(desk, manifest_spec(model__numClasses=5))


def test_a_manifest_in_an_object_store(desk, s3):
    root = image_set(desk / "up", count=4)
    write(root / "train.parquet", rows_of(root))
    upload(s3_client(s3), "listed", root, "set/")
    spec = training_spec(dataset__train__uri="s3://listed/set/train.parquet", training__epochs=1)
    ended = desk.pod("TrainingJob", spec, env=s3_environment(s3))
    assert ended.code == 0, ended.output


def test_rows_without_snr_take_it_from_the_path_or_the_file_beside(desk):
    root = tone_set(desk / "captures/deep", classes=("alpha", "-30dB"), count=4)  # a class's name is no SNR
    rows = rows_of(root)
    for row in rows:
        del row["snr"]
    (root / "alpha/000.json").unlink()
    (root / "snr_5").mkdir()
    (root / "alpha/000.iq").rename(root / "snr_5/x.iq")
    rows[next(n for n, row in enumerate(rows) if row["path"] == "alpha/000.iq")]["path"] = "snr_5/x.iq"
    write(root / "train.jsonl", rows)
    found = opened(desk, manifest_spec("deep/train.jsonl", dataset__iq=IQ))
    levels = {s.name: s.snr for s in found.train + found.validation}
    assert levels["snr_5/x.iq"] == 5
    assert levels["-30dB/000.iq"] == levels["-30dB/002.iq"] == -10
    assert levels["-30dB/001.iq"] == 10
