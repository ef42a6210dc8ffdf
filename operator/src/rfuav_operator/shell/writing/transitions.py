"""What a written status tells the metrics, by its difference to the one before: waits, failures, ends, stops."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from rfuav_operator.core.model import Assignment, Job, JobStatus
from rfuav_operator.shell import metrics


def count(job: Job, after: JobStatus, now: datetime) -> None:
    """Count what changed from the status that the API server held, `job.status`, to the one that it took."""
    before, kind = job.status, job.kind.value
    if before.admitted_at is None and after.admitted_at is not None:
        queued = after.queued_at or job.created
        metrics.admission_wait.labels(job.spec.pool, kind).observe(_seconds(queued, after.admitted_at))
    if before.started_at is None and after.started_at is not None and after.admitted_at is not None:
        metrics.start_wait.labels(job.spec.pool, kind).observe(_seconds(after.admitted_at, after.started_at))
    if after.failures != before.failures:
        for failure in Counter(after.failures) - Counter(before.failures):
            metrics.failures.labels(kind, metrics.known(failure.reason), str(failure.counted).lower()).inc()
    if after.phase is not before.phase and after.phase is not None and after.phase.terminal:
        metrics.finished.labels(kind, after.phase.value, metrics.known(after.reason)).inc()
    if after.assignments != before.assignments:
        stopping = dict(_stopping(before.assignments))
        for pod, reason in _stopping(after.assignments):
            if pod not in stopping:
                metrics.stopped.labels(job.spec.pool, kind, metrics.known(reason)).inc()
    old, new = before.progress, after.progress
    if new is not None and new.updated_at is not None and (old is None or new.updated_at != old.updated_at):
        metrics.report_lag.observe(_seconds(new.updated_at, now))


def _stopping(assignments: Iterable[Assignment]) -> Iterator[tuple[str, str]]:
    return ((a.pod, a.stopping) for a in assignments if a.stopping)


def _seconds(begin: datetime, end: datetime) -> float:
    return max(0.0, (end - begin).total_seconds())
