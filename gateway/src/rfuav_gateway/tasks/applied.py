"""A manifest that a caller sends as a job of theirs: who created it is written on it, and what it was."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from rfuav_crds import contract
from rfuav_gateway.tasks import details, previews
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.words import Problem, RefusedError, said


class Applied(NamedTuple):
    """A job that can be created."""

    type: TaskType
    namespace: str
    name: str
    digest: str
    """Of what was asked for: the same create twice is one job."""
    manifest: dict[str, Any]


def applied(manifest: Mapping[str, Any], namespace: str, *, created_by: str) -> Applied:
    """The job of a manifest.

    Args:
        manifest: as kubectl takes it.
        namespace: of the request; that of the manifest comes first.
        created_by: who sends it.

    Raises:
        RefusedError: it is no job, or lacks a name or a namespace.
    """
    metadata = manifest.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    name, home = metadata.get("name"), metadata.get("namespace") or namespace
    if not isinstance(name, str) or not name:
        raise RefusedError(Problem("manifest", said("name_needed")))
    if not isinstance(home, str) or not home:
        raise RefusedError(Problem("manifest", said("namespace_needed")))
    kind, job = previews.checked(manifest, home, name=name)
    annotations = job["metadata"].get("annotations") or {}
    if not isinstance(annotations, dict):
        raise RefusedError(Problem("manifest", said("as_it_is", text="metadata.annotations: write names and texts")))
    kept = {key: text for key, text in annotations.items() if key not in details.OWN}
    asked = json.dumps([job, kept], sort_keys=True).encode(errors="surrogatepass")
    digest = sha256(asked).hexdigest()
    job["metadata"]["annotations"] = kept | {
        contract.ANNOTATION_TASK_DIGEST: digest,
        contract.ANNOTATION_CREATED_BY: created_by,
    }
    return Applied(kind, home, name, digest, job)
