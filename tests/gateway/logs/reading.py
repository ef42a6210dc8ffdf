"""A client of server-sent events, as the standard has it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One event: its id, its type, its JSON."""

    id: str
    type: str
    data: dict[str, Any]

    @property
    def message(self) -> str:
        return str(self.data.get("message"))


class Reader:
    """Reads chunks and takes them into events; comments are kept as they are."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self.events: list[Event] = []
        self.comments: list[str] = []
        self.chunks = 0

    async def read(self, enough: Callable[[], bool] = lambda: False, seconds: float = 30) -> list[Event]:
        """Read until the end, or until there is enough."""
        async with asyncio.timeout(seconds):
            while not enough():
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    break
                self.chunks += 1
                self._take(chunk)
        return self.events

    async def messages(self, count: int) -> list[str]:
        """The messages, once there are so many."""
        await self.read(lambda: len(self.events) >= count)
        return [event.message for event in self.events]

    def _take(self, chunk: bytes) -> None:
        assert chunk.endswith(b"\n\n"), "a chunk has whole events"
        for block in chunk.decode().split("\n\n")[:-1]:
            fields: dict[str, str] = {}
            for line in block.split("\n"):
                name, _, value = line.partition(":")
                fields[name] = fields.get(name, "") + value.removeprefix(" ")
            if "" in fields:
                self.comments.append(fields[""])
            if "data" in fields:
                self.events.append(
                    Event(fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"]))
                )
