"""Conditions as Kubernetes keeps them: a list by type; the transition time changes only with the status."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from rfuav_operator.core.model import Condition, Job

Conditions = tuple[Condition, ...]
_MESSAGE_LIMIT = 1024  # the CRD allows 32768; nobody reads on


def find(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """The condition of this type, if there is one."""
    for condition in conditions:
        if condition.type == kind:
            return condition
    return None


def is_true(conditions: Sequence[Condition], kind: str) -> bool:
    """Whether there is a condition of this type and its status is True."""
    found = find(conditions, kind)
    return found is not None and found.status == "True"


class Builder:
    """The conditions of one object while they change, for one instant and generation.

    Args:
        settled: the current conditions; the attribute has the changed ones.
        now: the transition time of those whose status changes.
        generation: the generation of the object that they describe.
    """

    def __init__(self, settled: Conditions, *, now: datetime, generation: int) -> None:
        self.settled = settled
        self._now = now.replace(microsecond=0)
        self._generation = generation

    def put(self, kind: str, *, value: bool, reason: str, message: str) -> "Builder":
        """Set a condition; unless something of it changes, `settled` stays the same object."""
        status: Literal["True", "False"] = "True" if value else "False"
        old = find(self.settled, kind)
        new = Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message[:_MESSAGE_LIMIT],
            last_transition_time=old.last_transition_time if old and old.status == status else self._now,
            observed_generation=self._generation,
        )
        if old is None:
            self.settled = (*self.settled, new)
        elif old != new:
            self.settled = tuple(new if c.type == kind else c for c in self.settled)
        return self

    def clear(self, kind: str, *, reason: str, message: str) -> "Builder":
        """Set a condition to False if it is True; an absent one stays absent."""
        return self.put(kind, value=False, reason=reason, message=message) if is_true(self.settled, kind) else self


def of(job: Job, now: datetime) -> Builder:
    """The conditions of a job, to be changed at this instant."""
    return Builder(job.status.conditions, now=now, generation=job.generation)
