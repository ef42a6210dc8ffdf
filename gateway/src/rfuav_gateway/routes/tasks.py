"""Tasks by their id: read, list, cancel, delete; the same paths with training and inference in them."""

import gzip
from collections.abc import Collection, Mapping
from functools import partial
from http import HTTPStatus
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Header, Query, Response

from rfuav_crds.contract import PLURALS
from rfuav_gateway.cluster import pages
from rfuav_gateway.cluster.pages import NoCursor, Page
from rfuav_gateway.cluster.tasks import TYPES, Place, ids
from rfuav_gateway.routes.parts import Asked, Asks, audit
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.tasks import bodies, identity, views
from rfuav_gateway.tasks.bodies import MOST_LISTED, TaskStatus, TaskType
from rfuav_gateway.tasks.identity import KINDS, object_name
from rfuav_gateway.tasks.jobs import Job
from rfuav_gateway.tasks.words import said
from rfuav_kube import paths

router = APIRouter()

LONG = 4096  # bytes from which an answer is compressed


class Choice(NamedTuple):
    """Which tasks a list shows."""

    status: TaskStatus | None
    task_type: TaskType | None
    limit: int
    search: str
    cursor: str | None


def choice(
    status: Annotated[TaskStatus | None, Query(description="Only tasks with this status word.")] = None,
    task_type: Annotated[TaskType | None, Query(description="Only tasks of this type.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED, description="Most tasks of each type.")] = 100,
    search: Annotated[str, Query(max_length=253, description="Only tasks with this in their id, job or creator.")] = "",
    cursor: Annotated[str | None, Query(max_length=512, description="The next_cursor of the page before.")] = None,
) -> Choice:
    """What the query asks for."""
    return Choice(status, task_type, limit, search, cursor)


Chooses = Annotated[Choice, Depends(choice)]

_TRAINING: tuple[TaskType, ...] = ("training",)
_INFERENCE: tuple[TaskType, ...] = ("inference",)


# The id of a job that kubectl made has a slash; what follows an id in a path is matched first.
@router.post("/api/v2/tasks/{task_id:path}/cancel", response_model=bodies.Action)
async def cancel(task_id: str, asks: Asks) -> Response:
    """Cancel a task that has not ended."""
    return await _cancel(asks, task_id, TYPES, "cancel_done")


@router.get("/api/v2/tasks/{task_id:path}", response_model=bodies.Task)
async def one(task_id: str, asks: Asks) -> Response:
    """One task."""
    return shown(asks, await find(asks, task_id, TYPES))


@router.delete("/api/v2/tasks/{task_id:path}", response_model=bodies.Action)
async def delete(task_id: str, asks: Asks) -> Response:
    """Delete a task that has ended; its results stay."""
    job = await find(asks, task_id, TYPES)
    if not views.ended(job):
        raise _not_found(asks, "not_ended", task_id=task_id, status=views.status_of(job))
    await asks.parts.writes.delete(job, asks.caller.credential)
    audit(asks, "delete", task_id, job)
    return _done(asks, "deleted", task_id)


@router.get("/api/v2/tasks", response_model=bodies.TaskList)
async def many(
    asks: Asks, chosen: Chooses, accept_encoding: Annotated[str, Header(include_in_schema=False)] = ""
) -> Response:
    """The newest tasks of a namespace, page by page."""
    try:
        before = None if chosen.cursor is None else pages.decoded(chosen.cursor).before
    except NoCursor as error:
        entry = {"loc": ["query", "cursor"], "msg": "write the next_cursor of a page, as it is", "type": "value_error"}
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, [entry]) from error
    found = {kind: await _page(asks, kind, chosen, before) for kind in TYPES}
    brief = {kind: [views.view(job, asks.phrases, brief=True) for job in found[kind].jobs] for kind in TYPES}
    answer = views.TaskList(
        training_tasks=brief["training"],
        inference_tasks=brief["inference"],
        total_training=found["training"].total,
        total_inference=found["inference"].total,
        next_cursor=pages.encoded({kind: found[kind].next for kind in TYPES}),
    )
    return compressed(views.encode(answer), accept_encoding)


async def _page(asks: Asked, kind: TaskType, chosen: Choice, before: Mapping[TaskType, Place] | None) -> Page:
    shown_whole = before is not None and kind not in before
    if (chosen.task_type not in (None, kind)) or not await may_see(asks, kind, "list"):
        return Page([], 0, None)
    limit, start = 0 if shown_whole else chosen.limit, None if before is None else before.get(kind)
    if not chosen.search:
        return pages.page(asks.parts.tasks, asks.namespace, kind, limit, status=chosen.status, before=start)
    lists = asks.parts.tasks.copies(asks.namespace, kind, () if chosen.status is None else (chosen.status,))
    return await asks.parts.aside.walk(partial(pages.searched, lists, limit, search=chosen.search, before=start))


def compressed(body: bytes, accepted: str) -> Response:
    """JSON, compressed if it is long and the client takes that."""
    headers = {"Vary": "Accept-Encoding"}
    if len(body) > LONG and "gzip" in accepted:
        body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
    return Response(body, media_type="application/json", headers=headers)


@router.post("/api/v2/training/{task_id:path}/stop", response_model=bodies.Action)
async def stop(task_id: str, asks: Asks) -> Response:
    """Stop a training; it becomes cancelled."""
    return await _cancel(asks, task_id, _TRAINING, "stopped")


@router.get("/api/v2/training/{task_id:path}", response_model=bodies.Task)
async def training(task_id: str, asks: Asks) -> Response:
    """One training."""
    return shown(asks, await find(asks, task_id, _TRAINING))


@router.get("/api/v2/inference/{task_id:path}", response_model=bodies.Task)
async def inference(task_id: str, asks: Asks) -> Response:
    """One inference."""
    return shown(asks, await find(asks, task_id, _INFERENCE))


async def may_see(asks: Asked, kind: TaskType, verb: str = "get") -> bool:
    """Whether the caller may read the tasks of a type in the namespace: one by its name, or (`list`) all of them."""
    return await asks.parts.rights.may(asks.caller, verb, PLURALS[KINDS[kind]], asks.namespace)


async def find(asks: Asked, task_id: str, kinds: Collection[TaskType]) -> Job:
    """The task of an id, as far as the caller may see it.

    An id that the cache does not have is asked for once at the API server: it may have been created elsewhere just now.

    Raises:
        Refused: 404 if there is none, 409 if there are several.
    """
    seen = [kind for kind in kinds if await may_see(asks, kind)]
    found = [job for job in asks.parts.tasks.found(asks.namespace, task_id) if job.type in seen]
    found = found or [job for kind in seen if (job := await _asked_for(asks, task_id, kind)) is not None]
    if not found:
        raise _not_found(asks, "no_such_task", task_id=task_id)
    if len(found) > 1:
        raise Refused(HTTPStatus.CONFLICT, identity.several(task_id, ids(found)).text(asks.phrases))
    return found[0]


async def _asked_for(asks: Asked, task_id: str, kind: TaskType) -> Job | None:
    namespace, separator, name = task_id.partition("/")
    if not separator or namespace != asks.namespace:
        name = object_name(task_id)
    elif not paths.is_name(name):
        return None
    job = await asks.parts.writes.read(kind, asks.namespace, name, asks.caller.credential)
    return job if job is not None and job.task_id == task_id else None


async def _cancel(asks: Asked, task_id: str, kinds: Collection[TaskType], done: str) -> Response:
    job = await find(asks, task_id, kinds)
    if views.ended(job):
        raise _not_found(asks, "already_ended", task_id=task_id, status=views.status_of(job))
    await asks.parts.writes.cancel(job, asks.caller.name, asks.caller.credential)
    audit(asks, "cancel", task_id, job)
    return _done(asks, done, task_id)


def shown(asks: Asked, job: Job) -> Response:
    """A task as an answer."""
    return Response(views.encode(views.view(job, asks.phrases)), media_type="application/json")


def _done(asks: Asked, phrase: str, task_id: str) -> Response:
    message = said(phrase, task_id=task_id).text(asks.phrases)
    return Response(bodies.Action(message=message, task_id=task_id).model_dump_json(), media_type="application/json")


def _not_found(asks: Asked, phrase: str, **values: object) -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, said(phrase, **values).text(asks.phrases))
