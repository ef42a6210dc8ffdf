"""Places in the queue and estimated starts: of the first jobs immediately, of the others every few seconds.

In: the queue as a plan left it. Out: (job, place, group) of the jobs whose status is due. Every end of a job moves a
long queue: updating all jobs each time would cost more than the plan.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from rfuav_operator.core.capacity.usage import Usage
from rfuav_operator.core.model import Job, Kind, Queue, Uid
from rfuav_operator.core.queue.ordering import InOrder
from rfuav_operator.core.queue.queues import Group, PoolQueue
from rfuav_operator.core.queue.quotas import Quotas

FIRST = 10  # places that are always right
NEAR = 1000  # places in which a new job is looked for; farther back it waits for its turn
REFRESH = timedelta(seconds=10)  # how often the rest is looked at again
AT_A_TIME = 200  # of the others that are updated at a time: what the budget of writes allows
WORDS_AT_A_TIME = 2  # explanations that a plan rewords
COARSE = timedelta(seconds=30)  # estimated starts are rounded up to this, so that they change rarely

Told = tuple[Uid, int, Group]


class Line:
    """The jobs that wait in one pool, in the order in which they would be admitted if there were room."""

    def __init__(self, queue: PoolQueue, quotas: Quotas, admitted: Collection[Uid]) -> None:
        self._quotas = quotas
        self._queue = queue
        self._admitted = admitted
        self.length = queue.length - len(admitted)

    def first(self, count: int, *, find: Collection[Uid] = ()) -> list[Told]:
        """The first `count` jobs, from place 1; each job's use is counted for its namespace before the next.

        Further jobs follow until those to `find` are found, if they are near.
        """
        wanted = set(find)
        more: dict[tuple[str, bool], int] = {}

        def share(namespace: str, gpu: bool) -> float:
            return self._quotas.share(namespace, gpu, more=more.get((namespace, gpu), 0))

        line = InOrder((b for b in self._queue.buckets.values() if not b.key.started), share)
        found: list[Told] = []
        while len(found) < count or (wanted and len(found) < NEAR):
            if (turn := line.pop()) is None:
                break
            group, index = turn
            uid, shape = group.ages[index][2], group.key.shape
            if uid not in self._admitted:
                counted = group.key.namespace, shape.gpus > 0
                more[counted] = more.get(counted, 0) + (shape.total_gpus or shape.nodes)
                found.append((uid, len(found) + 1, group))
                wanted.discard(uid)
            line.go_on(group, index)
        return found


@dataclass(slots=True)
class Ends:
    """When running pods of one pool are expected to end, by kind."""

    by_kind: dict[Kind, list[datetime]]

    def estimate(self, kind: Kind, position: int) -> datetime | None:
        """When the job in this place may start: when all jobs before it and one more could have started."""
        ends = self.by_kind.get(kind, [])
        return ends[position - 1] if position <= len(ends) else None


@dataclass(slots=True)
class Places:
    """When the status of each waiting job of one pool was last updated."""

    refresh_at: datetime | None = None
    words_refreshed: int = 0
    _cursor: int = 0
    _ends: Ends | None = None
    _ends_at: datetime | None = None

    def choose(self, line: Line, *, stepped: Collection[Uid], everyone: bool, now: datetime) -> list[Told]:
        """The jobs to update now: the first, the changed ones and, when it is time, a share of the others."""
        self.words_refreshed = 0
        due = self.refresh_at is not None and now >= self.refresh_at
        first = line.first(line.length if everyone or due else FIRST, find=stepped)
        if everyone:
            self.refresh_at = now + REFRESH if line.length > FIRST else None
            return first
        chosen, rest = first[:FIRST], first[FIRST:]
        if due:
            self._cursor = 0 if self._cursor >= len(rest) else self._cursor
            chosen += rest[self._cursor : self._cursor + AT_A_TIME]
            self._cursor += AT_A_TIME
            self.refresh_at = None
        else:
            wanted = set(stepped)
            chosen += [t for t in rest if t[0] in wanted]
        if self.refresh_at is None and line.length > FIRST:
            self.refresh_at = now + REFRESH
        return chosen

    def may_refresh_words(self) -> bool:
        """Whether one more explanation may be reworded in this plan."""
        self.words_refreshed += 1
        return self.words_refreshed <= WORDS_AT_A_TIME

    def ends(self, usage: Usage, pool: str, jobs: Mapping[Uid, Job], now: datetime) -> Ends:
        """When running pods are expected to end, by what they report; looked at again every few seconds."""
        if self._ends is None or self._ends_at is None or now - self._ends_at >= REFRESH:
            by_kind: dict[Kind, list[datetime]] = {kind: [] for kind in Kind}
            for uid in {uid for uid, _, _ in usage.of_pool(pool)}:
                job = jobs.get(uid)
                told = job.status.progress if job is not None else None
                if job is None or told is None or told.remaining_seconds is None or told.updated_at is None:
                    continue
                end = max(told.updated_at + timedelta(seconds=told.remaining_seconds), now)
                by_kind[job.kind] += [end] * max(1, len(job.status.assignments))
            self._ends, self._ends_at = Ends({kind: sorted(ends) for kind, ends in by_kind.items()}), now
        return self._ends


def queue(job: Job, position: int, length: int, start: datetime | None) -> Queue:
    """The place as status holds it. The estimate is rounded up, and one that moved little stays as it was."""
    old = job.status.queue.estimated_start if job.status.queue else None
    if start is not None:
        start = start.replace(microsecond=0)
        start += timedelta(seconds=-start.second % int(COARSE.total_seconds()))
        if old is not None and abs(old - start) <= COARSE:
            start = old
    return Queue(position=position, of=length, estimated_start=start)
