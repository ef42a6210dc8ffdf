"""All jobs of the cluster, found by task id and in pages, the newest first.

A watch keeps it up to date. What this gateway writes enters with the answer, so that the next read shows it.
"""

import heapq
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from rfuav_crds.contract import API_VERSION, PLURALS
from rfuav_gateway.cluster.news import News
from rfuav_gateway.tasks import jobs, views
from rfuav_gateway.tasks.bodies import TaskStatus, TaskType
from rfuav_gateway.tasks.identity import KINDS
from rfuav_gateway.tasks.jobs import Job, JobObject
from rfuav_kube import objects, paths
from rfuav_kube.cache import Cache
from rfuav_kube.connection import Connection
from rfuav_kube.reflector import Reflector

TYPES: tuple[TaskType, ...] = ("training", "inference")
Key = tuple[TaskType, str, str]  # type, namespace, name
Place = tuple[datetime, str]  # when a job was created, and its UID: the order of pages
_List = list[tuple[Place, Job]]
Copies = Collection[_List]
"""Lists of jobs that do not change."""
_place_of = lambda entry: entry[0]  # noqa: E731


def path(kind: TaskType, namespace: str, name: str = "") -> str:
    """Where the API server has the jobs of a namespace, or one of them; without a namespace, all jobs of a type."""
    plural = PLURALS[KINDS[kind]]
    if not namespace:
        return f"/apis/{API_VERSION}/{plural}"
    return f"/apis/{API_VERSION}/namespaces/{paths.named(namespace)}/{plural}" + (
        f"/{paths.named(name)}" if name else ""
    )


class Tasks:
    """The jobs that the API server holds.

    Args:
        namespace: the only one that is read; empty: all.
    """

    def __init__(self, namespace: str = "") -> None:
        self._namespace = namespace
        self._cache: Cache[Key, Job] = Cache(self._changed)
        self._news = News()
        self._followers: list[Callable[[Key], None]] = []
        self._by_id: dict[tuple[str, str], tuple[Job, ...]] = {}
        # By namespace, type and status word, the oldest first.
        self._lists: defaultdict[tuple[str, TaskType], dict[TaskStatus, _List]] = defaultdict(dict)

    def reflectors(self, connection: Connection) -> list[Reflector[Key, Job, JobObject]]:
        """What fills it: one for each type, not running yet."""
        return [_reflector(connection, kind, self._namespace, self._cache) for kind in TYPES]

    def __len__(self) -> int:
        return len(self._cache)

    def all(self) -> Iterator[Job]:
        """All of them, in no order."""
        return self._cache.values()

    def follow(self, changed: Callable[[Key], None]) -> None:
        """Call this with every job that changes, comes or goes, from now on."""
        self._followers.append(changed)

    def namespaces(self) -> list[str]:
        """The namespaces that have jobs."""
        return sorted({namespace for (namespace, _), lists in self._lists.items() if any(lists.values())})

    def named(self, kind: TaskType, namespace: str, name: str) -> Job | None:
        """A job by its name."""
        return self._cache.get((kind, namespace, name))

    def found(self, namespace: str, task_id: str) -> tuple[Job, ...]:
        """The jobs of an id, in a namespace."""
        return self._by_id.get((namespace, task_id), ())

    def count(self, namespace: str, kind: TaskType, status: TaskStatus | None = None) -> int:
        """How many there are."""
        held = self._lists.get((namespace, kind), {})
        return len(held.get(status, ())) if status is not None else sum(map(len, held.values()))

    def newest(
        self, namespace: str, kind: TaskType, *, status: TaskStatus | None = None, before: Place | None = None
    ) -> Iterator[Job]:
        """The newest first; those from `before` on are left out."""
        return newest(self._of(namespace, kind, status), before)

    def copies(self, namespace: str, kind: TaskType, statuses: Collection[TaskStatus] = ()) -> Copies:
        """Those with these status words, or all: lists that do not change any more, for `newest`."""
        held = self._lists.get((namespace, kind), {})
        return [list(held.get(status, ())) for status in statuses or held]

    def _of(self, namespace: str, kind: TaskType, status: TaskStatus | None) -> Collection[_List]:
        held = self._lists.get((namespace, kind), {})
        return held.values() if status is None else [held.get(status, [])]

    def page(
        self,
        namespace: str,
        kind: TaskType,
        limit: int,
        *,
        status: TaskStatus | None = None,
        before: Place | None = None,
    ) -> list[Job]:
        """At most `limit` of them."""
        return list(islice(self.newest(namespace, kind, status=status, before=before), limit))

    async def changed(self, job: Job) -> Job | None:
        """Wait until the job is held differently, and return it so; None: it is gone, or another has its name."""
        return await self._news.after(job, lambda: self.named(job.type, job.namespace, job.name))

    def take(self, kind: TaskType, body: Any) -> Job:
        """Take in a job as an answer shows it; what is held now."""
        read, why = objects.converted(body, JobObject)
        job = jobs.job(kind, read, why)
        key = kind, job.namespace, job.name
        self._cache.put(key, objects.version(read.metadata), job)
        return self._cache.get(key) or job

    def gone(self, job: Job) -> None:
        """A job was deleted, or is not there any more."""
        held = self.named(job.type, job.namespace, job.name)
        if held is not None and held.uid == job.uid:  # not one that was created under its name meanwhile
            self._cache.remove((job.type, job.namespace, job.name))

    def _changed(self, old: Job | None, new: Job | None) -> None:
        there = new or old
        if there is not None:
            for changed in self._followers:
                changed((there.type, there.namespace, there.name))
        for uid in {job.uid for job in (old, new) if job is not None}:
            self._news.tell(uid)
        if old is not None:
            _take_out(self._lists[old.namespace, old.type], old)
            key = old.namespace, old.task_id
            if left := tuple(job for job in self._by_id.get(key, ()) if job is not old):
                self._by_id[key] = left
            else:
                self._by_id.pop(key, None)
        if new is not None:
            insort(
                self._lists[new.namespace, new.type].setdefault(views.status_of(new), []),
                (place(new), new),
                key=_place_of,
            )
            key = new.namespace, new.task_id
            self._by_id[key] = (*self._by_id.get(key, ()), new)


def newest(lists: Copies, before: Place | None = None) -> Iterator[Job]:
    """The jobs of several lists, the newest first; those from `before` on are left out."""
    ends = ((one, len(one) if before is None else bisect_left(one, before, key=_place_of)) for one in lists)
    down = [_downwards(one, end) for one, end in ends]
    return (job for _, job in heapq.merge(*down, key=_place_of, reverse=True))


def place(job: Job) -> Place:
    """Where a job is in the order of pages."""
    return job.created, job.uid


def _downwards(entries: _List, end: int) -> Iterator[tuple[Place, Job]]:
    return (entries[index] for index in range(end - 1, -1, -1))


def _take_out(lists: dict[TaskStatus, _List], job: Job) -> None:
    entries = lists[views.status_of(job)]
    at = bisect_left(entries, place(job), key=_place_of)
    del entries[at]


def _reflector(
    connection: Connection, kind: TaskType, namespace: str, cache: Cache[Key, Job]
) -> Reflector[Key, Job, JobObject]:
    return Reflector(
        connection,
        path(kind, namespace),
        cache.part(lambda key: key[0] == kind),
        read=JobObject,
        key=lambda read: (kind, read.metadata.namespace, read.metadata.name),
        value=lambda read, why: jobs.job(kind, read, why),
    )


def ids(found: Iterable[Job]) -> list[tuple[TaskType, str, str]]:
    """Type, namespace and name of each."""
    return [(job.type, job.namespace, job.name) for job in found]
