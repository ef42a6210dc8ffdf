"""GPU-hours of the namespaces whose jobs the caller may list."""

import asyncio
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request

from rfuav_crds.bounds import bounded
from rfuav_crds.contract import PLURALS
from rfuav_gateway.cluster.prometheus import Unanswered
from rfuav_gateway.cluster.tasks import TYPES
from rfuav_gateway.routes.parts import Asked, AsksAnywhere
from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.tasks import usage
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.identity import KINDS
from rfuav_gateway.tasks.usage import By, Usage, Window
from rfuav_kube import clock

router = APIRouter()

DEFAULT = timedelta(days=30)
LONGEST = timedelta(days=370)  # of a window that Prometheus is asked for
MOST_ASKED = 200  # namespaces of one request about which the API server is asked
AT_ONCE = 20


@router.get("/api/v2/usage")
async def used(
    request: Request,
    asks: AsksAnywhere,
    start: Annotated[
        datetime | None, Query(alias="from", description="Start, UTC without a zone. Default: 30 days before the end.")
    ] = None,
    end: Annotated[datetime | None, Query(alias="to", description="End, UTC without a zone. Default: now.")] = None,
    by: Annotated[By, Query(description="What is added up.")] = "namespace",
) -> Usage:
    """GPU-hours by namespace, type or user; of all namespaces, unless the request names one."""
    now = clock.now()
    last = now if end is None else min(bounded(end), now)
    window = Window(bounded(last - DEFAULT if start is None else start), last)
    if window.start >= window.end:
        raise _refused("write a time before to, in the past")
    visible = await _visible(asks, _named(request, asks))
    prometheus = asks.parts.prometheus
    if prometheus is not None and by != "user":  # whose jobs they were is not in the metric: users are without number
        if window.end - window.start > LONGEST:
            raise _refused(f"write a time at most {LONGEST.days} days before to")
        try:
            found, complete = await prometheus.counted(by, window, visible)
        except Unanswered as error:
            words = f"Prometheus does not answer: {error}"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, words, {"Retry-After": "10"}) from error
        return usage.answer(found, by, window, source="prometheus", complete=complete)
    jobs = list(asks.parts.tasks.all())

    def count() -> usage.Counted:
        seen = (job for job in jobs if visible is None or (job.namespace, job.type) in visible)
        return usage.counted(seen, by, window, now)

    counted = await asks.parts.aside.walk(count)
    return usage.answer(counted, by, window, source="jobs", complete=False)


async def _visible(asks: Asked, named: str) -> set[tuple[str, TaskType]] | None:
    """The namespaces and types whose jobs the caller may list; None: all."""
    rights, free = asks.parts.rights, asyncio.Semaphore(AT_ONCE)

    async def may_list(namespace: str, kind: TaskType) -> bool:
        async with free:
            return await rights.may(asks.caller, "list", PLURALS[KINDS[kind]], namespace)

    if not named and all([await may_list("", kind) for kind in TYPES]):
        return None
    namespaces = [named] if named else asks.parts.tasks.namespaces()
    if len(namespaces) > MOST_ASKED:
        raise Refused(
            HTTPStatus.BAD_REQUEST, "there are too many namespaces: name one, as in /ns/NAMESPACE/api/v2/usage"
        )
    pairs = [(namespace, kind) for namespace in namespaces for kind in TYPES]
    may = await asyncio.gather(*(may_list(*pair) for pair in pairs))
    return {pair for pair, yes in zip(pairs, may, strict=True) if yes}


def _refused(what: str) -> Refused:
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, [{"loc": ["query", "from"], "msg": what, "type": "value_error"}])


def _named(request: Request, asks: Asked) -> str:
    """The namespace that the request names; empty: none."""
    named = request.scope["state"].get("namespace") or request.headers.get("x-namespace", "")
    return asks.namespace if named or asks.parts.settings.compat.enabled else ""
