"""Answers that hold for a moment: asked for once, however many wait for it."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from rfuav_kube import clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Answers by their question.

    Args:
        seconds: how long an answer holds.
        most: how many are kept; the oldest goes first.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._held: OrderedDict[K, tuple[float, asyncio.Future[V]]] = OrderedDict()

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """The answer; asked for if there is none that holds. An error is not kept."""
        held = self._held.get(key)
        if held is None or clock.monotonic() >= held[0]:
            asked = asyncio.ensure_future(ask())
            held = self._held[key] = clock.monotonic() + self._seconds, asked
            self._held.move_to_end(key)
            if len(self._held) > self._most:
                self._held.popitem(last=False)
            asked.add_done_callback(lambda done: self._drop_failed(key, done))
        return held[1].result() if held[1].done() else await asyncio.shield(held[1])

    def _drop_failed(self, key: K, done: asyncio.Future[V]) -> None:
        if (done.cancelled() or done.exception() is not None) and self._held.get(key, (0, None))[1] is done:
            del self._held[key]
