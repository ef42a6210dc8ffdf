"""An asyncio loop on virtual time: when nothing is ready, time jumps to the next timer. No sockets, threads or sleep."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class NothingLeft(RuntimeError):
    """No timer is set and nothing is ready: what is waited for cannot come."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Its own selector: `select` returns at once and lets time jump."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._clock_resolution = 1e-9
        self._selector = self

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """What BaseEventLoop asks before each round."""
        if timeout is None:
            raise NothingLeft("nothing is left to happen")
        if timeout > 0:
            self._now = max(self._now, self._scheduled[0]._when)
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody else wakes this loop."""


def run(loop: VirtualLoop, main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end, cancel what it left behind, close the loop."""
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        left = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
