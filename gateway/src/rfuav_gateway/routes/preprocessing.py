"""Preparations of data: splits, augmentations and crops, as batch/v1 Jobs."""

import uuid
from http import HTTPStatus

from fastapi import APIRouter, Response

from rfuav_gateway.cluster.preparations import Preparations
from rfuav_gateway.logs.of_jobs import PreparationSource
from rfuav_gateway.routes.logs import ANSWERS, Wants, stream
from rfuav_gateway.routes.parts import Asked, Asks, audit
from rfuav_gateway.serving.problems import Refused, declared
from rfuav_gateway.tasks import bodies, preparations
from rfuav_gateway.tasks.identity import object_name
from rfuav_gateway.tasks.preparations import Prepared, Start
from rfuav_gateway.tasks.words import said

router = APIRouter(responses=declared(HTTPStatus.NOT_IMPLEMENTED))


@router.post("/api/v2/preprocessing/split", response_model=bodies.Preparation)
async def split(body: bodies.SplitStart, asks: Asks) -> bodies.Preparation:
    """Split data into train, valid, and perhaps test."""
    return await _start(asks, body)


@router.post("/api/v2/preprocessing/augment", response_model=bodies.Preparation)
async def augment(body: bodies.AugmentStart, asks: Asks) -> bodies.Preparation:
    """Add changed copies of pictures."""
    return await _start(asks, body)


@router.post("/api/v2/preprocessing/crop", response_model=bodies.Preparation)
async def crop(body: bodies.CropStart, asks: Asks) -> bodies.Preparation:
    """Cut the same box out of every picture."""
    return await _start(asks, body)


@router.get("/api/v2/preprocessing/{task_id:path}/logs", response_model=list[bodies.LogEntry], responses=ANSWERS)
async def logs(task_id: str, asks: Asks, wants: Wants) -> Response:
    """The log of a preparation."""
    held, one = await _find(asks, task_id)
    return await stream(asks, PreparationSource(asks.parts.cluster, held, one, asks.phrases), wants)


@router.post("/api/v2/preprocessing/{task_id:path}/cancel", response_model=bodies.Action)
async def cancel(task_id: str, asks: Asks) -> bodies.Action:
    """Cancel a preparation that has not ended."""
    held, one = await _find(asks, task_id)
    if one.status in preparations.ENDED:
        message = said("already_ended", task_id=task_id, status=one.status).text(asks.phrases)
        raise Refused(HTTPStatus.BAD_REQUEST, message)
    await held.cancel(one, asks.caller.name, asks.caller.credential)
    audit(asks, "cancel", task_id, one)
    return bodies.Action(message=said("cancel_done", task_id=task_id).text(asks.phrases), task_id=task_id)


@router.get("/api/v2/preprocessing/{task_id:path}", response_model=bodies.Preparation)
async def one(task_id: str, asks: Asks) -> bodies.Preparation:
    """One preparation."""
    held, found = await _find(asks, task_id)
    if found.status not in ("completed", "failed"):
        return preparations.view(found, asks.phrases)
    left = await PreparationSource(asks.parts.cluster, held, found, asks.phrases).report()
    return preparations.view(found, asks.phrases, left)


async def _start(asks: Asked, body: Start) -> bodies.Preparation:
    held = _held(asks)
    manifest = preparations.manifest(
        body,
        namespace=asks.namespace,
        task_id=body.task_id or str(uuid.uuid4()),
        terms=asks.parts.preparation_terms,
        created_by=asks.caller.name,
    )
    await asks.parts.rates.spend("create", asks.caller.name)
    found, created = await held.create(asks.namespace, manifest, asks.caller.credential)
    if created:
        audit(asks, "create", found.task_id, found)
    elif (why := preparations.conflict(found, manifest)) is not None:
        raise Refused(HTTPStatus.CONFLICT, why.text(asks.phrases))
    return preparations.view(found, asks.phrases)


async def _find(asks: Asked, task_id: str) -> tuple[Preparations, Prepared]:
    """The preparation of an id, as far as the caller may see it; asked for once at the API server if it is not held.

    Raises:
        Refused: 404 if there is none.
    """
    held = _held(asks)
    missing = Refused(HTTPStatus.NOT_FOUND, said("no_such_task", task_id=task_id).text(asks.phrases))
    if not await asks.parts.rights.may_see_preparations(asks.caller, asks.namespace):
        raise missing
    found = held.found(asks.namespace, task_id)
    if found is None:
        found = await held.read(asks.namespace, object_name(task_id), asks.caller.credential)
    if found is None or found.task_id != task_id:
        raise missing
    return held, found


def _held(asks: Asked) -> Preparations:
    """The preparations.

    Raises:
        Refused: 501, none can be made here.
    """
    if asks.parts.preparations is None:
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, asks.phrases.no_preparations)
    return asks.parts.preparations
