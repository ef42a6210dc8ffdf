"""Which job a task is: its task_id is an annotation of the job, and decides the job's name.

A job that kubectl made has no such annotation; its id is `namespace/name`. Ids are those of a namespace: the same may
exist in two. If an id means several jobs that the caller may see, the answer names them all (`two_jobs`).
"""

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256

from rfuav_crds import contract
from rfuav_gateway.tasks.bodies import Request, TaskType
from rfuav_gateway.tasks.words import Said, said

KINDS: dict[TaskType, str] = {"training": "TrainingJob", "inference": "InferenceJob"}
"""The kind of job that a task is."""
_SLUG, _HASH = 27, 12
"""Characters: together with a hyphen at most 40, the longest name of a job."""
_NEITHER = re.compile("[^a-z0-9]+")


def object_name(task_id: str) -> str:
    """The job's name: a readable part of the id and a hash of all of it, so that a second create meets the first."""
    slug = _NEITHER.sub("-", task_id.lower())[:_SLUG].strip("-") or "task"
    return f"{slug}-{sha256(task_id.encode()).hexdigest()[:_HASH]}"


def task_id_of(namespace: str, name: str, annotations: Mapping[str, str] | None) -> str:
    """The id of a job's task."""
    return (annotations or {}).get(contract.ANNOTATION_TASK_ID) or f"{namespace}/{name}"


def digest(kind: str, body: Request) -> str:
    """SHA-256 of what a create asks for, without its id, in hexadecimal digits.

    What equals its default does not count: a field that a later version adds leaves the digests of stored jobs valid.
    """
    asked = {"kind": kind, **body.model_dump(exclude={"task_id"}, exclude_defaults=True)}
    return sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def conflict(
    kind: str, namespace: str, name: str, annotations: Mapping[str, str] | None, wanted: Mapping[str, str]
) -> Said | None:
    """Why a create finds its name taken; None: the job that exists is the task, created before.

    Args:
        kind: of both jobs: training, inference, or what the API server calls them.
        namespace: of both.
        name: of both.
        annotations: those of the job that exists.
        wanted: those of the job that is being created.
    """
    there, task_id = annotations or {}, wanted[contract.ANNOTATION_TASK_ID]
    if there.get(contract.ANNOTATION_TASK_ID) != task_id:
        return said("name_is_taken", job=shown(kind, namespace, name), task_id=task_id)
    if there.get(contract.ANNOTATION_TASK_DIGEST) != wanted[contract.ANNOTATION_TASK_DIGEST]:
        return said("other_content", task_id=task_id)
    return None


def shown(kind: str, namespace: str, name: str) -> str:
    """A job, for messages."""
    named = next((word for of, word in KINDS.items() if of == kind), kind)
    return f"{named} {namespace}/{name}"


def several(task_id: str, jobs: Iterable[tuple[TaskType, str, str]]) -> Said:
    """What is said of an id that means several jobs, each given as type, namespace and name."""
    return said("two_jobs", task_id=task_id, jobs=", ".join(sorted(shown(*job) for job in jobs)))
