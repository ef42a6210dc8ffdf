"""ClusterState: the one mutable thing of the process. Reads and answers to writes come in, snapshots go out.

It holds what the API server last said (`Cache`, newer resourceVersion wins), what was decided and not yet seen back
(the planned status of a job, pods whose create is under way), and remembers what is dirty: which jobs must be stepped,
and whether admission must be planned again. It decides nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from rfuav_operator.core.decide import Dirt
from rfuav_operator.core.model import (
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
)
from rfuav_operator.shell.cache import Cache

WORDS = 800  # characters kept of what the API server, or a webhook behind it, says about a refused pod

JobKey = tuple[Kind, str, str]  # kind, namespace, name


class ClusterState:
    """Everything the operator knows about the cluster, as of now.

    Args:
        defaults: settings that travel in every snapshot.
        on_dirt: called whenever something became dirty; must be cheap.
        on_pod: called with (old, new) for every change of one of our pods.
    """

    def __init__(
        self,
        defaults: Defaults,
        *,
        on_dirt: Callable[[], None] = lambda: None,
        on_pod: Callable[[Pod | None, Pod | None], None] = lambda _old, _new: None,
    ) -> None:
        self.defaults = defaults
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
        self._read: dict[Uid, Job] = {}  # as the API server holds them
        self._planned: dict[Uid, JobStatus] = {}  # decided, not yet seen back
        self._effective: dict[Uid, Job] = {}  # read, with the planned status over it
        self._creating: dict[Uid, frozenset[str]] = {}
        self._landings: dict[tuple[Uid, str], Landing] = {}
        self._rejected: dict[Uid, str] = {}
        self._pods_of: dict[Uid, dict[str, Pod]] = {}
        self._gone: dict[Uid, frozenset[str]] = {}  # pods that were there, which the job's status still names
        self._foreign: dict[NodeName, tuple[Pod, ...]] = {}
        self._nodes: dict[NodeName, Node] = {}
        self._planned_limits: dict[Uid, Mapping[str, Any]] = {}  # statuses of these two, decided and not yet seen back
        self._pools: dict[str, Pool] = {}  # read, with the planned status over it
        self._quotas: dict[str, Quota] = {}  # the same, by namespace
        self._resource_quotas: dict[str, dict[str, ResourceQuota]] = {}
        self._priority_classes: dict[str, PriorityClass] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._dependents: dict[tuple[str, str], set[Uid]] = defaultdict(set)  # by the TrainingJob they wait for
        self._dirty: set[Uid] = set()
        self._dirty_nodes: set[NodeName] = set()
        self._plan = False
        self._everything = False

    # --- what is known

    def snapshot(self) -> Snapshot:
        """The present state. Its maps are live: read it before anything else runs."""
        return Snapshot(
            jobs=self._effective,
            pods_of=self._pods_of,
            foreign=self._foreign,
            creating=self._creating,
            landings=self._landings,
            nodes=self._nodes,
            pools=self._pools,
            quotas=self._quotas,
            resource_quotas=self._resource_quotas,
            priority_classes=self._priority_classes,
            namespaces=self._namespaces,
            defaults=self.defaults,
            rejected=self._rejected,
            gone=self._gone,
            unwritten=self._planned.keys(),
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
        return self._pods_of.get(uid, {}).get(name)

    def was_there(self, uid: Uid, name: str) -> bool:
        """Whether a pod that the job's status names was seen, though it may be gone."""
        return name in self._gone.get(uid, ()) or name in self._pods_of.get(uid, {})

    # --- what is dirty

    def take_dirt(self) -> Dirt:
        """What became dirty since the last call."""
        dirt = Dirt(
            jobs=frozenset(self._dirty),
            nodes=frozenset(self._dirty_nodes),
            plan=self._plan,
            everything=self._everything,
        )
        self._dirty.clear()
        self._dirty_nodes.clear()
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
        self._planned[uid] = status
        self._rejected.pop(uid, None)
        self._refresh(uid)

    def settle_status(self, uid: Uid, status: JobStatus) -> None:
        """That write has succeeded; a newer plan stays."""
        if self._planned.get(uid) is status:
            del self._planned[uid]
            self._refresh(uid)

    def drop_plan(self, uid: Uid) -> None:
        """What was planned will not be written: decide again on what the API server holds."""
        self._planned.pop(uid, None)
        self._refresh(uid)
        self.touch([uid])

    def plan_limits(self, target: Pool | Quota, status: Mapping[str, Any]) -> None:
        """A pool's or quota's status was handed to the writer: what is decided next is compared with it."""
        self._planned_limits[target.uid] = status
        self._refresh_limits(target)

    def settle_limits(self, target: Pool | Quota, status: Mapping[str, Any]) -> None:
        """That write is over; a newer plan stays."""
        if self._planned_limits.get(target.uid) is status:
            self.drop_limits(target)

    def drop_limits(self, target: Pool | Quota) -> None:
        """What was planned will not be written any more."""
        self._planned_limits.pop(target.uid, None)
        self._refresh_limits(target)

    def forget_plans(self) -> None:
        """Nothing that was decided will be written any more: go by what the API server holds."""
        self._planned.clear()
        self._planned_limits.clear()
        self._creating.clear()
        self._landings.clear()
        self._rejected.clear()
        for uid in list(self._effective):
            self._refresh(uid)
        for pool in list(self._pools.values()):
            self._refresh_limits(pool)
        for quota in list(self._quotas.values()):
            self._refresh_limits(quota)

    def begin_create(self, uid: Uid, pod: str, landing: Landing | None = None) -> None:
        """A pod's create was handed to the writer; it takes room from now on, also where it may only land."""
        self._creating[uid] = self._creating.get(uid, frozenset()) | {pod}
        if landing is not None:
            self._landings[uid, pod] = landing

    def end_create(self, uid: Uid, pod: str) -> None:
        """The outcome of a create is known: the pod was read, or it will not exist."""
        self._landings.pop((uid, pod), None)
        left = self._creating.get(uid, frozenset()) - {pod}
        if left:
            self._creating[uid] = left
        else:
            self._creating.pop(uid, None)
            self._refresh(uid)
        self.touch([uid])

    def reject(self, uid: Uid, message: str) -> None:
        """The API server refused the job's pod; kept until the job's status is decided anew."""
        if uid in self._read:
            self._rejected[uid] = message[:WORDS]
            self.touch([uid])

    # --- changes of what was read

    def _refresh(self, uid: Uid) -> None:
        read, planned = self._read.get(uid), self._planned.get(uid)
        if read is not None:
            self._effective[uid] = read if planned is None else msgspec.structs.replace(read, status=planned)
        elif uid not in self._creating:
            self._effective.pop(uid, None)

    def _job_changed(self, old: Job | None, new: Job | None) -> None:
        if old is not None and (new is None or new.uid != old.uid):
            self._forget_job(old)
        if new is not None:
            before = self._effective.get(new.uid)
            self._read[new.uid] = new
            self._refresh(new.uid)
            self._keep_gone(new.uid, self._gone.get(new.uid, frozenset()))
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
        self._rejected.pop(job.uid, None)
        last = self._effective[job.uid]
        self._planned.pop(job.uid, None)
        # A create that is under way may still take room: the job stays, deleting, until its outcome is known.
        self._effective[job.uid] = msgspec.structs.replace(last, deleting=True)
        self._refresh(job.uid)
        key = (job.namespace, job.spec.model.from_training_job)
        if (waiting := self._dependents.get(key)) is not None:
            waiting.discard(job.uid)
            if not waiting:
                del self._dependents[key]
        self.touch([job.uid])

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        if pod is None or (old is not None and new is not None and old == new):
            return
        if old is not None and (
            new is None or new.job_uid != old.job_uid or new.node != old.node or new.uid != old.uid
        ):
            self._take_out(old)
        if new is not None:
            self._put_in(new)
        elif pod.job_uid is not None:
            self._keep_gone(pod.job_uid, self._gone.get(pod.job_uid, frozenset()) | {pod.name})
        if any(p is not None and p.job_uid is not None for p in (old, new)):
            self._on_pod(old, new)
            self.touch({p.job_uid for p in (old, new) if p is not None and p.job_uid is not None})
        elif _room(old) != _room(new):
            self.touch(nodes={p.node for p in (old, new) if p is not None and p.node is not None})

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

    def _take_out(self, pod: Pod) -> None:
        if pod.job_uid is not None:
            siblings = self._pods_of.get(pod.job_uid, {})
            siblings.pop(pod.name, None)
            if not siblings:
                self._pods_of.pop(pod.job_uid, None)
        elif pod.node is not None:
            left = tuple(
                p for p in self._foreign.get(pod.node, ()) if (p.namespace, p.name) != (pod.namespace, pod.name)
            )
            if left:
                self._foreign[pod.node] = left
            else:
                self._foreign.pop(pod.node, None)

    def _put_in(self, pod: Pod) -> None:
        if pod.job_uid is not None:
            self._pods_of.setdefault(pod.job_uid, {})[pod.name] = pod
            return
        self._take_out(pod)
        if pod.node is not None and pod.live:
            self._foreign[pod.node] = (*self._foreign.get(pod.node, ()), pod)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        node = new or old
        if node is None or old == new:
            return
        if new is None:
            del self._nodes[node.name]
        else:
            self._nodes[node.name] = new
        there = (u for u, pods in self._pods_of.items() if any(p.node == node.name for p in pods.values()))
        self.touch(set(there), nodes=[node.name])

    def _pool_changed(self, old: Pool | None, new: Pool | None) -> None:
        if old is not None and (new is None or new.uid != old.uid):
            self._planned_limits.pop(old.uid, None)
        if new is not None:
            self._refresh_limits(new)
        elif old is not None:
            del self._pools[old.name]
        self._limits_changed(old, new)

    def _quota_changed(self, old: Quota | None, new: Quota | None) -> None:
        if old is not None and (new is None or new.uid != old.uid):
            self._planned_limits.pop(old.uid, None)
        if new is not None:
            self._refresh_limits(new)
        elif old is not None:
            del self._quotas[old.namespace]
        self._limits_changed(old, new)

    def _limits_changed(self, old: Pool | Quota | None, new: Pool | Quota | None) -> None:
        if old is None or new is None or (old.uid, old.generation) != (new.uid, new.generation):
            self.touch_all()

    def _refresh_limits(self, target: Pool | Quota) -> None:
        planned = self._planned_limits.get(target.uid)
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
        if old != new:
            self.touch()

    def _priority_class_changed(self, old: PriorityClass | None, new: PriorityClass | None) -> None:
        if new is not None:
            self._priority_classes[new.name] = new
        elif old is not None:
            del self._priority_classes[old.name]
        if old != new:
            self.touch_all()

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        namespace = new or old
        if namespace is None or old == new:
            return
        if new is not None:
            self._namespaces[new.name] = new
        else:
            del self._namespaces[namespace.name]
        self.touch([uid for uid, job in self._effective.items() if job.namespace == namespace.name])


def _room(pod: Pod | None) -> tuple[object, ...] | None:
    """What of a foreign pod matters to admission."""
    if pod is None or pod.node is None or not pod.live:
        return None
    return pod.node, pod.gpus, pod.cpu_milli, pod.memory_bytes


def _substance(job: Job) -> tuple[object, ...]:
    """What of a job a decision can depend on: our own write seen back changes none of it."""
    return job.generation, job.deleting, job.problems, job.status
