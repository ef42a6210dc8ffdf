"""The queue of one job, pool or quota: which of the core's actions are records, and what went wrong with its pods."""

from http import HTTPStatus

import structlog

from rfuav_kube.connection import Answer
from rfuav_kube.keyed_writer import Outcome
from rfuav_kube.lane import Effect, Lane, Record
from rfuav_kube.requester import CUT_OFF, LAST_BACKOFF, NOT_SENT, UNREACHED_BACKOFF, decides, pause
from rfuav_operator.core.model import Action, CreatePod, DeleteJob, DeletePod, PatchLimitsStatus, PatchStatus

log = structlog.get_logger()

ENOUGH_SECONDS, ENOUGH_TRIES = 10.0, 2  # of failed creates, after which they are given up
REFUSED_BACKOFF = 5.0  # seconds before a refused status or delete is decided again
_CREATE, _DELETE = "create", "delete"


def describe(action: Action) -> Record | Effect:
    """What the writer must know of an action."""
    match action:
        case PatchStatus(urgent=urgent, final=final, slow=slow, wide=wide):
            return Record(urgent=urgent, final=final, slow=slow, wide=wide)
        case PatchLimitsStatus():
            return Record()
        case CreatePod(name=name):
            return Effect((_CREATE, name))
        case DeletePod(uid=uid):
            return Effect((_DELETE, uid))
        case DeleteJob(job=job):
            return Effect((_DELETE, job.uid))
        case _:
            return Effect()


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
        """Whether the job should say so and give its room back."""
        return self.tries >= ENOUGH_TRIES and self.seconds >= ENOUGH_SECONDS


class JobLane(Lane[Action]):
    """The queue of one of our objects."""

    def __init__(self) -> None:
        super().__init__(describe)
        self.trouble = Trouble()
        self.unfit: dict[str, tuple[str, str]] = {}  # pods to delete again: their UID, and what was changed
        self.service_at = float("-inf")  # monotonic seconds at which the job's Service was there

    def done(self, action: Action) -> None:
        """An action was carried out, or given up."""
        super().done(action)
        if not self.waits_for(_CREATE):
            self.trouble = Trouble()

    def raised(self, action: Action, error: Exception, wait: float) -> None:
        """Carrying out an action raised; it waits so many seconds."""
        if isinstance(action, CreatePod):
            self.trouble.add(f"{type(error).__name__}: {error}", wait)

    def later(self, action: Action, answer: Answer) -> Outcome:
        """Set an effect aside for a while; other actions of the job continue."""
        tries = self.tried(action)
        wait = REFUSED_BACKOFF
        if not decides(answer) or answer.status == HTTPStatus.CONFLICT:
            wait = pause(tries, UNREACHED_BACKOFF if answer.status == NOT_SENT else LAST_BACKOFF)
        if answer.status not in (CUT_OFF, NOT_SENT) and (tries in (1, 10) or tries % 100 == 0):
            log.warning(
                "tried again later",
                action=type(action).__name__,
                object=getattr(action, "name", "") or getattr(getattr(action, "job", None), "name", ""),
                tries=tries,
                status=answer.status,
                message=answer.message,
            )
        return Outcome(again=max(wait, answer.retry_after or 0.0))
