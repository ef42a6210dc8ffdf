"""`kubectl rfuav submit train` and `submit infer`: jobs from flags."""

import sys
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any

import typer

from rfuav_cli import jobs, manifests, rows
from rfuav_cli.commands import wait
from rfuav_cli.failures import FAILED, USAGE, Failure, Refused
from rfuav_cli.options import Form, written
from rfuav_cli.session import Session
from rfuav_crds.contract import GROUP

_UNSUPPORTED = HTTPStatus.UNPROCESSABLE_ENTITY


class DryRun(StrEnum):
    """Who checks a job that is not created."""

    NONE = "none"
    CLIENT = "client"
    SERVER = "server"


def _option(*names: str, text: str) -> Any:
    return typer.Option(*names, help=text, show_default=False)


Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the new job.", show_default=False)]
To = Annotated[
    str | None, _option("--to", text="Where the results go: pvc://CLAIM/path, s3://bucket/prefix or file:///path.")
]
Overwrite = Annotated[bool | None, _option("--overwrite", text="Replace results of another job there.")]
GPUs = Annotated[int | None, _option("--gpus", text="GPUs of each pod; 0: on the CPU. [default: 1]")]
GPUMemory = Annotated[str | None, _option("--gpu-memory", text="GPU memory that one process needs, as in 12Gi.")]
CPU = Annotated[str | None, _option("--cpu", text="CPU cores of each pod. [default: 4]")]
Memory = Annotated[str | None, _option("--memory", text="Memory of each pod. [default: 16Gi]")]
Pool = Annotated[str | None, _option("--pool", text="GPUPool. [default: default]")]
PriorityClass = Annotated[str | None, _option("--priority-class", text="PriorityClass that orders the queue.")]
Image = Annotated[str | None, _option("--image", text="Image of the pods, instead of the trainer's.")]
Suspend = Annotated[bool | None, _option("--suspend", text="Create it suspended.")]
Changes = Annotated[
    list[str] | None,
    _option("--set", text="PATH=VALUE: any other field of the spec, as in training.mixup=0.2. May be repeated."),
]
Batch = Annotated[str | None, _option("--batch-size", text="Samples of a step, or auto.")]
Dry = Annotated[
    DryRun, typer.Option("--dry-run", help="client: check it here and print it; server: have the cluster check it.")
]
Written = Annotated[Form | None, _option("-o", "--output", text="Print the job as yaml or json, or its name.")]
Follow = Annotated[bool, typer.Option("-w", "--watch", help="Follow the job to its end; the exit code is as of wait.")]


def train(
    session: Session,
    name: Name,
    *,
    data: Annotated[
        str | None, _option("--data", text="Training data: pvc://CLAIM/path with a folder for each class.")
    ] = None,
    to: To = None,
    validation: Annotated[
        str | None,
        _option("--validation", text="Share of the data, as in 0.2, or the URI of other data. [default: 0.2]"),
    ] = "0.2",
    arch: Annotated[
        str | None, _option("--arch", text="Network: resnet18, vit_b_16, ... [default: resnet18]")
    ] = "resnet18",
    weights: Annotated[
        str | None, _option("--weights", text="Where to start from: none, pretrained, or a URI.")
    ] = None,
    epochs: Annotated[int | None, _option("--epochs", text="Passes over the data. [default: 100]")] = None,
    batch_size: Batch = None,
    learning_rate: Annotated[float | None, _option("--learning-rate", text="Learning rate. [default: 0.0001]")] = None,
    image_size: Annotated[int | None, _option("--image-size", text="Side of the pictures. [default: 224]")] = None,
    seed: Annotated[int | None, _option("--seed", text="Seed of everything random. [default: 0]")] = None,
    nodes: Annotated[int | None, _option("--nodes", text="Pods, one a node, all or none. [default: 1]")] = None,
    overwrite: Overwrite = None,
    gpus: GPUs = None,
    gpu_memory: GPUMemory = None,
    cpu: CPU = None,
    memory: Memory = None,
    pool: Pool = None,
    priority_class: PriorityClass = None,
    image: Image = None,
    suspend: Suspend = None,
    changes: Changes = None,
    dry_run: Dry = DryRun.NONE,
    output: Written = None,
    watch: Follow = False,
) -> None:
    """Create a TrainingJob."""
    _submit(session, "TrainingJob", name, locals(), dry_run=dry_run, output=output, watch=watch)


def infer(
    session: Session,
    name: Name,
    *,
    from_: Annotated[
        str | None, _option("--from", text="TrainingJob whose best weights are used; the job waits for it.")
    ] = None,
    weights: Annotated[str | None, _option("--weights", text="URI of a weights file, instead of --from.")] = None,
    data: Annotated[
        str | None, _option("--data", text="What is classified: pvc://CLAIM/path, a folder, file or manifest.")
    ] = None,
    to: To = None,
    pattern: Annotated[
        str | None, _option("--pattern", text="Which files of the folder, as a glob. [default: **/*]")
    ] = None,
    batch_size: Batch = None,
    shards: Annotated[int | None, _option("--shards", text="Parts of the input, one pod each. [default: 1]")] = None,
    parallelism: Annotated[int | None, _option("--parallelism", text="Most shards at a time. [default: 1]")] = None,
    overwrite: Overwrite = None,
    gpus: GPUs = None,
    gpu_memory: GPUMemory = None,
    cpu: CPU = None,
    memory: Memory = None,
    pool: Pool = None,
    priority_class: PriorityClass = None,
    image: Image = None,
    suspend: Suspend = None,
    changes: Changes = None,
    dry_run: Dry = DryRun.NONE,
    output: Written = None,
    watch: Follow = False,
) -> None:
    """Create an InferenceJob."""
    _submit(session, "InferenceJob", name, locals(), dry_run=dry_run, output=output, watch=watch)


def _submit(
    session: Session,
    kind: str,
    name: str,
    given: Mapping[str, Any],
    *,
    dry_run: DryRun,
    output: Form | None,
    watch: bool,
) -> None:
    """Create the job of the flags; `given` has the arguments of the command."""
    if output is Form.WIDE:
        raise Failure("submit has no -o wide: write -o yaml, json or name", USAGE)
    fields = manifests.fields_of(kind)
    body = manifests.manifest(kind, name, {p: given[p] for p in fields}, given["changes"] or ())
    done = "created"
    if dry_run is DryRun.CLIENT:
        done = "created (dry run)"
    else:
        body["metadata"]["namespace"] = session.namespace
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run is DryRun.SERVER else {})
        done = "created (server dry run)" if dry_run is DryRun.SERVER else done
        try:
            body = session.send("POST", jobs.path(kind, session.namespace), body, **query)
        except Refused as refused:
            raise _taken(refused, kind, name) from None
        body["metadata"].pop("managedFields", None)
    if output in (Form.YAML, Form.JSON):
        written(body, output)
    else:
        full = f"{kind.lower()}.{GROUP}/{name}"
        sys.stdout.write(f"{full}\n" if output is Form.NAME else f"{full} {done}\n")
    sys.stdout.flush()
    if watch and dry_run is DryRun.NONE:
        _watch(session, kind, name)


def _taken(refused: Refused, kind: str, name: str) -> Failure:
    if refused.reason == "AlreadyExists":
        short = f"{jobs.SHORT[kind]}/{name}"
        text = f"there is a {kind} {name} already: choose another name, or delete it with `kubectl delete {short}`"
        return Failure(text, FAILED)
    if refused.status == _UNSUPPORTED:
        return Failure(manifests.named(str(refused), manifests.fields_of(kind)), USAGE)
    return refused


def _watch(session: Session, kind: str, name: str) -> None:
    said = ""

    def tell(status: Mapping[str, Any]) -> None:
        nonlocal said
        progress, queue = rows.part(status, "progress"), rows.part(status, "queue")
        parts = [str(status.get("phase") or "New"), str(status.get("message") or "")]
        if status.get("phase") == "Queued" and queue:
            parts.append(f"place {queue.get('position')} of {queue.get('of')}")
        if status.get("phase") == "Running" and progress.get("percent") is not None:
            parts.append(f"{progress['percent']} %")
        text = ": ".join(part for part in parts if part)
        if text != said:
            said = text
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    wait.until(session, kind, name, lambda status: status.get("phase") == "Succeeded", told=tell)
