"""What waits to be written for one object: effects follow their record, of statuses not sent yet only the newest stays.

A status goes before the effects that are ready, and takes along those that wait for it. So a pod's create that is tried
again and again holds up no status, and no effect is carried out whose record was not written.
"""

from collections import deque

import msgspec

from rfuav_kube import clock
from rfuav_operator.core.model import Action, CreatePod, DeleteJob, DeletePod, PatchLimitsStatus, PatchStatus

Status = PatchStatus | PatchLimitsStatus
Effect = tuple[str, str]

WIDE_SECONDS = 2.0  # between two statuses of a job of very many pods
ENOUGH_SECONDS, ENOUGH_TRIES = 10.0, 2  # of failed creates, after which they are given up


class Trouble:
    """Creates of one job that failed in a row, without an answer that decides."""

    def __init__(self) -> None:
        self.tries = 0
        self.seconds = 0.0  # that they took, with the pauses after them
        self.words = ""  # of the last one

    def add(self, words: str, seconds: float) -> None:
        """One more failed."""
        self.tries += 1
        self.seconds += seconds
        self.words = words

    @property
    def is_enough(self) -> bool:
        """Whether the job should be told, and others have its room."""
        return self.tries >= ENOUGH_TRIES and self.seconds >= ENOUGH_SECONDS


class Lane:
    """The queue of one key (a job's or a pool's UID). One request of it is under way at a time."""

    def __init__(self) -> None:
        self.status: Status | None = None  # not sent yet
        self.ready: deque[Action] = deque()  # effects whose record is written
        self.running = False
        self.released = False  # the budget lets the status go
        self.faults = 0  # times in a row that its work raised
        self.written_at = float("-inf")  # monotonic seconds of the last status write
        self.waiting_since = 0.0
        self.failed_writes = 0  # status writes in a row without an answer
        self.trouble = Trouble()
        self.service_at = float("-inf")  # monotonic seconds at which the job's Service was there
        # The resourceVersions our own writes went through, and the last one: a status decided on any of them is sent
        # on the last, because nobody else has changed the object in between.
        self.ours: set[str] = set()
        self.head = ""
        self._behind: list[Action] = []  # effects that wait for `status`
        self._following: list[Action] | None = None  # effects that wait for the status under way; None: there is none
        self._tries: dict[Effect, int] = {}  # of effects that wait, are under way or set aside

    def add(self, action: Action) -> None:
        """Queue an action: a status supersedes the unsent one, an effect that is queued already is not queued twice."""
        if isinstance(action, Status):
            self.status = action if self.status is None else _newest(self.status, action)
            return
        if (effect := _effect(action)) is not None:
            if effect in self._tries:
                return
            self._tries[effect] = 0
        if self.status is not None:
            self._behind.append(action)
        elif self._following is not None:
            self._following.append(action)
        else:
            self.ready.append(action)

    def next(self) -> Action | None:
        """Take out what goes next; None: nothing may go now."""
        if self.status is not None and self._status_goes:
            taken, self.status, self.released = self.status, None, False
            self._following, self._behind = self._behind, []
            return taken
        return self.ready.popleft() if self.ready else None

    def recorded(self) -> None:
        """The status under way was written: what waited for it may go."""
        self.ready += self._following or ()
        self._following = None

    def drop(self) -> list[Action]:
        """The status under way failed: what waited for it, and what was decided after it, is given up."""
        dropped = [*(self._following or ()), *self._behind]
        self.status, self._following, self._behind = None, None, []
        for action in dropped:
            self.done(action)
        self.ours.clear()
        return dropped

    def again(self, action: Action) -> None:
        """An effect that was set aside is tried again, before the others."""
        self.ready.appendleft(action)

    def tried(self, action: Action) -> int:
        """Count a failed try of an effect; how many there were."""
        effect = _effect(action)
        if effect is None:
            return 0
        self._tries[effect] = self._tries.get(effect, 0) + 1
        return self._tries[effect]

    def tries(self, action: Action) -> int:
        """Failed tries of an effect."""
        effect = _effect(action)
        return 0 if effect is None else self._tries.get(effect, 0)

    def done(self, action: Action) -> None:
        """An action was carried out, or given up."""
        if (effect := _effect(action)) is not None:
            self._tries.pop(effect, None)
            if not any(kind == "create" for kind, _ in self._tries):
                self.trouble = Trouble()

    def wrote(self, before: str, after: str) -> None:
        """Our write took the object from one resourceVersion to the next."""
        self.ours |= {before, after}
        self.head = after
        self.failed_writes = 0

    def version_for(self, decided_on: str) -> str:
        """The resourceVersion to send with a status decided on `decided_on`."""
        return self.head if decided_on in self.ours else decided_on

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, is under way or set aside."""
        return not (self.running or self.ready or self._tries) and self.status is None

    @property
    def is_due(self) -> bool:
        """Whether something waits that the budget does not hold back: a transition, or an effect."""
        return bool(self.ready) or (self.status is not None and self._status_goes)

    @property
    def _status_goes(self) -> bool:
        if self.released:
            return True
        wide = isinstance(self.status, PatchStatus) and self.status.wide
        if wide and clock.monotonic() - self.written_at < WIDE_SECONDS:
            return False
        return bool(self._behind) or getattr(self.status, "urgent", False)

    @property
    def final(self) -> bool:
        """Whether the waiting status holds the last value of a progress."""
        return isinstance(self.status, PatchStatus) and self.status.final

    @property
    def slow(self) -> bool:
        """Whether all that waits is a place in the queue."""
        return isinstance(self.status, PatchStatus) and self.status.slow


def _newest(waiting: Status, action: Status) -> Status:
    """What `waiting` had to be sent for holds for the status that takes its place."""
    if isinstance(waiting, PatchStatus) and isinstance(action, PatchStatus):
        urgent, final = waiting.urgent or action.urgent, waiting.final or action.final
        slow, wide = waiting.slow and action.slow, waiting.wide and action.wide
        return msgspec.structs.replace(action, urgent=urgent, final=final, slow=slow, wide=wide)
    return action


def _effect(action: Action) -> Effect | None:
    match action:
        case CreatePod(name=name):
            return "create", name
        case DeletePod(uid=uid):
            return "delete", uid
        case DeleteJob(job=job):
            return "delete", job.uid
        case _:
            return None
