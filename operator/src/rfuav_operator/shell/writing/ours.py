"""Writes of our own kinds: statuses, with an optimistic lock, and deletions of jobs."""

import asyncio
from http import HTTPStatus

import msgspec
import structlog

from rfuav_kube import clock
from rfuav_kube.connection import MERGE_PATCH
from rfuav_kube.keyed_writer import DONE, FAILED, Outcome
from rfuav_kube.patch import merge_patch
from rfuav_kube.requester import Requester, pause
from rfuav_operator.core.model import DeleteJob, Job, PatchLimitsStatus, PatchStatus, Pool, Quota
from rfuav_operator.core.stored import bounds, packing
from rfuav_operator.shell import kinds
from rfuav_operator.shell.reading import ingest
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.writing import lane as lanes
from rfuav_operator.shell.writing import transitions
from rfuav_operator.shell.writing.lane import JobLane
from rfuav_operator.shell.writing.traces import Traces

log = structlog.get_logger()


class Ours:
    """Carries out decisions on jobs, pools and quotas."""

    def __init__(self, requests: Requester, state: ClusterState, traces: Traces | None = None) -> None:
        self._requests = requests
        self._state = state
        self._traces = traces

    async def patch_status(self, lane: JobLane, action: PatchStatus) -> Outcome:
        """Write the status of a job."""
        uid = action.job.uid
        read = self._state.read_job(uid)
        version = lane.version_for(action.job.resource_version)
        if read is None or read.resource_version != version:
            return FAILED  # deleted, or changed by someone else since it was decided
        before = msgspec.to_builtins(read.status) if read.stored is None else dict(read.stored)
        patch = merge_patch(before, packing.pack(action.status))
        if not patch:
            self._state.settle_status(uid, action.status)
            return DONE
        results = self._state.results_of(uid)
        if results is not None:
            patch["results"] = bounds.replacing(results)
        lane.written_at = clock.monotonic()
        body = {"metadata": {"resourceVersion": version}, "status": patch}
        answer = await self._requests.send("PATCH", f"{kinds.job(read)}/status", body, content_type=MERGE_PATCH)
        if answer is not None and answer.ok:
            self._state.settle_results(uid, results)
            lane.wrote(version, answer.body["metadata"]["resourceVersion"])
            transitions.count(read, action.status, clock.now())
            if self._traces is not None:
                self._traces.written(read, action.status, self._state.snapshot().pods_of.get(uid, {}))
            ingest.job(self._state, read.kind, answer.body, action.status)
            self._state.settle_status(uid, action.status)
            return DONE
        if answer is None:
            lane.failed_writes += 1
            await self._read_job(read)
            await asyncio.sleep(pause(lane.failed_writes))
        elif answer.status == HTTPStatus.CONFLICT:
            await self._read_job(read)
        elif answer.status == HTTPStatus.NOT_FOUND:
            self._state.jobs.remove((read.kind, read.namespace, read.name))
        else:
            log.error(
                "status refused", job=f"{read.namespace}/{read.name}", status=answer.status, message=answer.message
            )
            self._state.settle_results(uid, results)  # should they be the cause, the next try is without
            await asyncio.sleep(lanes.REFUSED_BACKOFF)
        return FAILED

    async def patch_limits(self, lane: JobLane, action: PatchLimitsStatus) -> Outcome:
        """Write the status of a pool or quota."""
        written = await self._patch_limits(lane, action)
        if written.ok:
            self._state.settle_limits(action.target, action.status)
        return written

    async def _patch_limits(self, lane: JobLane, action: PatchLimitsStatus) -> Outcome:
        target = action.target
        held: Pool | Quota | None
        if isinstance(target, Pool):
            held, take_in = self._state.pools.get(target.name), ingest.pool
        else:
            held, take_in = self._state.quotas.get(target.namespace), ingest.quota
        if held is None or held.uid != target.uid:
            return DONE
        patch = merge_patch(dict(held.status), dict(action.status))
        if not patch:
            return DONE
        lane.written_at = clock.monotonic()
        path = kinds.limits(held)
        body = {"metadata": {"resourceVersion": held.resource_version}, "status": patch}
        answer = await self._requests.send("PATCH", f"{path}/status", body, content_type=MERGE_PATCH)
        if answer is None or answer.status == HTTPStatus.CONFLICT:
            answer = await self._requests.insist("GET", path)
            if answer.ok:
                take_in(self._state, answer.body)
            return FAILED
        if answer.ok:
            take_in(self._state, answer.body)
        elif answer.status != HTTPStatus.NOT_FOUND:
            log.error("status refused", path=path, status=answer.status, message=answer.message)
            await asyncio.sleep(lanes.REFUSED_BACKOFF)
            return FAILED
        return DONE

    async def delete_job(self, lane: JobLane, action: DeleteJob) -> Outcome:
        """Delete a job whose TTL is over."""
        job = self._state.read_job(action.job.uid)
        if job is None or job.resource_version != action.job.resource_version:
            self._state.touch([action.job.uid])
            return DONE
        body = {
            "preconditions": {"uid": job.uid, "resourceVersion": job.resource_version},
            "propagationPolicy": "Background",
        }
        answer = await self._requests.attempt("DELETE", kinds.job(job), body)
        if answer.status == HTTPStatus.NOT_FOUND or (answer.ok and answer.body.get("kind") == "Status"):
            self._state.jobs.remove((job.kind, job.namespace, job.name))
        elif answer.ok:
            ingest.job(self._state, job.kind, answer.body)  # held by somebody's finalizer
        elif answer.status == HTTPStatus.CONFLICT:
            await self._read_job(job)
            self._state.touch([job.uid])
        else:
            return lane.later(action, answer)
        return DONE

    async def _read_job(self, job: Job) -> None:
        """Read a job until there is an answer: only then is the outcome of the last write known."""
        answer = await self._requests.insist("GET", kinds.job(job))
        if answer.ok:
            ingest.job(self._state, job.kind, answer.body)
        elif answer.status == HTTPStatus.NOT_FOUND:
            self._state.jobs.remove((job.kind, job.namespace, job.name))
        else:
            log.error("job not read", job=f"{job.namespace}/{job.name}", status=answer.status, message=answer.message)
            await asyncio.sleep(lanes.REFUSED_BACKOFF)
