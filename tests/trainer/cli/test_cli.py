"""The command line as pods and people use it: exit codes, the termination message, logs, and a table of bad jobs."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trainer.trainer_kit import image_set, inference_spec, training_spec, until, weights_file

from rfuav_crds import contract
from rfuav_trainer import errors
from rfuav_trainer.process import termination

POD = {contract.ALLOW_CPU: ""}


def test_a_pod_that_trains(image_desk):
    ended = image_desk.pod("TrainingJob", training_spec(training__epochs=1), attempt=2)
    assert ended.code == 0
    assert ended.termination["reason"] == "Completed"
    assert ended.termination["exitCode"] == 0
    assert ended.termination["trainerStatus"]["progressPercentage"] == 100
    assert ended.termination["trainerStatus"]["rfuav"]["outputs"]["bestWeights"].endswith("best.safetensors")
    assert all({"time", "level", "event", "job", "attempt"} <= event.keys() for event in ended.events)
    assert [name for event in ended.events if (name := event["event"]) in ("training", "epoch")] == [
        "training",
        "epoch",
    ]


def test_weights_that_the_operator_resolved(desk):
    image_set(desk / "captures/test", count=1)
    (desk / "models/out").mkdir()
    weights_file(desk / "models/out/best.safetensors")
    spec = inference_spec(model={"fromTrainingJob": "drones", "weights": "pvc://models/out/best.safetensors"})
    assert desk.pod("InferenceJob", spec, shard=0, shards=1).code == 0
    assert (desk / "results/out/_SUCCESS").is_file()


def test_on_a_laptop(image_desk):
    path = image_desk.write_job("TrainingJob", training_spec(training__epochs=1))
    mounts = [f"--mount={claim}={folder}" for claim, folder in image_desk.mounts.items()]
    assert image_desk.run("train", "-f", str(path), *mounts).code == 0
    ended = image_desk.run("infer", "-f", str(path), *mounts)
    assert ended.code == 2
    assert "job is a TrainingJob: use rfuav-trainer train" in ended.output


def test_a_refused_output_ends_with_the_command_that_replaces_it(image_desk):
    mounts = [f"--mount={claim}={folder}" for claim, folder in image_desk.mounts.items()]
    path = image_desk.write_job("TrainingJob", training_spec(training__epochs=1))
    assert image_desk.run("train", "-f", str(path), *mounts).code == 0
    image_desk.write_job("TrainingJob", training_spec(training__epochs=1, training__seed=4))
    refused = image_desk.run("train", "-f", str(path), *mounts)
    assert (refused.code, refused.termination["reason"]) == (2, "OutputInUse")
    told, _, command = refused.termination["message"].partition(". To replace them: ")
    assert told.endswith("write output.overwrite: true to run it again, or another output.uri to keep those results")
    program, *arguments = shlex.split(command)
    assert program == "rfuav-trainer"
    assert image_desk.run(*arguments).code == 0


def test_sigterm_saves_and_exits_75_and_the_next_attempt_resumes(image_desk):
    spec = training_spec(training__epochs=200)
    process = image_desk.start("run", env=image_desk.environment("TrainingJob", spec))
    checkpoints = image_desk / "models/out/checkpoints/u1"
    end = time.monotonic() + 100
    while not list(checkpoints.glob("*.json")):
        assert time.monotonic() < end
        assert process.is_alive()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    ended = image_desk.end(process)
    assert ended.code == 75
    assert ended.termination["reason"] == "StoppedAfterCheckpoint"
    assert "checkpoint at epoch" in ended.termination["message"]
    assert ended.termination["trainerStatus"]["rfuav"]["checkpoint"]["epoch"] >= 1
    process = image_desk.start("run", env=image_desk.environment("TrainingJob", spec, attempt=2))
    while "resumed" not in (log := (image_desk / "log.txt").read_text()):
        assert time.monotonic() < end + 60
        assert process.is_alive(), log
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert image_desk.end(process).code == 75


def test_while_the_last_report_is_sent_the_termination_message_is_there_and_sigterm_ends_the_wait(pictures):
    spec = inference_spec(terminationGracePeriodSeconds=7)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/status"
        env = {**pictures.environment("InferenceJob", spec), contract.PROGRESS_URL: url}
        process = pictures.start("run", env=env)
        message = pictures / "termination.json"
        until(lambda: message.exists() and message.read_bytes())
        assert json.loads(message.read_bytes())["trainerStatus"]["rfuav"]["final"] is True
        assert process.is_alive()
        began = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        ended = pictures.end(process)
    assert (ended.code, ended.termination["reason"]) == (0, "Completed")
    assert time.monotonic() - began < 7


@pytest.mark.parametrize(
    ("spec", "seconds"), [('{"spec": {"terminationGracePeriodSeconds": 60}}', 60), ("{", 30), ("", 30)]
)
def test_the_grace_period_is_that_of_the_job(monkeypatch, spec, seconds):
    monkeypatch.setenv(contract.JOB, spec)
    assert termination.grace_seconds() == seconds


def test_sigterm_before_the_first_step(image_desk):
    from rfuav_trainer.process.stop import StopSignal
    from rfuav_trainer.reporting.progress import Progress
    from rfuav_trainer.training import train

    stop = StopSignal()
    stop.request()
    with pytest.raises(errors.StoppedError):
        train.run(image_desk.job("TrainingJob", training_spec()), Progress(None), stop)
    assert not (image_desk / "models/out").exists()


def _no_classes(desk):
    (desk / "captures/empty").mkdir()


def _read_only(desk):
    (desk / "models/out").write_text("a file is in the way")


def _two_classes(desk):
    image_set(desk / "captures/two", classes=("alpha", "delta"), count=2)


BAD = {
    "no accelerator": (training_spec(resources__gpus=1), None, 2, "NoAccelerator", "write gpus: 0 to use the CPU"),
    "unknown field": (training_spec(training__epoch=3), None, 2, "InvalidConfiguration", "did you mean epochs"),
    "wrong value": (training_spec(training__epochs=0), None, 2, "InvalidConfiguration", "training.epochs"),
    "output in the pod": (training_spec(output__uri="file:///out"), None, 2, "Unsupported", "lost with the pod: write pvc://"),
    "other number of classes": (training_spec(model__numClasses=5), None, 2, "ClassMismatch", "numClasses is 5, but .* has 3"),
    "size too small": (training_spec(dataset__imageSize=32), None, 2, "InvalidConfiguration", "imageSize 32 .* write 64"),
    "missing folder": (training_spec(dataset__train={"uri": "pvc://captures/nope"}), None, 3, "InputMissing", "nope is not a folder"),
    "missing claim": (training_spec(dataset__train={"uri": "pvc://gone/x"}), None, 3, "ClaimNotMounted", "claim 'gone' .* not mounted"),
    "no classes": (training_spec(dataset__train={"uri": "pvc://captures/empty"}), _no_classes, 3, "InputMissing", "0 class folders"),
    "other validation classes": (
        training_spec(dataset__validation={"uri": "pvc://captures/two"}), _two_classes, 2, "ClassMismatch",
        "missing beta, gamma, unknown delta",
    ),
    "no pretrained weights": (
        training_spec(model__weights="pretrained", weightsCache={"uri": "pvc://weights"}), None, 3, "InputMissing",
        "they are not downloaded, so put https",
    ),
    "no start weights": (training_spec(model__weights="pvc://models/x.safetensors"), None, 3, "InputMissing", "no weights file at"),
    "output is a file": (training_spec(), _read_only, 2, "OutputNotWritable", "cannot be written"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_jobs_end_with_their_code_and_say_what_to_do(image_desk, name):
    spec, prepare, code, reason, message = BAD[name]
    if prepare:
        prepare(image_desk)
    ended = image_desk.pod("TrainingJob", spec, env=POD)
    assert (ended.code, ended.termination["reason"], ended.termination["exitCode"]) == (code, reason, code)
    import re

    assert re.search(message, ended.termination["message"]), ended.termination["message"]
    assert "Traceback" not in ended.output


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({contract.JOB: ""}, "name a file with -f job.yaml"),
        ({contract.JOB: "{"}, "RFUAV_JOB must be a JSON object"),
        ({contract.JOB: "[]"}, "RFUAV_JOB must be a JSON object"),
        ({contract.JOB: '{"kind": "Pod", "name": "x", "uid": "y", "spec": {}}'}, "write TrainingJob or InferenceJob"),
    ],
)
def test_an_environment_that_is_no_job(desk, environment, message):
    ended = desk.run("run", env=environment)
    assert ended.code == 2
    assert message in ended.termination["message"]


def test_inference_without_gpus_is_allowed_where_the_tests_say_so(image_desk):
    spec = training_spec(resources__gpus=1, training__epochs=1)
    assert image_desk.pod("TrainingJob", spec, env={contract.ALLOW_CPU: "1"}).code == 0


class CudaOutOfMemory(RuntimeError):
    pass


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (errors.InvalidConfigurationError("x"), "InvalidConfiguration", 2),
        (errors.InputError("x", reason="LabelsMissing"), "LabelsMissing", 3),
        (errors.StoppedError("x"), "StoppedAfterCheckpoint", 75),
        (OSError(28, "No space left on device", "/out/x"), "DiskFull", 1),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "GPUOutOfMemory", 4),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "GPUOutOfMemory", 4),
        (MemoryError(), "OutOfHostMemory", 1),
        (PermissionError(13, "Permission denied", "/out"), "PermissionDenied", 3),
        (KeyError("x"), "Crashed", 1),
        (KeyboardInterrupt(), "Interrupted", 130),
    ],
)
def test_every_error_has_its_code(error, reason, code):
    found = errors.describe(error)
    assert (found.reason, found.exit_code) == (reason, code)
    assert found.message


def test_a_full_disk_is_found_behind_other_errors():
    try:
        try:
            raise OSError(28, "No space left on device", "/out/x")
        except OSError as error:
            raise RuntimeError("unexpected pos") from error
    except RuntimeError as error:
        assert errors.describe(error).reason == "DiskFull"


def test_help_does_not_import_torch():
    code = (
        "import sys; sys.argv = ['rfuav-trainer', '--help']\n"
        "from rfuav_trainer.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for command in ("train", "infer", "evaluate", "synthesize", "run"):
        assert command in ended.stdout


def test_the_installed_command(tmp_path):
    command = Path(sys.executable).with_name("rfuav-trainer")
    ended = subprocess.run(
        [command, "train", "-f", tmp_path / "none.yaml"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "name a YAML file with a job" in ended.stdout


def test_describe(desk):
    weights_file(desk / "models/w.safetensors")
    lines = desk.run("describe", str(desk / "models/w.safetensors")).output.splitlines()
    assert "architecture: mobilenet_v3_small" in lines
    assert "classes: alpha, beta, gamma" in lines
    ended = desk.run("describe", "--json", str(desk / "models/w.safetensors"))
    assert json.loads(ended.output)["classes"] == ["alpha", "beta", "gamma"]
    missing = desk.run("describe", str(desk / "models/none.safetensors"))
    assert (missing.code, missing.termination["reason"]) == (3, "InputMissing")


def test_a_crash_is_named_by_the_first_line_that_says_something():
    assert errors.describe(RuntimeError("\n  \nshared memory\nmore")).message == "RuntimeError: shared memory"
