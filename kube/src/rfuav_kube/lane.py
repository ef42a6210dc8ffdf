"""The queue of one key: effects follow their record, and of unsent records only the newest stays.

A record goes before effects that are ready; if it fails, the effects that wait for it are dropped. So an effect that is
retried again and again delays no record, and no effect is carried out whose record was not written.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from rfuav_kube import clock

A = TypeVar("A")

WIDE_SECONDS = 2.0  # between two records that are large


class Record(NamedTuple):
    """An action that says how things are: a newer one takes the place of one that was not sent yet."""

    urgent: bool = False  # goes at once; else when the budget lets it
    final: bool = False  # first in the budget
    slow: bool = False  # may wait longest
    wide: bool = False  # large: not written for each change

    def then(self, newer: "Record") -> "Record":
        """What both were to be sent for."""
        return Record(
            urgent=self.urgent or newer.urgent,
            final=self.final or newer.final,
            slow=self.slow and newer.slow,
            wide=self.wide and newer.wide,
        )


class Effect(NamedTuple):
    """An action that does something, once.

    Args:
        name: what it does to what. One that is queued already is not queued twice. None: whatever comes of it, it is
            done.
    """

    name: tuple[str, str] | None = None


class Lane(Generic[A]):
    """The queue of one key. One request of it is under way at a time.

    Args:
        describe: whether an action is a record or an effect.
    """

    def __init__(self, describe: Callable[[A], Record | Effect]) -> None:
        self._describe = describe
        self.record: A | None = None  # not sent yet
        self.flags = Record()  # of it
        self.ready: deque[A] = deque()  # effects whose record is written
        self.running = False
        self.released = False  # the budget lets the record go
        self.faults = 0  # times in a row that its work raised
        self.written_at = float("-inf")  # monotonic seconds of the last write of a record
        self.waiting_since = 0.0
        self.failed_writes = 0  # writes of a record in a row without an answer
        # The resourceVersions our own writes went through, and the last one: a record decided on any of them is sent
        # on the last, because nobody else has changed the object in between.
        self.ours: set[str] = set()
        self.head = ""
        self._behind: list[A] = []  # effects that wait for `record`
        self._following: list[A] | None = None  # effects that wait for the record under way; None: there is none
        self._tries: dict[tuple[str, str], int] = {}  # of effects that wait, are under way or set aside

    def add(self, action: A) -> None:
        """Queue an action: a record supersedes the unsent one, an effect that is queued already is not queued twice."""
        described = self._describe(action)
        if isinstance(described, Record):
            self.flags = described if self.record is None else self.flags.then(described)
            self.record = action
            return
        if described.name is not None:
            if described.name in self._tries:
                return
            self._tries[described.name] = 0
        if self.record is not None:
            self._behind.append(action)
        elif self._following is not None:
            self._following.append(action)
        else:
            self.ready.append(action)

    def next(self) -> A | None:
        """Take out what goes next; None: nothing may go now."""
        if self.record is not None and self._record_goes:
            taken, self.record, self.released = self.record, None, False
            self._following, self._behind = self._behind, []
            return taken
        return self.ready.popleft() if self.ready else None

    def recorded(self) -> None:
        """The record under way was written: what waited for it may go."""
        self.ready += self._following or ()
        self._following = None

    def drop(self) -> list[A]:
        """The record under way failed: what waited for it, and what was decided after it, is given up."""
        dropped = [*(self._following or ()), *self._behind]
        self.record, self._following, self._behind = None, None, []
        for action in dropped:
            self.done(action)
        self.ours.clear()
        return dropped

    def again(self, action: A) -> None:
        """An effect that was set aside is tried again, before the others."""
        self.ready.appendleft(action)

    def tried(self, action: A) -> int:
        """Count a failed try of an effect; how many there were."""
        if (name := self._name(action)) is None:
            return 0
        self._tries[name] = self._tries.get(name, 0) + 1
        return self._tries[name]

    def tries(self, action: A) -> int:
        """Failed tries of an effect."""
        name = self._name(action)
        return 0 if name is None else self._tries.get(name, 0)

    def done(self, action: A) -> None:
        """An action was carried out, or given up."""
        if (name := self._name(action)) is not None:
            self._tries.pop(name, None)

    def raised(self, action: A, error: Exception, wait: float) -> None:
        """Carrying out an action raised; it waits so many seconds."""

    def wrote(self, before: str, after: str) -> None:
        """Our write took the object from one resourceVersion to the next."""
        self.ours |= {before, after}
        self.head = after
        self.failed_writes = 0

    def version_for(self, decided_on: str) -> str:
        """The resourceVersion to send with a record decided on `decided_on`."""
        return self.head if decided_on in self.ours else decided_on

    def is_record(self, action: A) -> bool:
        """Whether an action is a record."""
        return isinstance(self._describe(action), Record)

    def waits_for(self, verb: str) -> bool:
        """Whether an effect whose name starts with this waits, is under way or set aside."""
        return any(begins == verb for begins, _ in self._tries)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, is under way or set aside."""
        return not (self.running or self.ready or self._tries) and self.record is None

    @property
    def is_due(self) -> bool:
        """Whether something waits that the budget does not hold back: an urgent record, or an effect."""
        return bool(self.ready) or (self.record is not None and self._record_goes)

    @property
    def _record_goes(self) -> bool:
        if self.released:
            return True
        if self.flags.wide and clock.monotonic() - self.written_at < WIDE_SECONDS:
            return False
        return bool(self._behind) or self.flags.urgent

    def _name(self, action: A) -> tuple[str, str] | None:
        described = self._describe(action)
        return described.name if isinstance(described, Effect) else None
