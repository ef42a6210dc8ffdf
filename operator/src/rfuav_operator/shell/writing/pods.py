"""Creates and deletes pods: a pod keeps its room until it is known whether it exists."""

from http import HTTPStatus

from rfuav_crds import reasons
from rfuav_kube import clock, paths
from rfuav_kube.connection import Answer
from rfuav_kube.keyed_writer import DONE, Outcome
from rfuav_kube.requester import CUT_OFF, NOT_SENT, Requester, decides
from rfuav_operator.core.job.altered import altered
from rfuav_operator.core.model import CreatePod, DeletePod, RecordEvent
from rfuav_operator.shell.reading import ingest, pods
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.writing.events import Events
from rfuav_operator.shell.writing.lane import JobLane, Trouble

SERVICE_LASTS = 60.0  # seconds for which a Service is believed to be there
ALREADY_EXISTS = "AlreadyExists"
OTHERS_TROUBLES = (HTTPStatus.CONFLICT, HTTPStatus.UNAUTHORIZED, CUT_OFF, NOT_SENT)  # a quota; our own


class Pods:
    """Carries out decisions on pods."""

    def __init__(self, requests: Requester, state: ClusterState, events: Events) -> None:
        self._requests = requests
        self._state = state
        self._events = events

    async def create(self, lane: JobLane, action: CreatePod) -> Outcome:
        """One attempt to create a pod. The pod keeps its room until it is known whether it exists.

        An existing pod of ours with the name counts as created, because the name follows from the job's UID and the
        attempt. So before a retry, or before giving up, the pod of an earlier try is looked up. One that the cluster
        made so that it cannot be the job's is deleted again, and the job says why.
        """
        if action.name in lane.unfit:
            return await self._take_back(lane, action)
        if lane.tries(action):
            if self._state.was_there(action.job_uid, action.name):  # it ended and is gone, or a watch has brought it
                return self._created(action)
            found = await self._requests.attempt("GET", f"{paths.pods(action.namespace)}/{action.name}")
            if found.ok:
                return self._found(lane, action, found)
            if found.status != HTTPStatus.NOT_FOUND:  # unknown
                return lane.later(action, found)
        if not self._is_wanted(action):
            return self._created(action)
        if lane.trouble.is_enough:
            words = f"{lane.trouble.tries} tries failed, the last one with: {lane.trouble.words}"
            return self._created(action, refused=words)
        began = clock.monotonic()
        answer = await self._make_service(lane, action)
        if answer.ok:
            answer = await self._requests.attempt("POST", paths.pods(action.namespace), action.manifest)
        if answer.ok:
            if what := altered(action.manifest, answer.body):
                lane.unfit[action.name] = answer.body["metadata"]["uid"], what
                return await self._take_back(lane, action)
            lane.trouble = Trouble()
            ingest.pod(self._state, answer.body)
            return self._created(action)
        if answer.reason == ALREADY_EXISTS:
            lane.tried(action)
            return Outcome(again=0.0)
        later = lane.later(action, answer) if answer.status == HTTPStatus.CONFLICT or not decides(answer) else None
        if later is None:
            return self._created(action, refused=answer.message)
        if answer.status not in OTHERS_TROUBLES:
            lane.trouble.add(answer.message, clock.monotonic() - began + (later.again or 0.0))
        return later

    def _is_wanted(self, action: CreatePod) -> bool:
        """Whether the job, as it is known now, still is to have this pod."""
        job = self._state.job(action.job_uid)
        if job is None or job.deleting or job.spec.cancel or job.spec.suspend:
            return False
        if job.status.phase is not None and job.status.phase.terminal:
            return False
        return any(a.pod == action.name and not a.stopping for a in job.status.assignments)

    def _found(self, lane: JobLane, action: CreatePod, found: Answer) -> Outcome:
        """There is a pod under the name."""
        if pods.job_of(found.body) == action.job_uid:
            lane.trouble = Trouble()
            ingest.pod(self._state, found.body)
            return self._created(action)
        job = self._state.read_job(action.job_uid)
        message = (
            f"the pod {action.name} already exists and does not belong to this job; delete it to let the job continue"
        )
        if job is not None:
            self._events.record(
                RecordEvent(job=job, type="Warning", reason=reasons.POD_NAME_TAKEN, action="CreatePod", note=message)
            )
        return self._created(action, refused=message)

    async def _take_back(self, lane: JobLane, action: CreatePod) -> Outcome:
        """Delete the pod that was just created: nothing of what it does would count."""
        path, (uid, what) = f"{paths.pods(action.namespace)}/{action.name}", lane.unfit[action.name]
        answer = await self._requests.attempt("DELETE", path, {"preconditions": {"uid": uid}})
        if not answer.ok and answer.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
            return lane.later(action, answer)
        del lane.unfit[action.name]
        return self._created(action, refused=f"a webhook or policy of the cluster changed {what}, so it was deleted")

    def _created(self, action: CreatePod, *, refused: str = "") -> Outcome:
        """It is known now whether the pod exists."""
        if refused:
            self._state.reject(action.job_uid, refused)
        self._state.end_create(action.job_uid, action.name)
        return DONE

    async def _make_service(self, lane: JobLane, action: CreatePod) -> Answer:
        """Create the Service that lets the pods of a job of several nodes find each other, before the pods."""
        if action.service is None or clock.monotonic() - lane.service_at < SERVICE_LASTS:
            return Answer(HTTPStatus.OK, None)
        answer = await self._requests.attempt("POST", paths.services(action.namespace), action.service)
        if answer.ok or answer.reason == ALREADY_EXISTS:  # its own: the name follows from the job's UID
            lane.service_at = clock.monotonic()
            return Answer(HTTPStatus.OK, None)
        return answer._replace(body={"message": f"its Service {action.service['metadata']['name']}: {answer.message}"})

    async def delete(self, lane: JobLane, action: DeletePod) -> Outcome:
        """One try of a delete."""
        path = f"{paths.pods(action.namespace)}/{action.name}"
        held = self._state.pods.get((action.namespace, action.name))
        if lane.tries(action) and (held is None or held.uid != action.uid or held.deleting or not held.live):
            return DONE
        answer = await self._requests.attempt("DELETE", path, {"preconditions": {"uid": action.uid}})
        if answer.status == HTTPStatus.CONFLICT:  # another pod has the name by now
            answer = await self._requests.attempt("GET", path)
        if answer.status == HTTPStatus.NOT_FOUND:
            self._state.pods.remove((action.namespace, action.name))
        elif not answer.ok:
            return lane.later(action, answer)
        elif answer.body.get("kind") == "Pod":
            ingest.pod(self._state, answer.body)
        return DONE
