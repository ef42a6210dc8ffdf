"""Outputs on s3://: whole or not there, in order, over kills, torn objects and a store that does not answer; the jobs on them."""

import signal
import threading
from concurrent.futures import wait
from types import SimpleNamespace

import pytest
from trainer.runs import die_in, run
from trainer.stores import KEY, SECRET, files_in, s3_environment
from trainer.trainer_kit import image_set, in_child, inference_spec, training_spec, until

from rfuav_trainer.errors import InputError, InvalidConfigurationError, StoppedError, StorageError
from rfuav_trainer.storage import clients, outputs, uploads
from rfuav_trainer.storage.files import atomic_writer, write_json
from rfuav_trainer.training.checkpoint import CheckpointStore

ASK = "storage.uploads:Remote._ask"
"""What the store is asked, one call each."""


def a_job(uri):
    return SimpleNamespace(spec=SimpleNamespace(output=SimpleNamespace(uri=uri)))


def put(path, content=b"x", **how):
    with atomic_writer(path, **how) as stream:
        stream.write(content)


# --- the folder


def test_what_is_written_goes_up_and_is_read_back(bucket, tmp_path):
    with outputs.opened(a_job(f"s3://{bucket.name}/out/")) as folder:
        put(folder / "a/deep.txt", b"deep")
        write_json(folder / "state.json", {"n": 1})
        with outputs.reading(folder / "a/deep.txt") as here:
            assert here.read_bytes() == b"deep"
        assert not (folder / "a/deep.txt").exists()  # nothing piles up on this machine
        assert outputs.found(folder, "*.json") == [folder / "state.json"]
        assert outputs.found(folder, "*") == [folder / "a", folder / "state.json"]
        outputs.remove(folder / "state.json")
        outputs.remove(folder / "never")
        assert outputs.found(folder / "nothing", "*") == []
        assert outputs.shown(folder / "a") == f"s3://{bucket.name}/out/a"
        with pytest.raises(FileNotFoundError):
            outputs.reading(folder / "state.json").__enter__()
    assert bucket.names() == ["out/a/deep.txt"]
    assert not [*(tmp_path / "scratch").iterdir()]


def test_a_file_that_is_written_on_goes_up_as_it_was(bucket):
    with outputs.opened(a_job(f"s3://{bucket.name}")) as folder:
        for content in (b"one", b"one two"):
            (folder / "log").write_bytes(content)
            outputs.written(folder / "log", keep=True)
            assert (folder / "log").exists()
        put(folder / "b", bytes(40_000_000))  # in pieces
    assert bucket.get("log") == b"one two"
    assert bucket.get("b") == bytes(40_000_000)


def test_one_alone_creates_a_file(bucket, monkeypatch):
    with outputs.opened(a_job(f"s3://{bucket.name}")) as folder:
        outputs.create(folder / "owner", b"first")
        with pytest.raises(FileExistsError):
            outputs.create(folder / "owner", b"second")
        monkeypatch.setattr("s3fs.S3FileSystem.exists", lambda *_: False)  # as if both had looked at the same moment
        with pytest.raises(FileExistsError):
            outputs.create(folder / "owner", b"second")
    assert bucket.get("owner") == b"first"


def test_any_other_folder_is_left_as_it_is(tmp_path):
    put(tmp_path / "a")
    outputs.create(tmp_path / "b", b"y")
    assert outputs.found(tmp_path, "*") == [tmp_path / "a", tmp_path / "b"]
    with outputs.reading(tmp_path / "a") as here:
        assert here == tmp_path / "a"
    outputs.remove(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert outputs.settled()


class Stub:
    """A store that keeps the order of what it is asked for; `act` is called first, with the name."""

    def __init__(self, monkeypatch, act=lambda _name: None):
        self.done, self.act = [], act
        monkeypatch.setattr(clients, "client", lambda *_: self)

    def put_file(self, _local, key, **_how):
        self.act(key)
        self.done.append(key)

    def rm_file(self, key):
        self.done.append(f"no {key}")


def test_what_speaks_for_others_goes_after_them_and_before_what_follows(monkeypatch):
    stub = Stub(monkeypatch, lambda name: until(lambda: "b/2" in stub.done) if "slow" in name else None)
    with outputs.opened(a_job("s3://b")) as folder:
        put(folder / "slow-1")
        put(folder / "2")
        put(folder / "slow-1")  # anew, and quicker
        write_json(folder / "slow-manifest", {})
        put(folder / "3")
        outputs.remove(folder / "old")
        put(folder / "4")
    assert stub.done == ["b/2", "b/slow-1", "b/slow-1", "b/slow-manifest", "b/3", "no b/old", "b/4"]


def test_after_one_that_did_not_go_up_nothing_follows(monkeypatch):
    def fail(name):
        if "bad" in name:
            raise PermissionError("Access Denied")

    stub = Stub(monkeypatch, fail)
    words = r"s3://b/bad may not be written .*podTemplate.envFrom"
    with pytest.raises(InputError, match=words) as caught, outputs.opened(a_job("s3://b")) as folder:
        put(folder / "good")
        put(folder / "bad")
        with pytest.raises(InputError):
            write_json(folder / "manifest", {})
            outputs.settle()
        raise StoppedError("as if SIGTERM had come")
    assert caught.value.reason == "AccessDenied"
    assert stub.done == ["b/good"]


def test_a_store_that_does_not_answer_is_retried_while_the_work_continues(monkeypatch):
    tries, went_on = [], threading.Event()

    def fail(name):
        assert went_on.wait(60)
        tries.append(name)
        if len(tries) < 3:
            raise ConnectionError("refused")

    stub = Stub(monkeypatch, fail)
    monkeypatch.setattr(uploads, "PATIENCE_SECONDS", 30)
    with outputs.opened(a_job("s3://b")) as folder:
        put(folder / "a")
        assert not outputs.settled()
        went_on.set()
    assert stub.done == ["b/a"]

    monkeypatch.setattr(uploads, "PATIENCE_SECONDS", 0)
    tries.clear()
    refused = pytest.raises(StorageError, match="s3://b/a cannot be written now: ConnectionError")
    with refused, outputs.opened(a_job("s3://b")) as folder:
        put(folder / "a")
        wait(outputs._remotes[0]._under_way)
        assert not outputs.settled()  # what is not there is no checkpoint


def test_a_checkpoint_is_uploaded_during_training_and_the_next_one_waits_for_it(monkeypatch):
    go_on = threading.Event()
    stub = Stub(monkeypatch, lambda name: go_on.wait(60) if name.endswith("1-epoch-00000.pt") else None)
    stub.ls = lambda _prefix, detail: []
    with outputs.opened(a_job("s3://b")) as folder:
        store = CheckpointStore(folder, keep=1, signature={})
        store.save({}, epoch=0, step=1)
        assert not outputs.settled()
        threading.Timer(0.5, go_on.set).start()
        store.save({}, epoch=0, step=2)
        assert go_on.is_set()
    names = ["step-000000001-epoch-00000", "step-000000002-epoch-00000"]
    put_all = [f"b/{name}.{kind}" for name in names for kind in ("pt", "json")]
    assert stub.done == [*put_all, f"no b/{names[0]}.json", f"no b/{names[0]}.pt"]


def test_a_bucket_that_is_not_there(bucket, desk):
    spec = training_spec(output__uri="s3://no-such-bucket-here/out")
    image_set(desk / "captures/train")
    with pytest.raises(InvalidConfigurationError, match="bucket no-such-bucket-here does not exist: create it"):
        run(desk, spec)


# --- jobs


def test_a_job_leaves_in_the_store_what_it_leaves_on_a_disk(bucket, pictures, tmp_path):
    changes = {"evaluation": {}, "output__annotate": "all", "shards": 2}
    for shard in (1, 0, 0):
        for uri, uid in ((bucket.uri("out"), "u1"), ("pvc://results/out", "u2")):
            run(pictures, inference_spec(output__uri=uri, **changes), shard=shard, uid=uid)
    disk = pictures / "results/out"
    assert bucket.names("out") == files_in(disk)
    for name in ("predictions-0.jsonl", "predictions-1.jsonl", "evaluation.json"):
        assert bucket.get(f"out/{name}") == (disk / name).read_bytes()
    assert not [*(tmp_path / "scratch").iterdir()]


@pytest.mark.parametrize(
    ("at", "after"), [(5, False), (8, True), (11, False), (14, False), (17, True), (23, False), (30, True)]
)
def test_a_shard_killed_at_any_moment_loses_and_doubles_nothing(bucket, recordings, at, after):
    (recordings / "captures/test/beta/001.iq").write_bytes(b"torn")
    changes = {"batchSize": 2, "errorThreshold": 0.5, "output__annotate": "all"}
    run(recordings, inference_spec(**changes), uid="u2")
    spec = inference_spec(output__uri=bucket.uri("out"), **changes)
    environment = recordings.environment("InferenceJob", spec)
    assert in_child(die_in, environment, ASK, at, after) == -signal.SIGKILL
    assert in_child(die_in, environment, ASK, 12, after) in (-signal.SIGKILL, 0)
    run(recordings, spec)
    disk = recordings / "results/out"
    assert bucket.names("out") == files_in(disk)
    for name in ("predictions-0.jsonl", "errors-0.jsonl"):
        assert bucket.get(f"out/{name}") == (disk / name).read_bytes()


def test_a_training_and_an_inference_as_pods_alone_with_the_store(bucket, s3, image_desk):
    """Weights, input and output on s3://, as an InferenceJob with fromTrainingJob gets them; no secret is in any output."""
    environment = s3_environment(s3)
    out = f"s3://{bucket.name}/models"
    ended = image_desk.pod("TrainingJob", training_spec(training__epochs=1, output__uri=out), env=environment)
    assert ended.code == 0, ended.output
    weights = ended.termination["trainerStatus"]["rfuav"]["outputs"]["bestWeights"]
    spec = inference_spec(
        model={"weights": weights, "fromTrainingJob": "drones"},
        input__uri="pvc://captures/train",
        output__uri=f"s3://{bucket.name}/results",
    )
    classified = image_desk.pod("InferenceJob", spec, env=environment)
    assert classified.code == 0, classified.output
    assert len(bucket.get("results/predictions-0.jsonl").splitlines()) == 24
    for text in (ended.output, classified.output, str(ended.termination), *map(str, map(bucket.get, bucket.names()))):
        assert KEY not in text
        assert SECRET not in text
