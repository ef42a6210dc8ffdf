"""Safety rules broken on purpose, one each, in the operator's real code: the histories must notice every one.

Where it can be, a rule is broken at a door that stays when what is behind it is rewritten: what the core is told, what
it answers, the caches, the writer. Each mutation patches while it is entered, and `ALL` lists them.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import msgspec
from msgspec.structs import replace

from rfuav_kube import objects
from rfuav_kube.cache import Cache
from rfuav_kube.connection import Answer
from rfuav_kube.keyed_writer import Outcome
from rfuav_kube.lane import Lane
from rfuav_kube.patch import merge_patch
from rfuav_kube.pods import PodObject
from rfuav_kube.requester import Requester
from rfuav_operator.core import scheduler
from rfuav_operator.core.admission import index, reservations
from rfuav_operator.core.capacity import usage
from rfuav_operator.core.capacity.placement import PoolCapacity
from rfuav_operator.core.capacity.room import Allocation
from rfuav_operator.core.capacity.usage import Share, Usage
from rfuav_operator.core.job import failures, lifecycle, podspec, priority, progress, starting
from rfuav_operator.core.model import Action, CreatePod, PatchStatus, Phase, Pod, PodPhase, Snapshot, Uid
from rfuav_operator.core.preemption import preemption, running
from rfuav_operator.core.queue import eligibility
from rfuav_operator.core.queue.quotas import Quotas
from rfuav_operator.core.scheduler import Scheduler
from rfuav_operator.core.stored import bounds
from rfuav_operator.shell.leader import Leader
from rfuav_operator.shell.reading import ingest, pods, resync
from rfuav_operator.shell.reading.pod_owners import PodOwners
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.serving import intake
from rfuav_operator.shell.serving.intake import Intake
from rfuav_operator.shell.writing import ours
from rfuav_operator.shell.writing import pods as pod_writes
from rfuav_operator.shell.writing.pods import Pods
from rfuav_operator.shell.writing.writer import Writer

ALL: dict[str, Callable[[], AbstractContextManager[None]]] = {}


def mutation(function: Callable[[], Iterator[None]]) -> None:
    """Put it into the list."""
    ALL[function.__name__] = contextlib.contextmanager(function)


def _told(change: Callable[[Snapshot], Snapshot]) -> AbstractContextManager[Any]:
    """The core is told something else than what is known."""
    real = ClusterState.snapshot
    return patch.object(ClusterState, "snapshot", lambda self: change(real(self)))


def _without_pods(seen: Snapshot, hidden: Callable[[Uid, Pod], bool]) -> Snapshot:
    pods = {uid: {n: p for n, p in held.items() if not hidden(uid, p)} for uid, held in seen.pods_of.items()}
    return replace(seen, pods_of=pods)


# --- room


@mutation
def stopping_pods_hold_no_room() -> Iterator[None]:
    """Room is released when a pod is told to stop, not when it is gone."""
    with _told(lambda seen: _without_pods(seen, lambda _uid, pod: pod.deleting)):
        yield


@mutation
def tried_again_beside_the_old() -> Iterator[None]:
    """A pod that is being stopped is forgotten at once: the next attempt does not wait for it."""

    def change(seen: Snapshot) -> Snapshot:
        jobs = dict(seen.jobs)
        for uid, job in seen.jobs.items():
            if not job.deleting and any(a.stopping for a in job.status.assignments):
                left = tuple(a for a in job.status.assignments if not a.stopping)
                jobs[uid] = replace(job, status=replace(job.status, assignments=left))
        seen = replace(seen, jobs=jobs)
        return _without_pods(
            seen, lambda uid, pod: uid in jobs and all(a.pod != pod.name for a in jobs[uid].status.assignments)
        )

    with _told(change):
        yield


@mutation
def pods_of_others_do_not_count() -> Iterator[None]:
    with _told(lambda seen: replace(seen, foreign={})):
        yield


def _strangers_are_told(change: Callable[[Pod], Pod]) -> AbstractContextManager[Any]:
    """The core is told something else of pods of others."""
    return _told(
        lambda seen: replace(seen, foreign={n: tuple(change(p) for p in pods) for n, pods in seen.foreign.items()})
    )


@mutation
def claims_close_no_node() -> Iterator[None]:
    """Resource claims of other pods are not read."""
    with _strangers_are_told(lambda pod: replace(pod, claims_devices=False)):
        yield


@mutation
def strangers_are_waited_for_for_ever() -> Iterator[None]:
    """A pod of others that is not bound keeps room on the node that it names until it is."""
    with patch.object(usage, "_BINDS_WITHIN", timedelta(days=1)):
        yield


@mutation
def nodes_in_deletion_take_jobs() -> Iterator[None]:
    """A Node's deletionTimestamp is not read."""
    with _told(lambda seen: replace(seen, nodes={n: replace(node, deleting=False) for n, node in seen.nodes.items()})):
        yield


@mutation
def resource_quotas_do_not_count() -> Iterator[None]:
    """What the API server would refuse is asked for."""
    with _told(lambda seen: replace(seen, resource_quotas={})):
        yield


@mutation
def the_scheduler_has_all_the_time() -> Iterator[None]:
    """A pod that nobody binds is waited for without end."""

    def change(seen: Snapshot) -> Snapshot:
        pools = {n: replace(p, spec=replace(p.spec, schedule_timeout_seconds=10**6)) for n, p in seen.pools.items()}
        return replace(seen, pools=pools)

    with _told(change):
        yield


@mutation
def orphans_are_any_other_pods() -> Iterator[None]:
    """What a pod's label says of its kind does not count once no job owns it."""

    with _strangers_are_told(lambda pod: replace(pod, kind=None)):
        yield


@mutation
def claims_bind_nobody() -> Iterator[None]:
    """Where a claim is in use is not looked at: jobs that mount it go to any node."""
    with patch.object(Usage, "nodes_of_claims", lambda *_: None):
        yield


@mutation
def creates_under_way_hold_no_room() -> Iterator[None]:
    with patch.object(ClusterState, "begin_create", lambda *_: None):
        yield


@mutation
def deleted_jobs_hold_no_room() -> Iterator[None]:
    """A create that is under way is forgotten when its job is deleted."""
    real = ClusterState._forget_job

    def forget(self: ClusterState, job: Any) -> None:
        real(self, job)
        self._effective.pop(job.uid, None)

    with patch.object(ClusterState, "_forget_job", forget):
        yield


@mutation
def plans_are_not_remembered() -> Iterator[None]:
    """What was decided and is not seen back yet does not count in the next turn."""
    with patch.object(ClusterState, "plan_status", lambda *_: None):
        yield


@mutation
def unknown_is_taken_for_failed() -> Iterator[None]:
    """A create without an answer is given up as if it had not happened."""
    real = Requester.attempt

    async def attempt(self: Requester, method: str, path: str, *rest: Any, **more: Any) -> Answer:
        answer = await real(self, method, path, *rest, **more)
        lost = method == "POST" and answer.status >= 500
        return Answer(422, {"message": "lost"}) if lost else answer

    with patch.object(Requester, "attempt", attempt):
        yield


# --- teams


@mutation
def quotas_do_not_count() -> Iterator[None]:
    with _told(lambda seen: replace(seen, quotas={})):
        yield


@mutation
def the_young_are_stopped_too() -> Iterator[None]:
    """Whoever waits may stop what has only just begun."""

    def change(seen: Snapshot) -> Snapshot:
        pools = {}
        for name, pool in seen.pools.items():
            eager = replace(pool.spec.preemption, min_runtime_seconds=0)
            pools[name] = replace(pool, spec=replace(pool.spec, preemption=eager))
        return replace(seen, pools=pools)

    with _told(change):
        yield


@mutation
def gangs_begin_in_parts() -> Iterator[None]:
    """Of a job of several nodes the first pod is admitted alone."""
    real = Writer.submit

    def submit(self: Writer, actions: Sequence[Action]) -> None:
        cut: list[Action] = []
        for action in actions:
            if isinstance(action, PatchStatus) and not action.job.status.assignments:
                first = tuple(a for a in action.status.assignments if not a.rank)
                action = replace(action, status=replace(action.status, assignments=first))  # noqa: PLW2901
            cut.append(action)
        real(self, cut)

    with patch.object(Writer, "submit", submit):
        yield


@mutation
def gpus_have_no_quota() -> Iterator[None]:
    """What a namespace may use of a pool's GPUs is not asked."""
    with patch.object(Quotas, "_over_share", lambda *_: None):
        yield


@mutation
def jobs_at_a_time_are_not_counted() -> Iterator[None]:
    with patch.object(Quotas, "_over_jobs", lambda *_, **__: None):
        yield


@mutation
def gangs_go_on_in_parts() -> Iterator[None]:
    """When a pod of a job of several nodes ends badly, the others stay."""
    with patch.object(lifecycle._Step, "_stop_together", lambda _: None):
        yield


@mutation
def pools_on_hold_admit() -> Iterator[None]:
    """A pool's stopPolicy is not read."""

    def change(seen: Snapshot) -> Snapshot:
        pools = {n: replace(pool, spec=replace(pool.spec, stop_policy="None")) for n, pool in seen.pools.items()}
        return replace(seen, pools=pools)

    with _told(change):
        yield


@mutation
def pools_that_are_gone_admit() -> Iterator[None]:
    """A pool that was deleted counts as it was."""
    real = ClusterState.snapshot

    def snapshot(self: ClusterState) -> Snapshot:
        seen = real(self)
        known = self.__dict__.setdefault("known", {})
        known |= seen.pools
        return replace(seen, pools=dict(known))

    with patch.object(ClusterState, "snapshot", snapshot):
        yield


@mutation
def absent_pools_have_terms() -> Iterator[None]:
    """What was admitted to a pool that is deleted is judged by defaults until it is made again."""
    terms = replace(scheduler._NO_POOL, schedule_timeout_seconds=10, start_timeout_seconds=10)
    with patch.object(scheduler, "_NO_POOL", terms):
        yield


@mutation
def values_follow_the_class() -> Iterator[None]:
    """An admitted job is worth what its PriorityClass is worth now."""

    def forgetful(job: Any, snapshot: Snapshot) -> int | None:
        return priority.priority(replace(job, status=replace(job.status, priority=None)), snapshot)

    with contextlib.ExitStack() as stack:
        for module in (index, reservations, scheduler, preemption, running):
            stack.enter_context(patch.object(module, "priority", forgetful))
        yield


# --- pools that scale up


def _scaling(**changes: Callable[[int], int]) -> AbstractContextManager[Any]:
    """The core reads another scaleUp than the pools have."""

    def change(seen: Snapshot) -> Snapshot:
        pools = {}
        for name, pool in seen.pools.items():
            up = replace(pool.spec.scale_up, **{f: new(getattr(pool.spec.scale_up, f)) for f, new in changes.items()})
            pools[name] = replace(pool, spec=replace(pool.spec, scale_up=up))
        return replace(seen, pools=pools)

    return _told(change)


@mutation
def pools_grow_without_limit() -> Iterator[None]:
    with _scaling(max_jobs=lambda most: 99 if most else 0):
        yield


@mutation
def nodes_are_waited_for_for_ever() -> Iterator[None]:
    """Nothing is given back at the timeout of scaleUp."""
    with _scaling(timeout_seconds=lambda _: 10**6):
        yield


@mutation
def nodes_are_hardly_waited_for() -> Iterator[None]:
    with _scaling(timeout_seconds=lambda seconds: seconds // 4):
        yield


@mutation
def what_has_no_node_needs_no_quota() -> Iterator[None]:
    """GPUs count against a quota only when the node is known that they are on."""
    real_put, real_release = Usage._put, Usage.release

    def put(self: Usage, uid: Any, name: str, held: Allocation) -> None:
        real_put(self, uid, name, held)
        self.shares[held.pool, held.namespace].gpus -= 0 if held.node else held.gpus

    def release(self: Usage, uid: Any, name: str) -> Any:
        held = self.holds(uid).get(name)
        if held is not None:
            self.shares[held.pool, held.namespace].gpus += 0 if held.node else held.gpus
        return real_release(self, uid, name)

    with patch.object(Usage, "_put", put), patch.object(Usage, "release", release):
        yield


@mutation
def new_nodes_are_for_all() -> Iterator[None]:
    """On a new node no room is kept for the pods that the scheduler may put there."""
    with patch.object(Allocation, "may_land_on", lambda *_: False):
        yield


@mutation
def new_nodes_are_shared() -> Iterator[None]:
    """Pods that wait for a node to come may land on one and the same."""
    real = podspec._on_a_new_node

    def anywhere(landing: Any) -> dict[str, Any]:
        made = real(landing)
        del made["affinity"]["podAntiAffinity"]
        return made

    with patch.object(podspec, "_on_a_new_node", anywhere):
        yield


# --- the index that is kept between turns


@mutation
def what_was_full_stays_full() -> Iterator[None]:
    """Room that is given back is not offered to the shapes that had found none."""
    with patch.object(PoolCapacity, "settle", lambda *_: None):
        yield


@mutation
def the_index_forgets_nodes() -> Iterator[None]:
    """A node that changes is kept as it was when the index was made."""
    real = Usage.update_node

    def update(self: Usage, name: Any, snapshot: Snapshot, now: Any) -> None:
        if self.room(name) is None:
            real(self, name, snapshot, now)

    with patch.object(Usage, "update_node", update):
        yield


@mutation
def the_index_forgets_ends() -> Iterator[None]:
    """What a job held when it was looked at first is held until the index is made anew."""
    real = Usage.update_job

    def update(self: Usage, uid: Any, job: Any, snapshot: Snapshot) -> bool:
        return False if self.holds(uid) else real(self, uid, job, snapshot)

    with patch.object(Usage, "update_job", update):
        yield


@mutation
def shares_only_grow() -> Iterator[None]:
    """What a namespace gives back stays in its sum: a counter that drifts."""
    real = Usage.release

    def release(self: Usage, uid: Any, name: str) -> Any:
        held = real(self, uid, name)
        if held is not None:
            self.shares.setdefault((held.pool, held.namespace), Share()).gpus += held.gpus
        return held

    with patch.object(Usage, "release", release):
        yield


# --- records


@mutation
def created_before_recorded() -> Iterator[None]:
    """A create does not wait for the status before it."""
    real_add, real_next = Lane.add, Lane.next

    def add(self: Lane[Action], action: Action) -> None:
        real_add(self, action)
        for held in (self._behind, self._following or []):
            if isinstance(action, CreatePod) and action in held:
                held.remove(action)
                self.ready.append(action)

    def following(self: Lane[Action]) -> Action | None:
        create = bool(self.ready) and isinstance(self.ready[0], CreatePod)
        return self.ready.popleft() if create else real_next(self)

    with patch.object(Lane, "add", add), patch.object(Lane, "next", following):
        yield


@mutation
def created_though_the_record_failed() -> Iterator[None]:
    """A failed status write does not take what depends on it along, nor is a create looked at again before it is sent."""
    real = Lane.drop

    def drop(self: Lane[Action]) -> list[Action]:
        dropped = real(self)
        self.ready.extend(action for action in dropped if isinstance(action, CreatePod))
        return [action for action in dropped if not isinstance(action, CreatePod)]

    with patch.object(Lane, "drop", drop), patch.object(Pods, "_is_wanted", lambda *_: True):
        yield


@mutation
def creates_are_sent_whatever_came_between() -> Iterator[None]:
    """A create that is tried again is not asked whether the job still wants it."""
    with patch.object(Pods, "_is_wanted", lambda *_: True):
        yield


@mutation
def statuses_are_not_locked() -> Iterator[None]:
    """A status is written over whatever stands there."""
    real = Requester.send

    async def send(self: Requester, method: str, path: str, body: Any = None, **rest: Any) -> Answer | None:
        if method == "PATCH" and "jobs/" in path:
            body = {"status": body["status"]}
        return await real(self, method, path, body, **rest)

    with patch.object(Requester, "send", send):
        yield


@mutation
def namesakes_are_adopted() -> Iterator[None]:
    """AlreadyExists is success, whoever owns the pod."""

    def found(self: Pods, _lane: Any, action: CreatePod, answer: Answer) -> Outcome:
        ingest.pod(self._state, answer.body)
        return self._created(action)

    with patch.object(Pods, "_found", found):
        yield


@mutation
def labels_make_owners() -> Iterator[None]:
    """A pod belongs to the job that its label names."""

    def job_of(meta: objects.Meta, _owner: objects.Owner | None) -> Uid | None:
        uid = (meta.labels or {}).get("rfuav.io/job-uid")
        return Uid(uid) if uid else None

    with patch.object(pods, "_job_of", job_of):
        yield


@mutation
def copies_are_owned_too() -> Iterator[None]:
    """A pod of another namespace belongs to the job whose UID it names."""
    with patch.object(PodOwners, "_is_own", lambda *_: True):
        yield


@mutation
def outputs_are_shared() -> Iterator[None]:
    """A job that is applied again does not wait for the pods of the one before."""
    with patch.object(eligibility, "earlier_pods", lambda *_: []):
        yield


@mutation
def failed_jobs_move_again() -> Iterator[None]:
    ended = (Phase.SUCCEEDED, Phase.CANCELLED)
    with patch.object(Phase, "terminal", property(lambda self: self in ended)):
        yield


@mutation
def a_lost_lease_goes_unnoticed() -> Iterator[None]:
    real = Leader.left
    with patch.object(Leader, "left", lambda self: float("inf") if real(self) > float("-inf") else real(self)):
        yield


# --- what is read


@mutation
def the_first_container_is_the_trainer() -> Iterator[None]:
    """A pod's state is read by position, not by the container's name."""
    real = pods.pod

    def pod(read: PodObject) -> Pod:
        first = tuple(replace(c, name="trainer") for c in (read.status.container_statuses or ())[:1])
        return real(replace(read, status=replace(read.status, container_statuses=first or None)))

    with patch.object(pods, "pod", pod):
        yield


@mutation
def outages_are_the_jobs_fault() -> Iterator[None]:
    """An image that cannot be pulled now is taken for one that is not there."""
    real = starting._error

    def error(*args: Any) -> Any:
        grace, verdict = real(*args)
        ours = verdict.reason == "ImagePullFailed"
        return grace, replace(verdict, counted=verdict.counted or ours, outage=verdict.outage and not ours)

    with patch.object(starting, "_error", error):
        yield


@mutation
def what_webhooks_add_is_the_jobs_fault() -> Iterator[None]:
    """An init container that fails is counted against the job."""
    real = failures._other_failed

    def failed(*args: Any) -> Any:
        return replace(real(*args), counted=True)

    with patch.object(failures, "_other_failed", failed):
        yield


@mutation
def whatever_ends_badly_is_the_pods_end() -> Iterator[None]:
    """A pod has failed when any of its containers has."""
    real = failures.succeeded
    with patch.object(failures, "succeeded", lambda pod: real(pod) and pod.phase is not PodPhase.FAILED):
        yield


@mutation
def init_containers_are_not_read() -> Iterator[None]:
    """What comes before the trainer is not known: the pod just fails."""
    with patch.object(pods, "_beside", lambda *_: iter(())):
        yield


@mutation
def init_containers_have_all_the_time() -> Iterator[None]:
    """A pod whose init container runs is waited for without end."""
    real = starting.wait_of

    def wait_of(pod: Pod, *args: Any, **rest: Any) -> starting.Wait:
        wait = real(pod, *args, **rest)
        runs = any(one.running for one in pod.beside)
        return replace(wait, until=wait.until + timedelta(days=1)) if runs else wait

    with patch.object(starting, "wait_of", wait_of):
        yield


@mutation
def versions_are_ignored() -> Iterator[None]:
    """What comes last is believed, not what is newest."""
    real = Cache.put

    def put(self: Cache[Any, Any], key: Any, version: int, value: Any) -> bool:
        self._removed.pop(key, None)
        if key in self._held:
            self._held[key] = (-1, self._held[key][1])
        return real(self, key, version, value)

    with patch.object(Cache, "put", put):
        yield


@mutation
def answers_are_not_read() -> Iterator[None]:
    """The next turn is decided on what the watches have brought, not on the answers to our own writes."""

    class Deaf:
        job = staticmethod(lambda *_: None)
        pod = staticmethod(lambda *_: None)
        pool = staticmethod(ingest.pool)
        quota = staticmethod(ingest.quota)

    with patch.object(ours, "ingest", Deaf), patch.object(pod_writes, "ingest", Deaf):
        yield


@mutation
def lists_drop_nothing() -> Iterator[None]:
    """What was deleted while a watch was cut stays for ever."""
    with patch.object(Cache, "retain", lambda *_args, **_rest: None):
        yield


@mutation
def deletions_are_not_looked_for() -> Iterator[None]:
    """kopf tells of no deletion that it missed, and nobody asks."""

    async def never(*_args: Any) -> None:
        await asyncio.Event().wait()

    with patch.object(resync, "keep_dropping", never):
        yield


@mutation
def reports_count_as_they_come() -> Iterator[None]:
    """An old report that was held up is applied over newer ones."""
    real = intake.parse_trainer_status

    def parse(document: Any) -> progress.Parts:
        return replace(real(document), sequence=None)

    with patch.object(intake, "parse_trainer_status", parse), patch.object(progress, "_forward", lambda _, new: new):
        yield


@mutation
def taken_reports_are_forgotten() -> Iterator[None]:
    """A report is handed out once; when the write that carries it fails, it is lost."""
    real = Intake.take

    def take(self: Intake, jobs: Any = ()) -> Any:
        taken = real(self, jobs)
        self._kept.clear()
        return taken

    with patch.object(Intake, "take", take):
        yield


@mutation
def results_are_merged() -> Iterator[None]:
    """New results are laid over the old ones: what they do not have stays."""
    with patch.object(bounds, "replacing", msgspec.json.decode):
        yield


@mutation
def results_that_are_not_remembered_are_removed() -> Iterator[None]:
    """A status is written as the operator has it, which keeps no results."""
    with patch.object(ours, "merge_patch", lambda old, new: {**merge_patch(old, new), "results": None}):
        yield


@mutation
def nodes_are_looked_at_once() -> Iterator[None]:
    """What changed on a node is not told: its room stays as it was first counted."""
    real = ClusterState.take_dirt

    def take(self: ClusterState) -> Any:
        return replace(real(self), nodes=())

    with patch.object(ClusterState, "take_dirt", take):
        yield


# --- time


@mutation
def time_wakes_nobody() -> Iterator[None]:
    """When a backoff is over, nothing happens."""
    real = Scheduler.turn

    def turn(*args: Any, **rest: Any) -> Any:
        return msgspec.structs.replace(real(*args, **rest), wake_at=None)

    with patch.object(Scheduler, "turn", turn):
        yield


@mutation
def ended_pods_wake_nobody() -> Iterator[None]:
    """A pod's change marks nothing dirty unless it is new."""
    real = ClusterState._pod_changed

    def changed(self: ClusterState, old: Pod | None, new: Pod | None) -> None:
        before = set(self._dirty), self._plan
        real(self, old, new)
        if old is not None and new is not None and not new.live:
            self._dirty, self._plan = before

    with patch.object(ClusterState, "_pod_changed", changed):
        yield
