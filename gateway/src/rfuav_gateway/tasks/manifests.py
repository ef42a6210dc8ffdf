"""The job that a create asks for, as the API server takes it.

What the model service fixed and its bodies do not name are the defaults of the CRDs, which were made from it: Adam, a
constant learning rate, cross entropy, random order. Written in addition: results in the folder may be replaced, because
clients reuse their folders; initial weights are ImageNet's unless the body says otherwise; an inference annotates
every input.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rfuav_crds import API_VERSION, JobError, contract, load_object
from rfuav_gateway.tasks import callbacks, identity, roots
from rfuav_gateway.tasks.bodies import CPU, InferenceBatch, InferenceStart, TaskType, TrainingStart
from rfuav_gateway.tasks.callbacks import Network, Target
from rfuav_gateway.tasks.priorities import class_name
from rfuav_gateway.tasks.roots import Places
from rfuav_gateway.tasks.words import Problem, RefusedError, Said, said

_FIELDS = {
    "spec.dataset.train.uri": "train_path",
    "spec.dataset.validation.uri": "val_path",
    "spec.dataset.imageSize": "image_size",
    "spec.input.uri": "source_path",
    "spec.model.weights": "weight_path",
    "spec.model.config": "cfg_path",
    "spec.output.uri": "save_path",
}
"""Fields of a spec that the rules of the CRDs may still refuse, and the fields of a body that they come from."""

_LONGEST_NAME = 180  # bytes of a source's name that are part of its folder's


@dataclass(frozen=True)
class Terms:
    """What the settings say about the jobs of the gateway."""

    places: Places = field(default_factory=Places)
    weights_cache: str = ""
    """URI of the folder with the ImageNet weights; empty: there is none."""
    results: str = ""
    """URI of the folder for results of inferences that name none; empty: beside what they read."""
    pool: str = "default"
    resources: Mapping[str, Any] = field(default_factory=dict)
    """spec.resources of every job, but for its GPUs."""
    calls_back: Collection[Network] | None = None
    """Networks that callbacks may go to beside the public internet; None: there are no callbacks."""


class Built(NamedTuple):
    """A job to be created, and what its creator should know."""

    manifest: dict[str, Any]
    notes: tuple[Said, ...]

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations of the job."""
        found: dict[str, str] = self.manifest["metadata"]["annotations"]
        return found


def training(body: TrainingStart, *, namespace: str, task_id: str, terms: Terms, created_by: str = "") -> Built:
    """The TrainingJob of a body.

    Args:
        body: of the request.
        namespace: of the job.
        task_id: that of the body, or a new one.
        terms: what the settings say.
        created_by: the name of the user; empty: nobody knows.

    Raises:
        RefusedError: a field cannot become one of a job.
    """
    place = terms.places.resolve
    output = place(body.save_path, "save_path")
    spec: dict[str, Any] = {
        "model": {"architecture": body.model, "numClasses": body.num_classes, **_initial_weights(body, terms)},
        "dataset": {
            "train": {"uri": place(body.train_path, "train_path")},
            "validation": {"uri": place(body.val_path, "val_path")},
            "imageSize": body.image_size,
        },
        "training": {
            "epochs": body.num_epochs,
            "batchSize": body.batch_size,
            "optimizer": {"name": "adam", "learningRate": body.learning_rate},
        },
        "output": {"uri": roots.below(output, body.name, "name") if body.name else output, "overwrite": True},
        **_running("training", body.device, body.priority, terms),
    }
    if spec["model"]["weights"] == "pretrained":
        spec["weightsCache"] = {"uri": terms.weights_cache}
    notes = _notes(body.device) + (() if body.shuffle else (said("always_shuffled"),))
    extra = {
        contract.ANNOTATION_TASK_DESCRIPTION: body.description or "",
        contract.ANNOTATION_CALLBACK_URL: _callback_url(body.callback_url, terms),
    }
    return Built(
        _checked("training", spec, body, extra, namespace=namespace, task_id=task_id, created_by=created_by), notes
    )


def inference(body: InferenceStart, *, namespace: str, task_id: str, terms: Terms, created_by: str = "") -> Built:
    """The InferenceJob of a body; as `training`."""
    source = terms.places.resolve(body.source_path, "source_path")
    place = terms.places.resolve
    spec: dict[str, Any] = {
        "model": {"weights": place(body.weight_path, "weight_path"), "config": place(body.cfg_path, "cfg_path")},
        "input": {"uri": source},
        "output": {"uri": _results(body, source, task_id, terms), "annotate": "all", "overwrite": True},
        **_running("inference", body.device, body.priority, terms),
    }
    extra = {contract.ANNOTATION_CALLBACK_URL: _callback_url(body.callback_url, terms)}
    return Built(
        _checked("inference", spec, body, extra, namespace=namespace, task_id=task_id, created_by=created_by),
        _notes(body.device),
    )


def batch(
    body: InferenceBatch, *, namespace: str, task_ids: Sequence[str], terms: Terms, created_by: str = ""
) -> list[Built]:
    """The InferenceJobs of a body, one for each source; `task_ids` has as many.

    Each has a folder below `save_base_path`, named as its source; of sources with the same name, the later ones get a
    number.

    Raises:
        RefusedError: a field cannot become one of a job; of the sources, the first one that cannot is named.
    """
    common = body.model_dump(include={"cfg_path", "weight_path", "device", "priority", "callback_url"})
    built, names = [], _names(body.source_paths)
    for index, (source, name, task_id) in enumerate(zip(body.source_paths, names, task_ids, strict=True)):
        folder = {"save_path": body.save_base_path, "name": name} if body.save_base_path else {}
        one = InferenceStart(**common, source_path=source, **folder)
        try:
            built.append(inference(one, namespace=namespace, task_id=task_id, terms=terms, created_by=created_by))
        except RefusedError as error:
            raise RefusedError(*(_of_batch(problem, index) for problem in error.problems)) from None
    return built


def _of_batch(problem: Problem, index: int) -> Problem:
    """The same problem, with the field's name in the body of a batch."""
    match problem.field:
        case "source_path" | "name":
            return Problem("source_paths", problem.what, problem.type, index)
        case "save_path":
            return Problem("save_base_path", problem.what, problem.type)
        case _:
            return problem


def _names(sources: Sequence[str]) -> list[str]:
    """A folder for each source: the last step of its path, numbered where an earlier one has it."""
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    names = []
    for source in sources:
        plain = source.rstrip("/").rpartition("/")[2].encode()[:_LONGEST_NAME].decode(errors="ignore")
        plain = "source" if plain in ("", ".", "..") else plain
        name = plain
        while name in taken:
            numbers[plain] = numbers.get(plain, 1) + 1
            name = f"{plain}-{numbers[plain]}"
        taken.add(name)
        names.append(name)
    return names


def _initial_weights(body: TrainingStart, terms: Terms) -> dict[str, str]:
    if body.weight_path:
        return {"weights": terms.places.resolve(body.weight_path, "weight_path")}
    if not body.pretrained:
        return {"weights": "none"}
    if not terms.weights_cache:
        raise RefusedError(Problem("pretrained", said("no_weights_cache")))
    return {"weights": "pretrained"}


def _results(body: InferenceStart, source: str, task_id: str, terms: Terms) -> str:
    """Where an inference writes to."""
    if body.save_path:
        folder = terms.places.resolve(body.save_path, "save_path")
        return roots.below(folder, body.name, "name") if body.name else folder
    folder_beside = terms.results or roots.beside(source)
    if folder_beside is None:
        raise RefusedError(Problem("save_path", said("save_path_needed", path=body.source_path)))
    return roots.below(folder_beside, body.name or identity.object_name(task_id), "name")


def _running(kind: TaskType, device: str, priority: int, terms: Terms) -> dict[str, Any]:
    """How the job is scheduled."""
    resources = dict(terms.resources) | {"gpus": 0 if device == CPU else 1}
    if device == CPU:
        resources.pop("gpuMemory", None)
    return {"resources": resources, "pool": terms.pool, "priorityClassName": class_name(kind, priority)}


def _callback_url(url: str | None, terms: Terms) -> str:
    """The URL, if it may be called; empty: there is none."""
    if not url:
        return ""
    if terms.calls_back is None:
        raise RefusedError(Problem("callback_url", said("no_callbacks")))
    found = callbacks.target(url, terms.calls_back)
    if not isinstance(found, Target):
        raise RefusedError(Problem("callback_url", found))
    return found.url


def _notes(device: str) -> tuple[Said, ...]:
    return (said("device_is_chosen", device=device),) if ":" in device else ()


def _checked(
    kind: TaskType,
    spec: dict[str, Any],
    body: TrainingStart | InferenceStart,
    extra: Mapping[str, str],
    *,
    namespace: str,
    task_id: str,
    created_by: str,
) -> dict[str, Any]:
    """The whole manifest, as the API server will accept it."""
    annotations = {
        contract.ANNOTATION_TASK_ID: task_id,
        contract.ANNOTATION_TASK_DIGEST: identity.digest(kind, body),
        contract.ANNOTATION_TASK_DEVICE: body.device,
        contract.ANNOTATION_CREATED_BY: created_by,
        **extra,
    }
    manifest = {
        "apiVersion": API_VERSION,
        "kind": identity.KINDS[kind],
        "metadata": {
            "name": identity.object_name(task_id),
            "namespace": namespace,
            "annotations": {key: text for key, text in annotations.items() if text},
        },
        "spec": spec,
    }
    try:
        load_object(manifest)
    except JobError as error:
        raise RefusedError(*(_problem(line) for line in str(error).split("\n"))) from None
    return manifest


def _problem(line: str) -> Problem:
    """A line of the CRDs' rules, `field: message`, as a problem of the body."""
    path, _, text = line.partition(": ")
    return Problem(_FIELDS.get(path, path), said("as_it_is", text=text))
