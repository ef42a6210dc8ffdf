"""What the service is and whether it is well, for anybody."""

from datetime import UTC, datetime
from importlib.metadata import version

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from rfuav_gateway.routes.parts import Asked, PerhapsAsks, parts_of
from rfuav_gateway.routes.resources import may_see_pools
from rfuav_gateway.routes.tasks import may_see
from rfuav_gateway.tasks import bodies
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.devices import Fleet
from rfuav_kube import clock

router = APIRouter()


def index(request: Request) -> HTMLResponse:
    """A page of the routes."""
    rows = [
        f"<tr><td>{method.upper()}<td><code>{path}</code><td>{operation['description'].partition(chr(10))[0]}"
        for path, operations in request.app.openapi()["paths"].items()
        for method, operation in operations.items()
    ]
    title = f"RFUAV gateway {version('rfuav-gateway')}"
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><h1>{title}</h1>"
        f"<p><a href=docs>/docs</a> describes every field.</p><table>{''.join(rows)}</table></html>"
    )


@router.get("/api/v1/health")
async def health(request: Request, asks: PerhapsAsks) -> bodies.Health:
    """Whether the service is well; with credentials, what there is."""
    parts = parts_of(request)
    found = None if asks is None else await _fleet(asks)
    return bodies.Health(
        status="healthy",
        timestamp=now(),
        version=version("rfuav-gateway"),
        training_tasks=await _tasks(asks, "training"),
        inference_tasks=await _tasks(asks, "inference"),
        active_log_streams=None if asks is None else parts.logs.readers,
        resource_status=bodies.ResourceStatus(
            gpu_available=None if found is None else bool(found.devices),
            gpu_count=None if found is None else len(found.devices),
        ),
    )


@router.get("/api/v1/info")
async def info(request: Request, asks: PerhapsAsks) -> bodies.Info:
    """What the service is; with credentials, how much runs at a time."""
    found = None if asks is None else await _fleet(asks)
    gpus = None if found is None else [one.limits for one in found.devices]
    cpu = None if found is None else found.cpu.limits
    return bodies.Info(
        app_name="RFUAV gateway",
        version=version("rfuav-gateway"),
        environment=parts_of(request).settings.environment,
        supported_models=list(bodies.MODELS),
        resource_limits=bodies.ResourceLimits(
            max_training_concurrent_gpu=None if gpus is None else sum(one.training for one in gpus),
            max_inference_concurrent_gpu=None if gpus is None else sum(one.inference for one in gpus),
            max_training_concurrent_cpu=None if cpu is None else cpu.training,
            max_inference_concurrent_cpu=None if cpu is None else cpu.inference,
        ),
        gpu_available=None if gpus is None else bool(gpus),
    )


async def _tasks(asks: Asked | None, kind: TaskType) -> int | None:
    """How many tasks the caller's namespace has, if they may see them."""
    if asks is None or not asks.namespace or not await may_see(asks, kind, "list"):
        return None
    return asks.parts.tasks.count(asks.namespace, kind)


async def _fleet(asks: Asked) -> Fleet | None:
    """The pool, if the caller may see it and it has been read."""
    if not asks.parts.whole.synced or not await may_see_pools(asks):
        return None
    return await asks.parts.whole.fleet(asks.parts.settings.pool)


def now() -> datetime:
    """The time as the old service writes it: UTC without a zone."""
    return clock.now().astimezone(UTC).replace(tzinfo=None)
