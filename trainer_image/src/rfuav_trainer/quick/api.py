"""The Python API: `rfuav_trainer.train`, `predict`, `evaluate`, `init` and `check`, named like the commands.

In: folders, files and a few options. Out: values. Errors are those of `rfuav_trainer.errors`. Nothing is printed except
log lines through structlog, and the global settings of torch are as before when a function returns.
"""

from __future__ import annotations

import contextlib
import json
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfuav_crds import API_VERSION
from rfuav_trainer.errors import InputError, StoppedError
from rfuav_trainer.job import Job, from_manifest
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.quick import jobs, manifest
from rfuav_trainer.quick.folder import TEST, look
from rfuav_trainer.reporting.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rfuav_trainer.quick.dry_run import Plan

WEIGHTS = "best.safetensors"


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        output: the folder of its files.
        weights: of the best epoch, for `predict` and `evaluate`.
        history: the metrics of each epoch.
        best: those of the best epoch.
    """

    output: Path
    weights: Path
    history: list[dict[str, float]]
    best: dict[str, float]


def train(
    source: str | Path,
    *,
    arch: str | None = None,
    epochs: int | None = None,
    size: int | None = None,
    output: str | Path | None = None,
    changes: Sequence[str] = (),
    mounts: Mapping[str, str | Path] | None = None,
) -> Trained:
    """Train on a folder with one folder for each class, or as a job file says.

    Args:
        source: the folder, or a YAML file with a TrainingJob.
        arch: torchvision architecture. Default: resnet18.
        epochs: passes over the training data. Default: 20.
        size: side of the pictures in pixels. Default: 224.
        output: folder for the results, only with a folder. Default: the next free `runs/NAME`.
        changes: PATH=VALUE, other values for fields of the job, as in `training.seed=1`.
        mounts: claim to local folder, for the `pvc://` URIs of a job file.

    Raises:
        JobError: any expected failure.
        KeyboardInterrupt: Ctrl-C. A checkpoint was saved: call `train(output / "job.yaml")` to go on.
    """
    with _alone() as stop:
        job = jobs.training(
            Path(source), arch=arch, epochs=epochs, size=size, output=output, changes=changes, mounts=mounts
        )
        from rfuav_trainer.training import train as training  # noqa: PLC0415  (seconds to import)

        training.run(job, Progress(None), stop)
        folder = jobs.output_folder(job)
        history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        best = json.loads((folder / "report.json").read_bytes())["best"]
    return Trained(folder, folder / WEIGHTS, history, best)


def predict(source: str | Path, weights: str | Path) -> list[dict[str, Any]]:
    """Classify a file, or all files below a folder.

    Args:
        source: a picture, a recording, or a folder with them.
        weights: a weights file, or the output folder of a training.

    Returns:
        One value for each picture or frame, as in `predictions-0.jsonl` (docs/trainer.md): `path`, `class`, `score`,
        `top`, and for frames their time. For a file that cannot be read `path` and `error`.

    Raises:
        JobError: any expected failure, also if no file can be read.
    """
    with _alone() as stop:
        return predictions(Path(source), Path(weights), Progress(None), stop)


def evaluate(source: str | Path, weights: str | Path, *, output: str | Path | None = None) -> dict[str, Any]:
    """Classify a folder with one folder for each class, and compare the predictions with the labels.

    Args:
        source: the folder; if it has a folder `test`, that one.
        weights: a weights file, or the output folder of a training.
        output: folder for predictions, tables and pictures. Default: none are kept.

    Returns:
        The content of `evaluation.json` (docs/trainer.md): accuracy, metrics, perClass, confusionMatrix, bySnr, ...

    Raises:
        JobError: any expected failure.
    """
    with _alone() as stop:
        return evaluation(Path(source), Path(weights), output, Progress(None), stop)


def init(
    folder: str | Path,
    *,
    arch: str | None = None,
    epochs: int | None = None,
    size: int | None = None,
    output: str | Path | None = None,
    file: str | Path = "job.yaml",
) -> str:
    """The manifest of a training on a folder, as YAML with comments. Nothing is written.

    Args:
        folder: with one folder for each class.
        arch: torchvision architecture. Default: resnet18.
        epochs: passes over the training data. Default: 20.
        size: side of the pictures in pixels. Default: 224.
        output: folder for the results. Default: the next free `runs/NAME`.
        file: where the manifest will be stored: folders beside it are written relative to it.

    Raises:
        InputError: the folder has no classes, or no data that can be read.
    """
    found = look(Path(folder))
    options = jobs.options(Path(folder), arch=arch, epochs=epochs, size=size, output=output)
    return manifest.training(found, options, manifest.Machine.this(), beside=Path(file).absolute().parent)


def check(
    source: str | Path,
    *,
    arch: str | None = None,
    epochs: int | None = None,
    size: int | None = None,
    changes: Sequence[str] = (),
    mounts: Mapping[str, str | Path] | None = None,
) -> Plan:
    """What a training would do: samples and recordings of each class, shapes, memory, time. Nothing is written.

    Args:
        source: a folder with one folder for each class, or a YAML file with a TrainingJob.
        arch: as for `train`.
        epochs: as for `train`.
        size: as for `train`.
        changes: as for `train`.
        mounts: as for `train`.

    Raises:
        JobError: what the training would raise before its first epoch.
    """
    with _alone():
        from rfuav_trainer.quick import dry_run  # noqa: PLC0415  (seconds to import)

        job = jobs.training(Path(source), arch=arch, epochs=epochs, size=size, changes=changes, mounts=mounts, dry=True)
        return dry_run.check(job)


def predictions(source: Path, weights: Path, progress: Progress, stop: StopSignal) -> list[dict[str, Any]]:
    """As `predict`, with progress and a way to stop."""
    with tempfile.TemporaryDirectory(prefix="rfuav-predict-") as folder:
        job = _inference(source, weights, Path(folder), {"errorThreshold": 1.0})
        _infer(job, progress, stop)
        found = [_said(json.loads(line)) for line in _lines(Path(folder), "predictions")]
        errors = [json.loads(line) for line in _lines(Path(folder), "errors")]
    unreadable = [{**{k: v for k, v in line.items() if k != "reason"}, "error": line["reason"]} for line in errors]
    return sorted([*found, *unreadable], key=lambda line: (line["path"], line.get("frame") or 0))


def _said(line: dict[str, Any]) -> dict[str, Any]:
    """The line of an input that holds nothing, as that of one that cannot be read."""
    return {**line, "error": line["dead"]} if "dead" in line else line


def evaluation(
    source: Path, weights: Path, output: str | Path | None, progress: Progress, stop: StopSignal
) -> dict[str, Any]:
    """As `evaluate`, with progress and a way to stop."""
    source = next((source / name for name in TEST if (source / name).is_dir()), source)
    with tempfile.TemporaryDirectory(prefix="rfuav-evaluate-") as folder:
        here = Path(folder) if output is None else Path(output).absolute()
        _infer(_inference(source, weights, here, {"evaluation": {}}), progress, stop)
        content: dict[str, Any] = json.loads((here / "evaluation.json").read_bytes())
    return content


def weights_file(path: Path) -> Path:
    """The weights file that a user means by `path`: it, or the best weights of a training with this output.

    Raises:
        InputError: there is none.
    """
    found = path / WEIGHTS if path.is_dir() else path
    if not found.is_file():
        raise InputError(f"no weights file at {found}: name a .safetensors file, or the output folder of a training")
    return found.absolute()


def _inference(source: Path, weights: Path, output: Path, more: dict[str, Any]) -> Job:
    """An InferenceJob for local paths."""
    if not source.exists():
        raise InputError(f"{source} does not exist: name a picture, a recording, or a folder with them")
    source, weights = source.absolute(), weights_file(weights)
    machine = manifest.Machine.this()
    spec = {
        "model": {"weights": f"pvc://weights/{weights.name}"},
        "input": {"uri": "pvc://input" if source.is_dir() else f"pvc://input/{source.name}"},
        "output": {"uri": f"pvc://results/{output.name}", "annotate": "none", "overwrite": True},
        "resources": manifest.resources(machine),
        **more,
    }
    mounts = {
        "weights": weights.parent,
        "input": source if source.is_dir() else source.parent,
        "results": output.parent,
    }
    name = manifest.name_of(output)
    return from_manifest(
        {"apiVersion": API_VERSION, "kind": "InferenceJob", "metadata": {"name": name}, "spec": spec}, mounts=mounts
    )


def _infer(job: Job, progress: Progress, stop: StopSignal) -> None:
    from rfuav_trainer.inference import infer  # noqa: PLC0415  (seconds to import)

    infer.run(job, progress, stop)


def _lines(folder: Path, kind: str) -> Iterable[str]:
    return (folder / f"{kind}-0.jsonl").read_text().splitlines()


@contextlib.contextmanager
def _alone() -> Iterator[StopSignal]:
    """The stop signal of one call. Restores the global settings of torch, and what Ctrl-C does, afterwards."""
    import torch  # noqa: PLC0415  (seconds to import)

    stop = StopSignal()
    threads, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    try:
        with torch.random.fork_rng(), stop.catching(signal.SIGINT):
            yield stop
    except StoppedError as error:
        raise KeyboardInterrupt(str(error)) from error
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(exact, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark
