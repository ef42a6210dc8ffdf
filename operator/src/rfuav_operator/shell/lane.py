"""What waits to be written for one object: order is kept, of statuses not sent yet only the newest stays."""

from collections import deque

import msgspec

from rfuav_operator.core.model import (
    Action,
    CreatePod,
    CreateService,
    DeleteJob,
    DeletePod,
    PatchLimitsStatus,
    PatchStatus,
)

Status = PatchStatus | PatchLimitsStatus


class Lane:
    """The queue of one key (a job's or a pool's UID). One request of it is under way at a time."""

    def __init__(self) -> None:
        self.items: deque[Action] = deque()
        self.running = False
        self.released = False  # the budget lets the next status go
        self.written_at = float("-inf")  # monotonic seconds of the last status write
        self.waiting_since = 0.0
        # The resourceVersions our own writes went through, and the last one: a status decided on any of them is sent
        # on the last, because nobody else has changed the object in between.
        self.ours: set[str] = set()
        self.head = ""
        self._effects: set[tuple[str, str]] = set()  # waiting or under way

    def add(self, action: Action) -> None:
        """Queue an action: a status supersedes the unsent one, an effect that is queued already is not queued twice."""
        if isinstance(action, Status):
            for index, waiting in enumerate(self.items):
                if isinstance(waiting, Status):
                    self.items[index] = _newest(waiting, action)
                    return
        elif (effect := _effect(action)) is not None:
            if effect in self._effects:
                return
            self._effects.add(effect)
        self.items.append(action)

    def done(self, action: Action) -> None:
        """An action was carried out, or given up."""
        if (effect := _effect(action)) is not None:
            self._effects.discard(effect)

    def wrote(self, before: str, after: str) -> None:
        """Our write took the object from one resourceVersion to the next."""
        self.ours |= {before, after}
        self.head = after

    def version_for(self, decided_on: str) -> str:
        """The resourceVersion to send with a status decided on `decided_on`."""
        return self.head if decided_on in self.ours else decided_on

    @property
    def urgent(self) -> bool:
        """Whether something waits that the budget does not hold back: a transition, or an effect behind a status."""
        return any(not isinstance(item, PatchLimitsStatus) and getattr(item, "urgent", True) for item in self.items)

    @property
    def final(self) -> bool:
        """Whether the waiting status holds the last value of a progress."""
        return any(isinstance(item, PatchStatus) and item.final for item in self.items)

    @property
    def slow(self) -> bool:
        """Whether all that waits is a place in the queue."""
        return all(isinstance(item, PatchStatus) and item.slow for item in self.items)


def _newest(waiting: Status, action: Status) -> Status:
    """What `waiting` had to be sent for holds for the status that takes its place."""
    if isinstance(waiting, PatchStatus) and isinstance(action, PatchStatus):
        urgent, final = waiting.urgent or action.urgent, waiting.final or action.final
        return msgspec.structs.replace(action, urgent=urgent, final=final, slow=waiting.slow and action.slow)
    return action


def _effect(action: Action) -> tuple[str, str] | None:
    match action:
        case CreatePod(name=name) | CreateService(name=name):
            return "create", name
        case DeletePod(uid=uid):
            return "delete", uid
        case DeleteJob(job=job):
            return "delete", job.uid
        case _:
            return None
