"""A decoder that crashes the process leaves the name of the file that it was reading."""

import os
import signal
import threading

import pytest
from trainer.runs import WORK, Watcher
from trainer.trainer_kit import in_child, inference_spec, training_spec

from rfuav_trainer.data import samples
from rfuav_trainer.errors import naming
from rfuav_trainer.job import from_environment
from rfuav_trainer.process import logs
from rfuav_trainer.process.stop import StopSignal


def crash_at(environment, name, number, output):
    """For a child: run the job of the environment; the decoder dies of a signal in the middle of a file."""
    handle = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 2)
    logs.configure(human=False)
    whole = samples.read_picture

    def read(path, *more, **others):
        found = whole(path, *more, **others)
        if path.as_posix().endswith(name):
            signal.pthread_kill(threading.get_ident(), number)
        return found

    samples.read_picture = read
    job = from_environment(environment)
    WORK[job.kind].run(job, Watcher(), StopSignal())


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS])
@pytest.mark.parametrize("cpus", ["1", "2"])
def test_the_file_that_was_being_read_is_named(pictures, tmp_path, number, cpus):
    environment = pictures.environment("InferenceJob", inference_spec(resources__cpu=cpus))
    log = tmp_path / "log.txt"
    assert in_child(crash_at, environment, "beta/002.png", number, log) == -number
    current = log.read_text().partition("Current thread")[2].partition("\n\n")[0]
    assert "in reading beta/002.png\n" in current


def test_a_training_names_it_too(image_desk, tmp_path):
    environment = image_desk.environment("TrainingJob", training_spec(training__epochs=1))
    log = tmp_path / "log.txt"
    assert in_child(crash_at, environment, "gamma/003.png", signal.SIGSEGV, log) == -signal.SIGSEGV
    assert "in reading gamma/003.png\n" in log.read_text()


@pytest.mark.parametrize("name", ["a b/\u98de.png", "odd\udcff.png", "x" * 3000])
def test_any_file_can_be_named(name):
    def fail():
        raise ValueError("wrong")

    assert naming(name, lambda: 7) == 7
    with pytest.raises(ValueError, match="wrong") as caught:
        naming(name, fail)
    assert caught.value.__notes__ == [f"while reading {name}"]
