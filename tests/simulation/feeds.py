"""Open watches: every change of a resource after a version, in order, each after a lag of its own.

A feed may be cut (cleanly, by a broken connection, by an error inside the stream, by silence), be slow, repeat itself,
and split an event over two chunks.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import aiohttp
import orjson
from simulation.server import Change

if TYPE_CHECKING:
    from simulation.connection import SimConnection
    from simulation.world import World

BOOKMARK_EVERY = 60.0
SILENCE = 30.0  # seconds until a connection on which nothing comes is given up
REPEATS = 0.05  # share of events that come twice
SPLITS = 0.1  # share of chunks that come in two parts

# Ways to end.
CLEAN, BROKEN, GONE, ERROR, SILENT = "clean", "broken", "gone", "error", "silent"


class Feed:
    """One open watch."""

    def __init__(self, world: "World", owner: "SimConnection", resource: str, version: int) -> None:
        self.world = world
        self.owner = owner
        self.resource = resource
        self.ends = ""
        self._position = world.server.position(resource, version)
        self._ready_at = 0.0  # when what was looked at last is delivered
        self._waiter: asyncio.Future[bool] | None = None
        self._chance = world.chance[f"feed/{owner.process}/{resource}"]

    def wake(self) -> None:
        """Something was written, or the feed is cut."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def cut(self, how: str) -> None:
        """End it."""
        self.ends = how
        self.wake()

    async def changes(self, seconds: float) -> AsyncIterator[list[Change]]:
        """Batches of changes; an empty one is a bookmark's time. Ends when cut, or after so many seconds."""
        loop, log = self.world.loop, self.world.server.log[self.resource]
        end = loop.time() + seconds
        while not self.ends and loop.time() < end:
            if self._position == len(log):
                if not await self._wait(min(BOOKMARK_EVERY, end - loop.time())) and loop.time() < end:
                    yield []
                continue
            at = max(self._ready_at, log[self._position].at + self.world.lag(self.resource, self._chance))
            self._ready_at = at
            if at > loop.time():
                await asyncio.sleep(at - loop.time())
                if self.ends:
                    return
            batch = [log[self._position]]
            self._position += 1
            while self._position < len(log) and log[self._position].at <= at - self.world.least_lag:
                batch.append(log[self._position])
                self._position += 1
            yield batch

    async def fall_silent(self) -> None:
        """A silent connection says nothing for a while before it is known to be dead."""
        if self.ends == SILENT:
            await asyncio.sleep(SILENCE)

    async def _wait(self, seconds: float) -> bool:
        """Whether something came within so many seconds."""
        self._waiter = waiter = self.world.loop.create_future()
        timer = self.world.loop.call_later(seconds, lambda: waiter.done() or waiter.set_result(False))
        try:
            return await waiter
        finally:
            timer.cancel()


class Content:
    """The body of a watch's response."""

    def __init__(self, feed: Feed, seconds: float) -> None:
        self._feed = feed
        self._seconds = seconds

    async def iter_any(self) -> AsyncIterator[bytes]:
        """Chunks of lines."""
        feed, chance, server = self._feed, self._feed._chance, self._feed.world.server
        async for batch in feed.changes(self._seconds):
            if not batch:
                yield _line("BOOKMARK", orjson.dumps({"metadata": {"resourceVersion": str(server.version)}}))
                continue
            lines = [_line(change.type, server.bytes_of(change.new)) for change in batch]
            if chance.random() < REPEATS:
                lines.append(lines[-1])
            chunk = b"".join(lines)
            feed.owner.knows(feed.resource, batch[-1].version)
            if chance.random() < SPLITS:
                middle = chance.randrange(len(chunk))
                yield chunk[:middle]
                chunk = chunk[middle:]
            yield chunk
        await feed.fall_silent()
        match feed.ends:
            case "broken":
                raise aiohttp.ClientPayloadError("connection reset")
            case "gone":
                yield _line("ERROR", b'{"kind":"Status","code":410,"message":"too old resource version"}')
            case "error":
                yield _line("ERROR", b'{"kind":"Status","code":500,"message":"etcd leader changed"}')
            case "silent":
                raise aiohttp.SocketTimeoutError


class Response:
    """What `Connection.stream` yields."""

    def __init__(self, status: int, content: Content | None = None, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.content = content
        self.headers = headers or {}


def _line(kind: str, obj: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + obj + b"}\n"
