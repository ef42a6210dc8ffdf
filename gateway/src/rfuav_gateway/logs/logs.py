"""The logs of all tasks: streams of events for readers, and lists of entries.

Each reader is an iterator of chunks of bytes, which a route sends as they are. It waits for nobody and nobody waits for
it: a client that does not read in time misses lines, and is told how many.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import structlog

from rfuav_gateway.logs import places
from rfuav_gateway.logs.entries import timestamp
from rfuav_gateway.logs.kept import Kept
from rfuav_gateway.logs.pace import Pace
from rfuav_gateway.logs.source import End, TaskSource
from rfuav_gateway.logs.stream import Stream
from rfuav_gateway.logs.window import CHUNK, Event
from rfuav_kube import clock
from rfuav_kube.connection import Connection

log = structlog.get_logger()

CONTENT_TYPE = "text/event-stream"
_HELLO = b"retry: 1000\n\n"  # milliseconds after which a browser comes back
_KEEP_ALIVE = b": keep-alive\n\n"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SILENT = 0.9  # of `keep_alive`, after which a comment is due: bells ring a little early or late

Events = AsyncIterator[bytes]
Recheck = Callable[[], Awaitable[bool]]


class Gone(Exception):  # noqa: N818  a state, not a fault
    """The task has ended, its pods or their logs no longer exist, and the output cannot be read here.

    Args:
        where: the URI of the lines that the trainer keeps in the output.
    """

    def __init__(self, where: str) -> None:
        super().__init__(f"the pods of this task are gone, and their logs with them: the trainer keeps them in {where}")
        self.where = where


class Over(Exception):  # noqa: N818  a state, not a fault
    """The reader has had everything, the end as well: a browser comes back unless it is answered with 204."""


class TooManyStreams(Exception):  # noqa: N818  a state, not a fault
    """The logs of as many tasks as are allowed are being read; another one can be read when one of them is free."""


class Unanswered(Exception):  # noqa: N818  a state, not a fault
    """The API server does not say which pods the task has; try again later."""


class Logs:
    """The logs of tasks.

    Args:
        connection: the way to the API server; its credentials must allow `get` of `pods/log`.
        kept: reads the logs in outputs; without one, none.
        pace: the limits.
    """

    def __init__(self, connection: Connection, kept: Kept | None = None, pace: Pace | None = None) -> None:
        self._connection = connection
        self._kept = kept or Kept()
        self._pace = pace or Pace()
        self._streams: dict[str, Stream] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._ending = False

    @property
    def readers(self) -> int:
        """How many readers there are now."""
        return sum(stream.readers for stream in self._streams.values())

    @asynccontextmanager
    async def follow(
        self,
        source: TaskSource,
        *,
        after: str = "",
        tail: int | None = None,
        since: datetime | None = None,
        recheck: Recheck | None = None,
    ) -> AsyncIterator[Events]:
        """The events of a task as chunks of bytes: what there is, then lines as they come, then its end.

        Args:
            source: the task.
            after: `Last-Event-ID`: only what comes after that event; what is no id of ours is ignored.
            tail: only so many of the lines that there are, the last ones.
            since: only lines from this time on.
            recheck: asked at least every minute whether the reader may still read; False ends the stream.

        Raises:
            Gone: the task has ended and its logs are not here any more.
            Over: `after` is the end.
            TooManyStreams, Unanswered: try again later.
        """
        if after == _end_id(source):
            raise Over
        if self._ending:
            yield _come_back()
            return
        async with self._stream(source) as stream:
            yield self._events(stream, source, after=places.parsed(after), tail=tail, since=since, recheck=recheck)

    async def history(self, source: TaskSource, *, tail: int | None = None, since: datetime | None = None) -> bytes:
        """The entries that there are now, as a JSON array: the last `tail` ones, from `since` on.

        Raises:
            Gone, TooManyStreams, Unanswered: as above.
        """
        async with self._stream(source) as stream:
            events = _chosen(stream, after=None, tail=tail, since=since)
            return b"[%b]" % b",".join(event.json for event in events)

    async def close(self) -> None:
        """End all streams; their readers are told to come back."""
        self._ending = True
        streams, self._streams = list(self._streams.values()), {}
        await asyncio.gather(*(stream.close() for stream in streams), *self._closing)

    @asynccontextmanager
    async def _stream(self, source: TaskSource) -> AsyncIterator[Stream]:
        """The stream of the task, loaded; it is kept for some seconds afterwards."""
        stream = self._streams.get(source.key)
        if stream is None or stream.broken:
            if len(self._streams) >= self._pace.streams:
                self._make_room()
            stream = self._streams[source.key] = Stream(self._connection, source, self._kept, self._pace)
        stream.readers += 1
        try:
            try:
                await asyncio.wait_for(stream.ready.wait(), self._pace.patience)
            except TimeoutError as error:
                raise Unanswered from error
            if stream.end is not None and stream.source.where and not stream.found and stream.window.end == 0:
                raise Gone(stream.source.where)
            yield stream
        finally:
            stream.readers -= 1
            if not stream.readers:
                asyncio.get_running_loop().call_later(self._pace.linger, self._let_go, source.key, stream)

    def _make_room(self) -> None:
        """Let go of a stream that has no reader now."""
        for key, stream in self._streams.items():
            if not stream.readers:
                self._let_go(key, stream)
                return
        raise TooManyStreams

    def _let_go(self, key: str, stream: Stream) -> None:
        if stream.readers or self._streams.get(key) is not stream:
            return
        del self._streams[key]
        closing = asyncio.create_task(stream.close(), name=f"close logs {key}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _events(
        self,
        stream: Stream,
        source: TaskSource,
        *,
        after: places.Place | None,
        tail: int | None,
        since: datetime | None,
        recheck: Recheck | None,
    ) -> AsyncGenerator[bytes, None]:
        window, position = stream.window, stream.window.end
        events = _chosen(stream, after=after, tail=tail, since=since)
        backlog = deque(_chunks(events))
        if _lacks(stream, len(events), after=after, tail=tail, since=since):
            backlog.appendleft(_missed(None))
        del events
        yield _HELLO
        spoke = checked = clock.monotonic()
        while True:
            now = clock.monotonic()
            if recheck is not None and now - checked >= self._pace.recheck:
                if not await recheck():
                    yield _notice("denied", "ERROR", "you may no longer read this log")
                    return
                checked = now = clock.monotonic()
            if backlog:
                spoke = now
                yield backlog.popleft()
                continue
            read = window.read(position)
            if read.missed:
                yield _missed(read.missed)
            if read.data:
                position, spoke = read.position, now
                yield read.data
            elif stream.end is not None:
                yield _ended(source, stream.source.end_for(source) or stream.end)
                return
            elif stream.broken:
                yield _reconnect()
                return
            elif now - spoke >= self._pace.keep_alive * _SILENT:
                spoke = now
                yield _KEEP_ALIVE
            else:
                await stream.bell()


def _reconnect() -> bytes:
    return _notice("reconnect", "WARNING", "this stream ends here: read on from the last event")


async def _come_back() -> AsyncGenerator[bytes, None]:
    """The events of a stream that is opened while the gateway stops."""
    yield _HELLO
    yield _reconnect()


def _chosen(stream: Stream, *, after: places.Place | None, tail: int | None, since: datetime | None) -> list[Event]:
    """The events that a reader gets first."""
    window = stream.window
    events = window.last(window.end) if after is None else window.after(after)
    if since is not None:
        start = _nanoseconds(since)
        events = [event for event in events if event.place is not None and event.place.nanoseconds >= start]
    return events if tail is None else events[max(0, len(events) - tail) :]


def _lacks(stream: Stream, found: int, *, after: places.Place | None, tail: int | None, since: datetime | None) -> bool:
    """Whether lines that the reader asked for are no longer in the window."""
    oldest = stream.window.oldest
    if not stream.window.cut or oldest is None or (tail is not None and found >= tail):
        return False
    start = after.nanoseconds if after is not None else None if since is None else _nanoseconds(since)
    return start is None or start < oldest.nanoseconds


def _nanoseconds(at: datetime) -> int:
    """Since 1970; a time without a zone is UTC."""
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1) * 1000


def _chunks(events: list[Event]) -> list[bytes]:
    chunks: list[bytes] = []
    parts: list[bytes] = []
    size = 0
    for event in events:
        if parts and size + len(event.data) > CHUNK:
            chunks.append(b"".join(parts))
            parts, size = [], 0
        parts.append(event.data)
        size += len(event.data)
    return [*chunks, b"".join(parts)] if parts else chunks


def _end_id(source: TaskSource) -> str:
    return f"end:{source.key}"


def _ended(source: TaskSource, end: End) -> bytes:
    body = msgspec.json.encode({"status": end.status, "message": end.message})
    return b"id: %b\ndata: %b\n\n" % (_end_id(source).encode(), body)


def _missed(count: int | None) -> bytes:
    if count is None:
        words = "earlier lines are no longer kept here"
    else:
        words = f"{count} lines were left out: they came faster than you read them"
    return _notice("missed", "WARNING", words, missed=count)


def _notice(event: str, level: str, message: str, **more: object) -> bytes:
    body = {"timestamp": timestamp(clock.now()), "level": level, "message": message, **more}
    return b"event: %b\ndata: %b\n\n" % (event.encode(), msgspec.json.encode(body))
