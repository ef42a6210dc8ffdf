"""How often a caller may ask, and how much at a time, counted in this process alone.

Rates are moving windows of the `limits` library.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from rfuav_gateway.serving.problems import Refused
from rfuav_gateway.settings import Settings


class Rates:
    """Counts the requests of callers."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        compat = settings.compat
        self._items: dict[str, list[RateLimitItem]] = {
            "create": [parse(settings.limits.creates)],
            "preview": [parse(settings.limits.previews)],
            "request": [parse(settings.limits.requests)],
            "batched": [parse(settings.limits.batched)],
            "failure": [parse(settings.limits.failures)],
        }
        self._most_streams = compat.streams if compat.enabled else settings.limits.streams
        self._streams: Counter[str] = Counter()
        if compat.enabled:
            self._items["create"] = [parse(compat.creates), parse(f"{compat.burst}/second")]

    @contextmanager
    def stream(self, caller: str) -> Iterator[None]:
        """Count a stream for as long as it is read.

        Raises:
            Refused: 429, when the caller reads as many as they may.
        """
        if self._streams[caller] >= self._most_streams:
            words = f"you read {self._most_streams} streams, the most at a time: close one"
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, words, {"Retry-After": "5"})
        self._streams[caller] += 1
        try:
            yield
        finally:
            self._streams[caller] -= 1
            if not self._streams[caller]:
                del self._streams[caller]

    async def left(self, what: str, caller: str) -> None:
        """Count nothing.

        Raises:
            Refused: 429, when nothing is left.
        """
        for item in self._items[what]:
            if not await self._limiter.test(item, what, caller):
                reset, left = await self._limiter.get_window_stats(item, what, caller)
                raise _too_many(what, item, reset, left)

    async def spend(self, what: str, caller: str, cost: int = 1) -> None:
        """Count one request.

        Args:
            what: is limited.
            caller: who asks.
            cost: how many it counts as.

        Raises:
            Refused: 429, when nothing is left; its headers say when to come back
                (draft-ietf-httpapi-ratelimit-headers).
        """
        for item in self._items[what]:
            if await self._limiter.hit(item, what, caller, cost=cost):
                continue
            reset, left = await self._limiter.get_window_stats(item, what, caller)
            raise _too_many(what, item, reset, left, cost)


def _too_many(what: str, item: RateLimitItem, reset: float, left: int, cost: int = 1) -> Refused:
    wait = max(1, math.ceil(reset - time.time()))
    if cost > item.amount:
        words = f"more than {item.amount} at once: send them in parts"
    else:
        words = f"more than {item.amount} in {item.get_expiry()} s: try again in {wait} s"
    headers = {
        "RateLimit-Policy": f'"{what}";q={item.amount};w={item.get_expiry()}',
        "RateLimit": f'"{what}";r={left};t={wait}',
        "Retry-After": str(wait),
    }
    return Refused(HTTPStatus.TOO_MANY_REQUESTS, words, headers)
