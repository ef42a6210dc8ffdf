"""Pools and quotas: looked at once for all readers, in a thread, while somebody reads and something changes."""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from rfuav_gateway.cluster.whole import Whole
from rfuav_gateway.live.pace import Pace
from rfuav_gateway.tasks import boards
from rfuav_gateway.tasks.sight import Sight
from rfuav_kube import clock

log = structlog.get_logger()


class Boards:
    """The newest picture of pools and quotas.

    Args:
        whole: the cluster.
        pace: the limits.
        changed: called when there is a new picture.
    """

    def __init__(self, whole: Whole, pace: Pace, *, changed: Callable[[], None]) -> None:
        self._whole, self._pace, self._changed = whole, pace, changed
        self._readers = 0
        self._looking: asyncio.Task[None] | None = None
        self._dirty = asyncio.Event()
        self._board: boards.Board | None = None
        self._views: dict[Sight, dict[str, bytes]] = {}
        whole.follow(self._dirty.set)

    def enter(self) -> None:
        """One more reader."""
        self._readers += 1
        if self._looking is None:
            self._dirty.set()
            self._looking = asyncio.create_task(self._look(), name="board")

    def leave(self) -> None:
        """One reader less; after the last one, nothing is kept."""
        self._readers -= 1
        if not self._readers and self._looking is not None:
            self._looking.cancel()
            self._looking, self._board = None, None
            self._views.clear()

    def views(self, sight: Sight) -> Mapping[str, bytes]:
        """The events of pools and quotas as one reader sees them, as JSON; none before the cluster has been read."""
        if self._board is None:
            return {}
        held = self._views.get(sight)
        if held is None:
            held = self._views[sight] = {
                "pools": boards.pools(self._board, sight),
                "quotas": boards.quotas(self._board, sight),
            }
        return held

    async def now(self) -> boards.Board:
        """The newest picture, made now if nobody else reads; empty before the cluster has been read."""
        if self._board is not None:
            return self._board
        return await self._made() if self._whole.synced else boards.Board()

    async def _made(self) -> boards.Board:
        return await asyncio.to_thread(boards.board, self._whole.copy(), clock.now())

    async def _look(self) -> None:
        while True:
            if self._whole.synced:
                await self._dirty.wait()
                self._dirty.clear()
                found = self._board
                try:
                    found = await self._made()
                except Exception:  # the next change may bring what can be shown again
                    log.exception("pools and quotas cannot be shown")
                if found != self._board:
                    self._board = found
                    self._views.clear()
                    self._changed()
            await asyncio.sleep(self._pace.board)
