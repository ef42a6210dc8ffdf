"""s3:// and hf:// against servers of the tests' own: names, bytes, a bounded cache, and no secret in any output."""

import errno
import json
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from trainer.stores import KEY, SECRET, TOKEN, files_in, hub_mirror, s3_client, s3_environment, upload
from trainer.trainer_kit import IQ, RESOURCES, image_set, in_child, inference_spec, tone_set, training_spec

from rfuav_trainer.errors import DiskFullError, InputError, StorageError, UnreadableFileError
from rfuav_trainer.storage import clients, inputs, scratch
from rfuav_trainer.storage.cache import BYTES, READERS


@pytest.fixture
def bucket(s3, tmp_path, monkeypatch, request):
    """An S3 bucket with `train/`, `training/` and objects whose names are no paths; its name and a client."""
    for name, value in s3_environment(s3).items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{abs(hash(request.node.name)) % 10**9}"
    (tmp_path / "up/train/a").mkdir(parents=True)
    (tmp_path / "up/training").mkdir()
    for number in range(5):
        (tmp_path / f"up/train/a/{number}.bin").write_bytes(bytes([number]) * 1000)
    (tmp_path / "up/training/other.bin").write_bytes(b"other")
    client = s3_client(s3)
    upload(client, name, tmp_path / "up")
    for key in ("train/../escaped.bin", "train//b.bin", "train/folder/"):
        client.put_object(Bucket=name, Key=key, Body=b"")
    return name, client


@pytest.fixture
def cache(tmp_path):
    made = inputs.Cache(tmp_path / "cache", 2500)
    yield made
    made.close()


def test_a_prefix_is_a_folder_and_its_neighbours_are_not_in_it(bucket, cache, tmp_path):
    root = cache.path(f"s3://{bucket[0]}/train", "input.uri")
    assert files_in(root) == [f"a/{n}.bin" for n in range(5)]
    assert not (tmp_path / "cache/s3" / bucket[0] / "escaped.bin").exists()
    assert cache.size(root / "a/3.bin") == 1000
    assert (root / "a/3.bin").stat().st_size == 0
    with cache.opened(root / "a/3.bin") as here:
        assert here.read_bytes() == b"\3" * 1000


def test_what_objects_contain_is_known_without_a_download(bucket, cache):
    name, client = bucket
    client.put_object(Bucket=name, Key="train/b/copy.bin", Body=bytes([3]) * 1000)
    root = cache.path(f"s3://{name}/train", "input.uri")
    found = {path: cache.version(root / path) for path in ("a/3.bin", "a/4.bin", "b/copy.bin")}
    assert found["a/3.bin"] == found["b/copy.bin"] != found["a/4.bin"]
    assert re.fullmatch("1000:[0-9a-f]{32}", found["a/3.bin"])
    assert cache.version(root / "gone.bin") is None
    assert cache.used == 0


def test_validation_objects_that_are_training_objects_are_refused(desk, s3):
    train = image_set(desk / "up/train", count=3)
    val = image_set(desk / "up/val", count=2, seed=1)
    (val / "beta/9.png").write_bytes((train / "beta/001.png").read_bytes())
    upload(s3_client(s3), "captures", desk / "up")
    spec = training_spec(dataset__train__uri="s3://captures/train", dataset__validation={"uri": "s3://captures/val"})
    ended = desk.pod("TrainingJob", spec, env=s3_environment(s3))
    assert ended.code == 2, ended.output
    assert "1 of its 7 files are also in dataset.train.uri (val/beta/9.png is train/beta/001.png)" in ended.output


def test_the_cache_keeps_to_its_bytes_and_lets_go_of_the_oldest(bucket, cache):
    root = cache.path(f"s3://{bucket[0]}/train", "x")
    with cache.opened(root / "a/0.bin") as first:
        mapped = np.memmap(first, dtype=np.uint8, mode="r")
    for number in (1, 2, 3, 4):
        with cache.opened(root / f"a/{number}.bin"):
            assert cache.used <= 2500
    assert sum(path.stat().st_size for path in (root / "a").iterdir()) == 2000
    assert (root / "a/0.bin").stat().st_size == 0
    assert mapped.sum() == 0
    assert mapped.size == 1000  # what somebody still reads is not pulled away under them
    with cache.opened(root / "a/0.bin") as again:
        assert again.read_bytes() == bytes(1000)


def test_what_is_read_stays_and_others_wait_for_room(bucket, cache):
    root = cache.path(f"s3://{bucket[0]}/train", "x")
    entered, leave = threading.Barrier(3), threading.Event()

    def read(number):
        with cache.opened(root / f"a/{number}.bin") as here:
            entered.wait()
            leave.wait()
            assert here.read_bytes() == bytes([number]) * 1000

    readers = [threading.Thread(target=read, args=(number,)) for number in (0, 1)]
    for reader in readers:
        reader.start()
    entered.wait()
    third = threading.Thread(target=lambda: cache.opened(root / "a/2.bin").__enter__())
    third.start()
    third.join(0.3)
    assert third.is_alive()
    assert cache.used == 2000
    leave.set()
    for reader in (*readers, third):
        reader.join(10)
        assert not reader.is_alive()


def test_many_readers_fetch_an_object_once(bucket, cache, monkeypatch):
    root = cache.path(f"s3://{bucket[0]}/train", "x")
    fetched = []
    original = inputs.Cache._fetch
    monkeypatch.setattr(inputs.Cache, "_fetch", lambda self, p, o: (fetched.append(p), original(self, p, o)))

    def read():
        with cache.opened(root / "a/1.bin") as here:
            assert here.read_bytes() == b"\1" * 1000

    readers = [threading.Thread(target=read) for _ in range(8)]
    cache.fetch_ahead([root / "a/1.bin"])
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(fetched) == 1


def test_an_object_that_no_cache_can_hold(bucket, tmp_path):
    cache = inputs.Cache(tmp_path / "small", 999)
    root = cache.path(f"s3://{bucket[0]}/train", "x")
    with pytest.raises(InputError, match=r"1.bin has 1000 bytes, the cache .* may hold 999: raise TRAINER_CACHE_BYTES"):
        cache.opened(root / "a/1.bin").__enter__()


def test_an_object_is_fetched_at_once_and_stays(bucket, cache):
    path = cache.path(f"s3://{bucket[0]}/train/a/1.bin", "model.weights")
    for _ in range(3):
        assert cache.path(f"s3://{bucket[0]}/train/a/1.bin", "model.weights") == path  # takes no more room
    assert path.read_bytes() == b"\1" * 1000
    root = cache.path(f"s3://{bucket[0]}/train", "x")
    for number in (2, 3, 4):
        with cache.opened(root / f"a/{number}.bin"):
            pass
    assert path.read_bytes() == b"\1" * 1000


def test_what_belongs_to_an_object_is_known_with_it(bucket, cache):
    name, client = bucket[0], bucket[1]
    for key in ("one/a.iq", "one/a.json", "one/a.sigmf-meta", "one/b.json"):
        client.put_object(Bucket=name, Key=key, Body=key.encode())
    path = cache.path(f"s3://{name}/one/a.iq", "input.uri")
    for beside in (path.with_suffix(".json"), path.with_suffix(".sigmf-meta")):
        with cache.opened(beside) as here:
            assert here.read_text() == f"one/{beside.name}"
    assert not path.with_name("b.json").exists()


def test_a_folder_is_listed_once(bucket, cache, monkeypatch):
    root = cache.path(f"s3://{bucket[0]}/train", "x")
    monkeypatch.setattr(clients, "ask", lambda *_, **__: pytest.fail("asked again"))
    assert cache.path(f"s3://{bucket[0]}/train/", "y") == root


def test_an_object_that_changed_or_went_away(bucket, cache):
    name, client = bucket
    root = cache.path(f"s3://{name}/train", "x")
    client.put_object(Bucket=name, Key="train/a/0.bin", Body=b"new")
    client.delete_object(Bucket=name, Key="train/a/1.bin")
    with pytest.raises(UnreadableFileError, match="has 3 bytes instead of the 1000 listed"):
        cache.opened(root / "a/0.bin").__enter__()
    with pytest.raises(UnreadableFileError, match="removed after it had been listed"):
        cache.opened(root / "a/1.bin").__enter__()
    assert cache.used == 0


def test_what_a_manifest_names_is_known_and_no_other_folder_is_listed(bucket, cache, monkeypatch):
    name, client = bucket
    for key in ("train/set.jsonl", "train/a/0.json", "train/a/more/5.bin", "train/b/0.bin", "train/0.bin"):
        client.put_object(Bucket=name, Key=key, Body=b"x")
    listed = []
    whole = clients.ask
    monkeypatch.setattr(
        clients, "ask", lambda ask, what, scheme, **how: listed.append(what) or whole(ask, what, scheme, **how)
    )
    manifest = cache.path(f"s3://{name}/train/set.jsonl", "dataset.train.uri")
    assert manifest.read_bytes() == b"x"
    cache.name(manifest.parent, ["a/0.bin", "a/3.bin", "gone/1.bin"])
    assert files_in(manifest.parent) == ["a/0.bin", "a/0.json", "a/3.bin", "set.jsonl"]
    with cache.opened(manifest.parent / "a/3.bin") as here:
        assert here.read_bytes() == b"\3" * 1000
    asked = {what.removeprefix(f"{name}/") for what in listed if what.startswith(name)}
    beside = {"train/set.json", "train/set.sigmf-meta"}
    assert asked == {"train/set.jsonl", *beside, "train/a", "train/gone", "train/a/3.bin"}
    cache.name(manifest, ["a/1.bin"])  # not a folder with a manifest
    cache.name(cache.folder, ["a/1.bin"])
    assert "a/1.bin" not in files_in(manifest.parent)


@pytest.mark.parametrize("path", ["nothing-here", "train/nothing"])
def test_nothing_there(bucket, cache, path):
    with pytest.raises(InputError, match=rf"input.uri: s3://{bucket[0]}/{path} does not exist, is empty"):
        cache.path(f"s3://{bucket[0]}/{path}", "input.uri")


def test_a_store_that_does_not_answer(bucket, cache, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with pytest.raises(StorageError, match="cannot be read now: EndpointConnectionError"):
        cache.path(f"s3://{bucket[0]}/train", "input.uri")


def test_no_credentials(bucket, cache, monkeypatch):
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InputError, match="may not be read .*put AWS_ACCESS_KEY_ID.*podTemplate.envFrom"):
        cache.path(f"s3://{bucket[0]}/train", "input.uri")


class OneObject:
    """A store with one object of one byte."""

    def __init__(self, name, error=None):
        self.name, self.error = name, error

    def find(self, rest, detail):
        return {f"{rest}/{self.name}": {"size": 1}}

    def get_file(self, _remote, local):
        if self.error:
            raise self.error
        Path(local).write_bytes(b"x")


@pytest.mark.parametrize("length", [240, 247, 255])
def test_names_as_long_as_a_name_may_be(cache, monkeypatch, length):
    monkeypatch.setattr(clients, "client", lambda *_: OneObject("n" * length))
    root = cache.path("s3://bucket/long", "x")
    cache.limit = 1
    with cache.opened(root / ("n" * length)) as here:
        assert here.read_bytes() == b"x"
    cache._make_room(root / "other", 1)
    assert files_in(root) == ["n" * length]
    assert (root / ("n" * length)).stat().st_size == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_volume_that_is_full_is_not_the_fault_of_the_store(cache, monkeypatch, number):
    monkeypatch.setattr(clients, "client", lambda *_: OneObject("a", OSError(number, os.strerror(number))))
    root = cache.path("s3://bucket/full", "x")
    with pytest.raises(
        DiskFullError, match="no space left on this machine .*lower TRAINER_CACHE_BYTES, .*TRAINER_CACHE "
    ):
        cache.opened(root / "a").__enter__()


def test_the_processes_of_a_pod_share_the_volume(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs.shutil, "disk_usage", lambda _path: SimpleNamespace(free=16000))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setenv(scratch.VOLUME, str(tmp_path))
    made = inputs._new_cache()
    assert made.limit == 1000
    made.close()


class SlowStore:
    """A store whose objects take ten seconds each; what is read is the first."""

    def __init__(self, began=None):
        self.began = began or threading.Event()

    def find(self, rest, detail):
        return {f"{rest}/{number}.bin": {"size": 1} for number in range(20)}

    def get_file(self, _remote, local):
        self.began.set()
        time.sleep(10)
        Path(local).write_bytes(b"x")


def end_while_fetching(folder):
    os.environ[scratch.VOLUME] = folder
    slow = SlowStore()
    clients.client = lambda _scheme, _connections: slow
    root = inputs.path("s3://bucket/slow", "x")
    inputs.fetch_ahead(sorted(root.iterdir()))
    slow.began.wait()
    Path(folder).with_name("leaves").write_text(str(time.monotonic()))
    inputs.leave(75)


def test_the_end_of_a_process_does_not_wait_for_open_requests(tmp_path):
    """A pod that has saved would be killed while it waits, and that counts as a failure."""
    assert in_child(end_while_fetching, str(tmp_path / "cache")) == 75
    assert time.monotonic() - float((tmp_path / "leaves").read_text()) < 5
    assert not list((tmp_path / "cache").iterdir())


def test_credentials_in_the_home_folder_are_not_the_jobs(bucket, cache, monkeypatch, tmp_path):
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match="may not be read .*put AWS_ACCESS_KEY_ID.*podTemplate.envFrom"):
        cache.path(f"s3://{bucket[0]}/train", "input.uri")


def test_no_role_of_the_machine_and_the_token_of_the_cluster():
    resolver = clients.client("s3", 8).session.get_component("credential_provider")
    assert {provider.METHOD for provider in resolver.providers} == clients.S3_PROVIDERS


def test_secrets_are_taken_out_of_messages(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    error = OSError(f"bad key {SECRET} at https://x.example/a/b?X-Amz-Signature=abc&y=1 again\nFor more, see ...")
    text = clients.without_secrets(error)
    assert text == "bad key $AWS_SECRET_ACCESS_KEY at https://x.example/a/b?... again"


def test_training_and_inference_from_s3(desk, s3, tmp_path):
    image_set(desk / "up/train")
    tone_set(desk / "up/iq", count=2)
    upload(s3_client(s3), "captures", desk / "up")
    environment = {**s3_environment(s3), "TRAINER_CACHE": str(tmp_path / "kept"), "TRAINER_CACHE_BYTES": "256Mi"}
    spec = training_spec(dataset__train__uri="s3://captures/train", training__epochs=1)
    ended = desk.pod("TrainingJob", spec, env=environment)
    assert ended.code == 0, ended.output
    weights = (desk / "models/out/best.safetensors").read_bytes()
    s3_client(s3).put_object(Bucket="captures", Key="weights/best.safetensors", Body=weights)
    spec = inference_spec(input__uri="s3://captures/train", model__weights="s3://captures/weights/best.safetensors")
    classified = desk.pod("InferenceJob", {**spec, "evaluation": {}}, env=environment)
    assert classified.code == 0, classified.output
    assert len((desk / "results/out/predictions-0.jsonl").read_text().splitlines()) == 24
    for output in (ended, classified):
        for secret in (KEY, SECRET):
            assert secret not in output.output + str(output.termination)
    for path in desk.root.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes()
    assert not list((tmp_path / "kept").iterdir())  # the cache is the process' own and goes with it


def test_recordings_and_their_label_files_from_s3(desk, s3):
    tone_set(desk / "up", count=2)
    upload(s3_client(s3), "recordings", desk / "up")
    dataset = {"train": {"uri": "s3://recordings"}, "imageSize": 64, "iq": IQ, "validation": {"fraction": 0.5}}
    spec = {**training_spec(training__epochs=1), "dataset": dataset, "resources": RESOURCES}
    ended = desk.pod("TrainingJob", spec, env=s3_environment(s3))
    assert ended.code == 0, ended.output
    spec = {**inference_spec(input__uri="s3://recordings"), "evaluation": {}}
    ended = desk.pod("InferenceJob", spec, env=s3_environment(s3))
    assert ended.code == 0, ended.output
    found = json.loads((desk / "results/out/evaluation.json").read_bytes())
    assert [row["snrDb"] for row in found["bySnr"]] == [-10, 10]


@pytest.fixture
def mirror(desk):
    image_set(desk / "up/train", count=4)
    (desk / "up/README.md").write_text("# captures")
    with hub_mirror({"datasets/acme/drones": desk / "up", "models/acme/net": desk / "models/out"}, token=TOKEN) as url:
        yield {"HF_ENDPOINT": url, "HF_TOKEN": TOKEN}


def test_training_and_inference_from_a_mirror_of_the_hub(desk, mirror):
    spec = training_spec(dataset__train__uri="hf://datasets/acme/drones/train", training__epochs=1)
    ended = desk.pod("TrainingJob", spec, env=mirror)
    assert ended.code == 0, ended.output
    spec = inference_spec(
        input__uri="hf://datasets/acme/drones", model__weights="hf://acme/net/best.safetensors", output__annotate="all"
    )
    classified = desk.pod("InferenceJob", spec, env=mirror)
    assert classified.code == 0, classified.output
    assert len((desk / "results/out/predictions-0.jsonl").read_text().splitlines()) == 12
    assert len(list((desk / "results/out/annotated").rglob("*.png.jpg"))) == 12
    assert TOKEN not in ended.output + classified.output


@pytest.mark.parametrize(
    ("uri", "token", "reason"),
    [
        ("hf://datasets/acme/drones/nothing", TOKEN, "does not exist, is empty"),
        ("hf://datasets/acme/unknown", TOKEN, "does not exist, is empty"),
        ("hf://datasets/acme/drones", "", r"may not be read .*put HF_TOKEN"),
    ],
)
def test_what_a_mirror_does_not_give(mirror, cache, monkeypatch, uri, token, reason):  # noqa: PLR0917
    monkeypatch.setenv("HF_ENDPOINT", mirror["HF_ENDPOINT"])
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=reason):
        cache.path(uri, "input.uri")


def test_a_job_may_set_the_cache_and_name_the_secret(desk):
    """The operator keeps some names of variables for itself: these are none of them."""
    template = {
        "env": [{"name": name, "value": "1Gi"} for name in (scratch.VOLUME, BYTES)],
        "envFrom": [{"secretRef": {"name": "s3-credentials"}}],
    }
    job = desk.job("TrainingJob", {**training_spec(dataset__train__uri="s3://captures/train"), "podTemplate": template})
    assert job.spec.pod_template.env[1].name == BYTES


def test_there_are_as_many_connections_as_readers(monkeypatch):
    """boto's ten would let the others wait."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = clients.client("s3", READERS)
    store.connect()
    assert store.s3.meta.config.max_pool_connections == READERS == 16


def hangs(file):
    """A reader that never returns, as on a network file system that went away; says when the process was to end."""
    pool = ThreadPoolExecutor(2, thread_name_prefix="reader")
    pool.submit(time.sleep, 60)
    pool.shutdown(wait=False, cancel_futures=True)
    file.write_text(str(time.time()))
    inputs.leave(75)


def test_a_reader_that_hangs_does_not_hold_the_exit(tmp_path):
    assert in_child(hangs, tmp_path / "leaving") == 75
    assert (
        time.time() - float((tmp_path / "leaving").read_text()) < 20
    )  # a second, on a machine with nothing else to do
