"""A log line a minute that shows how far the job is, where no person sees a bar.

In: the values that are reported to the operator. Out: log events.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = structlog.get_logger()

EVERY_SECONDS = 60.0
SHOWN = ("epoch", "totalEpochs", "step", "totalSteps", "processed", "failed", "total", "samplesPerSecond")


class Heartbeat:
    """Called with each `trainerStatus`; logs one of them a minute.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged = clock()

    def __call__(self, status: Mapping[str, Any]) -> None:
        """Log the status, unless the last line is less than a minute old."""
        moment = self._clock()
        if moment - self._logged < EVERY_SECONDS:
            return
        self._logged = moment
        own = status.get("rfuav", {})
        log.info(
            "progress",
            percent=status.get("progressPercentage"),
            **{name: own[name] for name in SHOWN if name in own},
            **status.get("live", {}),
            remainingSeconds=status.get("estimatedRemainingSeconds"),
        )
