"""A cluster in memory: carries out the core's actions as an API server would, and lets anything go wrong.

It keeps what a server keeps (jobs with resourceVersion, pods, nodes) apart from what only the operator's process knows
(planned statuses, queued writes, creates under way), which `crash` throws away.
"""

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace
from unit.core.builders import DEFAULTS, T0, node, pool

from rfuav_operator.core import placement
from rfuav_operator.core.decide import Dirt, Scheduler, turn
from rfuav_operator.core.model import (
    Action,
    CreatePod,
    DeleteJob,
    DeletePod,
    Job,
    JobStatus,
    Kind,
    Node,
    PatchStatus,
    Pod,
    PodPhase,
    Pool,
    Report,
    Snapshot,
    Uid,
)


def skeleton(status: JobStatus) -> tuple[Any, ...]:
    """What of a status may not be told later than at once."""
    return status.phase, status.attempt, status.assignments, status.source


class Cluster:
    def __init__(self, nodes: Iterable[Node] = (), pools: Iterable[Pool] = ()) -> None:
        self.now: datetime = T0
        self.jobs: dict[Uid, Job] = {}
        self.pods: dict[str, Pod] = {}
        self.nodes = {n.name: n for n in nodes or [node()]}
        self.pools = {p.name: p for p in pools or [pool()]}
        self.foreign: dict[str, Pod] = {}
        self.version = 1
        self.wake_at: datetime | None = None
        self.ended: dict[Uid, JobStatus] = {}
        self._forget()

    # --- what only the process knows

    def _forget(self) -> None:
        self.planned: dict[Uid, JobStatus] = {}
        self.creating: dict[Uid, frozenset[str]] = {}
        self.rejected: dict[Uid, str] = {}
        self.gone: dict[Uid, Job] = {}  # deleted jobs with a create under way
        self.lanes: dict[Uid, deque[Action]] = {}
        self.ours: dict[Uid, str] = {}  # resourceVersion after our own last write
        self.dirty: set[Uid] = set(self.jobs)
        self.dirty_nodes: set[Any] = set()
        self.plan = True
        self.everything = True
        self.scheduler = Scheduler()

    def crash(self) -> None:
        self._forget()

    def snapshot(self) -> Snapshot:
        jobs = {u: replace(j, status=self.planned.get(u, j.status)) for u, j in self.jobs.items()} | self.gone
        pods_of: dict[Uid, dict[str, Pod]] = {}
        for pod in self.pods.values():
            assert pod.job_uid is not None
            pods_of.setdefault(pod.job_uid, {})[pod.name] = pod
        foreign: dict[Any, tuple[Pod, ...]] = {}
        for pod in self.foreign.values():
            foreign[pod.node] = (*foreign.get(pod.node, ()), pod)
        return Snapshot(
            jobs=jobs,
            pods_of=pods_of,
            foreign=foreign,
            creating=dict(self.creating),
            nodes=self.nodes,
            pools=self.pools,
            priority_classes={},
            defaults=DEFAULTS,
            rejected=dict(self.rejected),
        )

    def turn(self, reports: Iterable[Report] = ()) -> list[Action]:
        seen = self.snapshot()
        dirt = Dirt(jobs=set(self.dirty), nodes=set(self.dirty_nodes), plan=self.plan, everything=self.everything)
        done = self.scheduler.turn(seen, dirt, reports=list(reports), now=self.now)
        self._compare_with_one_that_knows_nothing(seen, done.actions, list(reports))
        self.dirty, self.dirty_nodes, self.plan, self.wake_at = set(), set(), False, done.wake_at
        self.everything = False
        for action in done.actions:
            match action:
                case PatchStatus(job=job, status=status):
                    self.planned[job.uid] = status
                    self.rejected.pop(job.uid, None)
                    self.lanes.setdefault(job.uid, deque()).append(action)
                case CreatePod(job_uid=uid, name=name):
                    self.creating[uid] = self.creating.get(uid, frozenset()) | {name}
                    self.lanes.setdefault(uid, deque()).append(action)
                case DeletePod(job_uid=uid) | DeleteJob(job=Job(uid=uid)):
                    self.lanes.setdefault(uid, deque()).append(action)
        return list(done.actions)

    def _compare_with_one_that_knows_nothing(
        self, seen: Snapshot, actions: Iterable[Action], reports: list[Report]
    ) -> None:
        """What is kept between turns is an index: without it the same is decided."""
        fresh = turn(seen, dirty=list(seen.jobs), reports=reports, now=self.now, plan=True)
        mine = {a.job.uid: a.status for a in actions if isinstance(a, PatchStatus)}
        for action in fresh.actions:
            if isinstance(action, PatchStatus):
                uid = action.job.uid
                kept = mine.get(uid, action.job.status)
                assert skeleton(kept) == skeleton(action.status), (uid, skeleton(kept), skeleton(action.status))

    # --- one write

    def deliver(self, uid: Uid, *, outcome: str = "ok") -> None:
        """Carry out the next write of a job. `outcome`: ok, or for a create also `lost` or `refused`."""
        lane = self.lanes.get(uid)
        if not lane:
            return
        action = lane.popleft()
        match action:
            case PatchStatus():
                self._patch(action, lane)
            case CreatePod(name=name):
                if outcome == "refused":
                    self.rejected[uid] = 'pods "x" is forbidden: exceeded quota'
                elif outcome == "ok":
                    self._create(action)
                self._end_create(uid, name)
            case DeletePod(name=name, uid=pod_uid):
                pod = self.pods.get(name)
                if pod is not None and pod.uid == pod_uid:
                    self.pods[name] = replace(pod, deleting=True)
            case DeleteJob():
                self.delete_job(uid)
        self.touch(uid)
        if not lane:
            self.ours.pop(uid, None)

    def deliver_all(self) -> None:
        for uid in list(self.lanes):
            while self.lanes.get(uid):
                self.deliver(uid)

    def _end_create(self, uid: Uid, name: str) -> None:
        left = self.creating.get(uid, frozenset()) - {name}
        self.creating[uid] = left
        if not left:
            del self.creating[uid]
            self.gone.pop(uid, None)

    def _patch(self, action: PatchStatus, lane: deque[Action]) -> None:
        uid = action.job.uid
        held = self.jobs.get(uid)
        expected = self.ours.get(uid, action.job.resource_version)
        if held is None or held.resource_version not in (expected, action.job.resource_version):
            while lane:
                dropped = lane.popleft()
                if isinstance(dropped, CreatePod):
                    self._end_create(uid, dropped.name)
            self.planned.pop(uid, None)
            return
        before = held.status.phase
        assert before is None or not before.terminal or action.status.phase is before, "a terminal job moved"
        # Through JSON and back: what the server would keep.
        stored = msgspec.json.decode(msgspec.json.encode(action.status), type=JobStatus)
        assert stored == action.status
        self._store(replace(held, status=stored))
        self.ours[uid] = self.jobs[uid].resource_version
        if self.planned.get(uid) == action.status:
            del self.planned[uid]

    def _create(self, action: CreatePod) -> None:
        owner = self.jobs.get(action.job_uid)
        if owner is None or action.name in self.pods:
            return
        meta, spec = action.manifest["metadata"], action.manifest["spec"]
        held = owner.status.assignments
        assert any(a.pod == action.name for a in held), "a pod was created before it was recorded"
        terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        need = placement.need_of(owner)
        labels = meta["labels"]
        self.pods[action.name] = Pod(
            namespace=owner.namespace,
            name=action.name,
            uid=Uid(f"pod-{action.name}-{self.version}"),
            kind=Kind(labels["rfuav.io/kind"]),
            job_uid=owner.uid,
            attempt=int(labels["rfuav.io/attempt"]),
            index=int(labels.get("rfuav.io/shard", labels.get("rfuav.io/rank", "0"))),
            wanted_node=terms[0]["matchFields"][0]["values"][0],
            created=self.now,
            gpus=int(spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", "0")),
            cpu_milli=need.cpu_milli,
            memory_bytes=need.memory_bytes,
        )

    # --- people, pods and nodes

    def touch(self, uid: Uid) -> None:
        self.dirty.add(uid)
        self.plan = True

    def _store(self, job: Job) -> None:
        self.version += 1
        self.jobs[job.uid] = replace(job, resource_version=str(self.version))
        self.touch(job.uid)

    def add(self, job: Job) -> None:
        self._store(job)

    def edit(self, uid: Uid, **spec: Any) -> None:
        held = self.jobs[uid]
        self._store(replace(held, spec=replace(held.spec, **spec), generation=held.generation + 1))

    def delete_job(self, uid: Uid) -> None:
        job = self.jobs.pop(uid, None)
        if job is None:
            return
        planned = self.planned.pop(uid, None)
        if uid in self.creating:
            self.gone[uid] = replace(job, status=planned or job.status, deleting=True)
        for pod in [p for p in self.pods.values() if p.job_uid == uid]:
            self.pods[pod.name] = replace(pod, deleting=True)
        self.touch(uid)

    def change_pod(self, name: str, **changes: Any) -> None:
        self.pods[name] = replace(self.pods[name], **changes)
        self.touch(self.pods[name].job_uid)  # type: ignore[arg-type]

    def bind(self, name: str) -> None:
        pod = self.pods[name]
        held = self.nodes.get(pod.wanted_node) if pod.wanted_node else None
        if pod.node is None and pod.live and not pod.deleting and held is not None and held.ready:
            self.change_pod(name, node=pod.wanted_node, bound_at=self.now)

    def start(self, name: str) -> None:
        self.bind(name)
        pod = self.pods[name]
        if pod.node is not None and pod.phase is PodPhase.PENDING and not pod.deleting:
            self.change_pod(name, phase=PodPhase.RUNNING, started_at=self.now, ready=True)

    def finish(self, name: str, code: int = 0, **changes: Any) -> None:
        phase = PodPhase.SUCCEEDED if code == 0 else PodPhase.FAILED
        if self.pods[name].phase is PodPhase.RUNNING:
            self.change_pod(name, phase=phase, exit_code=code, finished_at=self.now, ready=False, **changes)

    def vanish(self, name: str) -> None:
        pod = self.pods.pop(name)
        self.touch(pod.job_uid)  # type: ignore[arg-type]

    def reap(self) -> None:
        """The kubelet and the garbage collector have done their work: what was to go is gone."""
        for pod in [p for p in self.pods.values() if p.deleting]:
            self.vanish(pod.name)

    def set_node(self, held: Node | None, name: Any) -> None:
        if held is None:
            self.nodes.pop(name, None)
        else:
            if name not in self.nodes:  # a Node that was deleted comes back: what was to go there is gone by then
                for pod in [p for p in self.pods.values() if p.node == name and p.deleting]:
                    self.vanish(pod.name)
            self.nodes[name] = held
        self.plan = True
        self.dirty_nodes.add(name)
        self.dirty |= {p.job_uid for p in self.pods.values() if p.node == name and p.job_uid}

    def set_foreign(self, *pods: Pod) -> None:
        self.dirty_nodes |= {p.node for p in (*self.foreign.values(), *pods)}
        self.foreign = {p.name: p for p in pods}
        self.plan = True

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # --- what must always hold

    def check(self) -> None:
        by_node: dict[Any, list[Pod]] = {}
        units: set[tuple[Any, int]] = set()
        for pod in self.pods.values():
            if not pod.live or (pod.deleting and pod.node is not None and pod.node not in self.nodes):
                continue
            by_node.setdefault(pod.node or pod.wanted_node, []).append(pod)
            assert (pod.job_uid, pod.index) not in units, f"two pods live for one unit: {pod.name}"
            units.add((pod.job_uid, pod.index))
        for name, pods in by_node.items():
            held = self.nodes.get(name)
            if held is None:
                continue
            owner = placement.pool_of(held, self.pools.values())
            assert owner is not None
            spec = self.pools[owner].spec
            tier = placement.tier_of(held, spec.per_gpu)
            training = sum(p.gpus for p in pods if p.kind is Kind.TRAINING)
            inference = sum(p.gpus for p in pods if p.kind is Kind.INFERENCE)
            assert training <= held.gpus * tier.training, f"{name}: {training} training slots"
            assert inference <= held.gpus * tier.inference, f"{name}: {inference} inference slots"
            assert training + inference <= held.gpu_slots, f"{name}: more slots than it has"
            for kind, limit in (
                (Kind.TRAINING, spec.per_node_cpu.training),
                (Kind.INFERENCE, spec.per_node_cpu.inference),
            ):
                assert sum(p.gpus == 0 and p.kind is kind for p in pods) <= limit, f"{name}: CPU jobs"
            assert sum(p.cpu_milli for p in pods) <= held.cpu_milli, f"{name}: CPU"
            assert sum(p.memory_bytes for p in pods) <= held.memory_bytes, f"{name}: memory"
        for uid, job in self.jobs.items():
            phase = job.status.phase
            if phase is not None and phase.terminal:
                first = self.ended.setdefault(uid, job.status)
                assert replace(job.status, observed_generation=0) == replace(first, observed_generation=0)
