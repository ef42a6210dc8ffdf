"""Preparations of data: a create becomes a batch/v1 Job of the trainer's image, and such a Job is shown as a task.

The cluster's own Job controller runs them; no GPU, and bounded by the ResourceQuota of the namespace alone. They read
and write volumes, so their paths must be on claims.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from rfuav_crds import contract
from rfuav_crds.bounds import EARLIEST, bounded
from rfuav_crds.common import DNS_LABEL
from rfuav_gateway.tasks import identity
from rfuav_gateway.tasks.bodies import (
    AugmentStart,
    CropStart,
    Preparation,
    PreparationType,
    SplitStart,
    TaskStatus,
)
from rfuav_gateway.tasks.jobs import Instant
from rfuav_gateway.tasks.roots import Places
from rfuav_gateway.tasks.views import local
from rfuav_gateway.tasks.words import Phrases, Problem, RefusedError, Said, said
from rfuav_kube.objects import Meta, Wire
from rfuav_operator.core.capacity.volumes import claims_in_uris
from rfuav_operator.core.job import podspec

API_VERSION = "batch/v1"
TYPES: dict[str, PreparationType] = {
    "split": "dataset_split",
    "augment": "data_augmentation",
    "crop": "image_crop",
}
"""Words of the label, which are the commands of `rfuav-trainer prepare`, and what clients call them."""
METHODS = ("AdvancedBlur", "CLAHE", "ColorJitter", "GaussNoise", "ISONoise", "Sharpen")
SMALL = {"cpu": "1", "memory": "4Gi", "sharedMemory": "1Gi"}
"""Resources where the settings name none: pictures are prepared one by one."""
ENDED = ("completed", "failed", "cancelled")
_DIGITS = 6  # of a share: 1 - 0.8 is not 0.2
_LONGEST_MESSAGE = 2000  # characters
_PVC = "pvc://"
_CLAIM = re.compile(DNS_LABEL)

Start = SplitStart | AugmentStart | CropStart


@dataclass(frozen=True)
class Terms:
    """What the settings say about preparations."""

    places: Places = field(default_factory=Places)
    image: str = ""
    """Of the trainer; empty: there are none."""
    resources: Mapping[str, Any] = field(default_factory=dict)
    keep_seconds: int = 7 * 24 * 3600
    """How long one that has ended is kept."""
    cluster_assigns_users: bool = False


# --- a Job as it is read


class _Condition(Wire, frozen=True):
    type: str
    status: str
    reason: str | None = None
    message: str | None = None
    last_transition_time: Instant | None = None


class _Status(Wire, frozen=True):
    active: int = 0
    ready: int = 0
    conditions: tuple[_Condition, ...] | None = None
    start_time: Instant | None = None
    completion_time: Instant | None = None


class JobObject(Wire, frozen=True):
    """A batch/v1 Job, as much of it as is read."""

    metadata: Meta
    status: _Status = _Status()


class Prepared(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A preparation as it is held."""

    type: PreparationType
    namespace: str
    name: str
    uid: str
    resource_version: str
    created: datetime
    changed: datetime
    task_id: str
    digest: str
    input_path: str
    output_path: str
    cancelled_by: str
    status: TaskStatus
    message: str = ""
    """What the cluster says of its end."""
    unreadable: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer left when it ended."""

    message: str = ""
    stats: dict[str, Any] | None = None


def read(found: JobObject, unreadable: str = "") -> Prepared:
    """The preparation that a Job is."""
    meta, status = found.metadata, found.status
    annotations, labels = meta.annotations or {}, meta.labels or {}
    conditions = {one.type: one for one in status.conditions or () if one.status == "True"}
    failed = conditions.get("Failed") or conditions.get("FailureTarget")
    cancelled_by = annotations.get(contract.ANNOTATION_CANCELLED_BY, "")
    created = bounded(meta.creation_timestamp or EARLIEST)
    times = [status.start_time, status.completion_time, *(one.last_transition_time for one in conditions.values())]
    word: TaskStatus
    if "Complete" in conditions or "SuccessCriteriaMet" in conditions:
        word = "completed"
    elif cancelled_by:
        word = "cancelled"
    elif failed is not None:
        word = "failed"
    else:
        word = "running" if status.ready else "queued" if status.active else "pending"
    return Prepared(
        type=TYPES.get(labels.get(contract.LABEL_PREPARATION, ""), "dataset_split"),
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        created=created,
        changed=max([created, *(bounded(at) for at in times if at is not None)]),
        task_id=identity.task_id_of(meta.namespace, meta.name, annotations),
        digest=annotations.get(contract.ANNOTATION_TASK_DIGEST, ""),
        input_path=annotations.get(contract.ANNOTATION_TASK_INPUT, ""),
        output_path=annotations.get(contract.ANNOTATION_TASK_OUTPUT, ""),
        cancelled_by=cancelled_by,
        status=word,
        message=f"{failed.reason}: {failed.message}" if failed is not None else "",
        unreadable=unreadable,
    )


class _Own(msgspec.Struct):
    files: int | None = None
    failed: int = 0
    parts: dict[str, int] = {}


class _TrainerStatus(msgspec.Struct):
    rfuav: _Own = msgspec.field(default_factory=_Own)


class _Termination(msgspec.Struct, rename="camel"):
    reason: str = ""
    message: str = ""
    trainer_status: _TrainerStatus = msgspec.field(default_factory=_TrainerStatus)


def report(termination: str) -> Report | None:
    """What a termination message says; None: it is not one of the trainer."""
    try:
        found = msgspec.json.decode(termination, type=_Termination)
    except (ValueError, RecursionError):
        return None
    own = found.trainer_status.rfuav
    stats = None if own.files is None else {**own.parts, "total": own.files, "unreadable": own.failed}
    message = f"{found.reason}: {found.message}" if found.message else ""
    return Report(message=message[:_LONGEST_MESSAGE], stats=stats)


def view(one: Prepared, phrases: Phrases, found: Report | None = None) -> Preparation:
    """The preparation as clients see it; `found` is what the trainer left."""
    return Preparation(
        task_id=one.task_id,
        task_type=one.type,
        status=one.status,
        message=story(one, phrases, found) or None,
        progress=100.0 if one.status == "completed" else 0.0,
        input_path=one.input_path,
        output_path=one.output_path,
        stats=None if found is None else found.stats,
        created_at=local(one.created),
        updated_at=local(one.changed),
    )


def story(one: Prepared, phrases: Phrases, found: Report | None = None) -> str:
    """Why the preparation is where it is, in one line; empty: there is nothing to say."""
    match one.status:
        case "cancelled":
            return phrases.cancelled_by.format(user=one.cancelled_by)
        case "failed":
            return (found.message if found is not None else "") or one.message
        case "pending" | "queued":
            return phrases.starting
        case _:
            return ""


# --- a Job to be created


def manifest(body: Start, *, namespace: str, task_id: str, terms: Terms, created_by: str = "") -> dict[str, Any]:
    """The Job of a create.

    Args:
        body: of the request.
        namespace: of the Job.
        task_id: that of the body, or a new one.
        terms: what the settings say.
        created_by: the name of the user; empty: nobody knows.

    Raises:
        RefusedError: a field cannot become part of a Job.
    """
    kind, (source, target), paths, options = _work(body, _on_volume(terms.places))
    labels = {contract.LABEL_PREPARATION: kind}
    annotations = {
        contract.ANNOTATION_TASK_ID: task_id,
        contract.ANNOTATION_TASK_DIGEST: identity.digest(kind, body),
        contract.ANNOTATION_TASK_DESCRIPTION: body.description or "",
        contract.ANNOTATION_TASK_INPUT: paths[0],
        contract.ANNOTATION_TASK_OUTPUT: paths[1],
        contract.ANNOTATION_CREATED_BY: created_by,
    }
    pod = podspec.trainer_pod(
        claims_in_uris({"input": source, "output": target}),
        image=terms.image,
        args=["prepare", kind, _mounted(source), _mounted(target), "--overwrite", *options],
        env=podspec.variables({contract.VISIBLE_DEVICES: contract.NO_DEVICES}),
        resources=_resources(terms.resources),
        users=podspec.users({}, None if terms.cluster_assigns_users else podspec.USER),
        shared_memory=str(terms.resources.get("sharedMemory", SMALL["sharedMemory"])),
    )
    return {
        "apiVersion": API_VERSION,
        "kind": "Job",
        "metadata": {
            "name": identity.object_name(task_id),
            "namespace": namespace,
            "labels": labels,
            "annotations": {key: text for key, text in annotations.items() if text},
        },
        "spec": {
            "backoffLimit": 0,
            # A pod that a drained node evicts is no failure.
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "ttlSecondsAfterFinished": terms.keep_seconds,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _work(
    body: Start, place: Callable[[str, str], str]
) -> tuple[str, tuple[str, str], tuple[str, str], tuple[str, ...]]:
    """The command, the URIs of what is read and written, these as clients name them, and the command's options."""
    match body:
        case SplitStart():
            rest = round(1 - body.train_ratio, _DIGITS)
            validation = rest if body.val_ratio is None else body.val_ratio
            test = round(rest - validation, _DIGITS)
            if test < 0:
                raise RefusedError(Problem("val_ratio", said("ratios_too_large", rest=f"{rest:g}")))
            uris = place(body.input_path, "input_path"), place(body.output_path, "output_path")
            options = ("--validation", f"{validation:g}", "--test", f"{test:g}", "--validation-folder", "valid")
            return "split", uris, (body.input_path, body.output_path), options
        case AugmentStart():
            methods = METHODS if body.methods is None else tuple(dict.fromkeys(body.methods))
            if not methods or not set(methods) <= set(METHODS):
                raise RefusedError(Problem("methods", said("unknown_methods", methods=", ".join(METHODS))))
            output = body.output_path or _beside(body.dataset_path)
            uris = place(body.dataset_path, "dataset_path"), place(output, "output_path")
            changes = tuple(word for name in methods for word in ("--change", name))
            return "augment", uris, (body.dataset_path, output), changes
        case CropStart():
            uris = place(body.input_path, "input_path"), place(body.output_path, "output_path")
            box = f"{body.x},{body.y},{body.width},{body.height}"
            return "crop", uris, (body.input_path, body.output_path), ("--box", box)


def _beside(path: str) -> str:
    """The folder dataset_aug beside a folder."""
    folder, slash, _ = path.rstrip("/").rpartition("/")
    return f"{folder}{slash}dataset_aug"


def _on_volume(places: Places) -> Callable[[str, str], str]:
    """Resolves a path to a URI on a claim."""

    def place(path: str, name: str) -> str:
        uri = places.resolve(path, name)
        claim, _, inside = uri.removeprefix(_PVC).partition("/")
        if not uri.startswith(_PVC) or not _CLAIM.fullmatch(claim) or not inside.strip("/") or _leaves(inside):
            raise RefusedError(Problem(name, said("volumes_only", path=path)))
        return uri

    return place


def _leaves(inside: str) -> bool:
    return any(step in (".", "..") for step in inside.split("/")) or not inside.isprintable()


def _mounted(uri: str) -> str:
    """Where the pod has a URI on a claim, as an argument."""
    return podspec.literal(f"{contract.MOUNT_ROOT}/{uri.removeprefix(_PVC).rstrip('/')}")


def _resources(asked: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    cpu, memory = str(asked.get("cpu", SMALL["cpu"])), str(asked.get("memory", SMALL["memory"]))
    limits = {"memory": memory} | ({"cpu": str(asked["cpuLimit"])} if asked.get("cpuLimit") else {})
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": limits}


def conflict(one: Prepared, wanted: Mapping[str, Any]) -> Said | None:
    """Why a create finds its name taken; None: the Job that exists is the preparation, created before."""
    there = {contract.ANNOTATION_TASK_ID: one.task_id, contract.ANNOTATION_TASK_DIGEST: one.digest}
    return identity.conflict("Job", one.namespace, one.name, there, wanted["metadata"]["annotations"])
