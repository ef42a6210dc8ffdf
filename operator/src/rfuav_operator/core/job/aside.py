"""Jobs that are set aside: a job that cannot be handled is left alone, and all others continue.

A job that could not be read comes in with `set_aside` filled in; one whose handling raised gets it here. Neither is
stepped or planned, and both hold the room of their recorded assignments and their pods. A job that raised is tried
again at growing intervals, and immediately when its spec changes.
"""

from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from rfuav_crds import reasons
from rfuav_crds.bounds import clean
from rfuav_operator.core import conditions
from rfuav_operator.core.capacity import room
from rfuav_operator.core.model import Job, JobStatus, PodTemplate, Resources, Uid

_FIRST, _LAST = timedelta(seconds=10), timedelta(minutes=10)  # until it is tried again
_WORDS = 300  # characters
_EFFORT = 50_000  # jobs that a search may plan, all its trials together: the process does nothing else meanwhile


@dataclass(slots=True)
class _Case:
    job: Job  # as it was when it failed
    words: str
    tries: int
    until: datetime | None  # None: it is being tried again


class Aside(Collection[Uid]):
    """The jobs whose handling raised."""

    def __init__(self) -> None:
        self._cases: dict[Uid, _Case] = {}

    def __contains__(self, uid: object) -> bool:
        case = self._cases.get(uid)  # type: ignore[call-overload]  # any object may be asked for
        return case is not None and case.until is not None

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Uid]:
        return (uid for uid, case in self._cases.items() if case.until is not None)

    def add(self, job: Job, error: BaseException, now: datetime) -> None:
        """Set a job aside, longer than the last time."""
        known = self._cases.get(job.uid)
        tries = known.tries + 1 if known is not None else 1
        wait = min(_FIRST * 2 ** min(tries - 1, 10), _LAST)
        self._cases[job.uid] = _Case(job, words(error), tries, now + wait)

    def let_back(self, jobs: Mapping[Uid, Job], now: datetime) -> list[Uid]:
        """The jobs to try again now; deleted ones are forgotten."""
        back = []
        for uid, case in list(self._cases.items()):
            job = jobs.get(uid)
            if job is None or job.deleting or job.set_aside:
                del self._cases[uid]
                back.append(uid)
            elif case.until is not None and (case.until <= now or job.generation != case.job.generation):
                case.until = None
                back.append(uid)
        return back

    def all_went_well(self) -> None:
        """Forget those that were tried again."""
        self._cases = {uid: case for uid, case in self._cases.items() if case.until is not None}

    def over(self, jobs: Mapping[Uid, Job]) -> Mapping[Uid, Job]:
        """The jobs, with a stand-in for each that is set aside."""
        found: dict[Uid, Job] = {uid: stand_in(jobs[uid], self._cases[uid].words) for uid in self if uid in jobs}
        return ChainMap(found, jobs) if found else jobs  # type: ignore[arg-type]  # the jobs are only read

    def whys(self) -> Iterator[tuple[Uid, str]]:
        """The jobs that are set aside, and their errors."""
        return ((uid, self._cases[uid].words) for uid in self)

    def next(self) -> datetime | None:
        """When the next one is tried again."""
        return min((case.until for case in self._cases.values() if case.until is not None), default=None)


def words(error: BaseException) -> str:
    """What an error says, for people."""
    return clean(f"{type(error).__name__}: {error}")[:_WORDS]


def stand_in(job: Job, why: str) -> Job:
    """The job with what its room follows from, and nothing else that could be at fault."""
    spec = job.spec
    try:
        room.shape_of(job)
    except Exception:  # noqa: BLE001  whatever it is, the job is left alone for it
        held = Resources(gpus=max((a.gpus for a in job.status.assignments), default=0))
        spec = replace(spec, resources=held, pod_template=PodTemplate())
    status = JobStatus(
        phase=job.status.phase,
        attempt=job.status.attempt,
        assignments=tuple(replace(a, gpu_uuid="") for a in job.status.assignments),
        queued_at=job.status.queued_at,
    )
    return replace(job, spec=spec, raw_spec={}, status=status, set_aside=why)


def told(job: Job, now: datetime, why: str = "") -> JobStatus:
    """The status of a job that is set aside: `why` its handling failed, or what could not be read."""
    if job.status.phase is not None and job.status.phase.terminal:
        return job.status
    reason, what = (reasons.INTERNAL_ERROR, f"the operator could not handle this job and will try again: {why}")
    if not why:
        reason, what = reasons.UNDECODABLE, f"nothing is done for this job until it can be read: {job.set_aside}"
    stalled = conditions.of(job, now).put("Stalled", value=True, reason=reason, message=what)
    return replace(job.status, reason=reason, message=what, conditions=stalled.settled)


def search(jobs: Sequence[Uid], suspects: Iterable[Uid], fails: Callable[[Collection[Uid]], bool]) -> list[Uid]:
    """The fewest jobs whose removal stops the failure; none: it fails anyway, or the search takes too long.

    Args:
        jobs: all that may cause the failure.
        suspects: the jobs handled last before the failure; tried first.
        fails: whether it still fails without these jobs.
    """
    trials = max(2, _EFFORT // (len(jobs) + 1))

    def bad_without(left_out: Collection[Uid]) -> bool:
        nonlocal trials
        trials -= 1
        if trials < 0:
            raise TimeoutError
        return fails(left_out)

    def fewest(some: Sequence[Uid], others: Sequence[Uid]) -> list[Uid]:
        """The fewest of `some` that must be left out with the `others`: with all of both it does not fail."""
        if len(some) <= 1:
            return list(some)
        first, second = some[: len(some) // 2], some[len(some) // 2 :]
        for half in (first, second):
            if not bad_without([*others, *half]):
                return fewest(half, others)
        left = fewest(first, [*others, *second])
        return [*left, *fewest(second, [*others, *left])]

    try:
        for suspect in suspects:
            if not bad_without([suspect]):
                return [suspect]
        return [] if bad_without(jobs) else fewest(jobs, ())
    except TimeoutError:
        return []
