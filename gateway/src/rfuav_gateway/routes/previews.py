"""When a task would start, without creating it. The API server checks it as it would check a create (a dry run)."""

import uuid
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter

from rfuav_gateway.cluster.planner import Busy
from rfuav_gateway.routes.parts import Asked, Asks
from rfuav_gateway.routes.resources import not_read_yet
from rfuav_gateway.routes.starts import built_for
from rfuav_gateway.routes.tasks import may_see
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.tasks import bodies, manifests, previews
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.identity import KINDS
from rfuav_operator.core.model import Kind

router = APIRouter()


@router.post("/api/v2/preview")
async def preview(body: bodies.PreviewAsked, asks: Asks) -> bodies.Preview:
    """When a task would start, and why not now. Creates nothing."""
    await asks.parts.rates.spend("preview", asks.caller.name)
    if not asks.parts.whole.synced:
        raise not_read_yet()
    kind, manifest = _manifest(body, asks)
    names = await may_see(asks, "training", "list") and await may_see(asks, "inference", "list")
    writes, credential = asks.parts.writes, asks.caller.credential
    tried = await writes.try_out(kind, asks.namespace, manifest, credential)
    source = tried["spec"].get("model", {}).get("fromTrainingJob")
    training = await writes.object_of("training", asks.namespace, source, credential) if source else None
    try:
        found = await asks.parts.planner.preview(Kind(KINDS[kind]), tried, training, names)
    except Busy as error:
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE, "other previews are being made: try again", {"Retry-After": "5"}
        ) from error
    return bodies.Preview(
        starts_now=found.starts_now,
        nodes=list(found.nodes),
        position=found.position,
        of=found.of,
        estimated_start=None if found.estimated_start is None else found.estimated_start.replace(tzinfo=None),
        reason=found.reason or None,
        message=previews.story(found, asks.phrases),
    )


def _manifest(body: bodies.PreviewAsked, asks: Asked) -> tuple[TaskType, dict[str, Any]]:
    """The job that is asked about, under a name that no other has.

    Raises:
        RefusedError: it cannot become a job.
    """
    task_id = str(uuid.uuid4())
    if body.training is not None:
        return "training", manifests.training(body.training, task_id=task_id, **built_for(asks)).manifest
    if body.inference is not None:
        return "inference", manifests.inference(body.inference, task_id=task_id, **built_for(asks)).manifest
    return previews.checked(body.manifest or {}, asks.namespace, name=f"preview-{task_id[:8]}")
