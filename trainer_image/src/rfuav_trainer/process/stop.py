"""The stop signal: SIGTERM, which the work checks between two steps."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from rfuav_trainer.errors import StoppedError

if TYPE_CHECKING:
    from types import FrameType


class StopSignal:
    """Remembers that SIGTERM arrived; the work checks it between two steps."""

    def __init__(self) -> None:
        self._requested = threading.Event()

    def install(self) -> None:
        """Catch SIGTERM from now on (main thread only)."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._requested.set()

    def request(self) -> None:
        """Request the stop from within the process, as the signal does."""
        self._requested.set()

    @property
    def requested(self) -> bool:
        """Whether the work should stop after the current step."""
        return self._requested.is_set()

    def check(self) -> None:
        """Raise StoppedError if a stop was requested. For use while there is nothing to save."""
        if self.requested:
            raise StoppedError("stopped by SIGTERM before there was anything to save")
