"""The Writer carries decisions to the API server: in order for one job, bounded in parallel over all.

In: actions of the core. A failed status write drops the effects behind it, and the job is read and decided again;
a pod's create keeps its room until its outcome is known. Requests that the cluster refuses are set aside and retried;
after a while, a refused create shows in the job's status. Requests that the job no longer needs are not sent. Every
answer enters ClusterState immediately. No request lasts longer than the leader's lease.
"""

from collections.abc import Callable, Sequence
from typing import Any

import structlog

from rfuav_kube.connection import Connection
from rfuav_kube.keyed_writer import DONE, Budget, KeyedWriter, Outcome
from rfuav_kube.requester import Requester
from rfuav_operator.core.model import (
    Action,
    CreatePod,
    DeleteJob,
    DeletePod,
    PatchLimitsStatus,
    PatchStatus,
    RecordEvent,
)
from rfuav_operator.settings import Writes
from rfuav_operator.shell import metrics
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.writing.events import Events
from rfuav_operator.shell.writing.lane import JobLane
from rfuav_operator.shell.writing.ours import Ours
from rfuav_operator.shell.writing.pods import Pods
from rfuav_operator.shell.writing.traces import Traces


class Writer:
    """One queue for each job, pool and quota.

    Args:
        lease_left: seconds for which this process is certainly the leader.
        traces: told of every status that was written.

    Attributes:
        requests: all writes of the leader go through these, also those that are not actions.
    """

    def __init__(
        self,
        connection: Connection,
        state: ClusterState,
        events: Events,
        limits: Writes,
        lease_left: Callable[[], float],
        *,
        traces: Traces | None = None,
    ) -> None:
        self._state = state
        self._events = events
        self.requests = Requester(
            connection,
            parallel=limits.parallel,
            timeout_seconds=limits.timeout_seconds,
            lease_left=lease_left,
            sent=metrics.wrote,
        )
        self._pods = Pods(self.requests, state, events)
        self._ours = Ours(self.requests, state, traces)
        budget = Budget(limits.progress_per_second, limits.progress_interval_seconds, limits.queue_interval_seconds)
        self._queues: KeyedWriter[Action, JobLane] = KeyedWriter(self, JobLane, budget)

    @property
    def abandoned(self) -> bool:
        """Whether a request was given up while it was under way: it may still be carried out."""
        return self.requests.abandoned

    async def run(self) -> None:
        """Carry out submitted actions until cancelled; a lost lease ends it with an error. The rest is dropped."""
        self.requests.abandoned = False
        await self._queues.run()

    def submit(self, actions: Sequence[Action]) -> None:
        """Queue actions; those of one job keep their order."""
        for action in actions:
            self._queues.submit(_key(action), action)

    async def drain(self, seconds: float) -> bool:
        """Begin nothing more, and wait until nothing is under way or the time is over; whether nothing is."""
        return await self._queues.drain(seconds)

    def set_aside(self) -> int:
        """How many queues wait because their work raised."""
        return self._queues.set_aside()

    def depth(self) -> dict[str, int]:
        """How many queues have work, by what it waits for."""
        return self._queues.depth()

    async def carry_out(self, lane: JobLane, action: Action) -> Outcome:
        """Carry out an action; whatever is logged meanwhile says for which job."""
        with structlog.contextvars.bound_contextvars(**self._about(action)):
            return await self._carry_out(lane, action)

    def _about(self, action: Action) -> dict[str, Any]:
        """The words of the log for an action: its job and attempt, and its pod."""
        match action:
            case PatchStatus(job=job, status=status):
                return {"job": f"{job.namespace}/{job.name}", "attempt": status.attempt}
            case CreatePod(job_uid=uid, name=pod) | DeletePod(job_uid=uid, name=pod):
                owner = self._state.job(uid)
                if owner is None:
                    return {"pod": pod}
                return {"job": f"{owner.namespace}/{owner.name}", "attempt": owner.status.attempt, "pod": pod}
            case DeleteJob(job=job) | RecordEvent(job=job):
                return {"job": f"{job.namespace}/{job.name}"}
            case PatchLimitsStatus():
                return {}

    async def _carry_out(self, lane: JobLane, action: Action) -> Outcome:
        match action:
            case PatchStatus():
                return await self._ours.patch_status(lane, action)
            case PatchLimitsStatus():
                return await self._ours.patch_limits(lane, action)
            case CreatePod():
                return await self._pods.create(lane, action)
            case DeletePod():
                return await self._pods.delete(lane, action)
            case DeleteJob():
                return await self._ours.delete_job(lane, action)
            case RecordEvent():
                self._events.record(action)
                return DONE

    def not_written(self, failed: Action, dropped: list[Action]) -> None:
        """A status was not written, and what waited for it is given up: its object is decided again."""
        for action in dropped:
            if isinstance(action, CreatePod):
                self._state.end_create(action.job_uid, action.name)
        if isinstance(failed, PatchStatus):
            self._state.drop_plan(failed.job.uid)
        elif isinstance(failed, PatchLimitsStatus):
            self._state.drop_limits(failed.target)
            self._state.touch()

    def put_off(self, action: Action) -> None:
        """An effect will be tried again."""
        metrics.tried_again.labels(type(action).__name__).inc()


def _key(action: Action) -> str:
    match action:
        case CreatePod(job_uid=uid) | DeletePod(job_uid=uid):
            return uid
        case PatchLimitsStatus(target=target):
            return target.uid
        case PatchStatus(job=job) | DeleteJob(job=job) | RecordEvent(job=job):
            return job.uid
