"""Curves and tables of a task, for who cannot read its output: read from the job when asked for, and not kept here."""

from http import HTTPStatus

import msgspec
from fastapi import APIRouter, Response

from rfuav_crds.status import Results
from rfuav_gateway.cluster.tasks import TYPES
from rfuav_gateway.routes.parts import Asks
from rfuav_gateway.routes.tasks import find
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.tasks.words import said
from rfuav_kube.objects import section

router = APIRouter()


@router.get("/api/v2/tasks/{task_id:path}/results", response_model=Results)
async def results(task_id: str, asks: Asks) -> Response:
    """Curves over the epochs, confusion matrix and accuracy by SNR of a task; 404 until there are any."""
    job = await find(asks, task_id, TYPES)
    held = await asks.parts.writes.object_of(job.type, job.namespace, job.name, asks.caller.credential)
    found = section(held, "status").get("results")
    if not found:
        phrase = "no_such_task" if held is None else "no_results"
        raise Refused(HTTPStatus.NOT_FOUND, said(phrase, task_id=task_id).text(asks.phrases))
    return Response(msgspec.json.encode(found), media_type="application/json")
