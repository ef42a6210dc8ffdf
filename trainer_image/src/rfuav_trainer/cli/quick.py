"""The commands that also work without a job file: train, predict, evaluate, init, check.

In: a folder, or a job file. Out: the work, handed to `runner.finish`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rfuav_trainer import errors
from rfuav_trainer.cli import options, tables
from rfuav_trainer.cli.options import (  # noqa: TC001  (typer reads the annotations)
    Arch,
    Change,
    Epochs,
    JobFile,
    Mount,
    Shard,
    Size,
    Weights,
)
from rfuav_trainer.cli.runner import finish

if TYPE_CHECKING:
    from rfuav_trainer.process.stop import StopSignal
    from rfuav_trainer.reporting.progress import Progress

Data = Annotated[
    Path | None,
    typer.Argument(
        metavar="[DIR]", help="Folder with one folder for each class, instead of a job file.", show_default=False
    ),
]
Output = Annotated[
    Path | None, typer.Option(help="Folder for the results. [default: the next free runs/NAME]", show_default=False)
]


def train(
    folder: Data = None,
    *,
    file: JobFile = None,
    mount: Mount = None,
    change: Change = None,
    arch: Arch = None,
    epochs: Epochs = None,
    size: Size = None,
    output: Output = None,
) -> None:
    """Train a classifier: of the folder DIR, or as a TrainingJob says."""

    def work(progress: Progress, stop: StopSignal) -> str:
        from rfuav_trainer.quick import jobs  # noqa: PLC0415  (imports numpy)
        from rfuav_trainer.training import train as training  # noqa: PLC0415  (seconds to import)

        _one(folder, file)
        source = folder or file
        if source is None:
            job = options.read(None, mount, 0, "TrainingJob", change)
        else:
            job = jobs.training(
                source,
                arch=arch,
                epochs=epochs,
                size=size,
                output=output,
                changes=change or (),
                mounts=options.mounts(mount),
            )
            options.checked(job, "TrainingJob")
        own = f"rfuav-trainer train -f {jobs.output_folder(job) / jobs.FILE}" if folder else options.same_command()
        with options.to_go_on(own, job):
            mark = training.run(job, progress, stop)
        return tables.trained(job, mark, folder)

    finish(work)


def predict(
    source: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A picture, a recording, or a folder with them.")],
    *,
    weights: Weights,
    frames: Annotated[bool, typer.Option("--frames", help="A line for each frame of a recording.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for each picture or frame.")] = False,
) -> None:
    """Classify a file, or all files in a folder, and print a table."""

    def work(progress: Progress, stop: StopSignal) -> None:
        from rfuav_trainer.quick import api  # noqa: PLC0415  (seconds to import)

        found = api.predictions(source, weights, progress, stop)
        typer.echo("\n".join(map(json.dumps, found)) if as_json else tables.predictions(found, frames=frames))

    finish(work, quiet=True)


def evaluate(
    folder: Data = None,
    *,
    file: JobFile = None,
    mount: Mount = None,
    change: Change = None,
    shard: Shard = 0,
    weights: Annotated[
        Path | None, typer.Option("-w", "--weights", help="With DIR: a .safetensors file, or the output of a training.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="With DIR: folder for tables and pictures. [default: none]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With DIR: as one JSON object.")] = False,
) -> None:
    """Measure how well weights classify labelled data: the folder DIR, or the input of an InferenceJob."""

    def of_a_job(progress: Progress, stop: StopSignal) -> None:
        from rfuav_trainer.inference import infer  # noqa: PLC0415  (seconds to import)

        job = options.read(file, mount, shard, "InferenceJob", change)
        with options.to_go_on(options.same_command(), job):
            typer.echo(infer.evaluate(job, progress, stop), nl=False)

    def of_a_folder(progress: Progress, stop: StopSignal) -> None:
        from rfuav_trainer.evaluation import report  # noqa: PLC0415  (seconds to import)
        from rfuav_trainer.quick import api  # noqa: PLC0415  (seconds to import)

        _one(folder, file)
        if weights is None:
            raise errors.InvalidConfigurationError(
                f"evaluate {folder} needs weights: add --weights FILE, or the output folder of a training"
            )
        assert folder is not None  # noqa: S101  (this function was chosen by it)
        content = api.evaluation(folder, weights, output, progress, stop)
        typer.echo(json.dumps(content) if as_json else report.as_text(content), nl=as_json)
        if output is not None and not as_json:
            typer.echo(f"\n{output / report.PAGE} shows the same with pictures")

    finish(of_a_job if folder is None else of_a_folder, quiet=folder is not None)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with one folder for each class.")],
    *,
    file: Annotated[Path, typer.Option("-f", "--file", help="Manifest to write; - prints it.")] = Path("job.yaml"),
    arch: Arch = None,
    epochs: Epochs = None,
    size: Size = None,
    output: Output = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the manifest.")] = False,
) -> None:
    """Look at a folder, and write a commented manifest to train on it, here or in a cluster."""

    def work(_progress: Progress, _stop: StopSignal) -> None:
        from rfuav_trainer.quick import api  # noqa: PLC0415  (seconds to import)

        text = api.init(folder, arch=arch, epochs=epochs, size=size, output=output, file=file)
        if str(file) == "-":
            typer.echo(text, nl=False)
            return
        if file.exists() and not overwrite:
            raise errors.InvalidConfigurationError(f"{file} exists: add --overwrite, or -f with another name")
        file.write_text(text)
        typer.echo(
            f"wrote {file}. Next:\n  rfuav-trainer check -f {file}\n  rfuav-trainer train -f {file}\n"
            f"  kubectl apply -f {file}"
        )

    finish(work, quiet=True)


def check(
    folder: Data = None,
    *,
    file: JobFile = None,
    mount: Mount = None,
    change: Change = None,
    arch: Arch = None,
    epochs: Epochs = None,
    size: Size = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Dry run of a training: samples of each class, shapes, memory and time. Nothing is written."""

    def work(_progress: Progress, _stop: StopSignal) -> None:
        from rfuav_trainer.quick import api  # noqa: PLC0415  (seconds to import)

        _one(folder, file)
        source = folder or file
        if source is None:
            raise errors.InvalidConfigurationError("name a folder, or a job file with -f job.yaml")
        plan = api.check(
            source, arch=arch, epochs=epochs, size=size, changes=change or (), mounts=options.mounts(mount)
        )
        typer.echo(json.dumps(asdict(plan)) if as_json else tables.plan(plan))

    finish(work, quiet=True)


def _one(folder: Path | None, file: Path | None) -> None:
    if folder is not None and file is not None:
        raise errors.InvalidConfigurationError(f"write {folder} or -f {file}, not both")
    if folder is not None and not folder.is_dir():
        hint = f": for a job file write -f {folder}" if folder.suffix in {".yaml", ".yml"} else ""
        raise errors.InvalidConfigurationError(f"{folder} is not a folder with data{hint}")
