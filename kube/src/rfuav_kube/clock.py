"""The time: seconds for intervals, an instant for what is written. The simulation replaces both clocks.

The instant is the API server's, from the dates of its answers and the monotonic clock in between: it is compared
with timestamps of the server. This machine's own clock is read once, before the first answer; it may be wrong, or step.
"""

import time
from datetime import UTC, datetime

import structlog

log = structlog.get_logger()

RESOLUTION = 1.0  # seconds, of a date in an answer
WORTH_TELLING = 2.0  # seconds between the own clock and the server's
TELL_EVERY = 60.0  # seconds: the clocks of several API servers may differ, and take turns

_ahead: float | None = None  # seconds from the monotonic clock to the API server's, since 1970
_told = float("-inf")  # monotonic seconds of the last correction that the log tells of


def monotonic() -> float:
    """Seconds that never go back."""
    return time.monotonic()


def wall() -> float:
    """This machine's clock, in seconds since 1970."""
    return time.time()


def now() -> datetime:
    """The present instant, by the API server's clock."""
    return datetime.fromtimestamp(_offset() + monotonic(), UTC)


def micro_time(instant: datetime) -> str:
    """An instant as a Kubernetes MicroTime."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def heard(date: float, sent: float) -> None:
    """Use the date of an answer that has just arrived, and correct the clock by no more than it proves.

    Args:
        date: whole seconds since 1970.
        sent: monotonic seconds at which its request was sent.
    """
    global _ahead, _told  # noqa: PLW0603  a process has one clock
    before = _offset()
    _ahead = min(max(before, date - monotonic()), date + RESOLUTION - sent)
    if abs(_ahead - before) > WORTH_TELLING and monotonic() - _told > TELL_EVERY:
        _told = monotonic()
        log.warning("clock corrected by that of the API server", seconds=round(_ahead - before, 1))


def _offset() -> float:
    return wall() - monotonic() if _ahead is None else _ahead
