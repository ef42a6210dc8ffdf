"""Inference on a manifest: the files that it lists, in the same shards as in a folder, and its labels and SNRs."""

import json

import pytest
from trainer.data.test_manifest import rows_of, write
from trainer.inference.test_infer import lines
from trainer.runs import run, stopped
from trainer.stores import s3_client, s3_environment, upload
from trainer.trainer_kit import CLASSES, image_set, inference_spec, tone_set, weights_file

from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.inference import infer
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.reporting.progress import Progress


@pytest.fixture
def listed(desk):
    """Five pictures of each class, and their rows; `all.jsonl` lists them."""
    root = image_set(desk / "captures/test", count=5)
    rows = rows_of(root)
    write(root / "all.jsonl", rows)
    (desk / "models/out").mkdir()
    weights_file(desk / "models/out/best.safetensors")
    return desk, root, rows


def of(name, **changes):
    return inference_spec(input__uri=f"pvc://captures/test/{name}", **changes)


@pytest.mark.parametrize("name", ["all.jsonl", "all.parquet"])
def test_a_manifest_and_its_folder_give_the_same_predictions_in_the_same_shards(listed, name):
    desk, root, rows = listed
    write(root / name, rows[::-1])  # the order of the rows is nobody's business
    for shard in range(3):
        run(desk, of(name, shards=3), shard=shard)
        run(desk, inference_spec(shards=3, output__uri="pvc://results/folder"), uid="u2", shard=shard)
        ours = lines(desk, f"predictions-{shard}.jsonl")
        theirs = lines(desk, f"predictions-{shard}.jsonl", folder="results/folder")
        stated = {row["path"]: {"label": row["label"], "snr": row["snr"]} for row in rows}
        assert ours == [{**line, **stated[line["path"]]} for line in theirs]


def test_an_evaluation_has_the_labels_and_snrs_of_the_manifest(listed):
    desk, root, rows = listed
    for number, row in enumerate(rows):  # none of it is what the folders say
        row["label"] = CLASSES[(number >= 8) + (number >= 12)]
    write(root / "all.jsonl", rows)
    run(desk, of("all.jsonl", evaluation={}))
    found = json.loads((desk / "results/out/evaluation.json").read_text())
    predictions = lines(desk)
    labels = {row["path"]: row["label"] for row in rows}
    right = sum(line["class"] == labels[line["path"]] for line in predictions)
    assert found["accuracy"] == pytest.approx(right / 15, abs=1e-5)
    assert [sum(row) for row in found["confusionMatrix"]] == [8, 4, 3]
    assert {row["snrDb"]: row["samples"] for row in found["bySnr"]} == {-10: 8, 0: 7}  # 0.5 in whole dB


def test_rows_without_snr_take_the_conditions_from_the_path(desk):
    root = image_set(desk / "captures/test/snr_-6/jet", count=2)
    rows = [{"path": f"snr_-6/jet/{row['path']}", "label": row["label"]} for row in rows_of(root)]
    rows[0]["snr"] = 20
    write(desk / "captures/test/all.jsonl", rows)
    (desk / "models/out").mkdir()
    weights_file(desk / "models/out/best.safetensors")
    run(desk, of("all.jsonl", evaluation={}))
    found = json.loads((desk / "results/out/evaluation.json").read_text())
    assert {row["snrDb"]: row["samples"] for row in found["bySnr"]} == {-6: 5, 20: 1}
    assert {row["colorMap"]: row["samples"] for row in found["byColorMap"]} == {"jet": 6}
    assert [line.get("snr") for line in lines(desk)] == [20, None, None, None, None, None]


def test_earlier_predictions_are_evaluated_by_the_labels_in_them(listed):
    desk, _, _ = listed
    spec = of("all.jsonl")
    run(desk, spec)
    text = infer.evaluate(desk.job("InferenceJob", spec), Progress(None), StopSignal())
    assert "15 samples" in text


def test_labels_are_needed_for_an_evaluation_alone(listed):
    desk, root, rows = listed
    write(root / "all.jsonl", [{"path": row["path"]} for row in rows])
    run(desk, of("all.jsonl"))
    assert not any({"label", "snr"} & {*line} for line in lines(desk))
    with pytest.raises(InputError, match="in the manifest: .*alpha/000.png has none") as caught:
        run(desk, of("all.jsonl", evaluation={}, output__uri="pvc://results/evaluated"), uid="u2")
    assert caught.value.reason == "LabelsMissing"
    write(root / "all.jsonl", [{**rows[0], "label": "delta"}, *rows[1:]])
    with pytest.raises(InvalidConfigurationError, match="the labels delta of inputs in .* are not classes"):
        run(desk, of("all.jsonl", evaluation={}, output__uri="pvc://results/evaluated"), uid="u2")
    write(root / "all.jsonl", [{**rows[0], "label": ""}])
    with pytest.raises(InputError, match=r"input.uri: all.jsonl, row 1: label '': write .*, or leave it out"):
        run(desk, of("all.jsonl", output__uri="pvc://results/evaluated"), uid="u2")


def test_files_that_are_not_there_count_as_unreadable(listed):
    desk, root, rows = listed
    (root / "beta/001.png").write_bytes(b"torn")
    write(root / "all.jsonl", [*rows, {"path": "gone.png"}])
    run(desk, of("all.jsonl", errorThreshold=0.2))
    assert len(lines(desk)) == 14
    reasons = {line["path"]: line["reason"] for line in lines(desk, "errors-0.jsonl")}
    assert reasons.keys() == {"gone.png", "beta/001.png"}
    assert reasons["gone.png"] == "does not exist"
    assert json.loads((desk / "results/out/_SUCCESS").read_text())["files"] == 16


def test_recordings_beside_pictures_are_chosen_by_format(listed):
    desk, root, rows = listed
    tone_set(root, count=1, frames=3)
    weights_file(desk / "models/out/best.safetensors", recordings=True)
    write(root / "all.jsonl", [*rows, *({"path": f"{name}/000.iq", "label": name, "snr": 7} for name in CLASSES)])
    with pytest.raises(InputError, match="write format image or iq"):
        run(desk, of("all.jsonl"))
    run(desk, of("all.jsonl", input__format="iq", evaluation={}))
    assert [(line["path"], line["frame"], line["label"]) for line in lines(desk)] == [
        (f"{name}/000.iq", frame, name) for name in CLASSES for frame in range(3)
    ]
    found = json.loads((desk / "results/out/evaluation.json").read_text())
    assert [(row["snrDb"], row["samples"]) for row in found["bySnr"]] == [(7, 9)]


def test_it_starts_over_when_the_labels_changed_between_two_starts(listed):
    desk, root, rows = listed
    stopped(desk, of("all.jsonl", batchSize=4), 4, match="after 4 of 15 inputs")
    write(root / "all.jsonl", [{**row, "label": "beta"} for row in rows])
    run(desk, of("all.jsonl", batchSize=4))
    assert {line["label"] for line in lines(desk)} == {"beta"}


def test_a_manifest_in_an_object_store(listed, s3):
    desk, root, _ = listed
    upload(s3_client(s3), "inputs", root, "set/")
    spec = inference_spec(input__uri="s3://inputs/set/all.jsonl", evaluation={})
    ended = desk.pod("InferenceJob", spec, env=s3_environment(s3))
    assert ended.code == 0, ended.output
    assert [line["path"] for line in lines(desk)] == [f"{name}/{n:03d}.png" for name in CLASSES for n in range(5)]
    assert json.loads((desk / "results/out/evaluation.json").read_text())["samples"] == 15
