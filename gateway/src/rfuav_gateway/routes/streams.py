"""Answers that are streams of events."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

EVENTS = "text/event-stream"


class Stream(StreamingResponse):
    """A stream whose reader is let go however the response ends, also before its first byte.

    Args:
        events: the events.
        following: the context in which they come, entered.
        headers: further ones of the answer.
    """

    def __init__(
        self,
        events: AsyncIterator[bytes],
        following: AbstractAsyncContextManager[Any],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(events, media_type=EVENTS, headers={"X-Accel-Buffering": "no", **(headers or {})})
        self._following = following

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._following.__aexit__(None, None, None)
