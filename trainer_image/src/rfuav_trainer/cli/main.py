"""The commands of `rfuav-trainer`, on a laptop as in a pod.

In: `rfuav-trainer train -f job.yaml`, or `rfuav-trainer run` with RFUAV_JOB in the environment. Out: the work, handed
to `runner.finish`.
Heavy modules are imported only by the command that needs them.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path  # noqa: TC003  (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from rfuav_trainer.cli import prepare, quick
from rfuav_trainer.cli.options import Change, JobFile, Mount, Shard, read, same_command, to_go_on
from rfuav_trainer.cli.runner import finish

if TYPE_CHECKING:
    from rfuav_trainer.job import Job
    from rfuav_trainer.process.stop import StopSignal
    from rfuav_trainer.reporting.progress import Progress

log = structlog.get_logger()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rfuav-trainer {metadata.version('rfuav-trainer')}")
        raise typer.Exit


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Trains and runs drone-signal classifiers.",
)


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Trains and runs drone-signal classifiers."""
    del version


app.add_typer(prepare.commands, name="prepare")

for command in (quick.train, quick.predict, quick.evaluate, quick.init, quick.check):
    app.command()(command)
also = typer.Typer(hidden=True, help="The same commands, under the name of a group.")
for command in (quick.train, quick.predict, quick.evaluate, quick.init, quick.check):
    also.command()(command)
app.add_typer(also, name="quick")


@app.command()
def infer(file: JobFile = None, mount: Mount = None, change: Change = None, shard: Shard = 0) -> None:
    """Classify the input of an InferenceJob."""
    finish(lambda progress, stop: _dispatch(read(file, mount, shard, "InferenceJob", change), progress, stop))


@app.command()
def run(file: JobFile = None, mount: Mount = None, change: Change = None, shard: Shard = 0) -> None:
    """Train or infer, depending on the kind of the job. This is what pods run."""
    finish(lambda progress, stop: _dispatch(read(file, mount, shard, None, change), progress, stop))


@app.command()
def synthesize(
    *,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="YAML of kind Synthesis; flags win.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="NAME=RECORDINGS of each class. May be repeated.")] = None,
    snr: Annotated[
        list[float] | None, typer.Option(help="SNR in dB. Repeat it to cycle through several values.")
    ] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", help="Only this class. May be repeated.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="iq or image.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels, for images.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of a recording.")] = None,
    sample_rate: Annotated[str | None, typer.Option(help="Samples per second, as in 40M.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same recordings.")] = None,
    overwrite: Annotated[bool | None, typer.Option("--overwrite", help="Replace the output of an earlier run.")] = None,
) -> None:
    """Write artificial recordings, labelled by folder."""

    def work(progress: Progress, _stop: StopSignal) -> None:
        from rfuav_trainer.synthesis import spec  # noqa: PLC0415  (seconds to import)
        from rfuav_trainer.synthesis import synthesize as synthesis  # noqa: PLC0415  (seconds to import)

        fields = {"output": output, "classes": classes, "format": format_, "image_size": image_size, "seconds": seconds}
        fields |= {"sample_rate": sample_rate, "seed": seed, "overwrite": overwrite}
        synthesis.run(spec.from_options(file, split=split, snr=snr, **fields), progress)

    finish(work)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="A .pth or .pt file with a state dict, as the reference service writes.")
    ],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    *,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Class name, in output order. Repeat it for every class.")
    ] = None,
    classes_from: Annotated[
        Path | None, typer.Option(help="Folder with one folder for each class; their sorted names are the classes.")
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="Default: detected from the weights.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the training pictures in pixels. Default: 224.")
    ] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(
            help="Normalisation of the training pictures: imagenet or none. Default: as --check shows, else none."
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="PICTURE=SCORES.json",
            help="Compare with the stored scores of a picture: a JSON list in output order, or an object by class.",
        ),
    ] = None,
) -> None:
    """Convert a PyTorch weights file to safetensors, without running code from it."""

    def work(_progress: Progress, _stop: StopSignal) -> None:
        from rfuav_trainer.networks import convert as conversion  # noqa: PLC0415  (seconds to import)

        card = conversion.run(
            source,
            target,
            classes=conversion.classes(classes or [], classes_from),
            architecture=architecture,
            image_size=image_size,
            normalisation=normalisation,
            check=conversion.pair(check) if check else None,
        )
        log.info("converted", file=str(target), architecture=card.architecture, classes=len(card.classes))

    finish(work)


@app.command()
def describe(
    file: Annotated[Path, typer.Argument(help="A .safetensors file written by a training.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show what a weights file contains: architecture, classes, preprocessing, metrics."""

    def work(_progress: Progress, _stop: StopSignal) -> None:
        from rfuav_trainer.networks import weights  # noqa: PLC0415  (seconds to import)
        from rfuav_trainer.reporting import display  # noqa: PLC0415  (seconds to import)

        content = weights.describe(file)
        typer.echo(json.dumps(content) if as_json else display.listed(content))

    finish(work)


def _dispatch(job: Job, progress: Progress, stop: StopSignal) -> None:
    with to_go_on(same_command(), job):
        if job.kind == "TrainingJob":
            from rfuav_trainer.training import train as work  # noqa: PLC0415  (seconds to import)

            work.run(job, progress, stop)
        else:
            from rfuav_trainer.inference import infer as inference  # noqa: PLC0415  (seconds to import)

            inference.run(job, progress, stop)


def main() -> None:
    """Entry point of the `rfuav-trainer` command."""
    app()
