"""hf:// from a local cache of the hub, as the hub's own tools write it, without any network."""

import os

import pytest
from trainer.trainer_kit import image_set, inference_spec, training_spec

from rfuav_trainer.errors import InputError
from rfuav_trainer.storage import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def snapshot(cache, repository, files):
    """Put files into the cache as the hub's tools do: blobs by their hash, links to them in the snapshot."""
    folder = cache / repository
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(COMMIT)
    (folder / "blobs").mkdir()
    for number, (name, content) in enumerate(files.items()):
        blob = folder / "blobs" / f"{number:064x}"
        blob.write_bytes(content)
        link = folder / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return folder / "snapshots" / COMMIT


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch):
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def test_data_and_weights_are_read_from_a_local_cache(desk):
    pictures = image_set(desk / "plain", count=4)
    files = {f"train/{path.relative_to(pictures)}": path.read_bytes() for path in pictures.rglob("*.png")}
    snapshot(desk / "home/hub", "datasets--acme--drones", files)
    environment = {"HF_HOME": str(desk / "home"), "HF_ENDPOINT": "http://127.0.0.1:9"}  # nobody is there
    spec = training_spec(dataset__train__uri="hf://datasets/acme/drones/train", training__epochs=1)
    ended = desk.pod("TrainingJob", spec, env=environment)
    assert ended.code == 0, ended.output
    weights = (desk / "models/out/best.safetensors").read_bytes()
    snapshot(desk / "home/hub", "models--acme--net", {"best.safetensors": weights})
    spec = inference_spec(input__uri="hf://datasets/acme/drones", model__weights="hf://acme/net/best.safetensors")
    ended = desk.pod("InferenceJob", spec, env={**environment, "HF_HUB_OFFLINE": "1"})
    assert ended.code == 0, ended.output
    assert len((desk / "results/out/predictions-0.jsonl").read_text().splitlines()) == 12


def test_the_cache_itself_may_be_named(tmp_path, monkeypatch):
    root = snapshot(tmp_path / "cache", "datasets--acme--drones", {"a/b.png": b"x"})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    assert hub.find("hf://datasets/acme/drones/", "x") == root
    assert hub.find("hf://datasets/acme/drones/a", "x") == root / "a"
    assert hub.find("hf://datasets/acme/other", "x") is None  # that one is for the hub
    assert hub.find("hf://acme/drones", "x") is None  # a model of the same name


def test_what_is_not_there_says_where_to_put_it(tmp_path, monkeypatch):
    uri = "hf://datasets/acme/drones/val"
    assert hub.find(uri, "x") is None  # nothing is named: the hub is asked
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        InputError, match=r"x: hf://datasets/acme/drones/val is not available offline: neither HF_HOME nor HF_HUB_CACHE"
    ):
        hub.find(uri, "x")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(
        InputError, match=r"is not in .*/hub, and HF_HUB_OFFLINE=1 .*\(hf download acme/drones --repo-type dataset\)"
    ):
        hub.find(uri, "x")
    snapshot(tmp_path / "hub", "datasets--acme--drones", {"train/a.png": b"x"})
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(InputError, match=r"is not in the local cache: .*snapshots/.* has no val: put it there"):
        hub.find(uri, "x")


def test_a_download_that_was_cut_off_before_its_end_is_not_taken_for_the_repository(tmp_path, monkeypatch):
    (tmp_path / "hub/datasets--acme--drones/blobs").mkdir(parents=True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert hub.find("hf://datasets/acme/drones", "x") is None
