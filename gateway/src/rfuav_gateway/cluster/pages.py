"""Pages of tasks by key, not by number: tasks that come or go meanwhile neither repeat nor hide others.

A cursor holds the last task that was shown of each type. It is opaque to clients, and means the same on every replica.
"""

import base64
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Annotated, NamedTuple

import msgspec

from rfuav_gateway.cluster.tasks import Copies, Place, Tasks, newest, place
from rfuav_gateway.tasks.bodies import TaskStatus, TaskType
from rfuav_gateway.tasks.jobs import Job


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where the next page begins: before these, by type; a type that is not named has been shown whole."""

    before: dict[TaskType, tuple[Annotated[datetime, msgspec.Meta(tz=True)], str]]


class NoCursor(ValueError):  # noqa: N818  an answer, not a fault
    """The text is not a cursor."""


class Page(NamedTuple):
    """Tasks of one type."""

    jobs: list[Job]
    total: int
    next: Place | None  # where the next page begins; None: this is the last one


def page(
    tasks: Tasks, namespace: str, kind: TaskType, limit: int, *, status: TaskStatus | None, before: Place | None
) -> Page:
    """The newest tasks, from a place on.

    Args:
        tasks: all of them.
        namespace: whose.
        kind: which type.
        limit: most tasks of the page.
        status: only with this status word.
        before: older than this.
    """
    found = tasks.page(namespace, kind, limit + 1, status=status, before=before)
    return _cut(found, limit, tasks.count(namespace, kind, status))


def searched(lists: Copies, limit: int, *, search: str, before: Place | None) -> Page:
    """The same, of those whose id, name or creator contains a text, in any case; all of them are looked at.

    Args:
        lists: copies of the tasks, which do not change.
        limit: most tasks of the page.
        search: the text.
        before: older than this.
    """
    found = list(islice(_matching(newest(lists, before), search), limit + 1))
    return _cut(found, limit, sum(1 for _ in _matching(newest(lists), search)))


def _cut(found: list[Job], limit: int, total: int) -> Page:
    shown = found[:limit]
    return Page(shown, total, place(shown[-1]) if len(found) > limit and shown else None)


def _matching(jobs: Iterator[Job], search: str) -> Iterator[Job]:
    wanted = search.casefold()
    return (job for job in jobs if wanted in f"{job.task_id}\n{job.name}\n{job.created_by}".casefold())


def encoded(before: Mapping[TaskType, Place | None]) -> str | None:
    """The cursor of the next page; None: there is none."""
    left = {kind: found for kind, found in before.items() if found is not None}
    if not left:
        return None
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(Cursor(left))).decode().rstrip("=")


def decoded(text: str) -> Cursor:
    """The cursor of a text.

    Raises:
        NoCursor: it is none.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.msgpack.decode(data, type=Cursor)
    except (ValueError, msgspec.MsgspecError) as error:
        raise NoCursor from error
