"""An asyncio loop on virtual time: when nothing is ready, time jumps to the next timer. No sockets, threads or sleep."""

import asyncio
import contextvars
import itertools
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from typing import Any, TypeVar

T = TypeVar("T")

RESOLUTION = 1e-9  # seconds within which timers are of one instant


class NothingLeft(RuntimeError):
    """No timer is set and nothing is ready: what is waited for cannot come."""


class Handle:
    """A callback that the loop will run: as `asyncio.TimerHandle`, without what serves debugging."""

    __slots__ = ("_when", "args", "callback", "context", "is_cancelled")

    def __init__(
        self, when: float, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context
    ) -> None:
        self._when = when
        self.callback = callback
        self.args = args
        self.context = context
        self.is_cancelled = False

    def cancel(self) -> None:
        """It is not run."""
        self.is_cancelled = True
        self.callback, self.args = _nothing, ()

    def cancelled(self) -> bool:
        """Whether it is not run."""
        return self.is_cancelled

    def when(self) -> float:
        """Virtual seconds at which it is run."""
        return self._when


class VirtualLoop(asyncio.BaseEventLoop):
    """Rounds as those of asyncio's own loop; timers of one instant run in the order in which they were set."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._timers: list[tuple[float, int, Handle]] = []  # a heap
        self._count = itertools.count()

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Handle:  # type: ignore[override]
        """As asyncio's."""
        handle = Handle(self._now, callback, args, context or contextvars.copy_context())
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # there are no threads

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        """As asyncio's."""
        handle = Handle(when, callback, args, context or contextvars.copy_context())
        heappush(self._timers, (when, next(self._count), handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        """As asyncio's."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers
        if not ready and not self._stopping:
            while timers and timers[0][2].is_cancelled:
                heappop(timers)
            if not timers:
                raise NothingLeft("nothing is left to happen")
            self._now = max(self._now, timers[0][0])
        end = self._now + RESOLUTION
        while timers and timers[0][0] < end:
            ready.append(heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.is_cancelled:
                continue
            try:
                handle.context.run(handle.callback, *handle.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  as asyncio: the loop goes on
                words = f"Exception in callback {handle.callback}"
                self.call_exception_handler({"message": words, "exception": error, "handle": handle})


def _nothing() -> None:
    """What a cancelled handle would run."""


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
