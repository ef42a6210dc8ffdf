"""The command line, on a laptop as in a pod: runs the job and turns what happens into an exit code.

In: `rfuav-trainer train -f job.yaml`, or `rfuav-trainer run` with RFUAV_JOB in the environment. Out: an exit code and a
termination message.
Heavy modules are imported only once a command needs them.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer

from rfuav_trainer import config, errors, logs, runtime, storage
from rfuav_trainer.progress import Progress, Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from rfuav_trainer.display import Display
    from rfuav_trainer.prepare import Made, Task

log = structlog.get_logger()

TERMINATION_LOG = Path("/dev/termination-log")
TERMINATION_BYTES = 4096  # what the kubelet keeps

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Trains and runs drone-signal classifiers.",
)

prepare = typer.Typer(no_args_is_help=True, help="Prepares data sets on files; the source is never changed.")
app.add_typer(prepare, name="prepare")

JobFile = Annotated[
    Path | None,
    typer.Option("-f", "--file", help="Job file (YAML with one TrainingJob or InferenceJob). Without it: RFUAV_JOB."),
]
Mount = Annotated[
    list[str] | None,
    typer.Option(help="CLAIM=FOLDER: the folder on this machine that stands for pvc://CLAIM. May be repeated."),
]
Shard = Annotated[int, typer.Option(help="Which shard of the input to work on, from 0.")]
Source = Annotated[Path, typer.Argument(help="Folder with one folder for each class.")]
Output = Annotated[Path, typer.Argument(help="Folder to make.")]
Seed = Annotated[int, typer.Option(help="The same seed makes the same files.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that prepare made before.")]


@app.command()
def train(file: JobFile = None, mount: Mount = None) -> None:
    """Train the classifier of a TrainingJob."""
    _finish(lambda progress, stop: _dispatch(_job(file, mount, 0, "TrainingJob"), progress, stop))


@app.command()
def infer(file: JobFile = None, mount: Mount = None, shard: Shard = 0) -> None:
    """Classify the input of an InferenceJob."""
    _finish(lambda progress, stop: _dispatch(_job(file, mount, shard, "InferenceJob"), progress, stop))


@app.command()
def evaluate(file: JobFile = None, mount: Mount = None, shard: Shard = 0) -> None:
    """Measure an InferenceJob against the folders its input lies in; what is not classified yet is classified first."""

    def work(progress: Progress, stop: runtime.StopSignal) -> None:
        from rfuav_trainer import infer as inference  # noqa: PLC0415  (seconds to import)

        typer.echo(inference.evaluate(_job(file, mount, shard, "InferenceJob"), progress, stop), nl=False)

    _finish(work)


@app.command()
def run(file: JobFile = None, mount: Mount = None, shard: Shard = 0) -> None:
    """Do what the job's kind says. This is what pods run."""
    _finish(lambda progress, stop: _dispatch(_job(file, mount, shard, None), progress, stop))


@app.command()
def synthesize(
    *,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="YAML of kind Synthesis; flags win.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="NAME=RECORDINGS of each class. May be repeated.")] = None,
    snr: Annotated[list[float] | None, typer.Option(help="dB; several are taken in turn.")] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", help="Only this class. May be repeated.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="iq or image.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels, for images.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of a recording.")] = None,
    sample_rate: Annotated[str | None, typer.Option(help="Samples per second, as in 40M.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same recordings.")] = None,
    overwrite: Annotated[bool | None, typer.Option("--overwrite", help="Replace what an earlier run made.")] = None,
) -> None:
    """Write artificial recordings, labelled by folder."""

    def work(_progress: Progress, _stop: runtime.StopSignal) -> None:
        from rfuav_trainer import synthesis_spec  # noqa: PLC0415  (seconds to import)
        from rfuav_trainer import synthesize as synthesis  # noqa: PLC0415  (seconds to import)

        fields = {"output": output, "classes": classes, "format": format_, "image_size": image_size, "seconds": seconds}
        fields |= {"sample_rate": sample_rate, "seed": seed, "overwrite": overwrite}
        synthesis.run(synthesis_spec.from_options(file, split=split, snr=snr, **fields))

    _finish(work)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="A .pth or .pt file with a state dict, as the reference service saves.")
    ],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    *,
    classes: Annotated[list[str] | None, typer.Option("--class", help="Class, in output order. Repeated.")] = None,
    classes_from: Annotated[Path | None, typer.Option(help="Folder whose sorted folders are the classes.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Default: the one that fits.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the pictures it was trained with. Default: 224.")
    ] = None,
    normalisation: Annotated[
        str, typer.Option(help="Of the pictures it was trained with: imagenet or none.")
    ] = "imagenet",
) -> None:
    """Make a weights file of ours from a PyTorch one, without running code from it."""

    def work(_progress: Progress, _stop: runtime.StopSignal) -> None:
        from rfuav_trainer import convert as conversion  # noqa: PLC0415  (seconds to import)

        card = conversion.run(
            source,
            target,
            classes=conversion.classes(classes or [], classes_from),
            architecture=architecture,
            image_size=image_size,
            normalisation=normalisation,
        )
        log.info("converted", file=str(target), architecture=card.architecture, classes=len(card.classes))

    _finish(work)


@app.command()
def describe(
    file: Annotated[Path, typer.Argument(help="A .safetensors file that a training wrote.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Say what a weights file holds: architecture, classes, preprocessing, metrics."""

    def work(_progress: Progress, _stop: runtime.StopSignal) -> None:
        from rfuav_trainer import display, weights  # noqa: PLC0415  (seconds to import)

        content = weights.describe(file)
        typer.echo(json.dumps(content) if as_json else display.listed(content))

    _finish(work)


@prepare.command("split")
def prepare_split(
    source: Source,
    output: Output,
    *,
    validation: Annotated[float, typer.Option(help="Share of every class that goes to val/.")] = 0.2,
    seed: Seed = 0,
    link: Annotated[bool, typer.Option("--link", help="Hard links instead of copies.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Split into train/ and val/: whole recordings, every class and SNR on both sides."""
    _prepare(
        source,
        output,
        overwrite,
        lambda preparation, task: preparation.split(task, fraction=validation, seed=seed, link=link),
    )


@prepare.command("augment")
def prepare_augment(
    source: Source,
    output: Output,
    *,
    change: Annotated[
        list[str], typer.Option(help="AdvancedBlur, CLAHE, ColorJitter, GaussNoise, ISONoise or Sharpen. Repeated.")
    ],
    copies: Annotated[int, typer.Option(help="Changed copies of each picture.")] = 1,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Every picture with changed copies beside it."""
    _prepare(
        source,
        output,
        overwrite,
        lambda preparation, task: preparation.augmented(task, changes=change, copies=copies, seed=seed),
    )


@prepare.command("crop")
def prepare_crop(
    source: Source,
    output: Output,
    *,
    box: Annotated[str, typer.Option(help="LEFT,TOP,WIDTH,HEIGHT in pixels.")],
    overwrite: Overwrite = False,
) -> None:
    """Every picture cut to a box, for instance to leave out the axes of a plot."""
    _prepare(
        source, output, overwrite, lambda preparation, task: preparation.cropped(task, box=preparation.read_box(box))
    )


def _prepare(source: Path, output: Path, overwrite: bool, work: Callable[[Any, Task], Made]) -> None:
    """Let `work`, which is given the module `prepare` and a task of it, make a data set, and say what came of it."""

    def told(_progress: Progress, stop: runtime.StopSignal) -> None:
        from rfuav_trainer import prepare as preparation  # noqa: PLC0415  (seconds to import)

        made = work(preparation, preparation.Task(source, output, overwrite, stop))
        log.info("made", output=str(output), files=made.files, unreadable=len(made.unreadable), **made.parts)

    _finish(told)


def _job(file: Path | None, mount: list[str] | None, shard: int, kind: str | None) -> config.Job:
    mounts: dict[str, Path] = {}
    for text in mount or []:
        claim, found, folder = text.partition("=")
        if not found or not claim or not folder:
            raise errors.InvalidConfigurationError(f"--mount {text}: write CLAIM=FOLDER, as in captures=./data")
        mounts[claim] = Path(folder).resolve()
    job = config.from_environment() if file is None else config.from_file(file, mounts=mounts, shard=shard)
    if kind is not None and job.kind != kind:
        other = "train" if job.kind == "TrainingJob" else "infer"
        raise errors.InvalidConfigurationError(f"{job.name} is a {job.kind}: use rfuav-trainer {other}")
    structlog.contextvars.bind_contextvars(job=job.name, **({"attempt": job.attempt} if job.in_pod else {}))
    return job


def _dispatch(job: config.Job, progress: Progress, stop: runtime.StopSignal) -> Any:
    if job.kind == "TrainingJob":
        from rfuav_trainer import train as work  # noqa: PLC0415  (seconds to import)

        return work.run(job, progress, stop)
    from rfuav_trainer import infer as inference  # noqa: PLC0415  (seconds to import)

    return inference.run(job, progress, stop)


def _finish(work: Callable[[Progress, runtime.StopSignal], Any]) -> None:
    """Run `work`, report its end, and leave with its exit code. The only way out of a command."""
    human = logs.configure()
    stop = runtime.StopSignal()
    stop.install()
    display = _display() if human else None
    progress = Progress(Server.from_environment(), listener=display)
    failure: errors.Failure | None = None
    try:
        with display or contextlib.nullcontext():
            work(progress, stop)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (the one place where exceptions become exit codes)
        failure = errors.describe(error)
        unforeseen = not isinstance(error, errors.JobError) and failure.exit_code == errors.EXIT_FAILED
        level = log.info if failure.exit_code == errors.EXIT_STOPPED else log.error
        level(
            failure.message, reason=failure.reason, exitCode=failure.exit_code, exc_info=error if unforeseen else None
        )
    if display is not None and failure is None:
        display.summary(progress.last)
    progress.close()
    _write_termination_message(failure, progress.last)
    storage.leave(failure.exit_code if failure else 0)


def _display() -> Display:
    from rfuav_trainer.display import Display  # noqa: PLC0415  (pods have no terminal)

    return Display()


def _write_termination_message(failure: errors.Failure | None, status: dict[str, Any]) -> None:
    """Leave reason, message and the last progress where the kubelet looks for them, in at most 4096 bytes."""
    path = Path(os.environ.get("RFUAV_TERMINATION_LOG") or TERMINATION_LOG)
    if path == TERMINATION_LOG and not path.exists():
        return  # not in a pod
    content: dict[str, Any] = {
        "reason": failure.reason if failure else "Completed",
        "message": failure.message if failure else "",
        "exitCode": failure.exit_code if failure else 0,
        "trainerStatus": status,
    }
    try:
        path.write_bytes(_fit(content))
    except OSError as error:
        log.warning("termination message not written", file=str(path), problem=str(error))


def _fit(content: dict[str, Any]) -> bytes:
    """`content` as JSON of at most 4096 bytes: the message is shortened first, metrics are left out next."""
    text = json.dumps(content).encode()
    if len(text) > TERMINATION_BYTES:
        message = content["message"]
        content = {**content, "message": message[:1000]}
        text = json.dumps(content).encode()
    if len(text) > TERMINATION_BYTES:
        status = dict(content["trainerStatus"])
        status["metrics"] = []
        text = json.dumps({**content, "trainerStatus": status}).encode()
    if len(text) > TERMINATION_BYTES:
        text = json.dumps({**content, "message": content["message"][:200], "trainerStatus": {}}).encode()
    return text


def main() -> None:
    """Entry point of the `rfuav-trainer` command."""
    app()


if __name__ == "__main__":
    main()
