"""Instants at which time alone changes something, the next one first."""

from datetime import datetime
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from rfuav_operator.core.model import NodeName, Uid

K = TypeVar("K", Uid, tuple[Uid, str], NodeName)  # a job, one of its pods, or a node
_SPARE = 64  # instants that were replaced and may stay in the heap


class Alarms(Generic[K]):
    """When time alone changes something: at most one instant for each key."""

    def __init__(self) -> None:
        self._at: dict[K, datetime] = {}
        self._heap: list[tuple[datetime, K]] = []  # with some that were replaced

    def set(self, key: K, at: datetime | None) -> None:
        """Replace the instant of a key; None: there is none."""
        if self._at.get(key) == at:
            return
        if at is None:
            del self._at[key]
        else:
            self._at[key] = at
            heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._at) + _SPARE:
            self._heap = [(due, other) for other, due in self._at.items()]
            heapify(self._heap)

    def due(self, now: datetime) -> list[K]:
        """The keys whose time has come; each is returned once, until it is set again."""
        found = []
        while (first := self.next()) is not None and first <= now:
            _, key = heappop(self._heap)
            del self._at[key]
            found.append(key)
        return found

    def next(self) -> datetime | None:
        """The next instant."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None
