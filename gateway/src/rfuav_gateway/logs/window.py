"""The last lines of a task, encoded once, for all of its readers.

A reader is a number: that of the next line which it has not read. It keeps nothing itself, so it costs no memory and
delays nobody; when the window has gone past it, the difference is what it missed. Lines and bytes are bounded.
"""

import itertools
from collections import deque
from typing import NamedTuple

from rfuav_gateway.logs.places import Place

CHUNK = 64 * 1024
"""Bytes of one delivery, unless a single event is longer."""


class Event(NamedTuple):
    """A server-sent event: its bytes, where its JSON begins in them, and the place of its line."""

    data: bytes
    json_at: int
    place: Place | None

    @property
    def json(self) -> bytes:
        """The entry."""
        return self.data[self.json_at : -2]


class Read(NamedTuple):
    """What a reader gets: how many lines it missed, the next events as bytes, and its number afterwards."""

    missed: int
    data: bytes
    position: int


class Window:
    """The newest events, at most so many and so many bytes (but always one)."""

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._latest = Read(0, b"", 0), -1  # what most readers ask for: all that came since the last delivery
        self.first = 0
        """The number of the oldest event; earlier ones are gone."""
        self.cut = False
        """Whether there are older lines than these, as far as is known."""

    @property
    def end(self) -> int:
        """The number of the next event."""
        return self.first + len(self._events)

    @property
    def oldest(self) -> Place | None:
        """The first place in it."""
        return next((event.place for event in self._events if event.place is not None), None)

    def append(self, event: Event) -> None:
        """Add the newest event."""
        self._events.append(event)
        self._bytes += len(event.data)
        while len(self._events) > self._most or (self._bytes > self._most_bytes and len(self._events) > 1):
            self._bytes -= len(self._events.popleft().data)
            self.first += 1
            self.cut = True

    def read(self, position: int) -> Read:
        """The events from `position` on, about `CHUNK` bytes at most."""
        latest, of = self._latest
        if of == position >= self.first and latest.position == self.end:
            return latest
        start = max(position, self.first)
        parts: list[bytes] = []
        size = 0
        for event in itertools.islice(self._events, start - self.first, None):
            if parts and size + len(event.data) > CHUNK:
                break
            parts.append(event.data)
            size += len(event.data)
        found = Read(start - position, b"".join(parts), start + len(parts))
        self._latest = found, position
        return found

    def after(self, place: Place) -> list[Event]:
        """The events after the one at `place`: exactly those that came later, or else by pod and time."""
        events = list(self._events)
        for number, event in enumerate(events):
            if event.place == place:
                return events[number + 1 :]
        return [event for event in events if event.place is not None and event.place.follows(place)]

    def last(self, count: int) -> list[Event]:
        """So many of the newest events."""
        return list(itertools.islice(self._events, max(0, len(self._events) - count), None))
