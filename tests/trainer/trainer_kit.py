"""Small data sets, jobs, and the command line run in a process of its own that starts in no time."""

import json
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from rfuav_crds import contract

CLASSES = ("alpha", "beta", "gamma")
TONES = (1e6, 0.004096, 128, 64)
"""How the frames of `tone_set` are transformed: SpectrogramParameters."""
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "rfuav_trainer.cli.main",
        "rfuav_trainer.training.train",
        "rfuav_trainer.inference.infer",
        "matplotlib.figure",
    ]
)


def image_set(root: Path, *, classes=CLASSES, count=8, size=64, seed=0) -> Path:
    """Pictures `root/<class>/<nnn>.png` with a bright band whose place tells the class."""
    rng = np.random.default_rng(seed)
    for index, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 80, (size, size, 3), dtype=np.uint8)
            height = size // len(classes)
            pixels[index * height : index * height + height // 2] += 120
            Image.fromarray(pixels).save(root / name / f"{number:03d}.png")
    return root


def tone_set(root: Path, *, classes=CLASSES, count=4, frames=2, frame_samples=4096, kind="float32", seed=0) -> Path:
    """Recordings `root/<class>/<nnn>.iq`: a tone at a place that tells the class, in noise, its SNR in a file beside it."""
    rng = np.random.default_rng(seed)
    for index, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            n = frames * frame_samples
            frequency = (index + 1) / (len(classes) + 1) - 0.5
            samples = 0.3 * np.exp(2j * np.pi * (frequency * np.arange(n) + rng.random()))
            samples = samples + 0.05 * (rng.normal(size=n) + 1j * rng.normal(size=n))
            pairs = np.stack([samples.real, samples.imag], axis=1)
            scale = {"float32": 1, "int16": 32768, "int8": 128}[kind]
            data = (
                pairs.astype("<f4")
                if kind == "float32"
                else np.round(pairs * scale * 0.9).astype(f"<{kind[0]}{int(kind[3:]) // 8}")
            )
            path = root / name / f"{number:03d}.iq"
            path.write_bytes(data.tobytes())
            path.with_suffix(".json").write_text(json.dumps({"snrDb": [-10, 10][number % 2], "class": name}))
    return root


IQ = {"sampleRate": "1M", "frameSeconds": 0.004096, "fftSize": 128, "hopSize": 64}
RESOURCES = {"gpus": 0, "cpu": "1", "memory": "2Gi", "sharedMemory": "64Mi"}


def training_spec(**changes) -> dict:
    """A small TrainingJob's spec: MobileNet, 64 pixels, three epochs; keys are dotted paths."""
    spec = {
        "model": {"architecture": "mobilenet_v3_small"},
        "dataset": {"train": {"uri": "pvc://captures/train"}, "validation": {"fraction": 0.25}, "imageSize": 64},
        "training": {
            "epochs": 3,
            "batchSize": 4,
            "optimizer": {"learningRate": 0.001},
            "schedule": {"name": "cosine"},
            "seed": 3,
        },
        "output": {"uri": "pvc://models/out"},
        "resources": RESOURCES,
    }
    return _changed(spec, changes)


def inference_spec(**changes) -> dict:
    """A small InferenceJob's spec; keys of `changes` are dotted paths."""
    spec = {
        "model": {"weights": "pvc://models/out/best.safetensors"},
        "input": {"uri": "pvc://captures/test"},
        "output": {"uri": "pvc://results/out", "annotate": "none"},
        "resources": RESOURCES,
    }
    return _changed(spec, changes)


def _changed(spec: dict, changes: dict) -> dict:
    spec = json.loads(json.dumps(spec))
    for path, value in changes.items():
        *steps, last = path.split("__")
        at = spec
        for step in steps:
            at = at.setdefault(step, {})
        if value is None:
            at.pop(last, None)
        else:
            at[last] = value
    return spec


@dataclass
class Ended:
    """How a run of the command line ended."""

    code: int
    output: str
    termination: dict

    @property
    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]


class Desk:
    """A folder with the volumes `captures`, `models`, `results` and `weights`, and hands to run jobs on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for claim in ("captures", "models", "results", "weights"):
            (root / claim).mkdir(parents=True, exist_ok=True)

    def __truediv__(self, path: str) -> Path:
        return self.root / path

    @property
    def mounts(self) -> dict[str, str]:
        return {name: str(self.root / name) for name in ("captures", "models", "results", "weights")}

    def job_json(self, kind: str, spec: dict, *, uid="u1", name="job", **fields) -> str:
        return json.dumps(
            {"kind": kind, "name": name, "namespace": "team", "uid": uid, "attempt": 1, "spec": spec, **fields}
        )

    def environment(self, kind: str, spec: dict, **fields) -> dict[str, str]:
        """What the operator gives a pod."""
        return {contract.JOB: self.job_json(kind, spec, **fields), contract.MOUNTS: json.dumps(self.mounts)}

    def job(self, kind: str, spec: dict, **fields):
        """The job as the trainer reads it in a pod."""
        from rfuav_trainer.job import from_environment

        return from_environment(self.environment(kind, spec, **fields))

    def laptop(self, kind: str, spec: dict, **fields):
        """The job as the trainer reads it from a file: its UID is made from its name."""
        from rfuav_trainer.job import from_file

        mounts = {claim: Path(folder) for claim, folder in self.mounts.items()}
        return from_file(self.write_job(kind, spec), mounts=mounts, **fields)

    def write_job(self, kind: str, spec: dict, name="job") -> Path:
        path = self.root / f"{name}.yaml"
        path.write_text(
            yaml.safe_dump({"apiVersion": contract.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})
        )
        return path

    def start(self, *arguments: str, env: dict[str, str] | None = None, log="log.txt"):
        """Start the command line in a process of its own."""
        environment = {contract.TERMINATION_LOG_FILE: str(self.root / "termination.json"), **(env or {})}
        process = CONTEXT.Process(target=_child, args=(list(arguments), environment, str(self.root / log)))
        process.start()
        return process

    def end(self, process, log="log.txt", timeout=120) -> Ended:
        process.join(timeout)
        assert process.exitcode is not None, "it does not end"
        termination = self.root / "termination.json"
        return Ended(
            process.exitcode,
            (self.root / log).read_text(),
            json.loads(termination.read_bytes()) if termination.exists() else {},
        )

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> Ended:
        return self.end(self.start(*arguments, env=env))

    def pod(self, kind: str, spec: dict, *, env: dict[str, str] | None = None, **fields) -> Ended:
        """Run a job as a pod does."""
        return self.run("run", env={**self.environment(kind, spec, **fields), **(env or {})})


def until(condition, seconds=90.0, pause=0.1, otherwise=lambda: "it did not come to pass"):
    """Wait for a condition; `otherwise` says what to look at when it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise()
        time.sleep(pause)


def weights_file(path: Path, *, recordings=False, classes=CLASSES) -> None:
    """A network that tells the classes of `image_set` by nothing: its weights are random, but always the same."""
    import torch

    from rfuav_trainer.data.samples import IMAGENET, SPECTROGRAM, Preprocessing
    from rfuav_trainer.networks import architectures, weights
    from rfuav_trainer.signals.spectrogram import SpectrogramParameters

    torch.manual_seed(1)
    network = architectures.build("mobilenet_v3_small", len(classes), 64)
    spectrogram = SpectrogramParameters(*TONES) if recordings else None
    kind, (mean, std) = ("iq", SPECTROGRAM) if recordings else ("image", IMAGENET)
    preprocessing = Preprocessing(kind, 64, mean, std, spectrogram)
    weights.save(path, network.state_dict(), weights.Card("mobilenet_v3_small", list(classes), preprocessing))


def in_child(function, *arguments) -> int:
    """Run `function` in a process of its own; its exit code (negative: the signal)."""
    process = CONTEXT.Process(target=_with_environment, args=(dict(os.environ), function, arguments))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "it does not end"
    return process.exitcode


def in_children(count: int, function, *arguments) -> list[int]:
    """Run `function(rank, ...)` in `count` processes at once; their exit codes."""
    environment = dict(os.environ)
    processes = [
        CONTEXT.Process(target=_with_environment, args=(environment, function, (rank, *arguments)))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def _with_environment(environment: dict[str, str], function, arguments) -> None:
    """As this test has it: the process that forks the others began with that of an earlier one."""
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)


def _child(arguments: list[str], environment: dict[str, str], log: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    for name in [name for name in os.environ if name.startswith(("RFUAV_", "KUBEFLOW_"))]:
        del os.environ[name]
    os.environ.update(environment)
    sys.argv = ["rfuav-trainer", *arguments]
    from rfuav_trainer.cli import main

    main.main()
