"""ClusterState: the only mutable state of the process. In: reads and answers to writes. Out: snapshots.

It holds the last known objects (`Cache`, newer resourceVersion wins), decisions that were not seen back yet
(`pending`), the owners of pods (`pod_owners`) and the jobs that a volume matters to (`mounts`). It also remembers what
is dirty: which jobs must be stepped, and whether admission must be planned again. It makes no decisions.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from rfuav_kube.cache import Cache
from rfuav_operator.core.capacity import volumes
from rfuav_operator.core.model import (
    Claim,
    Defaults,
    Job,
    JobStatus,
    Kind,
    Landing,
    Namespace,
    Node,
    NodeName,
    Pod,
    Pool,
    PriorityClass,
    Quota,
    ResourceQuota,
    Snapshot,
    Uid,
    Volume,
)
from rfuav_operator.core.scheduler import Changes
from rfuav_operator.shell.kinds import POOL, QUOTA
from rfuav_operator.shell.reading.mounts import Mounts
from rfuav_operator.shell.reading.pending import Pending
from rfuav_operator.shell.reading.pod_owners import PodOwners, room_of

WORDS = 800  # characters kept of the API server's (or a webhook's) message about a refused pod

JobKey = tuple[Kind, str, str]  # kind, namespace, name


class ClusterState:
    """Everything the operator knows about the cluster, as of now.

    Args:
        defaults: settings that travel in every snapshot.
        namespaces: those whose jobs and quotas are taken in; empty: all. Pods count wherever they are.
        on_dirt: called whenever something became dirty; must be cheap.
        on_pod: called with (old, new) for every change of one of our pods.
    """

    def __init__(
        self,
        defaults: Defaults,
        *,
        namespaces: frozenset[str] = frozenset(),
        on_dirt: Callable[[], None] = lambda: None,
        on_pod: Callable[[Pod | None, Pod | None], None] = lambda _old, _new: None,
    ) -> None:
        self.defaults = defaults
        self._served = namespaces
        self._on_dirt = on_dirt
        self._on_pod = on_pod
        self.jobs: Cache[JobKey, Job] = Cache(self._job_changed)
        self.pods: Cache[tuple[str, str], Pod] = Cache(self._pod_changed)
        self.nodes: Cache[str, Node] = Cache(self._node_changed)
        self.pools: Cache[str, Pool] = Cache(self._pool_changed)
        self.quotas: Cache[str, Quota] = Cache(self._quota_changed)
        self.resource_quotas: Cache[tuple[str, str], ResourceQuota] = Cache(self._resource_quota_changed)
        self.priority_classes: Cache[str, PriorityClass] = Cache(self._priority_class_changed)
        self.namespaces: Cache[str, Namespace] = Cache(self._namespace_changed)
        self.claims: Cache[tuple[str, str], Claim] = Cache(self._claim_changed)
        self.volumes: Cache[str, Volume] = Cache(self._volume_changed)
        self._read: dict[Uid, Job] = {}  # as the API server holds them
        self._pending = Pending()
        self._effective: dict[Uid, Job] = {}  # read, with the planned status over it
        self._rejected: dict[Uid, str] = {}
        self._owners = PodOwners(self._effective.get)
        self._gone: dict[Uid, frozenset[str]] = {}  # pods that were there, which the job's status still names
        self._nodes: dict[NodeName, Node] = {}
        self._pools: dict[str, Pool] = {}  # read, with the planned status over it
        self._quotas: dict[str, Quota] = {}  # the same, by namespace
        self._resource_quotas: dict[str, dict[str, ResourceQuota]] = {}
        self._priority_classes: dict[str, PriorityClass] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._mounts = Mounts()
        self._dependents: dict[tuple[str, str], set[Uid]] = defaultdict(set)  # by the TrainingJob they wait for
        self._dirty: set[Uid] = set()
        self._dirty_nodes: set[NodeName] = set()
        self._dirty_quotas: set[str] = set()  # namespaces
        self._plan = False
        self._everything = False
        self.heard_at: dict[str, float] = {}  # by plural, of our kinds: monotonic seconds of the last list of all

    # --- the current state

    def snapshot(self) -> Snapshot:
        """The present state. Its maps are live: read it before anything else runs."""
        return Snapshot(
            jobs=self._effective,
            pods_of=self._owners.of,
            foreign=self._owners.foreign,
            creating=self._pending.creating,
            landings=self._pending.landings,
            leaving=self._pending.leaving,
            made_for=self._owners.made_for,
            nodes=self._nodes,
            pools=self._pools,
            quotas=self._quotas,
            resource_quotas=self._resource_quotas,
            priority_classes=self._priority_classes,
            namespaces=self._namespaces,
            claims=self._mounts.claims,
            volumes=self._mounts.volumes,
            defaults=self.defaults,
            rejected=self._rejected,
            gone=self._gone,
            unwritten=self._pending.statuses.keys(),
        )

    def read_job(self, uid: Uid) -> Job | None:
        """The job as the API server holds it, without what was planned."""
        return self._read.get(uid)

    def job(self, uid: Uid) -> Job | None:
        """The job with the newest status decided for it."""
        return self._effective.get(uid)

    def job_named(self, key: JobKey) -> Job | None:
        """The same, by kind, namespace and name."""
        read = self.jobs.get(key)
        return None if read is None else self._effective.get(read.uid)

    def pod_of(self, uid: Uid, name: str) -> Pod | None:
        """One pod of a job."""
        return self._owners.of.get(uid, {}).get(name)

    def was_there(self, uid: Uid, name: str) -> bool:
        """Whether a pod that the job's status names was seen, though it may be gone."""
        return name in self._gone.get(uid, ()) or name in self._owners.of.get(uid, {})

    def unreadable(self) -> Iterator[str]:
        """The kind of each object that could not be read."""
        for kind, cache in (
            ("Pod", self.pods),
            ("Node", self.nodes),
            (POOL, self.pools),
            (QUOTA, self.quotas),
            ("ResourceQuota", self.resource_quotas),
            ("PriorityClass", self.priority_classes),
            ("Namespace", self.namespaces),
            ("PersistentVolumeClaim", self.claims),
            ("PersistentVolume", self.volumes),
        ):
            yield from (kind for value in cache.values() if value.unreadable)
        yield from (job.kind.value for job in self._read.values() if job.set_aside)

    def serves(self, namespace: str) -> bool:
        """Whether the jobs and the quota of a namespace are this operator's."""
        return not self._served or namespace in self._served

    # --- dirty marks

    def take_dirt(self) -> Changes:
        """What became dirty since the last call."""
        dirt = Changes(
            jobs=frozenset(self._dirty),
            nodes=frozenset(self._dirty_nodes),
            namespaces=frozenset(self._dirty_quotas),
            plan=self._plan,
            everything=self._everything,
        )
        self._dirty.clear()
        self._dirty_nodes.clear()
        self._dirty_quotas.clear()
        self._plan = self._everything = False
        return dirt

    def touch(self, uids: Iterable[Uid] = (), *, nodes: Iterable[NodeName] = (), plan: bool = True) -> None:
        """Have these jobs stepped again, the room of these nodes looked at, and admission planned."""
        self._dirty.update(uids)
        self._dirty_nodes.update(nodes)
        self._plan = self._plan or plan
        self._on_dirt()

    def touch_all(self) -> None:
        """Have everything decided again: a new leader, or limits that changed."""
        self._everything = True
        self.touch(self._effective)

    # --- what was decided and not yet seen back

    def plan_status(self, uid: Uid, status: JobStatus) -> None:
        """A status was handed to the writer: decide on it from now on."""
        self._pending.statuses[uid] = status
        self._rejected.pop(uid, None)
        self._refresh(uid)

    def settle_status(self, uid: Uid, status: JobStatus) -> None:
        """That write has succeeded; a newer plan stays."""
        if self._pending.statuses.get(uid) is status:
            del self._pending.statuses[uid]
            self._refresh(uid)

    def drop_plan(self, uid: Uid) -> None:
        """What was planned will not be written: decide again on what the API server holds."""
        self._pending.statuses.pop(uid, None)
        self._refresh(uid)
        self.touch([uid])

    def hold_results(self, uid: Uid, results: bytes) -> None:
        """A pod reported results: they are held until a status with them was written."""
        if uid in self._read:
            self._pending.results[uid] = results

    def results_of(self, uid: Uid) -> bytes | None:
        """Results that were not written yet, as JSON."""
        return self._pending.results.get(uid)

    def settle_results(self, uid: Uid, results: bytes | None) -> None:
        """They were written, or refused; newer ones stay."""
        if self._pending.results.get(uid) is results:
            self._pending.results.pop(uid, None)

    def plan_limits(self, target: Pool | Quota, status: Mapping[str, Any]) -> None:
        """A pool's or quota's status was handed to the writer: the next decision is compared with it."""
        self._pending.limits[target.uid] = status
        self._refresh_limits(target)

    def settle_limits(self, target: Pool | Quota, status: Mapping[str, Any]) -> None:
        """That write is over; a newer plan stays."""
        if self._pending.limits.get(target.uid) is status:
            self.drop_limits(target)

    def drop_limits(self, target: Pool | Quota) -> None:
        """The planned status will not be written any more."""
        self._pending.limits.pop(target.uid, None)
        self._refresh_limits(target)

    def forget_plans(self) -> None:
        """No earlier decision will be written any more: only the API server's state counts."""
        self._pending.clear()
        self._rejected.clear()
        for uid in list(self._effective):
            self._refresh(uid)
        for pool in list(self._pools.values()):
            self._refresh_limits(pool)
        for quota in list(self._quotas.values()):
            self._refresh_limits(quota)

    def begin_create(self, uid: Uid, pod: str, landing: Landing | None = None) -> None:
        """A pod's create was handed to the writer; it takes room from now on, also where it may only land."""
        self._pending.begin_create(uid, pod, landing)

    def end_create(self, uid: Uid, pod: str) -> None:
        """The outcome of a create is known: the pod was read, or it will not exist."""
        if self._pending.end_create(uid, pod):
            if (gone := self._effective.get(uid)) is not None and uid not in self._read:
                self._pending.job_left(gone)
                self.touch(self._named(gone.namespace, gone.name))
            self._refresh(uid)
        self.touch([uid])

    def reject(self, uid: Uid, message: str) -> None:
        """The API server refused the job's pod; kept until the job's status is decided again."""
        if uid in self._read:
            self._rejected[uid] = message[:WORDS]
            self.touch([uid])

    # --- changes of objects

    def _refresh(self, uid: Uid) -> None:
        read, planned = self._read.get(uid), self._pending.statuses.get(uid)
        if read is not None:
            self._effective[uid] = read if planned is None else msgspec.structs.replace(read, status=planned)
        elif uid not in self._pending.creating:
            self._effective.pop(uid, None)

    def _job_changed(self, old: Job | None, new: Job | None) -> None:
        if old is not None and (new is None or new.uid != old.uid):
            self._forget_job(old)
        if new is not None:
            before = self._effective.get(new.uid)
            self._read[new.uid] = new
            self._refresh(new.uid)
            self._keep_gone(new.uid, self._gone.get(new.uid, frozenset()))
            if _is_over(new):
                self._pending.results.pop(new.uid, None)  # no write follows that they could go with
            if before is None:
                self._sort_pods(new.uid)
            self._mounts.note(new.uid, new.namespace, volumes.claims_of(self._effective[new.uid]))
            if new.kind is Kind.INFERENCE and new.spec.model.from_training_job:
                self._dependents[new.namespace, new.spec.model.from_training_job].add(new.uid)
            if before is None or _substance(before) != _substance(self._effective[new.uid]):
                self.touch([new.uid])
        job = new or old
        if job is not None and job.kind is Kind.TRAINING:
            moved = old is None or new is None or old.uid != new.uid or old.status.phase != new.status.phase
            if moved and (waiting := self._dependents.get((job.namespace, job.name))):
                self.touch(waiting)

    def _forget_job(self, job: Job) -> None:
        del self._read[job.uid]
        self._gone.pop(job.uid, None)
        self._mounts.note(job.uid, job.namespace, ())
        self._rejected.pop(job.uid, None)
        last = self._effective[job.uid]
        # A create that is under way may still take room: the job stays, deleting, until its outcome is known.
        self._effective[job.uid] = msgspec.structs.replace(last, deleting=True)
        self._pending.job_went(job)
        self._refresh(job.uid)
        key = (job.namespace, job.spec.model.from_training_job)
        if (waiting := self._dependents.get(key)) is not None:
            waiting.discard(job.uid)
            if not waiting:
                del self._dependents[key]
        self.touch([job.uid])

    def _named(self, namespace: str, name: str) -> list[Uid]:
        """The jobs of a name, at most one of each kind."""
        found = (self.job_named((kind, namespace, name)) for kind in Kind)
        return [job.uid for job in found if job is not None]

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old == new:
            return
        rooms = set()
        if old is not None:
            if self._owners.take_out(old):
                rooms.add(room_of(old))
            elif new is None and old.job_uid is not None:
                self._keep_gone(old.job_uid, self._gone.get(old.job_uid, frozenset()) | {old.name})
        if new is not None and not self._owners.put_in(new):
            rooms ^= {room_of(new)}
        there = [p for p in (old, new) if p is not None]
        owners = {p.job_uid for p in there if p.job_uid is not None}
        if owners:
            self._on_pod(old, new)
        for namespace, name in {(p.namespace, p.job_name) for p in there if p.job_name}:
            owners.update(self._named(namespace, name))
        nodes = {room[0] for room in rooms if room is not None}
        if owners or nodes:
            self.touch(owners, nodes=nodes)

    def _keep_gone(self, uid: Uid, names: frozenset[str]) -> None:
        """Remember of these pods those that the job's status names."""
        if not names:
            return
        jobs = [job for job in (self._read.get(uid), self._effective.get(uid)) if job is not None]
        named = names & {a.pod for job in jobs for a in job.status.assignments}
        if named:
            self._gone[uid] = named
        else:
            self._gone.pop(uid, None)

    def _sort_pods(self, uid: Uid) -> None:
        """A job has become known: look again at the pods that name it."""
        if moved := self._owners.sort(uid):
            self.touch([uid], nodes={room[0] for p in moved if (room := room_of(p)) is not None}, plan=False)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        node = new or old
        if node is None or old == new:
            return
        if new is None:
            del self._nodes[node.name]
        else:
            self._nodes[node.name] = new
        there, made_for = self._owners.on_node(node.name)
        for key in made_for:  # jobs that wait until they are gone
            there.update(self._named(*key))
        self.touch(there, nodes=[node.name])

    def _pool_changed(self, old: Pool | None, new: Pool | None) -> None:
        if old is not None and (new is None or new.uid != old.uid):
            self._pending.limits.pop(old.uid, None)
        if new is not None:
            self._refresh_limits(new)
        elif old is not None:
            del self._pools[old.name]
        self._limits_changed(old, new)

    def _quota_changed(self, old: Quota | None, new: Quota | None) -> None:
        if old is not None and (new is None or new.uid != old.uid):
            self._pending.limits.pop(old.uid, None)
        if new is not None:
            self._refresh_limits(new)
        elif old is not None:
            del self._quotas[old.namespace]
        self._limits_changed(old, new)

    def _limits_changed(self, old: Pool | Quota | None, new: Pool | Quota | None) -> None:
        if old is None or new is None or (old.uid, old.generation) != (new.uid, new.generation):
            self.touch_all()

    def _refresh_limits(self, target: Pool | Quota) -> None:
        planned = self._pending.limits.get(target.uid)
        if isinstance(target, Pool):
            pool = self.pools.get(target.name)
            if pool is not None:
                self._pools[pool.name] = pool if planned is None else msgspec.structs.replace(pool, status=planned)
            return
        quota = self.quotas.get(target.namespace)
        if quota is not None:
            self._quotas[quota.namespace] = quota if planned is None else msgspec.structs.replace(quota, status=planned)

    def _resource_quota_changed(self, old: ResourceQuota | None, new: ResourceQuota | None) -> None:
        if new is not None:
            self._resource_quotas.setdefault(new.namespace, {})[new.name] = new
        elif old is not None:
            held = self._resource_quotas[old.namespace]
            held.pop(old.name, None)
            if not held:
                del self._resource_quotas[old.namespace]
        quota = new or old
        if quota is not None and old != new:
            self._dirty_quotas.add(quota.namespace)
            self.touch()

    def _claim_changed(self, old: Claim | None, new: Claim | None) -> None:
        self._touch_waiting(self._mounts.claim_changed(old, new))

    def _volume_changed(self, old: Volume | None, new: Volume | None) -> None:
        self._touch_waiting(self._mounts.volume_changed(old, new))

    def _touch_waiting(self, uids: Iterable[Uid]) -> None:
        users = (self._effective.get(uid) for uid in uids)
        if waiting := [job.uid for job in users if job is not None and not _is_over(job)]:
            self.touch(waiting)

    def _priority_class_changed(self, old: PriorityClass | None, new: PriorityClass | None) -> None:
        if new is not None and not new.unreadable:
            self._priority_classes[new.name] = new
        elif old is not None:
            self._priority_classes.pop(old.name, None)
        if old != new:
            self.touch_all()

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        namespace = new or old
        if namespace is None or old == new:
            return
        if new is not None and not new.unreadable:
            self._namespaces[new.name] = new
        else:
            self._namespaces.pop(namespace.name, None)
        self.touch([uid for uid, job in self._effective.items() if job.namespace == namespace.name])


def _is_over(job: Job) -> bool:
    return job.status.phase is not None and job.status.phase.terminal


def _substance(job: Job) -> tuple[object, ...]:
    """The parts of a job that decisions depend on; seeing our own write back changes none of them."""
    return job.generation, job.deleting, job.problems, job.set_aside, job.status
