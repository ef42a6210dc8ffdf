"""What the operator did wrong before a history found it: each put back while it is entered, for `test_regressions`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgspec
from msgspec.structs import replace
from simulation.connection import SimConnection

from rfuav_crds import contract
from rfuav_kube import clock
from rfuav_kube.connection import Answer
from rfuav_kube.keyed_writer import DONE, Outcome
from rfuav_kube.lease import Lease
from rfuav_kube.pods import PodObject
from rfuav_kube.reflector import Reflector
from rfuav_kube.requester import LeaseOver, Requester
from rfuav_operator import app
from rfuav_operator.core import pool_status
from rfuav_operator.core.admission import reservations
from rfuav_operator.core.admission.index import Admission
from rfuav_operator.core.capacity import gpus, usage
from rfuav_operator.core.capacity.usage import Usage
from rfuav_operator.core.job import lifecycle
from rfuav_operator.core.model import DeletePod, NodeName, Pod, Pool, Snapshot
from rfuav_operator.core.scheduler import _Steps
from rfuav_operator.shell.leader import SAFE, Leader, LeaseLost
from rfuav_operator.shell.reading import kopf_app, nodes, pods, resync, state
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.serving.health import Pulse
from rfuav_operator.shell.writing.ours import Ours
from rfuav_operator.shell.writing.pods import Pods
from rfuav_operator.shell.writing.writer import Writer

ALL: dict[str, Callable[[], AbstractContextManager[None]]] = {}


def old(function: Callable[[], Iterator[None]]) -> None:
    """Put it into the list."""
    ALL[function.__name__] = contextmanager(function)


@old
def strangers_that_are_bound_late_hold_no_room() -> Iterator[None]:
    """A pod of others that was not bound for so long that it counted no more was not looked at when it was."""
    real = state.room_of

    def room(pod: Pod) -> tuple[Any, ...] | None:
        found = real(pod)
        return None if found is None else (found[0], *found[3:])

    with patch.object(state, "room_of", room):
        yield


@old
def pods_that_run_when_labels_come_are_not_judged() -> Iterator[None]:
    """A node came without the labels of its GPUs: a pod that ran there by the time that they came stayed whatever they said."""
    real = ClusterState.snapshot

    def snapshot(self: ClusterState) -> Snapshot:
        seen = real(self)
        jobs = dict(seen.jobs)
        for uid, job in seen.jobs.items():
            if any(a.provisional and a.started_at for a in job.status.assignments):
                held = tuple(replace(a, provisional=False) for a in job.status.assignments)
                jobs[uid] = replace(job, status=replace(job.status, assignments=held))
        return replace(seen, jobs=jobs)

    with patch.object(ClusterState, "snapshot", snapshot):
        yield


@old
def pool_status_never_equals_what_is_stored() -> Iterator[None]:
    """Conditions were compared as a tuple with the list that was read: every plan wrote the status again."""
    real = pool_status.statuses

    def statuses(*args: Any) -> Iterator[Any]:
        for target, make in real(*args):
            status = make()
            yield target, lambda status=status: {**status, "conditions": tuple(status["conditions"])}

    with patch.object(pool_status, "statuses", statuses):
        yield


@old
def held_back_pool_status_has_the_last_word() -> Iterator[None]:
    """A status that waited for its budget was written although the pool had come back to what was stored."""
    with patch.object(ClusterState, "plan_limits", lambda *_: None):
        yield


@old
def pool_made_anew_gets_no_status() -> Iterator[None]:
    """Seen as a change of the old one whose spec is the same, it woke nobody."""
    real = ClusterState._pool_changed

    def changed(self: ClusterState, old: Pool | None, new: Pool | None) -> None:
        before = self._plan, self._everything, set(self._dirty)
        real(self, old, new)
        if old is not None and new is not None and old.spec == new.spec:
            self._plan, self._everything, self._dirty = before

    with patch.object(ClusterState, "_pool_changed", changed):
        yield


@old
def lease_is_released_over_a_write_under_way() -> Iterator[None]:
    """At a clean stop the lease was given back though a request had been sent and not answered."""
    real = Writer.drain

    async def drain(self: Writer, seconds: float) -> bool:
        await real(self, seconds)
        return True

    async def release(self: app.Operator) -> None:
        await self.leader.release()

    with patch.object(Writer, "drain", drain), patch.object(app.Operator, "_release", release):
        yield


@old
def new_leader_decides_on_old_pods() -> Iterator[None]:
    """It listed the jobs anew, not the pods; what the last leader had made was not known yet."""

    async def refresh(self: Reflector[Any, Any, Any]) -> None:
        await asyncio.sleep(0)

    with patch.object(Reflector, "refresh", refresh):
        yield


def _creates_are_not_looked_for() -> AbstractContextManager[Any]:
    """A create is sent again without a look at what stands under its name, unless it is told that something does."""
    real = Requester.attempt
    taken: set[str] = set()

    async def attempt(self: Requester, method: str, path: str, body: Any = None, **rest: Any) -> Answer:
        if method == "GET" and "/pods/" in path and path.rpartition("/")[2] not in taken:
            return Answer(404, {})
        answer = await real(self, method, path, body, **rest)
        if method == "POST" and answer.reason == "AlreadyExists":
            taken.add(body["metadata"]["name"])
        return answer

    return patch.object(Requester, "attempt", attempt)


@old
def refused_create_is_believed() -> Iterator[None]:
    """A create whose answer was lost had filled the quota; the second try's refusal gave its room away."""
    with _creates_are_not_looked_for():
        yield


@old
def lost_create_is_tried_again_unseen() -> Iterator[None]:
    """Its pod had been made, had ended and was gone: the second try made it once more, in room that was given away."""
    with _creates_are_not_looked_for():
        yield


@old
def refused_delete_is_given_up() -> Iterator[None]:
    """A pod whose delete was refused once was never deleted."""
    real = Pods.delete

    async def delete(self: Pods, lane: Any, action: DeletePod) -> Outcome:
        await real(self, lane, action)
        return DONE

    with patch.object(Pods, "delete", delete):
        yield


@old
def unread_create_is_forgotten() -> Iterator[None]:
    """A create without an answer, whose pod could not be read either, gave its room away when its job was deleted."""
    real = Requester.attempt

    async def attempt(self: Requester, method: str, path: str, *rest: Any, **more: Any) -> Answer:
        answer = await real(self, method, path, *rest, **more)
        return Answer(404, {}) if method == "GET" and answer.status == 403 else answer

    with patch.object(Requester, "attempt", attempt):
        yield


@old
def refused_pool_status_is_given_up() -> Iterator[None]:
    """A pool's status that was refused once stayed as it was until something else happened."""
    real = Ours._patch_limits

    async def patched(self: Ours, *args: Any) -> Outcome:
        await real(self, *args)
        return DONE

    with patch.object(Ours, "_patch_limits", patched):
        yield


@old
def gang_stops_others_in_vain() -> Iterator[None]:
    """Room was kept for a job of several nodes only where pods stopped for it; the rest went to those just stopped."""
    real = reservations._keep

    def only_these(plan: Any, job: Any, shape: Any, making: Any) -> None:
        if not making:
            real(plan, job, shape, making)
            return
        for name in making.values():
            plan.kept[name] = job.uid, shape
        plan.quotas.promise(job, shape)

    with patch.object(reservations, "_keep", only_these):
        yield


@old
def lost_lease_ends_the_process() -> Iterator[None]:
    """An outage longer than the lease: everything that was known was thrown away, and read again by another process."""
    real = app.Operator._lead

    async def lead(self: app.Operator, *args: Any) -> None:
        try:
            await real(self, *args)
        except* (LeaseLost, LeaseOver) as lost:
            raise RuntimeError("cannot continue") from lost

    with patch.object(app.Operator, "_lead", lead):
        yield


@old
def who_led_leads_again_before_others_may() -> Iterator[None]:
    """A process waited for its own deadline alone, and not for what the server does late, as others do."""
    real = Leader.acquire

    async def acquire(self: Leader) -> None:
        self._runs_out -= self._limits.lease_seconds * (1 - SAFE)
        await real(self)

    with patch.object(Leader, "acquire", acquire):
        yield


@old
def requests_cut_short_by_the_lease_are_over() -> Iterator[None]:
    """A request was given up after what was left of the lease; who read next did not see what the server did later."""

    async def let_it_end(self: Requester, took: float) -> None:
        """Nothing was waited for."""

    with patch.object(Requester, "_let_it_end", let_it_end):
        yield


@old
def kopfs_end_ends_the_process() -> Iterator[None]:
    """An error inside a watch of kopf, as when etcd changes its leader, ended kopf, and kopf's end the process."""

    async def run(state: ClusterState, connection: Any, *, stop: asyncio.Event, **rest: Any) -> None:
        await resync.read_all(state, connection)
        await kopf_app.watch(state, connection, stop=stop, **rest)
        if not stop.is_set():
            raise RuntimeError("kopf has ended")

    with patch.object(kopf_app, "run", run):
        yield


@old
def everybody_waits_out_its_own_backoff() -> Iterator[None]:
    """After an outage watches were opened again up to half a minute late."""

    async def reachable(_: Any) -> bool:
        return False

    with patch.object(SimConnection, "reachable", reachable):
        yield


@old
def own_clock_is_believed() -> Iterator[None]:
    """Deadlines that follow from the API server's stamps were compared with the machine's own clock."""
    with patch.object(clock, "heard", lambda *_: None):
        now = lambda: datetime.fromtimestamp(clock.wall(), UTC)  # noqa: E731
        with patch.object(clock, "now", now):
            yield


@old
def releases_do_not_know_of_each_other() -> Iterator[None]:
    """Two releases in two namespaces, each with its own Lease, both decided."""
    real = Leader.__init__

    def make(self: Leader, connection: Any, namespace: str, limits: Any, **rest: Any) -> None:
        real(self, connection, namespace, limits.model_copy(update={"cluster_namespace": ""}), **rest)

    with patch.object(Leader, "__init__", make):
        yield


@old
def standby_is_taken_for_stuck() -> Iterator[None]:
    """Only the loop's turns counted as life: who waited for the lease, or for a long first sync, was killed."""

    @asynccontextmanager
    async def waiting(_: Pulse) -> AsyncIterator[None]:
        yield

    with patch.object(Pulse, "waiting", waiting):
        yield


@old
def gpus_without_labels_are_guessed() -> Iterator[None]:
    """Without labels each slot counted as a GPU."""

    def known(labels: Any, *, slots: int, capacity: int) -> gpus.Gpus:
        found = gpus.known(labels, slots=slots, capacity=capacity)
        return gpus.Gpus(slots, 1, 8000) if found.unknown else found

    with patch.object(nodes, "gpus", SimpleNamespace(known=known)):
        yield


@old
def sick_gpus_count() -> Iterator[None]:
    """The label of their number was believed when some of them were unhealthy."""

    def known(labels: Any, *, slots: int, capacity: int) -> gpus.Gpus:
        found = gpus.known(labels, slots=slots, capacity=capacity)
        return msgspec.structs.replace(found, healthy=int(labels.get("nvidia.com/gpu.count") or 0))

    with patch.object(nodes, "gpus", SimpleNamespace(known=known)):
        yield


@old
def room_of_a_gone_job_goes_with_its_node() -> Iterator[None]:
    """The pods of a deleted job counted in the pool of their node: in none while it was unseen, in another later."""
    real = usage._by_pod

    def by_pod(pod: Pod, *where: Any) -> Any:
        return real(msgspec.structs.replace(pod, pool=""), *where)

    with patch.object(usage, "_by_pod", by_pod):
        yield


@old
def gone_jobs_wait_for_no_node() -> Iterator[None]:
    """The pod of a deleted job still waited for a node, and did not count among those that do."""
    real = Admission._index

    def index(self: Admission, uid: Any, job: Any, *rest: Any) -> None:
        real(self, uid, job, *rest)
        for waiting in self._unplaced.values() if job is None else ():
            waiting.discard(uid)

    with patch.object(Admission, "_index", index):
        yield


@old
def place_that_was_given_away_is_taken_back() -> Iterator[None]:
    """The status that gave a place back was refused; the pod was made after all, and only its node was looked at."""

    def has_room(self: _Steps, _job: Any, shape: Any, a: Any, _waiting: Any) -> bool:
        room = self._admission.usage.room(NodeName(a.node))
        return not a.node or (room is not None and not room.mismatch(shape) and not room.lacks(shape))

    with patch.object(_Steps, "_has_room", has_room):
        yield


@old
def new_pods_land_where_others_are_awaited() -> Iterator[None]:
    """A pod stayed meant for a node that was gone; one without a node landed there when it came back."""
    gone = patch.object(lifecycle._Step, "_unavailable", lambda *_: "")
    with gone, patch.object(Usage, "nodes_held", lambda _: set()):
        yield


@old
def pod_that_was_written_again_is_a_stranger() -> Iterator[None]:
    """Its reports were refused when it had got a new version in which nothing had changed that is read."""
    real = ClusterState.pod_of

    def pod_of(self: ClusterState, uid: Any, name: str) -> Pod | None:
        held = real(self, uid, name)
        return held if held is not None and held is self.pods.get((held.namespace, held.name)) else None

    with patch.object(ClusterState, "pod_of", pod_of):
        yield


@old
def owners_do_not_say_what_a_pod_was_made_for() -> Iterator[None]:
    """A pod whose label was taken off was nobody's, and the next attempt began beside it."""
    real = pods.pod

    def pod(read: PodObject, unreadable: str = "") -> Pod:
        return replace(real(read, unreadable), job_name=(read.metadata.labels or {}).get(contract.LABEL_JOB, ""))

    with patch.object(pods, "pod", pod):
        yield


@old
def restarted_leader_does_not_wait() -> Iterator[None]:
    """A process led at once under its former name, while what the former process had sent was still under way."""
    real = Lease._free

    def free(self: Lease) -> bool:
        return self._spec.get("holderIdentity") == self.me or real(self)

    with patch.object(Lease, "_free", free):
        yield
