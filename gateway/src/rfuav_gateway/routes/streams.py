"""Answers that are streams of events."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

EVENTS = "text/event-stream"


class Stream(StreamingResponse):
    """A stream whose reader is let go however the response ends, also before its first byte.

    Args:
        events: the events.
        following: the context in which they come, entered.
        headers: further ones of the answer.
        patience: seconds for which the connection may take nothing before it is closed; None: for ever.
    """

    def __init__(
        self,
        events: AsyncIterator[bytes],
        following: AbstractAsyncContextManager[Any],
        *,
        headers: Mapping[str, str] | None = None,
        patience: float | None = None,
    ) -> None:
        super().__init__(events, media_type=EVENTS, headers={"X-Accel-Buffering": "no", **(headers or {})})
        self._following = following
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""

        async def patient_send(message: Message) -> None:
            async with asyncio.timeout(self._patience):
                await send(message)

        try:
            with contextlib.suppress(TimeoutError):  # the server closes a connection whose answer has no end
                await super().__call__(scope, receive, patient_send)
        finally:
            await self._following.__aexit__(None, None, None)
