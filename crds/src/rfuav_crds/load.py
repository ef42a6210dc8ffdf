"""Reading a job from a YAML file or a dict, with errors that name the field and say what to write instead."""

import copy
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from rfuav_crds.jobs import KINDS, InferenceJob, Resource, TrainingJob

_JOBS = ("TrainingJob", "InferenceJob")


class JobError(ValueError):
    """The job file is wrong; the message has one line for each field."""


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: 1e-4 is a number there, too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_job(source: str | Path | Mapping[str, Any]) -> TrainingJob | InferenceJob:
    """The TrainingJob or InferenceJob that `source`, a YAML file or the decoded object, holds.

    A file may hold other objects beside the one job.

    Raises:
        JobError: when the file cannot be read or a field is wrong; the message names each and says what to write.
    """
    value = source if isinstance(source, Mapping) else read_job(Path(source))
    if value.get("kind") not in _JOBS:
        raise JobError(f"kind: {value.get('kind')!r} is no job: write TrainingJob or InferenceJob")
    job = load_object(value)
    assert isinstance(job, TrainingJob | InferenceJob)  # noqa: S101 - for the type checker; kind was checked above
    return job


def load_object(value: Mapping[str, Any]) -> Resource:
    """The object of one of the four kinds that `value` describes.

    Raises:
        JobError: when a field is wrong.
    """
    model = KINDS.get(str(value.get("kind")))
    if model is None:
        raise JobError(f"kind: {value.get('kind')!r} is not one of {', '.join(KINDS)}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise JobError("\n".join(line for one in error.errors() for line in _lines(model, one))) from None


def changed(manifest: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """A copy of `manifest` with other values in its spec; `load_job` checks the result.

    Args:
        manifest: a job as `read_job` returns it.
        changes: PATH=VALUE, as in `training.epochs=20`: a dotted path below spec, and a value in YAML. An empty value
            removes the field, so that it gets its default.

    Raises:
        JobError: a change has no `=`, its value is not YAML, or its path leads through a value that has no fields.
    """
    result = copy.deepcopy(dict(manifest))
    for change in changes:
        path, found, text = change.partition("=")
        steps = path.strip().removeprefix("spec.").split(".")
        if not found or not all(steps):
            raise JobError(f"--set {change}: write PATH=VALUE, as in training.epochs=20")
        try:
            value = yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader)
        except yaml.YAMLError as error:
            raise JobError(f"--set {change}: the value is not YAML: {error}") from error
        at: Any = result
        for step in ("spec", *steps[:-1]):
            at = at.setdefault(step, {})
            if not isinstance(at, dict):
                raise JobError(f"--set {change}: {step} has no fields, its value is {at!r}")
        if value is None:
            at.pop(steps[-1], None)
        else:
            at[steps[-1]] = value
    return result


def read_job(path: Path) -> Mapping[str, Any]:
    """The one job in a YAML file, decoded and not yet checked.

    Raises:
        JobError: the file cannot be read, is not YAML, or has no job or several.
    """
    try:
        documents = [document for document in yaml.load_all(path.read_text(), _Loader) if document is not None]
    except OSError as error:
        raise JobError(f"{path}: cannot be read ({error.strerror}): name a YAML file with a job") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: is not YAML: {error}") from error
    jobs = [document for document in documents if isinstance(document, Mapping) and document.get("kind") in _JOBS]
    if len(jobs) != 1:
        raise JobError(f"{path}: holds {len(jobs)} jobs: write exactly one TrainingJob or InferenceJob")
    return jobs[0]


def _lines(model: type[BaseModel], error: Any) -> list[str]:
    """One line for each thing that is wrong; the rules that an object breaks together come as one error."""
    path = ".".join(str(step) for step in error["loc"]) or "the object"
    path = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", path)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), _fields_at(model, error["loc"][:-1]), n=1, cutoff=0.5)
        return [f"{path}: unknown field" + (f": did you mean {near[0]}?" if near else ": remove it")]
    if error["type"] == "missing":
        return [f"{path}: is required: add it"]
    found = "" if isinstance(error["input"], Mapping | BaseModel) else f" (found {error['input']!r})"
    if error["type"] == "rule":
        return [f"{path}{field}: {message}{found}" for field, message in error["ctx"]["lines"]]
    text = error["msg"][0].lower() + error["msg"][1:]
    return [f"{path}: {text}{found}"]


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The fields of the object at `location`."""
    current: Any = model
    for step in location:
        if isinstance(step, int):
            continue
        field = next(f for f in current.model_fields.values() if f.alias == step)
        current = next(t for t in _unwrapped(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel))
    return [str(field.alias) for field in current.model_fields.values()]


def _unwrapped(annotation: Any) -> list[Any]:
    inner = [found for argument in get_args(annotation) for found in _unwrapped(argument)]
    return inner or [annotation]
