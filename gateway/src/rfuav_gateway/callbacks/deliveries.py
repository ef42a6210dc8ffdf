"""Delivers the callbacks of all tasks, as long as this replica holds the Lease.

Each receiver (host and port) has a queue of its own: one that is slow or away delays nobody else. A task is settled
when its receiver has taken the message, or was asked in vain for an hour.
"""

import asyncio
import contextlib
import heapq
import secrets
import socket
from collections.abc import Collection
from datetime import datetime  # noqa: TC003  the other imports of types are at run time too
from typing import NamedTuple

import structlog

from rfuav_crds.bounds import bounded
from rfuav_gateway.callbacks.post import Post
from rfuav_gateway.callbacks.record import NotMineError, Record
from rfuav_gateway.cluster.tasks import Key, Tasks
from rfuav_gateway.tasks import callbacks, views
from rfuav_gateway.tasks.callbacks import Network, Target
from rfuav_gateway.tasks.jobs import Job
from rfuav_gateway.tasks.words import ENGLISH, Phrases
from rfuav_kube import backoff, clock
from rfuav_kube.connection import Connection, ConnectionProblem
from rfuav_kube.lease import Lease, Taken

log = structlog.get_logger()

LEASE_SECONDS = 15
RENEW_SECONDS = 5.0
SAVE_SECONDS = 1.0
GIVE_UP_SECONDS = 3600.0
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0
AT_ONCE_OF_ONE = 4  # messages to one receiver
AT_ONCE = 256
LEASE_TIMEOUT = 4.0


class LostError(Exception):
    """The Lease is another's."""


class _Entry(NamedTuple):
    """A message that waits for its next try."""

    due: float
    uid: str
    job: Job
    target: Target
    tries: int
    give_up: float


class _Receiver:
    """The messages for one host and port."""

    def __init__(self) -> None:
        self.waiting: list[_Entry] = []
        self.news = asyncio.Event()

    def push(self, entry: _Entry) -> None:
        heapq.heappush(self.waiting, entry)
        self.news.set()


class Callbacks:
    """The callbacks of all tasks.

    Args:
        connection: its credentials must allow get, create and update of the Lease and the ConfigMap.
        tasks: tells which jobs have ended.
        namespace: of the gateway.
        name: of Lease and ConfigMap.
        key: what messages are signed with.
        allowed: networks that may be called beside the public internet.
        phrases: the language of messages.
    """

    def __init__(
        self,
        connection: Connection,
        tasks: Tasks,
        *,
        namespace: str,
        name: str,
        key: bytes,
        allowed: Collection[Network],
        phrases: Phrases = ENGLISH,
    ) -> None:
        self._tasks, self._key, self._allowed, self._phrases = tasks, key, allowed, phrases
        self._record = Record(connection, namespace, name)
        self._lease = Lease(
            connection,
            namespace,
            name,
            me=f"{socket.gethostname()}_{secrets.token_hex(4)}",
            seconds=LEASE_SECONDS,
            most_seconds=LEASE_SECONDS,
            note="",  # of shared ones
        )
        self._renewed = 0.0
        self._ended: dict[str, datetime] = {}  # not settled yet
        self._receivers: dict[str, _Receiver] = {}
        self._free = asyncio.Semaphore(AT_ONCE)
        self._queue: asyncio.Queue[Job] | None = None  # of jobs that have ended, during a term
        tasks.follow(self._changed)

    @property
    def waiting(self) -> int:
        """Messages that are not settled."""
        return len(self._ended)

    async def run(self) -> None:
        """Deliver whenever this replica holds the Lease, until cancelled."""
        async with Post(self._allowed) as post:
            while True:
                try:
                    if await self._take() is Taken.YES:
                        await self._lead(post)
                except (ConnectionProblem, LostError, NotMineError) as problem:
                    log.warning("callbacks pause", why=str(problem))
                except Exception:
                    log.exception("callbacks failed, and begin again")
                await asyncio.sleep(backoff.jittered(RENEW_SECONDS))

    async def _lead(self, post: Post) -> None:
        """One term."""
        try:
            await self._record.load()
            ended: asyncio.Queue[Job] = asyncio.Queue()
            self._queue = ended
            for job in filter(_calls_back, self._tasks.all()):
                ended.put_nowait(job)
            async with asyncio.TaskGroup() as term:
                term.create_task(self._hold(), name="callbacks: lease")
                term.create_task(self._take_in(ended, post, term), name="callbacks: jobs")
                term.create_task(self._keep(), name="callbacks: record")
        except* (ConnectionProblem, LostError, NotMineError) as problems:
            raise LostError(_why(problems)) from problems
        finally:
            self._queue = None
            self._receivers = {}
            await self._finish()
            self._ended = {}

    async def _hold(self) -> None:
        """Renew the Lease.

        Raises:
            LostError: another has it, or may have it soon.
        """
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                taken = await self._take()
            except ConnectionProblem:
                taken = Taken.UNKNOWN
            if taken is Taken.BY_ANOTHER or self._left() <= RENEW_SECONDS:
                raise LostError("the Lease is not renewed")

    async def _take(self) -> Taken:
        sent = clock.monotonic()
        taken = await self._lease.take(timeout=LEASE_TIMEOUT)
        if taken is Taken.YES:
            self._renewed = sent
        return taken

    def _left(self) -> float:
        """Seconds for which the Lease is held in any case."""
        return self._renewed + LEASE_SECONDS - clock.monotonic()

    async def _keep(self) -> None:
        """Write down what has been settled."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            try:
                await self._save()
            except ConnectionProblem as problem:  # the Lease says for how long that may be
                log.info("callbacks: the record is not written yet", why=str(problem))

    async def _save(self) -> None:
        await self._record.save(min(self._ended.values(), default=None))

    async def _finish(self) -> None:
        """At the end of a term: write down the last ones, and let another go on at once."""
        if self._left() > RENEW_SECONDS:
            try:
                await self._save()
                await self._lease.give_back()
            except (ConnectionProblem, NotMineError) as problem:
                log.warning("callbacks: the record is not up to date", why=str(problem))

    def _changed(self, key: Key) -> None:
        job = self._tasks.named(*key) if self._queue is not None else None
        if self._queue is not None and job is not None and _calls_back(job):
            self._queue.put_nowait(job)

    async def _take_in(self, ended: asyncio.Queue[Job], post: Post, term: asyncio.TaskGroup) -> None:
        while True:
            self._consider(await ended.get(), post, term)

    def _consider(self, job: Job, post: Post, term: asyncio.TaskGroup) -> None:
        """Have the callback of a job that has ended delivered, unless it is settled."""
        ended = bounded(job.status.finished_at or job.changed)
        if job.uid in self._ended or self._record.has(job.uid, ended):
            return
        found = callbacks.target(job.callback_url, self._allowed)
        if not isinstance(found, Target):
            log.warning("callback refused", job=_name(job), why=found.text(self._phrases))
            self._record.settle(job.uid, ended)
            return
        self._ended[job.uid] = ended
        now = clock.monotonic()
        receiver = self._receivers.get(found.host)
        if receiver is None:
            receiver = self._receivers[found.host] = _Receiver()
            term.create_task(self._serve(found.host, receiver, post), name=f"callbacks: {found.host}")
        receiver.push(_Entry(now, job.uid, job, found, 1, now + GIVE_UP_SECONDS))

    async def _serve(self, host: str, receiver: _Receiver, post: Post) -> None:
        """Deliver what one receiver gets, until nothing is left."""
        while receiver.waiting:
            receiver.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, receiver.waiting[0].due - clock.monotonic())):
                    await receiver.news.wait()
            now = clock.monotonic()
            due: list[_Entry] = []
            while receiver.waiting and receiver.waiting[0].due <= now and len(due) < AT_ONCE_OF_ONE:
                due.append(heapq.heappop(receiver.waiting))
            for again in await asyncio.gather(*(self._try(entry, post) for entry in due)):
                if again is not None:
                    heapq.heappush(receiver.waiting, again)
        del self._receivers[host]

    async def _try(self, entry: _Entry, post: Post) -> _Entry | None:
        """One try; the entry of the next one, or None: it is settled."""
        job = entry.job
        try:
            body = callbacks.message(job, self._phrases)
        except Exception:  # of this task; the others are told all the same
            log.exception("callback set aside", job=_name(job))
            self._record.settle(job.uid, self._ended.pop(job.uid))
            return None
        headers = callbacks.headers(job, body, self._key, int(clock.now().timestamp()))
        async with self._free:
            problem = await post.send(entry.target.url, body, headers)
        now = clock.monotonic()
        if problem and now < entry.give_up:
            pause = backoff.jittered(backoff.grown(entry.tries, first=FIRST_PAUSE, most=LONGEST_PAUSE))
            log.info("callback not taken", job=_name(job), to=entry.target.host, tries=entry.tries, why=problem)
            return entry._replace(due=now + pause, tries=entry.tries + 1)
        if problem:
            log.warning("callback given up", job=_name(job), to=entry.target.host, tries=entry.tries, why=problem)
        else:
            log.info("callback delivered", job=_name(job), to=entry.target.host, tries=entry.tries)
        self._record.settle(job.uid, self._ended.pop(job.uid))
        return None


def _calls_back(job: Job) -> bool:
    return bool(job.callback_url) and job.status.phase in views.ENDED


def _name(job: Job) -> str:
    return f"{job.namespace}/{job.name}"


def _why(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
