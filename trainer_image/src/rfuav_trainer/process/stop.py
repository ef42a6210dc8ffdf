"""The stop signal: SIGTERM or Ctrl-C, which the work checks between two steps."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from rfuav_trainer.errors import StoppedError
from rfuav_trainer.process import resources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

CTRL_C = "Ctrl-C"
NOTICE = b"\nstopping after this step; Ctrl-C again stops at once\n"


class StopSignal:
    """Remembers that SIGTERM or Ctrl-C arrived; the work checks it between two steps."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self.cause = "SIGTERM"
        """What requested the stop, for messages."""
        self.since = math.inf
        """When it was requested, monotonic seconds."""

    def install(self) -> None:
        """Catch SIGTERM and the first Ctrl-C from now on (main thread only)."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    @contextlib.contextmanager
    def catching(self, number: int) -> Iterator[None]:
        """Catch a signal during the context, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            signal.signal(number, before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT:
            self.cause = CTRL_C
            signal.signal(number, signal.default_int_handler)  # the second one ends at once
            if not resources.local_rank():  # a terminal interrupts all processes of a training
                with contextlib.suppress(OSError):
                    os.write(2, NOTICE)
        self.request()

    def request(self) -> None:
        """Request the stop from within the process, as the signal does."""
        self.since = min(self.since, time.monotonic())
        self._requested.set()

    @property
    def requested(self) -> bool:
        """Whether the work should stop after the current step."""
        return self._requested.is_set()

    def check(self) -> None:
        """Raise StoppedError if a stop was requested. For use while there is nothing to save."""
        if self.requested:
            raise StoppedError(f"stopped by {self.cause} before there was anything to save")
