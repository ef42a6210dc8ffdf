"""Options that several commands share, and the job that they describe."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from rfuav_crds import reasons
from rfuav_trainer import errors
from rfuav_trainer.job import Job, from_environment, from_file, read_mount

if TYPE_CHECKING:
    from collections.abc import Iterator

JobFile = Annotated[
    Path | None,
    typer.Option("-f", "--file", help="Job file (YAML with one TrainingJob or InferenceJob). Without it: RFUAV_JOB."),
]
Mount = Annotated[
    list[str] | None,
    typer.Option(help="CLAIM=FOLDER: local folder to use for pvc://CLAIM. May be repeated."),
]
Change = Annotated[
    list[str] | None,
    typer.Option("--set", help="PATH=VALUE: a field of the spec, as in training.epochs=20. May be repeated."),
]
Shard = Annotated[int, typer.Option(help="Shard of the input to classify, from 0.")]
Weights = Annotated[
    Path, typer.Option("-w", "--weights", help="A .safetensors file, or the output folder of a training.")
]
Arch = Annotated[
    str | None, typer.Option("--arch", help="Network: resnet18, mobilenet_v3_small, vit_b_16, ... [default: resnet18]")
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the training data. [default: 20]")]
Size = Annotated[int | None, typer.Option(min=16, help="Side of the pictures in pixels. [default: 224]")]


def mounts(texts: list[str] | None) -> dict[str, Path]:
    """Claim to folder, absolute, from CLAIM=FOLDER."""
    return {claim: folder.resolve() for claim, folder in map(read_mount, texts or [])}


def read(file: Path | None, mount: list[str] | None, shard: int, kind: str | None, change: list[str] | None) -> Job:
    """The job of a command, from its file or from the environment.

    Raises:
        InvalidConfigurationError: it is wrong, or not of this `kind`.
    """
    if file is None:
        if change:
            raise errors.InvalidConfigurationError("--set changes a job file: name it with -f job.yaml")
        job = from_environment()
    else:
        job = from_file(file, mounts=mounts(mount), changes=change or (), shard=shard)
    return checked(job, kind)


def checked(job: Job, kind: str | None) -> Job:
    """The job, if it is of this `kind`; its name is in all log lines from now on."""
    if kind is not None and job.kind != kind:
        other = "train" if job.kind == "TrainingJob" else "infer"
        raise errors.InvalidConfigurationError(f"{job.name} is a {job.kind}: use rfuav-trainer {other}")
    structlog.contextvars.bind_contextvars(job=job.name, **({"attempt": job.attempt} if job.in_pod else {}))
    return job


def same_command() -> str:
    """The command that is running, to be pasted into a shell."""
    return shlex.join(["rfuav-trainer", *sys.argv[1:]])


@contextlib.contextmanager
def to_go_on(command: str, job: Job) -> Iterator[None]:
    """Adds the command to run next: after a stop to go on, at a refused output to replace it. In a pod nobody types."""
    try:
        yield
    except errors.StoppedError as error:
        if job.in_pod:
            raise
        raise errors.StoppedError(f"{error}. To go on: {command}", reason=error.reason) from error
    except errors.InvalidConfigurationError as error:
        if job.in_pod or error.reason != reasons.OUTPUT_IN_USE:
            raise
        again = f"{command} --set output.overwrite=true"
        raise errors.InvalidConfigurationError(f"{error}. To replace them: {again}", reason=error.reason) from error
