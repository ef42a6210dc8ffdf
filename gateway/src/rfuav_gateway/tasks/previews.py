"""When a job would start, by the operator's own planner. Nothing is created, and nothing is kept.

In: a snapshot of the cluster and a job that does not exist. Out: where it would start now, or its place, why it would
wait, and about when it would start.

The planner's words may name whatever is in the way. Names of other namespaces' jobs and pods are replaced; only numbers
remain of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from rfuav_crds.contract import API_VERSION
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.identity import KINDS
from rfuav_gateway.tasks.words import Phrases, Problem, RefusedError, said
from rfuav_operator.core import scheduler
from rfuav_operator.core.model import Job, Phase, Snapshot

# `namespace/name`, with what is said of it in parentheses; and `namespace NAME`.
_NAMED = re.compile(r"(?<![\w./-])([a-z0-9][-a-z0-9]*)/[a-z0-9][-a-z0-9.]*(?: \([^()]*\))?|\bnamespace ([-a-z0-9]+)")
_MOST_NODES = 8  # named in the message


@dataclass(frozen=True)
class Preview:
    """What would become of a job."""

    starts_now: bool
    nodes: tuple[str, ...]
    position: int | None
    of: int | None
    estimated_start: datetime | None
    reason: str
    why: str


def preview(snapshot: Snapshot, job: Job, *, now: datetime, names: bool) -> Preview:
    """What would become of a job that was created now.

    Args:
        snapshot: of the cluster.
        job: as the API server would have it, without a status.
        now: the API server's time.
        names: whether other jobs of its namespace may be named.
    """
    new = {uid for uid, one in snapshot.jobs.items() if one.status.phase is None}
    turn = scheduler.turn(replace(snapshot, jobs={**snapshot.jobs, job.uid: job}), now=now, changed={job.uid, *new})
    status = turn.status_of(job)
    starts = status.phase in (Phase.ADMITTED, Phase.RUNNING)
    queue = status.queue if status.phase is Phase.QUEUED else None
    return Preview(
        starts_now=starts,
        nodes=tuple(sorted({a.node for a in status.assignments if a.node})),
        position=None if queue is None else queue.position,
        of=None if queue is None else queue.of,
        estimated_start=None if queue is None else queue.estimated_start,
        reason="" if starts else status.reason,
        why="" if starts else anonymous(status.message, job.namespace, names=names),
    )


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


def anonymous(text: str, namespace: str, *, names: bool) -> str:
    """The text without names of other namespaces and of what is in them; without `names`, not of this one either."""

    def shown(found: re.Match[str]) -> str:
        if found[1]:
            return found[0] if names and found[1] == namespace else "one that you may not see"
        return found[0] if found[2] == namespace else "another namespace"

    return _NAMED.sub(shown, text)


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
