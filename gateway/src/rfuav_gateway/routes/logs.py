"""Logs of tasks: a stream of server-sent events, or a list for `Accept: application/json`."""

from collections.abc import Collection
from contextlib import AsyncExitStack
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Header, Query, Response

from rfuav_gateway.access.callers import Unavailable
from rfuav_gateway.cluster.tasks import TYPES
from rfuav_gateway.logs.logs import CONTENT_TYPE, Gone, Over, TooManyStreams, Unanswered
from rfuav_gateway.logs.of_jobs import JobSource, PreparationSource
from rfuav_gateway.routes.parts import Asked, Asks
from rfuav_gateway.routes.streams import Stream
from rfuav_gateway.routes.tasks import find
from rfuav_gateway.serving.problems import Refused, declared
from rfuav_gateway.tasks import bodies
from rfuav_gateway.tasks.bodies import TaskType

router = APIRouter()

MOST = 10_000  # lines of an answer
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {CONTENT_TYPE: {}},
        "description": "A list, or a LogEntry in each event; the last event has the task's status and message.",
    },
    HTTPStatus.NO_CONTENT.value: {"description": "The stream has ended: do not connect again"},
    **declared(HTTPStatus.GONE),
}
_TRAINING: tuple[TaskType, ...] = ("training",)


class Wanted(NamedTuple):
    """Which part of a log, and in which form."""

    tail: int | None
    since: datetime | None
    after: str
    as_list: bool


def wanted(
    tail: Annotated[int | None, Query(ge=0, le=MOST, description="Only so many lines, the last ones.")] = None,
    since: Annotated[datetime | None, Query(description="Only lines from this time on; UTC without a zone.")] = None,
    last_event_id: Annotated[str, Header(max_length=512, description="The event after which to go on.")] = "",
    accept: Annotated[str, Header(description="application/json: a list of what there is now, no stream.")] = "",
) -> Wanted:
    """What query and headers ask for."""
    return Wanted(tail, since, last_event_id, "application/json" in accept and CONTENT_TYPE not in accept)


Wants = Annotated[Wanted, Depends(wanted)]


@router.get("/api/v2/training/{task_id:path}/logs", response_model=list[bodies.LogEntry], responses=ANSWERS)
async def training(task_id: str, asks: Asks, wants: Wants) -> Response:
    """The log of a training."""
    return await _log(asks, task_id, _TRAINING, wants)


@router.get("/api/v2/tasks/{task_id:path}/logs", response_model=list[bodies.LogEntry], responses=ANSWERS)
async def task(task_id: str, asks: Asks, wants: Wants) -> Response:
    """The log of a task."""
    return await _log(asks, task_id, TYPES, wants)


async def _log(asks: Asked, task_id: str, kinds: Collection[TaskType], wants: Wanted) -> Response:
    job = await find(asks, task_id, kinds)
    return await stream(asks, JobSource(asks.parts.cluster, asks.parts.tasks, job, asks.phrases), wants)


async def stream(asks: Asked, source: JobSource | PreparationSource, wants: Wanted) -> Response:
    """The log of a task that the caller may see, if they may read logs there.

    Raises:
        Refused: 403, 410 for a log that is gone, 503.
    """
    if not await asks.parts.rights.may_read_logs(asks.caller, asks.namespace):
        raise Refused(HTTPStatus.FORBIDDEN, f"you may not read logs of pods in the namespace {asks.namespace}")
    parts = asks.parts
    try:
        if wants.as_list:
            entries = await parts.logs.history(source, tail=wants.tail, since=wants.since)
            return Response(entries, media_type="application/json")
        async with AsyncExitStack() as stack:
            stack.enter_context(parts.rates.stream(asks.caller.name))
            following = parts.logs.follow(
                source, after=wants.after, tail=wants.tail, since=wants.since, recheck=lambda: _still(asks)
            )
            events = await stack.enter_async_context(following)
            return Stream(events, stack.pop_all())
    except Gone as error:
        raise Refused(HTTPStatus.GONE, str(error)) from error
    except TooManyStreams as error:
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE, "the logs of too many tasks are being read: try again", {"Retry-After": "5"}
        ) from error
    except Unanswered as error:
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE, "the API server does not answer: try again", {"Retry-After": "5"}
        ) from error
    except Over:
        return Response(status_code=HTTPStatus.NO_CONTENT)


async def _still(asks: Asked) -> bool:
    """Whether the reader may still read: the token is good, and so are the rights."""
    try:
        return await asks.parts.callers.still(asks.caller) and await asks.parts.rights.may_read_logs(
            asks.caller, asks.namespace
        )
    except Unavailable:
        return True  # the API server is away: what was allowed a minute ago stays so until it answers
