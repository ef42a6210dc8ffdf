"""Manifests from flags, checked by the CRDs' own models: no I/O."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rfuav_cli.failures import USAGE, Failure
from rfuav_crds.contract import API_VERSION

TRAINING = {
    "data": "dataset.train.uri",
    "validation": "dataset.validation",
    "arch": "model.architecture",
    "weights": "model.weights",
    "epochs": "training.epochs",
    "batch_size": "training.batchSize",
    "learning_rate": "training.optimizer.learningRate",
    "image_size": "dataset.imageSize",
    "seed": "training.seed",
    "nodes": "nodes",
}
INFERENCE = {
    "from_": "model.fromTrainingJob",
    "weights": "model.weights",
    "data": "input.uri",
    "pattern": "input.pattern",
    "batch_size": "batchSize",
    "shards": "shards",
    "parallelism": "parallelism",
}
BOTH = {
    "to": "output.uri",
    "overwrite": "output.overwrite",
    "gpus": "resources.gpus",
    "gpu_memory": "resources.gpuMemory",
    "cpu": "resources.cpu",
    "memory": "resources.memory",
    "pool": "pool",
    "priority_class": "priorityClassName",
    "image": "image",
    "suspend": "suspend",
}
_FIELD = re.compile(r"^(?P<path>(?:spec|metadata)[\w.\[\]]*)(?P<rest>.*)$", re.DOTALL)


def fields_of(kind: str) -> dict[str, str]:
    """The fields of the spec that have flags, by the parameter of the flag."""
    return (TRAINING if kind == "TrainingJob" else INFERENCE) | BOTH


def manifest(
    kind: str, name: str, values: Mapping[str, Any], changes: Iterable[str], *, namespace: str = ""
) -> dict[str, Any]:
    """The job that the flags describe.

    Args:
        kind: TrainingJob or InferenceJob.
        name: of the job.
        values: of the flags, by parameter; None: not written, the field gets its default.
        changes: of --set: PATH=VALUE.
        namespace: is written into it, if there is one.

    Raises:
        Failure: a value is wrong; the message names its flag.
    """
    from rfuav_crds.load import JobError, changed, load_job  # noqa: PLC0415  (half a second)

    fields = fields_of(kind)
    spec: dict[str, Any] = {}
    for parameter, value in values.items():
        if value is not None:
            _put(spec, fields[parameter], _SPECIAL[parameter](value) if parameter in _SPECIAL else value)
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    body: dict[str, Any] = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    try:
        body = changed(body, changes)
        load_job(body)
    except JobError as error:
        raise Failure(named(str(error), fields), USAGE) from None
    return body


def named(text: str, fields: Mapping[str, str]) -> str:
    """Errors of fields, a line each, with the flags that have set them."""
    flags = {f"spec.{path}": f"--{p.strip('_').replace('_', '-')}" for p, path in fields.items()}
    flags |= {"metadata.name": "NAME"}
    found = []
    for line in text.splitlines():
        match = _FIELD.match(line)
        path, rest = (match["path"], match["rest"].removeprefix(": ")) if match else ("", "")
        near = [f for f in flags if path == f or path.startswith(f"{f}.") or f.startswith(f"{path}.")]
        near = [f for f in near if f != "spec.output.overwrite"] or near  # no output: it is the URI that lacks
        if path in {"", "spec", "metadata"} or not near:
            found.append(line)
        elif path in near:
            found.append(f"{flags[path]}: {rest}")
        else:
            found.append(f"{' or '.join(flags[f] for f in near)}: {line}")
    return found[0] if len(found) == 1 else "\n  ".join(["the job has mistakes:", *found])


def _put(spec: dict[str, Any], path: str, value: Any) -> None:
    *steps, last = path.split(".")
    for step in steps:
        spec = spec.setdefault(step, {})
    spec[last] = value


def _validation(text: str) -> dict[str, Any]:
    try:
        return {"fraction": float(text)}
    except ValueError:
        return {"uri": text}


def _number_or_auto(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


_SPECIAL: dict[str, Callable[[str], Any]] = {"validation": _validation, "batch_size": _number_or_auto}
