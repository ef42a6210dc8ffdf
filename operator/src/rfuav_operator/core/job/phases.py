"""The phases of a job: which may follow which, and what each field of its status is in them.

A status and a phase come in; the status in that phase goes out, or `IllegalTransitionError`. What takes several of them
at once, from a new job to an admitted one, takes them one after the other.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from rfuav_operator.core.model import JobStatus, Phase

_ENDS = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})

FOLLOWING: Mapping[Phase | None, frozenset[Phase]] = {
    None: frozenset({Phase.QUEUED}),  # a job that was just created
    # Room was found; or it is held; or it ends: cancelled, its training failed, its pods were done when it was resumed.
    Phase.QUEUED: _ENDS | {Phase.ADMITTED, Phase.SUSPENDED},
    # A pod runs; or all of them went.
    Phase.ADMITTED: _ENDS | {Phase.RUNNING, Phase.QUEUED, Phase.SUSPENDED},
    # All running pods were asked to stop, or all pods are gone.
    Phase.RUNNING: _ENDS | {Phase.ADMITTED, Phase.QUEUED, Phase.SUSPENDED},
    # Let go; with pods that still stop for another reason it holds room.
    Phase.SUSPENDED: _ENDS | {Phase.QUEUED, Phase.ADMITTED},
    Phase.SUCCEEDED: frozenset(),
    Phase.FAILED: frozenset(),
    Phase.CANCELLED: frozenset(),
}


class IllegalTransitionError(ValueError):
    """A phase that may not follow."""


def move(status: JobStatus, to: Phase, **changes: Any) -> JobStatus:
    """The status in the phase `to`, with further changes.

    Raises:
        IllegalTransitionError: it may not follow the phase that the status is in.
    """
    if to is not status.phase and to not in FOLLOWING[status.phase]:
        raise IllegalTransitionError(f"a job that is {status.phase or 'new'} does not become {to}")
    return replace(status, phase=to, **changes)


class Invariant(NamedTuple):
    """What always holds for a field of a decided status."""

    field: str
    words: str
    holds: Callable[[JobStatus], bool]


def _holds_room(status: JobStatus) -> bool:
    return status.phase in (Phase.ADMITTED, Phase.RUNNING)


def _all_stop(status: JobStatus) -> bool:
    return not status.assignments or any(a.stopping for a in status.assignments)


def _is_over(status: JobStatus) -> bool:
    return status.phase in _ENDS


INVARIANTS = (
    Invariant("phase", "set with the first status", lambda s: s.phase is not None),
    Invariant(
        "reason", "set, but for a job all of whose pods run", lambda s: bool(s.reason or s.phase is Phase.RUNNING)
    ),
    Invariant("message", "always says something", lambda s: bool(s.message)),
    Invariant("attempt", "at least 1 with room", lambda s: s.attempt > 0 or not _holds_room(s)),
    Invariant("priority", "recorded with room", lambda s: s.priority is not None or not _holds_room(s)),
    Invariant(
        "assignments",  # pods of a job of several nodes that are done stay beside one that stops
        "some with room; else none unless one stops, or the job is over",
        lambda s: bool(s.assignments) if _holds_room(s) else _is_over(s) or _all_stop(s),
    ),
    Invariant("queue", "only of a queued job", lambda s: s.queue is None or s.phase is Phase.QUEUED),
    Invariant("not_before", "never of a job that is over", lambda s: s.not_before is None or not _is_over(s)),
    Invariant("running_since", "never of a job that is over", lambda s: s.running_since is None or not _is_over(s)),
    Invariant("queued_at", "set in the queue", lambda s: s.queued_at is not None or s.phase is not Phase.QUEUED),
    Invariant("admitted_at", "set with room", lambda s: s.admitted_at is not None or not _holds_room(s)),
    Invariant("started_at", "set once a pod ran", lambda s: s.started_at is not None or s.phase is not Phase.RUNNING),
    Invariant("finished_at", "set exactly when the job is over", lambda s: (s.finished_at is not None) == _is_over(s)),
    Invariant(
        "progress",
        "100 % of a job that succeeded",
        lambda s: s.phase is not Phase.SUCCEEDED or s.progress is None or s.progress.percent == 100,  # noqa: PLR2004
    ),
    Invariant("conditions", "one of a type", lambda s: len({c.type for c in s.conditions}) == len(s.conditions)),
)


def broken(status: JobStatus) -> Iterator[str]:
    """The broken invariants of a decided status."""
    return (f"{rule.field}: {rule.words}" for rule in INVARIANTS if not rule.holds(status))
