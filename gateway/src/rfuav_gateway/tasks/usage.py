"""GPU-hours by namespace, type or user, over a window of time, from the jobs that exist.

A job counts all GPUs that it was given, for the time in which its pods ran. GPUs that jobs share count for each of
them. When the present run began is known exactly; of earlier runs the status has their sum alone, which is spread
evenly over the time between the first start and the last end. So the hours of two windows that touch are those of both
together.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from pydantic import Field

from rfuav_crds.bounds import bounded
from rfuav_gateway.tasks import views
from rfuav_gateway.tasks.bodies import Answer, Time
from rfuav_gateway.tasks.jobs import Job, most_gpus
from rfuav_operator.core import ranges

By = Literal["namespace", "user", "kind"]
_HOUR = 3600.0
_DIGITS = 4


class UsageOf(Answer):
    """What one of them used."""

    name: str | None = Field(description="Namespace, user, or training or inference; null: no user is known.")
    gpu_hours: float = Field(description="GPU-hours.")


class Usage(Answer):
    """GET /api/v2/usage. Namespaces whose jobs the caller may not list are left out."""

    by: By = Field(description="namespace, user or kind.")
    start: Time = Field(serialization_alias="from", description="Start of the window, UTC without a zone.")
    end: Time = Field(serialization_alias="to", description="End of the window, UTC without a zone.")
    source: Literal["jobs", "prometheus"] = Field(
        description="jobs: those that exist, while their pods ran. prometheus: all that held GPUs, deleted ones too."
    )
    since: Time | None = Field(description="From when on something is known; null: nothing is.")
    complete: bool = Field(description="Whether nothing is missing. Never with jobs: deleted ones are not counted.")
    total_gpu_hours: float = Field(description="All of them together.")
    usage: list[UsageOf] = Field(description="Each that used some, the most first.")


class Window(NamedTuple):
    """From an instant on, to another that is no longer part of it."""

    start: datetime
    end: datetime

    def share(self, start: datetime, end: datetime) -> float:
        """Which part of a span lies in it, 0 to 1."""
        if end <= start:
            return float(self.start <= start < self.end)
        inside = min(end, self.end) - max(start, self.start)
        return max(0.0, inside / (end - start))


class Counted(NamedTuple):
    """GPU seconds by name, and the first start of a job that they are of."""

    seconds: dict[str, float]
    since: datetime | None


def counted(jobs: Iterable[Job], by: By, window: Window, now: datetime) -> Counted:
    """GPU seconds in a window; the name of no user is empty.

    Args:
        jobs: those that the caller may see.
        by: what their seconds are added up by.
        window: ends at `now` at the latest.
        now: runs that go on count until then.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    since: datetime | None = None
    for job in jobs:
        if job.status.started_at is None or not job.spec.resources.gpus:
            continue
        started = bounded(job.status.started_at)
        since = started if since is None or started < since else since
        used = sum(gpus * window.share(start, end) * length for start, end, length, gpus in _runs(job, started, now))
        if used > 0:
            seconds[_name(job, by)] += used
    return Counted(dict(seconds), since)


def _runs(job: Job, started: datetime, now: datetime) -> Iterator[tuple[datetime, datetime, float, int]]:
    """Spans in which the job ran: start, end, seconds of running, and GPUs."""
    status = job.status
    running = None if status.running_since is None or status.phase in views.ENDED else bounded(status.running_since)
    if running is not None and running < now:
        yield running, now, (now - running).total_seconds(), _gpus_now(job)
    if (spent := max(0, status.running_seconds)) > 0:
        shortest = bounded(started + timedelta(seconds=min(spent, 10**9)))
        last = running or status.finished_at or status.admitted_at
        yield started, max(shortest, bounded(last)) if last is not None else shortest, float(spent), most_gpus(job)


def _gpus_now(job: Job) -> int:
    """GPUs that its pods hold."""
    return sum(max(0, one.gpus) * (_count(one.shards) if one.shards else 1) for one in job.status.assignments)


def _count(shards: str) -> int:
    try:
        return len(ranges.parse(shards))
    except ValueError:
        return 1


def _name(job: Job, by: By) -> str:
    match by:
        case "namespace":
            return job.namespace
        case "user":
            return job.created_by
        case "kind":
            return job.type


def answer(found: Counted, by: By, window: Window, *, source: Literal["jobs", "prometheus"], complete: bool) -> Usage:
    """The answer, in hours."""
    hours = {name: seconds / _HOUR for name, seconds in found.seconds.items()}
    return Usage(
        by=by,
        start=views.local(window.start),
        end=views.local(window.end),
        source=source,
        since=None if found.since is None else views.local(found.since),
        complete=complete,
        total_gpu_hours=round(sum(hours.values()), _DIGITS),
        usage=[
            UsageOf(name=name or None, gpu_hours=round(used, _DIGITS))
            for name, used in sorted(hours.items(), key=lambda one: (-one[1], one[0]))
        ],
    )
