"""The changes of all jobs in the order of their last change, and their rows: once, for all readers.

A reader remembers the number of the change it has seen, and asks what came since: each job once, however often it has
changed. So a slow reader gets the newest state and no backlog, and there is nothing to keep for it.
"""

import asyncio
import contextlib
import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice

from rfuav_gateway.cluster.tasks import TYPES, Key, Tasks, place
from rfuav_gateway.live.pace import Pace
from rfuav_gateway.tasks import rows
from rfuav_gateway.tasks.bodies import TaskStatus, TaskType
from rfuav_gateway.tasks.jobs import Job
from rfuav_gateway.tasks.sight import Sight
from rfuav_kube import clock

NOT_ENDED: tuple[TaskStatus, ...] = ("pending", "queued", "running")
ENDED: tuple[TaskStatus, ...] = ("completed", "failed", "cancelled")


class Hub:
    """The jobs as they change.

    Args:
        tasks: the jobs.
        pace: the limits.
        priority: the value of a PriorityClass.
    """

    def __init__(
        self, tasks: Tasks, pace: Pace, *, priority: Callable[[str], int | None] = lambda _named: None
    ) -> None:
        self._tasks, self._pace, self._priority = tasks, pace, priority
        self._readers = 0
        self._changed: OrderedDict[Key, int] = OrderedDict()  # the number of each job's last change
        self._forgotten = 0  # changes up to this number are not known any more
        self._rows: dict[Key, tuple[Job, bytes]] = {}
        self._rung = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self.bell = asyncio.Event()
        """Set when there may be something new; then there is another one."""
        self.number = 0
        """Of the last change."""
        tasks.follow(self._note)

    # --- changes

    def _note(self, key: Key) -> None:
        self.number += 1
        if not self._readers:
            return
        self._changed[key] = self.number
        self._changed.move_to_end(key)
        if len(self._changed) > len(self._tasks) + self._pace.spare:
            self._forgotten = self._changed.popitem(last=False)[1]
        self.ring_soon()

    def ring_soon(self) -> None:
        """Wake all readers as soon as the last time is long enough ago."""
        if self._timer is None:
            wait = max(0.0, self._rung + self._pace.batch - clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait, self.ring)

    def ring(self) -> None:
        """Wake all readers now."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rung = None, clock.monotonic()
        self.bell.set()
        self.bell = asyncio.Event()

    async def rung(self, bell: asyncio.Event, seconds: float) -> None:
        """Wait for a bell, so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await bell.wait()

    # --- readers

    def enter(self) -> None:
        """One more reader: changes are noted from now on."""
        if not self._readers:
            self._forgotten = self.number
        self._readers += 1

    def leave(self) -> None:
        """One reader less; after the last one, nothing is kept."""
        self._readers -= 1
        if not self._readers:
            self._changed.clear()
            self._rows.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    @property
    def readers(self) -> int:
        """How many there are."""
        return self._readers

    def since(self, number: int) -> list[Key] | None:
        """The jobs that have changed, come or gone since a change; None: too many, read all of them."""
        if number < self._forgotten:
            return None
        found = []
        for key, changed in reversed(self._changed.items()):
            if changed <= number:
                break
            found.append(key)
        return found

    def picture(self, sight: Sight) -> list[Key]:
        """The jobs that a reader sees first: all that have not ended, and the newest that have, the newest first."""
        lists = [
            (namespace, kind) for namespace in self._tasks.namespaces() for kind in TYPES if sight.sees(kind, namespace)
        ]
        live = self._newest(lists, NOT_ENDED)
        ended = islice(self._newest(lists, ENDED), self._pace.ended)
        return [(job.type, job.namespace, job.name) for job in heapq.merge(live, ended, key=place, reverse=True)]

    def _newest(self, lists: list[tuple[str, TaskType]], statuses: tuple[TaskStatus, ...]) -> Iterator[Job]:
        each = (self._tasks.newest(namespace, kind, status=status) for namespace, kind in lists for status in statuses)
        return heapq.merge(*each, key=place, reverse=True)

    def all_of(self, sight: Sight, unlike: Sight) -> list[Key]:
        """The jobs that one sight shows and the other does not."""
        return [
            (job.type, job.namespace, job.name)
            for namespace in self._tasks.namespaces()
            for kind in TYPES
            if sight.sees(kind, namespace) and not unlike.sees(kind, namespace)
            for job in self._tasks.newest(namespace, kind)
        ]

    def row(self, key: Key) -> bytes | None:
        """A job as JSON; None: it is gone."""
        job = self._tasks.named(*key)
        if job is None:
            self._rows.pop(key, None)
            return None
        held = self._rows.get(key)
        if held is None or held[0] is not job:
            held = self._rows[key] = job, rows.encoded(job, self._priority)
        return held[1]
