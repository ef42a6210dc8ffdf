"""Cancels of many tasks at once: first shown, then done, each as the caller."""

import asyncio
from datetime import datetime, timedelta
from functools import partial

from fastapi import APIRouter

from rfuav_gateway.cluster.tasks import TYPES, Copies, newest
from rfuav_gateway.cluster.writes import NotDone
from rfuav_gateway.routes.parts import Asked, Asks, audit
from rfuav_gateway.routes.tasks import may_see
from rfuav_gateway.tasks import bodies
from rfuav_gateway.tasks.bodies import MOST_CANCELLED, TaskStatus, TaskType
from rfuav_gateway.tasks.jobs import Job
from rfuav_gateway.tasks.words import said
from rfuav_kube import clock

router = APIRouter()

NOT_ENDED: tuple[TaskStatus, ...] = ("pending", "queued", "running")
AT_ONCE = 20  # writes of one request


@router.post("/api/v2/tasks/cancel")
async def cancel(body: bodies.CancelMany, asks: Asks) -> bodies.CancelledMany:
    """Show which tasks a filter means, or cancel them."""
    wanted = TYPES if body.task_type is None else (body.task_type,)
    seen = [kind for kind in wanted if await may_see(asks, kind, "list")]
    meant = await asks.parts.aside.walk(partial(_meant, body, _copies(body, asks, seen), clock.now()))
    chosen = meant[:MOST_CANCELLED]
    failed: list[bodies.NotCancelled] = []
    if not body.dry_run:
        free = asyncio.Semaphore(AT_ONCE)
        failed = [one for one in await asyncio.gather(*(_cancel(job, asks, free) for job in chosen)) if one is not None]
    refused = {one.task_id for one in failed}
    return bodies.CancelledMany(
        dry_run=body.dry_run,
        matched=len(meant),
        task_ids=[job.task_id for job in chosen if job.task_id not in refused],
        failed=failed,
        message=said(
            "would_cancel" if body.dry_run else "cancelled_many", total=len(meant), done=len(chosen) - len(failed)
        ).text(asks.phrases),
    )


def _copies(body: bodies.CancelMany, asks: Asked, kinds: list[TaskType]) -> Copies:
    """The tasks of the namespace that have not ended; those that have may be very many."""
    statuses = NOT_ENDED if body.status is None else (body.status,)
    return [one for kind in kinds for one in asks.parts.tasks.copies(asks.namespace, kind, statuses)]


def _meant(body: bodies.CancelMany, lists: Copies, now: datetime) -> list[Job]:
    """Those that the filter means, the oldest first."""
    ids = None if body.task_ids is None else set(body.task_ids)
    latest = None if body.older_than_seconds is None else now - timedelta(seconds=body.older_than_seconds)
    found = [
        job
        for job in newest(lists)
        if (ids is None or job.task_id in ids) and (latest is None or job.created <= latest)
    ]
    return found[::-1]


async def _cancel(job: Job, asks: Asked, free: asyncio.Semaphore) -> bodies.NotCancelled | None:
    async with free:
        try:
            await asks.parts.writes.cancel(job, asks.caller.name, asks.caller.credential)
        except NotDone as error:
            return bodies.NotCancelled(task_id=job.task_id, message=error.message)
    audit(asks, "cancel", job.task_id, job)
    return None
