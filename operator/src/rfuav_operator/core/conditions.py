"""Conditions as Kubernetes keeps them: a list by type, whose transition time moves only when the status does."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from rfuav_operator.core.model import Condition

Conditions = tuple[Condition, ...]
_MESSAGE_LIMIT = 1024  # the CRD allows 32768; nobody reads on


def find(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """The condition of this type, if there is one."""
    return next((c for c in conditions if c.type == kind), None)


def is_true(conditions: Sequence[Condition], kind: str) -> bool:
    """Whether there is a condition of this type and its status is True."""
    found = find(conditions, kind)
    return found is not None and found.status == "True"


def put(
    conditions: Conditions, kind: str, *, value: bool, reason: str, message: str, now: datetime, generation: int
) -> Conditions:
    """The conditions with this one set. `now` becomes its transition time only if its status changes."""
    status: Literal["True", "False"] = "True" if value else "False"
    old = find(conditions, kind)
    new = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message[:_MESSAGE_LIMIT],
        last_transition_time=old.last_transition_time if old and old.status == status else now.replace(microsecond=0),
        observed_generation=generation,
    )
    if old is None:
        return (*conditions, new)
    return conditions if old == new else tuple(new if c.type == kind else c for c in conditions)


def clear(
    conditions: Conditions, kind: str, *, reason: str, message: str, now: datetime, generation: int
) -> Conditions:
    """Set a condition to False if it is there and True; one that never was stays absent."""
    if not is_true(conditions, kind):
        return conditions
    return put(conditions, kind, value=False, reason=reason, message=message, now=now, generation=generation)
