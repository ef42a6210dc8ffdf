"""The units of a job, which are admitted, run and retried on their own: a TrainingJob, or one shard.

A unit is named by its shard, None for a TrainingJob. Its numbers are in two places of the status; only the functions
here know which.
"""

from collections.abc import Iterator
from datetime import datetime

from msgspec.structs import replace

from rfuav_operator.core import ranges
from rfuav_operator.core.model import Job, JobStatus, Kind, ShardCounts

Shard = int | None


def counts(job: Job) -> ShardCounts:
    """The per-shard numbers of an InferenceJob, fresh ones at its start."""
    return job.status.shards or ShardCounts(total=job.spec.shards)


def attempt_of(status: JobStatus, shard: Shard) -> int:
    """The attempt of the unit that was recorded last; 0: it was never admitted."""
    if shard is None:
        return status.attempt
    return status.shards.attempts.get(str(shard), 0) if status.shards else 0


def not_before(status: JobStatus, shard: Shard) -> datetime | None:
    """The end of the unit's backoff."""
    if shard is None:
        return status.not_before
    return status.shards.not_before.get(str(shard)) if status.shards else None


def open_units(job: Job) -> Iterator[Shard]:
    """Units that are neither done nor assigned, in their order: what wants to be admitted."""
    if job.kind is Kind.TRAINING:
        if not job.status.assignments:
            yield None
        return
    done = ranges.parse(counts(job).completed)
    taken = {a.shard for a in job.status.assignments}
    yield from (s for s in range(job.spec.shards) if s not in done and s not in taken)


def done(status: JobStatus) -> set[int]:
    """The shards that are done."""
    return ranges.parse(status.shards.completed) if status.shards else set()


def width(job: Job) -> int:
    """How many units may be admitted at once, those that still hold room included."""
    return 1 if job.kind is Kind.TRAINING else max(0, job.spec.parallelism)


def begin_attempt(status: JobStatus, shard: Shard, *, shards: int) -> JobStatus:
    """The status with the unit's next attempt recorded and its backoff over."""
    if shard is None:
        return replace(status, attempt=status.attempt + 1, not_before=None)
    old = status.shards or ShardCounts(total=shards)
    key = str(shard)
    attempts = {**old.attempts, key: old.attempts.get(key, 0) + 1}
    waits = {k: v for k, v in old.not_before.items() if k != key}
    return replace(
        status,
        attempt=max(status.attempt, attempts[key]),
        shards=replace(old, attempts=attempts, not_before=waits),
    )


def record_failure(status: JobStatus, shard: Shard, *, counted: bool, outage: bool) -> JobStatus:
    """The status with one more failure of the unit in its numbers; one of the cluster only spaces the tries.

    An outage that is met by many shards at once is one.
    """
    if outage:
        same = status.rejections > 0 and status.shards is not None and bool(status.shards.not_before)
        return status if same else replace(status, rejections=status.rejections + 1)
    status = replace(
        status,
        counted_failures=status.counted_failures + counted,
        uncounted_failures=status.uncounted_failures + (not counted),
    )
    if shard is None or status.shards is None:
        return status
    key = str(shard)
    old = status.shards
    failed = {**old.counted_failures, key: old.counted_failures.get(key, 0) + 1} if counted else old.counted_failures
    retries = {**old.retries, key: old.retries.get(key, 0) + 1}
    return replace(status, shards=replace(old, counted_failures=failed, retries=retries))


def moved_forward(status: JobStatus, shard: Shard, saved: int) -> JobStatus:
    """The status with the unit's uncounted failures begun again from 0, if it has `saved` more than when they began."""
    if shard is None or status.shards is None:
        return replace(status, uncounted_failures=0, furthest=saved) if saved > status.furthest else status
    key, old = str(shard), status.shards
    if saved <= old.furthest.get(key, 0):
        return status
    retries = {k: v for k, v in old.retries.items() if k != key}
    if key in old.counted_failures:
        retries[key] = old.counted_failures[key]
    return replace(status, shards=replace(old, retries=retries, furthest={**old.furthest, key: saved}))


def failures(status: JobStatus, shard: Shard) -> tuple[int, int]:
    """How often the unit failed: (counted, not counted since it moved forward)."""
    if shard is None or status.shards is None:
        return status.counted_failures, status.uncounted_failures
    counted = status.shards.counted_failures.get(str(shard), 0)
    return counted, status.shards.retries.get(str(shard), 0) - counted


def wait_until(status: JobStatus, shard: Shard, until: datetime) -> JobStatus:
    """The status with the end of the unit's backoff recorded."""
    if shard is None or status.shards is None:
        return replace(status, not_before=until)
    waits = {**status.shards.not_before, str(shard): until}
    return replace(status, shards=replace(status.shards, not_before=waits))


def forget_past_waits(status: JobStatus, now: datetime) -> JobStatus:
    """The status without backoffs and avoided nodes whose time is over."""
    if status.not_before is not None and status.not_before <= now:
        status = replace(status, not_before=None)
    if status.shards is not None and any(t <= now for t in status.shards.not_before.values()):
        waits = {k: t for k, t in status.shards.not_before.items() if t > now}
        status = replace(status, shards=replace(status.shards, not_before=waits))
    if any(t <= now for t in status.avoided_nodes.values()):
        status = replace(status, avoided_nodes={n: t for n, t in status.avoided_nodes.items() if t > now})
    return status
