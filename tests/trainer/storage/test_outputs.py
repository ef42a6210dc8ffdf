"""Outputs on s3://: whole or not there, in order, over kills, torn objects and a store that does not answer; the jobs on them."""

import json
import os
import signal
import threading
from concurrent.futures import wait
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load
from trainer.stores import KEY, SECRET, s3_client, s3_environment, s3_server
from trainer.trainer_kit import image_set, in_child, inference_spec, training_spec, until
from trainer.training.test_train import Watcher

from rfuav_trainer.errors import InputError, InvalidConfigurationError, StoppedError, StorageError
from rfuav_trainer.inference import infer, results
from rfuav_trainer.job import from_environment
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.storage import clients, outputs, scratch, uploads
from rfuav_trainer.storage.files import atomic_writer, write_json
from rfuav_trainer.training import train
from rfuav_trainer.training.checkpoint import CheckpointStore


@pytest.fixture(scope="module")
def s3():
    with s3_server() as endpoint:
        yield endpoint


class Bucket:
    """A bucket of the test's own."""

    def __init__(self, client, name):
        self.client, self.name = client, name
        client.create_bucket(Bucket=name)

    def names(self, prefix=""):
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix).get("Contents", [])
        return sorted(entry["Key"] for entry in found)

    def get(self, key):
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put(self, key, content):
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def lines(self, key):
        return [json.loads(line) for line in self.get(key).decode().splitlines()]


@pytest.fixture
def bucket(s3, tmp_path, monkeypatch, request):
    for name, value in s3_environment(s3).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(scratch.VOLUME, str(tmp_path / "scratch"))
    return Bucket(s3_client(s3), f"bucket-{abs(hash(request.node.nodeid)) % 10**9}")


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
        monkeypatch.setattr(clients, "client", lambda _scheme: self)

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
        train.run(desk.job("TrainingJob", spec), Watcher(), StopSignal())


# --- trainings


def trained(bucket, desk, *, watcher=None, stop=None, **changes):
    spec = training_spec(output__uri=f"s3://{bucket.name}/out", **changes)
    return train.run(desk.job("TrainingJob", spec), watcher or Watcher(), stop or StopSignal())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The output of a training on a disk that nothing interrupts."""
    from trainer.trainer_kit import Desk

    torch.set_num_threads(1)
    desk = Desk(tmp_path_factory.mktemp("undisturbed"))
    image_set(desk / "captures/train")
    train.run(desk.job("TrainingJob", training_spec()), Watcher(), StopSignal())
    return desk / "models/out"


def same_as(undisturbed, bucket, *, damaged=()):
    """Whether the output in the bucket is, bit for bit, that of the undisturbed training, and nothing else is there.

    A damaged checkpoint still counts as one of `checkpoint.keep`.
    """
    for name in ("best.safetensors", "last.safetensors"):
        ours, theirs = load(bucket.get(f"out/{name}")), load((undisturbed / name).read_bytes())
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert bucket.get("out/history.jsonl") == (undisturbed / "history.jsonl").read_bytes()
    names = {path.relative_to(undisturbed).as_posix() for path in undisturbed.rglob("*") if path.is_file()}
    board = next(name for name in names if name.startswith("tensorboard"))
    ours = {name.removeprefix("out/") for name in bucket.names() if "tensorboard" not in name}
    names = {name for name in names if "epoch-00002" not in name} if damaged else names
    assert ours - {*damaged} == names - {board}
    assert len(bucket.names("out/tensorboard/")) == 1


def test_a_training_leaves_in_the_store_what_it_leaves_on_a_disk(bucket, image_desk, undisturbed, tmp_path):
    watcher = Watcher()
    mark = trained(bucket, image_desk, watcher=watcher)
    same_as(undisturbed, bucket)
    assert mark["outputs"]["bestWeights"] == f"s3://{bucket.name}/out/best.safetensors"
    uri = watcher.last["rfuav"]["checkpoint"]["uri"]
    assert uri.removeprefix(f"s3://{bucket.name}/") in bucket.names()
    again = Watcher()
    before = bucket.names()
    assert trained(bucket, image_desk, watcher=again) == mark
    assert (bucket.names(), again.last["progressPercentage"]) == (before, 100)
    assert not [*(tmp_path / "scratch").iterdir()]


def test_stopped_by_sigterm_the_checkpoint_is_up_before_the_end(bucket, image_desk, undisturbed):
    stop = StopSignal()
    with pytest.raises(StoppedError):
        trained(bucket, image_desk, watcher=Watcher(7, stop.request), stop=stop)
    assert "out/checkpoints/u1/step-000000007-epoch-00001.json" in bucket.names()
    trained(bucket, image_desk)
    same_as(undisturbed, bucket)


def _die(environment, at, after):
    """Work, and die of SIGKILL before or after the `at`-th thing that the store is asked to change."""
    torch.set_num_threads(1)
    results.COMMIT_SECONDS = results.REMOTE_COMMIT_SECONDS = 0.0
    whole, asked, lock = uploads.Remote._ask, [0], threading.Lock()

    def deadly(self, question, path, *, to="written"):
        with lock:
            asked[0] += to == "written"
            now = to == "written" and asked[0] == at
        if now and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = whole(self, question, path, to=to)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    uploads.Remote._ask = deadly
    job = from_environment(environment)
    {"TrainingJob": train, "InferenceJob": infer}[job.kind].run(job, Watcher(), StopSignal())


@pytest.mark.parametrize(
    ("at", "after"),
    [(4, False), (7, False), (7, True), (8, True), (13, False), (16, True), (19, False), (23, True)],
)
def test_a_training_killed_at_any_moment_resumes_with_the_same_bits(bucket, image_desk, undisturbed, at, after):
    spec = training_spec(output__uri=f"s3://{bucket.name}/out")
    environment = image_desk.environment("TrainingJob", spec)
    assert in_child(_die, environment, at, after) == -signal.SIGKILL
    trained(bucket, image_desk)
    same_as(undisturbed, bucket)


@pytest.mark.parametrize("kind", ["pt", "json"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(bucket, image_desk, undisturbed, capsys, kind):
    stop = StopSignal()
    with pytest.raises(StoppedError):
        trained(bucket, image_desk, watcher=Watcher(12, stop.request), stop=stop)
    newest = f"out/checkpoints/u1/step-000000012-epoch-00002.{kind}"
    bucket.put(newest, bucket.get(newest)[:-100])
    watcher = Watcher()
    trained(bucket, image_desk, watcher=watcher)
    assert "skipping damaged checkpoint" in capsys.readouterr().out
    first = watcher.reports[0]["rfuav"]
    assert (first["epoch"], first["step"]) == (2, 1)  # after that of the second epoch's end
    files = [f"checkpoints/u1/step-000000012-epoch-00002.{kind}" for kind in ("pt", "json")]
    same_as(undisturbed, bucket, damaged=files)


# --- inferences


@pytest.fixture
def recordings(recordings):
    (recordings / "captures/test/beta/001.iq").write_bytes(b"torn")
    return recordings


def classified(bucket, desk, **changes):
    fields = {key: changes.pop(key) for key in ("uid", "shard") if key in changes}
    stop, watcher = changes.pop("stop", None), changes.pop("watcher", None)
    spec = inference_spec(output__uri=f"s3://{bucket.name}/out", **changes)
    return infer.run(desk.job("InferenceJob", spec, **fields), watcher or Watcher(), stop or StopSignal())


def names_on_disk(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_an_inference_leaves_in_the_store_what_it_leaves_on_a_disk(bucket, pictures):
    changes = {"evaluation": {}, "output__annotate": True, "shards": 2}
    for shard in (1, 0, 0):
        classified(bucket, pictures, shard=shard, **changes)
        infer.run(
            pictures.job("InferenceJob", inference_spec(**changes), shard=shard, uid="u2"), Watcher(), StopSignal()
        )
    disk = pictures / "results/out"
    assert [name.removeprefix("out/") for name in bucket.names()] == names_on_disk(disk)
    for name in ("predictions-0.jsonl", "predictions-1.jsonl", "evaluation.json"):
        assert bucket.get(f"out/{name}") == (disk / name).read_bytes()
    job = pictures.job("InferenceJob", inference_spec(output__uri=f"s3://{bucket.name}/out", **changes))
    assert infer.evaluate(job, Watcher(), StopSignal()) == (disk / "evaluation.txt").read_text()
    with pytest.raises(
        InvalidConfigurationError, match=rf"s3://{bucket.name}/out contains results of job: write another"
    ):
        classified(bucket, pictures, uid="u3", **changes)
    classified(bucket, pictures, uid="u3", output__overwrite=True, input__pattern="beta/*")
    assert len(bucket.lines("out/predictions-0.jsonl")) == 5
    assert "out/predictions-1.jsonl" not in bucket.names()


def test_a_restarted_inference_continues_where_it_was(bucket, pictures):
    stop = StopSignal()

    class Stopper(Watcher):
        def update(self, status):
            super().update(status)
            if status["rfuav"]["processed"] >= 8:
                stop.request()

    with pytest.raises(StoppedError, match="after 8 of 15 inputs"):
        classified(bucket, pictures, batchSize=4, watcher=Stopper(), stop=stop)
    watcher = Watcher()
    classified(bucket, pictures, batchSize=4, watcher=watcher)
    assert watcher.reports[0]["rfuav"]["processed"] == 12
    assert len({line["path"] for line in bucket.lines("out/predictions-0.jsonl")}) == 15
    assert not [name for name in bucket.names() if "/." in name]


@pytest.mark.parametrize(
    ("at", "after"), [(5, False), (8, True), (11, False), (14, False), (17, True), (23, False), (30, True)]
)
def test_a_shard_killed_at_any_moment_loses_and_doubles_nothing(bucket, recordings, at, after):
    changes = {"batchSize": 2, "errorThreshold": 0.5, "output__annotate": True}
    infer.run(recordings.job("InferenceJob", inference_spec(**changes), uid="u2"), Watcher(), StopSignal())
    spec = inference_spec(output__uri=f"s3://{bucket.name}/out", **changes)
    environment = recordings.environment("InferenceJob", spec)
    assert in_child(_die, environment, at, after) == -signal.SIGKILL
    assert in_child(_die, environment, 12, after) in (-signal.SIGKILL, 0)
    classified(bucket, recordings, **changes)
    disk = recordings / "results/out"
    assert [name.removeprefix("out/") for name in bucket.names()] == names_on_disk(disk)
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
    assert len(bucket.lines("results/predictions-0.jsonl")) == 24
    for text in (ended.output, classified.output, str(ended.termination), *map(str, map(bucket.get, bucket.names()))):
        assert KEY not in text
        assert SECRET not in text
