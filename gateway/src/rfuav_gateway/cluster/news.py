"""Who waits for a change of an object."""

import asyncio


class News:
    """Waits for objects by their UIDs."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    async def of(self, uid: str) -> None:
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
