"""When a job would start. Nothing is created, and nothing is kept.

In: a snapshot of the cluster and a job that does not exist. Out: where it would start now, or its place, why it would
wait, and about when it would start.

The planner's words may name whatever is in the way. Names of other namespaces' jobs and pods are replaced; only numbers
remain of them.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from rfuav_operator.core import scheduler
from rfuav_operator.core.model import Job, Phase, Snapshot

# `namespace/name`, with what is said of it in parentheses; and `namespace NAME`.
_NAMED = re.compile(r"(?<![\w./-])([a-z0-9][-a-z0-9]*)/[a-z0-9][-a-z0-9.]*(?: \([^()]*\))?|\bnamespace ([-a-z0-9]+)")


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


def anonymous(text: str, namespace: str, *, names: bool) -> str:
    """The text without names of other namespaces and of what is in them; without `names`, not of this one either."""

    def shown(found: re.Match[str]) -> str:
        if found[1]:
            return found[0] if names and found[1] == namespace else "one that you may not see"
        return found[0] if found[2] == namespace else "another namespace"

    return _NAMED.sub(shown, text)
