"""Previews as the interface takes and tells them: the manifest that is asked about, and the answer in a sentence."""

from collections.abc import Mapping
from typing import Any

from rfuav_crds.contract import API_VERSION
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.identity import KINDS
from rfuav_gateway.tasks.words import Phrases, Problem, RefusedError, said
from rfuav_operator.core.guidance.previews import Preview

_MOST_NODES = 8  # named in the message


def checked(manifest: Mapping[str, Any], namespace: str, *, name: str) -> tuple[TaskType, dict[str, Any]]:
    """A manifest as a job of the namespace, under a name of its own, and its type.

    Raises:
        RefusedError: it is no job, or one of another namespace.
    """
    kinds = {kind: task_type for task_type, kind in KINDS.items()}
    kind, metadata = manifest.get("kind"), manifest.get("metadata")
    if manifest.get("apiVersion") != API_VERSION or not isinstance(kind, str) or kind not in kinds:
        raise RefusedError(Problem("manifest", said("one_kind", kind=f"{kind} of {manifest.get('apiVersion')}")))
    metadata = metadata if isinstance(metadata, dict) else {}
    named = metadata.get("namespace") or namespace
    if named != namespace:
        raise RefusedError(Problem("manifest", said("other_namespace", named=named, namespace=namespace)))
    kept = {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
    metadata = {**kept, "name": name, "namespace": namespace}
    return kinds[kind], {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": manifest.get("spec")}


def story(found: Preview, phrases: Phrases) -> str:
    """The preview in a sentence."""
    if found.starts_now and found.nodes:
        shown = ", ".join(found.nodes[:_MOST_NODES])
        more = len(found.nodes) - _MOST_NODES
        return phrases.starts_now.format(nodes=f"{shown} (+{more})" if more > 0 else shown)
    if found.starts_now:
        return phrases.starts_on_new_node
    why = found.why or found.reason
    if found.position is None:
        return phrases.would_wait.format(why=why)
    place = phrases.in_queue.format(position=found.position, of=found.of)
    if found.estimated_start is not None:
        at = found.estimated_start.replace(tzinfo=None).isoformat(sep=" ", timespec="minutes")
        place = f"{place}, {phrases.about.format(at=at)}"
    return f"{place}: {why}"
