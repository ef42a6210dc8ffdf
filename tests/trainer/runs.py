"""Jobs run in this process: watched, stopped by SIGTERM, or killed in a child; and what two of them wrote compared."""

import contextlib
import importlib
import itertools
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rfuav_trainer.data import samples
from rfuav_trainer.errors import StoppedError
from rfuav_trainer.inference import infer, results
from rfuav_trainer.job import from_environment
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.training import train

WORK = {"TrainingJob": train, "InferenceJob": infer}


class Watcher(Progress):
    """Keeps every report, and acts once so many steps are taken, or inputs done."""

    def __init__(self, at=None, act=None):
        super().__init__(None, interval=0)
        self.reports, self.at, self.act = [], at, act

    def update(self, status):
        super().update(status)
        self.reports.append(status)
        own = status.get("rfuav", {})
        done = own.get("processed", own.get("epoch", 0) * own.get("totalSteps", 0) + own.get("step", 0))
        if self.at is not None and done >= self.at:
            self.act()

    @property
    def first_step(self):
        """Epoch and step of the first report."""
        own = self.reports[0]["rfuav"]
        return own["epoch"], own["step"]


def run(desk, spec, *, watcher=None, stop=None, **fields):
    """Train or classify, by what the spec has."""
    kind = "InferenceJob" if "input" in spec else "TrainingJob"
    return WORK[kind].run(desk.job(kind, spec, **fields), watcher or Watcher(), stop or StopSignal())


def stopped(desk, spec, at, *, match=None, **fields):
    """Run until SIGTERM arrives after `at` steps or inputs."""
    stop = StopSignal()
    with pytest.raises(StoppedError, match=match):
        run(desk, spec, watcher=Watcher(at, stop.request), stop=stop, **fields)


def die_at(environment, step):
    """For a child: run the job of the environment, and die of SIGKILL after so many steps."""
    torch.set_num_threads(1)
    job = from_environment(environment)
    WORK[job.kind].run(job, Watcher(step, lambda: os.kill(os.getpid(), signal.SIGKILL)), StopSignal())


def die_in(environment, method, at, after):
    """For a child: run the job of the environment, and die of SIGKILL before or after the `at`-th call of a method.

    The method is a `module:Class.name` of the trainer. Results are committed after every batch. Of what a store is asked,
    only changes count.
    """
    torch.set_num_threads(1)
    results.COMMIT_SECONDS = results.REMOTE_COMMIT_SECONDS = 0.0
    module, _, path = method.partition(":")
    owner, name = path.split(".")
    owner = getattr(importlib.import_module(f"rfuav_trainer.{module}"), owner)
    whole, calls, lock = getattr(owner, name), itertools.count(1), threading.Lock()

    def deadly(*arguments, **named):
        with lock:
            now = named.get("to", "written") == "written" and next(calls) == at
        if now and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = whole(*arguments, **named)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, deadly)
    job = from_environment(environment)
    WORK[job.kind].run(job, Watcher(), StopSignal())


@contextlib.contextmanager
def hanging(monkeypatch, number, stop):
    """The reader of the picture `number` hangs, and SIGTERM arrives while it does."""
    asked, go_on, whole = itertools.count(), threading.Event(), samples.read_picture

    def read(path, *more, **others):
        if next(asked) == number:
            threading.Timer(0.3, stop.request).start()
            go_on.wait(60)
        return whole(path, *more, **others)

    with monkeypatch.context() as patch:
        patch.setattr(samples, "read_picture", read)
        began = time.monotonic()
        yield
        assert time.monotonic() - began < 30
        go_on.set()


def same_weights(one: Path, other: Path) -> bool:
    """Whether two weights files have the same bits."""
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def history(folder: Path) -> list[dict]:
    """The metrics of each epoch of a training."""
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
