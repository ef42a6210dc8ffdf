"""The place of a line, which is also the id of its event: pod, the kubelet's timestamp, and a number.

Any gateway derives the same ids from the same log, so `Last-Event-ID` holds over restarts and replicas. The kubelet
writes a timestamp of nanoseconds before each line (`timestamps=true` of the log endpoint); lines of the same
nanosecond are counted from 0. `sinceTime` reaches the kubelet in whole seconds, so all of them come again, or none.
"""

import functools
import re
from datetime import UTC, datetime
from typing import NamedTuple

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_ID = re.compile(r"([a-z0-9][a-z0-9.-]{0,252}):(\d{1,19}):(\d{1,9})", re.ASCII)
SECOND = 10**9
"""Nanoseconds."""


class Place(NamedTuple):
    """Where a line is in the log of its pod."""

    pod: str
    nanoseconds: int  # since 1970
    nth: int  # of the lines with this timestamp, from 0

    def __str__(self) -> str:
        return f"{self.pod}:{self.nanoseconds}:{self.nth}"

    @property
    def in_pod(self) -> tuple[int, int]:
        """What orders the lines of one pod."""
        return self.nanoseconds, self.nth

    def follows(self, other: "Place") -> bool:
        """Whether the line comes after the other one: in its own pod exactly, between pods by their clocks."""
        if self.pod == other.pod:
            return self.in_pod > other.in_pod
        return self.nanoseconds >= other.nanoseconds


def parsed(text: str) -> Place | None:
    """The place that an event's id names; None: it is no id of ours."""
    found = _ID.fullmatch(text)
    return Place(found[1], int(found[2]), int(found[3])) if found else None


def nanoseconds(stamp: str) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 timestamp with up to nine digits after the point; None: it is none."""
    found = _STAMP.fullmatch(stamp)
    if found is None:
        return None
    seconds = _seconds(found[1], found[3])
    return None if seconds is None else seconds * SECOND + int((found[2] or "0").ljust(9, "0"))


@functools.lru_cache(maxsize=256)
def _seconds(moment: str, zone: str) -> int | None:
    try:
        return int(datetime.fromisoformat(moment + zone).timestamp())
    except (ValueError, OverflowError):
        return None


def instant(nanoseconds: int) -> datetime:
    """The time of it, in microseconds."""
    return datetime.fromtimestamp(nanoseconds // SECOND, UTC).replace(microsecond=nanoseconds % SECOND // 1000)


def since_time(nanoseconds: int) -> str:
    """A `sinceTime` that includes it: the second in which it is."""
    return f"{datetime.fromtimestamp(nanoseconds // SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}"
