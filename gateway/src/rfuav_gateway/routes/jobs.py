"""One job by its type, namespace and name, as the page shows and changes it: always as the caller."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response

from rfuav_crds.contract import PLURALS
from rfuav_gateway.cluster.writes import NotDone
from rfuav_gateway.routes.parts import Asked, AsksAnywhere, audit
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.settings import is_namespace
from rfuav_gateway.tasks import details, page_bodies, rows, views
from rfuav_gateway.tasks.applied import applied
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.identity import KINDS, shown
from rfuav_gateway.tasks.jobs import Job
from rfuav_gateway.tasks.words import said
from rfuav_kube import paths
from rfuav_operator.core.model import Kind

router = APIRouter()

_OK, _DONE = HTTPStatus.OK.value, HTTPStatus.NO_CONTENT.value
_AT = "/api/v2/jobs/{type}/{namespace}/{name}"


class Found(NamedTuple):
    """A job that the caller may read."""

    asks: Asked
    job: Job
    body: dict[str, Any]


async def found(
    type: Annotated[TaskType, Path(description="training or inference.")],  # noqa: A002  the word of the interface
    namespace: Annotated[str, Path(max_length=63, description="Its namespace.")],
    name: Annotated[str, Path(max_length=253, description="Its name there.")],
    asks: AsksAnywhere,
) -> Found:
    """The job, read as the caller.

    Raises:
        Refused: 404 if there is none, or none that they may read.
    """
    parts, missing = asks.parts, _refused(asks, HTTPStatus.NOT_FOUND, "no_such_job", job=shown(type, namespace, name))
    compat = parts.settings.compat
    if not is_namespace(namespace) or not paths.is_name(name) or (compat.enabled and namespace != compat.namespace):
        raise missing
    try:
        body = await parts.writes.object_of(type, namespace, name, asks.caller.credential)
    except NotDone as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        raise missing from error
    if body is None:
        raise missing
    return Found(asks._replace(namespace=namespace), parts.tasks.take(type, body), body)


Finds = Annotated[Found, Depends(found)]


@router.get(_AT)
async def one(finds: Finds) -> page_bodies.Detail:
    """A job in full: its manifest, its status, and what stands between it and a GPU."""
    asks, job, body = finds
    rights, resource = asks.parts.rights, PLURALS[KINDS[job.type]]
    quota = await rights.may(asks.caller, "list", PLURALS["GPUQuota"], job.namespace)
    steps = asks.parts.whole.checklist(
        Kind(KINDS[job.type]), body, pools=await rights.may_see_pools(asks.caller), quota=quota
    )
    return page_bodies.Detail(
        row=_row(asks, job),
        manifest=details.manifest(job.type, body),
        status=details.status(body),
        can=page_bodies.Can(
            update=await rights.may(asks.caller, "patch", resource, job.namespace),
            delete=await rights.may(asks.caller, "delete", resource, job.namespace),
            create=await rights.may(asks.caller, "create", resource, job.namespace),
            logs=await rights.may_read_logs(asks.caller, job.namespace),
        ),
        kubectl=details.kubectl(job.type, job.namespace, job.name),
        why=[page_bodies.Step(ok=step.ok, what=step.what, detail=step.detail) for step in steps],
    )


@router.get(f"{_AT}/events")
async def events(finds: Finds) -> page_bodies.Events:
    """What happened to a job and its pods, as Events of Kubernetes."""
    asks, job, body = finds
    about = [(KINDS[job.type], job.name), *(("Pod", pod) for pod in details.pods(body))]
    read = (asks.parts.writes.events(job.namespace, kind, name, asks.caller.credential) for kind, name in about)
    happened = details.events(one for some in await asyncio.gather(*read) for one in some)
    return page_bodies.Events(events=[page_bodies.Event.model_validate(one) for one in happened])


@router.post(f"{_AT}/suspend")
async def suspend(finds: Finds) -> page_bodies.Row:
    """Have a job save a checkpoint, stop and wait."""
    return await _changed(finds, "suspend", {"suspend": True})


@router.post(f"{_AT}/resume")
async def resume(finds: Finds) -> page_bodies.Row:
    """Let a suspended job queue again."""
    return await _changed(finds, "resume", {"suspend": False})


@router.post(f"{_AT}/cancel")
async def cancel(finds: Finds) -> page_bodies.Row:
    """End a job for good; its record stays."""
    asks, job, _ = _not_ended(finds)
    changed = await asks.parts.writes.cancel(job, asks.caller.name, asks.caller.credential)
    audit(asks, "cancel", job.task_id, job)
    return _row(asks, changed)


@router.delete(_AT, status_code=HTTPStatus.NO_CONTENT, responses={_DONE: {"description": "Deleted."}})
async def delete(finds: Finds) -> Response:
    """Delete a job that has ended; its results stay."""
    asks, job, _ = finds
    if not views.ended(job):
        raise _refused(asks, HTTPStatus.CONFLICT, "not_ended", task_id=job.task_id, status=views.status_of(job))
    await asks.parts.writes.delete(job, asks.caller.credential)
    audit(asks, "delete", job.task_id, job)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/api/v2/jobs", status_code=HTTPStatus.CREATED, responses={_OK: {"model": page_bodies.Created}})
async def create(
    body: page_bodies.Create,
    asks: AsksAnywhere,
    response: Response,
    dry_run: Annotated[bool, Query(alias="dryRun", description="Only check it; nothing is created.")] = False,
) -> page_bodies.Created:
    """Create a job from its manifest. The same one twice is one job; 200 for the second, and for a dry run."""
    made = applied(body.manifest, asks.namespace, created_by=asks.caller.name)
    if not is_namespace(made.namespace):
        raise Refused(HTTPStatus.BAD_REQUEST, "metadata.namespace: write the name of a namespace, as in team-a")
    compat = asks.parts.settings.compat
    if compat.enabled and made.namespace != compat.namespace:
        raise Refused(HTTPStatus.NOT_FOUND, f"all tasks are in the namespace {compat.namespace}")
    await asks.parts.rates.spend("preview" if dry_run else "create", asks.caller.name)
    writes, credential = asks.parts.writes, asks.caller.credential
    if dry_run:
        response.status_code = HTTPStatus.OK
        stored = await writes.try_out(made.type, made.namespace, made.manifest, credential)
        return page_bodies.Created(row=None, manifest=details.manifest(made.type, stored))
    job, created = await writes.create(made.type, made.namespace, made.manifest, credential)
    if not created and job.digest != made.digest:
        raise _refused(asks, HTTPStatus.CONFLICT, "job_exists", job=shown(made.type, made.namespace, made.name))
    if created:
        audit(asks, "create", job.task_id, job)
    else:
        response.status_code = HTTPStatus.OK
    return page_bodies.Created(row=_row(asks, job), manifest=made.manifest)


async def _changed(finds: Found, did: str, spec: dict[str, Any]) -> page_bodies.Row:
    asks, job, _ = _not_ended(finds)
    changed = await asks.parts.writes.change(job, spec, asks.caller.credential)
    audit(asks, did, job.task_id, job)
    return _row(asks, changed)


def _not_ended(finds: Found) -> Found:
    asks, job, _ = finds
    if views.ended(job):
        raise _refused(asks, HTTPStatus.CONFLICT, "has_ended", task_id=job.task_id, status=views.status_of(job))
    return finds


def _row(asks: Asked, job: Job) -> page_bodies.Row:
    return page_bodies.Row.model_validate(msgspec.to_builtins(rows.row(job, asks.parts.whole.priority)))


def _refused(asks: Asked, code: HTTPStatus, phrase: str, /, **values: object) -> Refused:
    return Refused(code, said(phrase, **values).text(asks.phrases))
