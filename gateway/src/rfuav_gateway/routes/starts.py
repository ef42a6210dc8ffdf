"""New tasks. The same create twice is one task; another one under the same id is refused."""

import asyncio
import uuid
from http import HTTPStatus
from typing import TypedDict

from fastapi import APIRouter, Response

from rfuav_crds.contract import ANNOTATION_TASK_DIGEST, ANNOTATION_TASK_ID
from rfuav_gateway.cluster.writes import NotDone
from rfuav_gateway.routes.failures import refused
from rfuav_gateway.routes.parts import Asked, Asks, audit
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.tasks import bodies, identity, manifests, views
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.jobs import Job
from rfuav_gateway.tasks.manifests import Built, Terms
from rfuav_gateway.tasks.words import said

router = APIRouter()

AT_ONCE = 20  # creates of one batch


@router.post("/api/v2/training/start", response_model=bodies.Task)
async def training(body: bodies.TrainingStart, asks: Asks) -> Response:
    """Start a training."""
    built = manifests.training(body, task_id=body.task_id or _new_id(), **built_for(asks))
    return await _start(asks, "training", built)


@router.post("/api/v2/inference/start", response_model=bodies.Task)
async def inference(body: bodies.InferenceStart, asks: Asks) -> Response:
    """Start an inference."""
    built = manifests.inference(body, task_id=body.task_id or _new_id(), **built_for(asks))
    return await _start(asks, "inference", built)


@router.post("/api/v2/inference/batch", response_model=bodies.BatchStarted)
async def batch(body: bodies.InferenceBatch, asks: Asks) -> bodies.BatchStarted:
    """Start an inference for each source."""
    base = body.task_id
    ids = [f"{base}-{number}" if base else _new_id() for number, _ in enumerate(body.source_paths, 1)]
    built = manifests.batch(body, task_ids=ids, **built_for(asks))
    await asks.parts.rates.spend("create", asks.caller.name)
    await asks.parts.rates.spend("batched", asks.caller.name, cost=len(built))
    free = asyncio.Semaphore(AT_ONCE)

    async def create(one: Built) -> Job:
        async with free:
            return await _create(asks, "inference", one)

    done = await asyncio.gather(*(create(one) for one in built), return_exceptions=True)
    failed = next((one for one in done if isinstance(one, BaseException)), None)
    failed = refused(failed) if isinstance(failed, NotDone) else failed
    created = [one.task_id for one in done if isinstance(one, Job)]
    if isinstance(failed, Refused) and created:
        message = said("batch_failed", done=len(created), total=len(built), message=failed.detail).text(asks.phrases)
        raise Refused(failed.status, message, failed.headers) from failed
    if failed is not None:
        raise failed
    message = said("batch_started", total=len(created)).text(asks.phrases)
    return bodies.BatchStarted(message=message, task_ids=created, total=len(created))


class _For(TypedDict):
    namespace: str
    terms: Terms
    created_by: str


def built_for(asks: Asked) -> _For:
    """What the manifest of a task has from the request."""
    return {"namespace": asks.namespace, "terms": asks.parts.terms, "created_by": asks.caller.name}


def _new_id() -> str:
    return str(uuid.uuid4())


async def _start(asks: Asked, kind: TaskType, built: Built) -> Response:
    await asks.parts.rates.spend("create", asks.caller.name)
    job = await _create(asks, kind, built)
    task = views.view(job, asks.phrases, notes=built.notes)
    return Response(views.encode(task), media_type="application/json")


async def _create(asks: Asked, kind: TaskType, built: Built) -> Job:
    """The job: created, or the one that an earlier create of the same task made."""
    job, created = await asks.parts.writes.create(kind, asks.namespace, built.manifest, asks.caller.credential)
    if created:
        audit(asks, "create", job.task_id, job)
        return job
    there = {ANNOTATION_TASK_ID: job.task_id, ANNOTATION_TASK_DIGEST: job.digest}
    if (why := identity.conflict(kind, job.namespace, job.name, there, built.annotations)) is not None:
        raise Refused(HTTPStatus.CONFLICT, why.text(asks.phrases))
    return job
