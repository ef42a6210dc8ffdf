"""Tasks by their id: read, list, cancel, delete; the same paths with training and inference in them."""

from collections.abc import Collection
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Response

from rfuav_gateway.access.callers import Unavailable
from rfuav_gateway.cluster.tasks import TYPES, ids
from rfuav_gateway.cluster.writes import NotDone
from rfuav_gateway.routes.parts import Asked, Asks, refused, unavailable
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.tasks import bodies, identity, views
from rfuav_gateway.tasks.bodies import MOST_LISTED, TaskStatus, TaskType
from rfuav_gateway.tasks.identity import KINDS, object_name
from rfuav_gateway.tasks.jobs import Job
from rfuav_gateway.tasks.words import said

log = structlog.get_logger()

router = APIRouter()

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
    try:
        await asks.parts.writes.delete(job, asks.caller.credential)
    except NotDone as error:
        raise refused(error) from error
    log.info("audit", did="delete", caller=asks.caller.name, task=task_id, job=f"{job.namespace}/{job.name}")
    return _done(asks, "deleted", task_id)


@router.get("/api/v2/tasks", response_model=bodies.TaskList)
async def many(
    asks: Asks,
    status: Annotated[TaskStatus | None, Query(description="Only tasks with this status word.")] = None,
    task_type: Annotated[TaskType | None, Query(description="Only tasks of this type.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED, description="Most tasks of each type.")] = 100,
) -> Response:
    """The newest tasks of a namespace."""
    wanted = TYPES if task_type is None else (task_type,)
    seen = {kind for kind in wanted if await may_see(asks, kind)}
    tasks = asks.parts.tasks
    listed = {
        kind: [
            views.view(job, asks.phrases, brief=True) for job in tasks.page(asks.namespace, kind, limit, status=status)
        ]
        if kind in seen
        else []
        for kind in TYPES
    }
    counts = {kind: tasks.count(asks.namespace, kind, status) if kind in seen else 0 for kind in TYPES}
    answer = views.TaskList(
        training_tasks=listed["training"],
        inference_tasks=listed["inference"],
        total_training=counts["training"],
        total_inference=counts["inference"],
    )
    return Response(views.encode(answer), media_type="application/json")


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


async def may_see(asks: Asked, kind: TaskType) -> bool:
    """Whether the caller may read the tasks of a type in the namespace."""
    try:
        return await asks.parts.rights.may_see(asks.caller, KINDS[kind], asks.namespace)
    except Unavailable as error:
        raise unavailable(error) from error


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
    try:
        job = await asks.parts.writes.read(kind, asks.namespace, name, asks.caller.credential)
    except NotDone as error:
        raise refused(error) from error
    return job if job is not None and job.task_id == task_id else None


async def _cancel(asks: Asked, task_id: str, kinds: Collection[TaskType], done: str) -> Response:
    job = await find(asks, task_id, kinds)
    if views.ended(job):
        raise _not_found(asks, "already_ended", task_id=task_id, status=views.status_of(job))
    try:
        await asks.parts.writes.cancel(job, asks.caller.name, asks.caller.credential)
    except NotDone as error:
        raise refused(error) from error
    log.info("audit", did="cancel", caller=asks.caller.name, task=task_id, job=f"{job.namespace}/{job.name}")
    return _done(asks, done, task_id)


def shown(asks: Asked, job: Job) -> Response:
    """A task as an answer."""
    return Response(views.encode(views.view(job, asks.phrases)), media_type="application/json")


def _done(asks: Asked, phrase: str, task_id: str) -> Response:
    message = said(phrase, task_id=task_id).text(asks.phrases)
    return Response(bodies.Action(message=message, task_id=task_id).model_dump_json(), media_type="application/json")


def _not_found(asks: Asked, phrase: str, **values: object) -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, said(phrase, **values).text(asks.phrases))
