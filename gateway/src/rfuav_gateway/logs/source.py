"""What a stream of logs needs to know of a task: its pods now, and whether it has ended.

The cache of the cluster implements `TaskSource`.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self


class Pod(NamedTuple):
    """A pod of the task, with the attempt (from 1) and, if there are several at once, the shard or rank."""

    name: str
    attempt: int = 1
    shard: int | None = None
    rank: int | None = None
    started: bool = True
    """Whether its container may have started; before that nobody asks for its log. True where that is not known."""
    finished: bool = False
    """Whether its container has ended: its log is complete."""


class End(NamedTuple):
    """How the task ended, in the words of the REST interface."""

    status: str
    message: str


class TaskState(NamedTuple):
    """The pods that the task has now, of all attempts, and its end."""

    pods: tuple[Pod, ...] = ()
    end: End | None = None


class KeptFile(NamedTuple):
    """A log that the trainer keeps in the output, and of which shard if there are several."""

    uri: str
    shard: int | None = None


class TaskSource(Protocol):
    """One task."""

    @property
    def key(self) -> str:
        """What no other task has, even a later one of the same name: the UID of its job."""

    @property
    def namespace(self) -> str:
        """The namespace of its pods."""

    @property
    def where(self) -> str:
        """The URI of the lines that the trainer keeps in the output; empty: the task has never run."""

    @property
    def kept(self) -> Sequence[KeptFile]:
        """The files of `where`."""

    async def load(self) -> None:
        """Find out what `state`, `where` and `kept` say; the stream does so once, for all of its readers."""

    def state(self) -> TaskState:
        """What is known now."""

    def end_for(self, reader: Self) -> End | None:
        """How the task ended, in the language of another source of it; None: it has not."""

    async def changed(self, seen: TaskState) -> None:
        """Return as soon as the state is another one than `seen`."""
