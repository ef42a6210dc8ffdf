"""How often a caller may ask: moving windows of the `limits` library, counted in this process alone."""

import math
import time
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
        }
        if compat.enabled:
            self._items["create"] = [parse(compat.creates), parse(f"{compat.burst}/second")]

    async def spend(self, what: str, caller: str) -> None:
        """Count one request.

        Raises:
            Refused: 429, when nothing is left; its headers say when to come back
                (draft-ietf-httpapi-ratelimit-headers).
        """
        for item in self._items[what]:
            if await self._limiter.hit(item, what, caller):
                continue
            reset, left = await self._limiter.get_window_stats(item, what, caller)
            wait = max(1, math.ceil(reset - time.time()))
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"more than {item.amount} in {item.get_expiry()} s: try again in {wait} s",
                {
                    "RateLimit-Policy": f'"{what}";q={item.amount};w={item.get_expiry()}',
                    "RateLimit": f'"{what}";r={left};t={wait}',
                    "Retry-After": str(wait),
                },
            )
