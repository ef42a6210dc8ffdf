"""Several processes train as one: the same weights as one process with the whole batch, and all stop and go on together."""

import json
import os
import shutil
import signal
import socket
import time

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, nn
from trainer.trainer_kit import Desk, image_set, training_spec, until

from rfuav_crds import contract
from rfuav_trainer import errors
from rfuav_trainer.distributed.process_group import World
from rfuav_trainer.errors import JobError

SPEC = training_spec(training__epochs=40, training__batchSize=5)
# Adam would make steps of full length of gradients that are nothing but rounding.
SAME = training_spec(
    model={"architecture": "custom", "custom": f"{__name__}:convolutions"},
    training__epochs=2,
    training__batchSize=5,
    training__precision="fp32",
    training__optimizer={"name": "sgd", "learningRate": 0.05},
)


def convolutions(classes, _size):
    """A network of convolutions with several channels, whose place in memory matters.

    Its first weights are not the same everywhere: a user's own network may draw from what no seed decides.
    """
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(256, classes),
    )
    if os.environ.get(contract.NODE_RANK) == "1":
        with torch.no_grad():
            network[-1].bias += 1.0
    return network


def normalised(classes, size):
    """The same with batch norms, whose moments are those of the whole batch."""
    network = convolutions(classes, size)
    network.insert(1, nn.BatchNorm2d(8))
    network.insert(4, nn.BatchNorm2d(16, momentum=None))
    return network


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(desk: Desk, spec, port, *, size=2, uid="u1", only=(0, 1)):
    """Start a process for each of these ranks, with the environment that the operator gives its pod."""
    processes = []
    for rank in only:
        env = {
            **desk.environment("TrainingJob", spec, uid=uid, rank=rank, nodes=size),
            contract.NODES: str(size),
            contract.NODE_RANK: str(rank),
            contract.MASTER_ADDRESS: "127.0.0.1",
            contract.MASTER_PORT: str(port),
            contract.TERMINATION_LOG_FILE: str(desk.root / f"termination-{rank}.json"),
        }
        processes.append(desk.start("run", env=env, log=f"log-{rank}.txt"))
    return processes


def codes(processes, timeout=120):
    for process in processes:
        process.join(timeout)
    return [process.exitcode for process in processes]


def history(desk: Desk, folder="models/out"):
    return [json.loads(line) for line in (desk / folder / "history.jsonl").read_text().splitlines()]


def waits(desk: Desk, rank):
    log = desk / f"log-{rank}.txt"
    return log.exists() and "waiting for the other processes" in log.read_text()


@pytest.mark.parametrize("build", [convolutions, normalised])
def test_two_processes_end_with_the_weights_of_one(tmp_path, port, build):
    same = {**SAME, "model": {**SAME["model"], "custom": f"{__name__}:{build.__name__}"}}
    one, two = Desk(tmp_path / "one"), Desk(tmp_path / "two")
    for desk in (one, two):
        image_set(
            desk / "captures/train", count=7
        )  # 16 to train on: batches of 5 that do not divide by 2, and one of 1
    assert one.pod("TrainingJob", same).code == 0
    assert codes(together(two, same, port)) == [0, 0], (two / "log-0.txt").read_text() + (two / "log-1.txt").read_text()
    alone, shared = load_file(one / "models/out/last.safetensors"), load_file(two / "models/out/last.safetensors")
    torch.manual_seed(SAME["training"]["seed"])
    start = build(3, 64).state_dict()
    for name, value in alone.items():
        # The deviation of a batch of 5, by which is divided, multiplies what was rounded.
        torch.testing.assert_close(shared[name], value, rtol=1e-3, atol=1e-5 if build is convolutions else 1e-4)
        if build is normalised and name in ("0.bias", "3.bias"):
            continue  # the batch norm removes it: its gradient is nothing but rounding
        assert (value - start[name]).abs().max() > 1e-3  # learned far more than is let pass
    for row, other in zip(history(one), history(two), strict=True):
        assert other["trainLoss"] == pytest.approx(row["trainLoss"], rel=1e-3)
        assert other["valLoss"] == pytest.approx(row["valLoss"], rel=1e-3)
    assert (two / "models/out/_SUCCESS").exists()
    assert "few pictures for each process" in (two / "log-0.txt").read_text()


def test_after_a_stop_two_processes_end_with_the_same_bits(tmp_path, port):
    """Also of a network that draws: MobileNet has dropout."""
    spec = training_spec(training__epochs=4, training__batchSize=5)
    ends = []
    for name in ("undisturbed", "stopped"):
        desk = Desk(tmp_path / name)
        image_set(desk / "captures/train", count=7)
        processes = together(desk, spec, port)
        if name == "stopped":
            until(lambda desk=desk: (desk / "models/out/history.jsonl").exists())
            os.kill(processes[1].pid, signal.SIGTERM)
            assert codes(processes) == [75, 75]
            processes = together(desk, spec, port)
        assert codes(processes) == [0, 0]
        ends.append(load_file(desk / "models/out/last.safetensors"))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_processes_that_see_different_checkpoints_do_not_go_on(tmp_path, port):
    """As with a volume that nodes do not see alike."""
    desk, other = Desk(tmp_path / "first"), Desk(tmp_path / "second")
    image_set(desk / "captures/train", count=7)
    shutil.copytree(desk / "captures", other / "captures", dirs_exist_ok=True)
    first = together(desk, SPEC, port, only=[0])
    assert codes([*first, *together(other, SPEC, port, only=[1])], 1) == [None, None]
    until((desk / "models/out/history.jsonl").exists)
    os.kill(first[0].pid, signal.SIGTERM)
    assert codes(first) == [75]
    ended = [*together(desk, SPEC, port, only=[0]), *together(other, SPEC, port, only=[1])]
    assert codes(ended) == [1, 1]
    assert told(desk, 0)["reason"] == "CheckpointDiffers"
    assert "see different checkpoints (step-" in told(desk, 0)["message"]
    assert "None)" in told(desk, 0)["message"]


def test_stopping_one_pod_stops_all_and_they_resume_together(tmp_path, port):
    desk = Desk(tmp_path)
    image_set(desk / "captures/train", count=7)
    processes = together(desk, SPEC, port)
    until(lambda: (desk / "models/out/history.jsonl").exists() and len(history(desk)) >= 2)
    os.kill(processes[1].pid, signal.SIGTERM)
    assert codes(processes) == [75, 75]
    done = len(history(desk))
    short = together(desk, SPEC, port)
    until(lambda: len(history(desk)) > done)
    os.kill(short[0].pid, signal.SIGTERM)
    assert codes(short) == [75, 75]
    assert '"event": "resumed"' in (desk / "log-0.txt").read_text()
    assert '"event": "resumed"' in (desk / "log-1.txt").read_text()


def test_one_that_dies_ends_the_others_soon(tmp_path, port):
    desk = Desk(tmp_path)
    image_set(desk / "captures/train", count=7)
    processes = together(desk, SPEC, port)
    until((desk / "models/out/history.jsonl").exists)
    os.kill(processes[1].pid, signal.SIGKILL)
    began = time.monotonic()
    assert codes(processes) == [75, -signal.SIGKILL]
    ended = json.loads((desk / "termination-0.json").read_text())
    assert (ended["reason"], ended["exitCode"]) == ("PeerLost", 75)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_waits_for_the_others_hears_that_it_shall_stop(tmp_path, port, rank):
    """The image of another may still be pulled for minutes when the job is suspended."""
    desk = Desk(tmp_path)
    image_set(desk / "captures/train", count=3)
    waiting = together(desk, SPEC, port, only=[rank])
    until(lambda: waits(desk, rank))
    os.kill(waiting[0].pid, signal.SIGTERM)
    assert codes(waiting, timeout=10) == [75]


def test_the_others_come_when_they_can(tmp_path, port):
    desk = Desk(tmp_path)
    image_set(desk / "captures/train", count=3)
    spec = training_spec(training__epochs=1)
    late = together(desk, spec, port, only=[1])
    until(lambda: waits(desk, 1))
    assert codes([*together(desk, spec, port, only=[0]), *late]) == [0, 0]


def told(desk, rank):
    return json.loads((desk / f"termination-{rank}.json").read_text())


def test_a_port_that_is_taken_counts_as_a_failure(tmp_path, port):
    """Another try would find it taken again: what is not counted would go on for ever."""
    desk = Desk(tmp_path)
    image_set(desk / "captures/train", count=3)
    with socket.create_server(("", port)):
        assert codes(together(desk, SPEC, port, only=[0])) == [1]
    assert told(desk, 0)["reason"] == "NoMeeting"
    assert f"cannot listen on port {port}: stop the process that uses it" in told(desk, 0)["message"]


def test_processes_that_cannot_connect_count_as_failures(tmp_path, port, monkeypatch):
    desk = Desk(tmp_path)
    image_set(desk / "captures/train", count=3)
    environment = desk.environment
    monkeypatch.setattr(desk, "environment", lambda *a, **k: {**environment(*a, **k), "GLOO_SOCKET_IFNAME": "none0"})
    assert codes(together(desk, SPEC, port)) == [1, 1]
    assert {told(desk, rank)["reason"] for rank in (0, 1)} == {"NoMeeting"}


NCCL = (
    "NCCL error in: NCCLUtils.cpp:94, unhandled system error, NCCL version 2.27.5\nncclSystemError: System call failed."
)
TRACE = "\nException raised from wait at Store.hpp:1 (most recent call first):\nframe #0: timeout, connection reset"


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (RuntimeError("[pair.cc:538] Connection closed by peer [10.0.0.2]:4711"), "PeerLost", 75),
        (RuntimeError("[pair.cc:525] Read error [10.0.0.2]:4711: Connection reset by peer"), "PeerLost", 75),
        (RuntimeError("[unbound_buffer.cc:81] Timed out waiting 300000ms for recv operation"), "PeerLost", 75),
        (distributed.DistNetworkError("Failed to recv, got 0 bytes"), "PeerLost", 75),
        (distributed.DistBackendError("NCCL error\nncclRemoteError: A call failed, a remote process"), "PeerLost", 75),
        (
            distributed.DistBackendError(f"{NCCL}\nLast error:\nError while creating shared memory segment /dev/shm/n"),
            "SharedMemoryTooSmall",
            1,
        ),
        (distributed.DistBackendError(f"{NCCL}\nLast error:\nConnect to 10.0.0.2 failed: timed out"), "NoMeeting", 1),
        (distributed.DistBackendError("NCCL error\nncclUnhandledCudaError: Call to CUDA failed"), "NoMeeting", 1),
        (RuntimeError("tensors must be contiguous" + TRACE), "Crashed", 1),
        (torch.OutOfMemoryError("CUDA out of memory, connection closed"), "GPUOutOfMemory", 4),
    ],
)
def test_what_counts_as_the_loss_of_another(monkeypatch, error, reason, code):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(distributed, "all_reduce", fail)
    with pytest.raises((JobError, RuntimeError)) as caught:
        World(0, 2).sum(torch.ones(1))
    failure = errors.describe(caught.value)
    assert (failure.reason, failure.exit_code) == (reason, code)
    if reason == "SharedMemoryTooSmall":
        assert "raise resources.sharedMemory" in failure.message


def test_alone_nothing_is_done():
    world = World()
    values = torch.ones(3)
    assert world.part([1, 2, 3]) == [1, 2, 3]
    assert world.sum(values) is values
    assert world.gather("x") == ["x"]
    assert world.first


def test_the_parts_of_a_batch_make_it_whole():
    batch = list(range(7))
    assert sorted(x for rank in range(3) for x in World(rank, 3).part(batch)) == batch


def test_processes_that_find_different_data_do_not_train(tmp_path, port):
    one, two = Desk(tmp_path / "one"), Desk(tmp_path / "two")
    for desk, count in ((one, 4), (two, 5)):
        image_set(desk / "captures/train", count=count)
    processes = [together(desk, SAME, port, only=[rank])[0] for rank, desk in enumerate((one, two))]
    assert codes(processes) == [3, 3]
    told = json.loads((one / "termination-0.json").read_text())
    assert told["reason"] == "DataDiffers"
    assert "found different files: do not change them while a job starts" in told["message"]
