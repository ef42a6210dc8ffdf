"""Who waits for a change of an object."""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar


class Version(Protocol):
    """An object as it is held at one time."""

    @property
    def uid(self) -> str:
        """Its UID."""

    @property
    def resource_version(self) -> str:
        """Its version."""


V = TypeVar("V", bound=Version)


class News:
    """Waits for objects by their UIDs."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    async def after(self, one: V, held: Callable[[], V | None]) -> V | None:
        """Wait until an object is held differently, and return it so; None: it is gone, or another has its name.

        Args:
            one: as it was held.
            held: what has its name now.
        """
        while True:
            found = held()
            if found is None or found.uid != one.uid:
                return None
            if found.resource_version != one.resource_version:
                return found
            await self._next(one.uid)

    async def _next(self, uid: str) -> None:
        """Return when the object next changes."""
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(uid, set())
        waiting.add(news)
        try:
            await news
        finally:
            waiting.discard(news)
            if not waiting and self._waiting.get(uid) is waiting:
                del self._waiting[uid]

    def tell(self, uid: str) -> None:
        """The object has changed."""
        for news in self._waiting.pop(uid, ()):
            if not news.done():
                news.set_result(None)
