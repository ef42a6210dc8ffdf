"""The pool of the settings as one machine: its GPUs and CPUs, what runs on them, and how many tasks wait.

Only for callers that may list GPUPools: use and queue are those of all namespaces.
"""

from functools import partial
from http import HTTPStatus

import structlog
from fastapi import APIRouter

from rfuav_crds.contract import GROUP, PLURALS
from rfuav_gateway.cluster.tasks import TYPES
from rfuav_gateway.routes.parts import Asked, AsksAnywhere
from rfuav_gateway.routes.tasks import may_see
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.tasks import bodies, devices, limits
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.devices import Counts, Device, Fleet, OnDevice
from rfuav_gateway.tasks.identity import KINDS
from rfuav_gateway.tasks.words import said

log = structlog.get_logger()

router = APIRouter()


@router.get("/api/v2/resources")
async def resources(asks: AsksAnywhere) -> bodies.Resources:
    """Devices of the pool, what runs on them, their limits, and the queue."""
    found = await fleet(asks)
    in_all, here = await _visible(asks)
    return bodies.Resources(
        device_usage={name: use(devices.count(tasks)) for name, tasks in found.tasks().items()},
        active_tasks={
            name: [
                _active(asks, one)
                for one in dict.fromkeys(tasks)
                if one.type in in_all or (one.namespace == asks.namespace and one.type in here)
            ]
            for name, tasks in found.tasks().items()
        },
        limits={name: use(counts) for name, counts in found.limits().items()},
        gpu_info=_gpus(found),
        pool=found.pool,
        queue=use(found.waiting),
    )


@router.get("/api/v2/resources/gpu")
async def gpu(asks: AsksAnywhere) -> bodies.Gpus:
    """Physical GPUs of the pool."""
    return _gpus(await fleet(asks))


@router.get("/api/v2/resources/cpu")
async def cpu(asks: AsksAnywhere) -> bodies.Cpu:
    """CPUs and memory of the pool."""
    found = (await fleet(asks)).cpu
    return bodies.Cpu(
        percent=_per_cent(found.requested_milli, found.milli),
        per_cpu_percent=[],
        cores=found.milli // 1000,
        load_avg={},
        memory_percent=_per_cent(found.requested_memory, found.memory),
        nodes=found.nodes,
    )


@router.post("/api/v2/resources/config")
async def config(body: bodies.ResourcesConfig, asks: AsksAnywhere) -> bodies.ConfigChanged:
    """Change the limits of the pool, for those who may patch GPUPools."""
    pool, compat = asks.parts.settings.pool, asks.parts.settings.compat
    if compat.enabled and not compat.change_limits:
        raise Refused(HTTPStatus.FORBIDDEN, said("limits_are_fixed", pool=pool).text(asks.phrases))
    wanted = limits.limits(body.max_concurrent, await fleet(asks))
    held = await asks.parts.writes.change_pool(pool, partial(limits.spec, wanted), asks.caller.credential)
    log.info("audit", did="limits", caller=asks.caller.name, pool=pool, limits=body.max_concurrent)
    asks.parts.whole.take_pool(held)
    now = await asks.parts.whole.fleet(pool)
    return bodies.ConfigChanged(
        message=said("limits_changed", pool=pool).text(asks.phrases),
        current_config={name: use(counts) for name, counts in now.limits().items()},
    )


async def fleet(asks: Asked) -> Fleet:
    """The pool.

    Raises:
        Refused: 403 for callers that may not list GPUPools, 503 until the cluster has been read.
    """
    if not await may_see_pools(asks):
        raise Refused(
            HTTPStatus.FORBIDDEN, f"{asks.caller.name} may not list gpupools.{GROUP}: ask for a ClusterRole that does"
        )
    if not asks.parts.whole.synced:
        raise not_read_yet()
    return await asks.parts.whole.fleet(asks.parts.settings.pool)


async def may_see_pools(asks: Asked) -> bool:
    """Whether the caller may see nodes and GPUs."""
    return await asks.parts.rights.may_see_pools(asks.caller)


def not_read_yet() -> Refused:
    """The answer until the cluster has been read."""
    return Refused(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the nodes of the cluster have not been read yet: try again; if it stays so, the gateway's log says why",
        {"Retry-After": "2"},
    )


async def _visible(asks: Asked) -> tuple[set[TaskType], set[TaskType]]:
    """The types of tasks that the caller may see in all namespaces, and in the one of the request."""
    rights = asks.parts.rights
    in_all = {kind for kind in TYPES if await rights.may(asks.caller, "list", PLURALS[KINDS[kind]])}
    here = {kind for kind in TYPES if asks.namespace and await may_see(asks, kind, "list")}
    return in_all, here


def _active(asks: Asked, held: OnDevice) -> bodies.ActiveTask:
    job = asks.parts.tasks.named(held.type, held.namespace, held.job)
    task_id = f"{held.namespace}/{held.job}" if job is None else job.task_id
    return bodies.ActiveTask(id=task_id, type=held.type, namespace=held.namespace)


def _gpus(found: Fleet) -> bodies.Gpus:
    return bodies.Gpus(
        available=bool(found.devices),
        count=len(found.devices),
        cuda_version=found.cuda_version,
        devices=[_gpu(one) for one in found.devices],
    )


def _gpu(device: Device) -> bodies.Gpu:
    return bodies.Gpu(
        id=device.number,
        device_name=device.name,
        name=device.product,
        compute_capability=device.compute_capability,
        total_memory_gb=device.memory_gib,
        current_tasks=use(devices.count(device.tasks)),
        limits=use(device.limits),
        node=device.node,
        node_index=device.index,
        schedulable=device.open,
    )


def use(counts: Counts) -> bodies.Use:
    """Numbers of each type, as they are shown."""
    return bodies.Use(training=counts.training, inference=counts.inference)


def _per_cent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None
