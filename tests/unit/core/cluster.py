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
from unit.core.builders import CLASSES, DEFAULTS, T0, claim, node, pool

from rfuav_crds import contract
from rfuav_operator.core.capacity import room
from rfuav_operator.core.job import phases
from rfuav_operator.core.model import (
    Action,
    Claim,
    CreatePod,
    DeleteJob,
    DeletePod,
    Job,
    JobStatus,
    Kind,
    Landing,
    Node,
    NodeName,
    PatchStatus,
    Phase,
    Pod,
    PodPhase,
    Pool,
    PoolQuota,
    Quota,
    Report,
    ResourceQuota,
    Snapshot,
    Uid,
    Volume,
)
from rfuav_operator.core.scheduler import Changes, Scheduler, turn

Owned = tuple[Job, int]  # whose pod, and its GPUs


def skeleton(status: JobStatus) -> tuple[Any, ...]:
    """What of a status may not be told later than at once."""
    return status.phase, status.attempt, status.assignments, status.source


class Cluster:
    def __init__(
        self,
        nodes: Iterable[Node] = (),
        pools: Iterable[Pool] = (),
        *,
        quotas: Iterable[Quota] = (),
        resource_quotas: Iterable[ResourceQuota] = (),
        claims: Iterable[Claim] | None = None,
        volumes: Iterable[Volume] = (),
        compare: bool = True,
    ) -> None:
        self.now: datetime = T0
        self.jobs: dict[Uid, Job] = {}
        self.pods: dict[str, Pod] = {}
        self.nodes = {n.name: n for n in nodes or [node()]}
        self.pools = {p.name: p for p in pools or [pool()]}
        self.quotas = {q.namespace: q for q in quotas}
        self.resource_quotas = {q.namespace: q for q in resource_quotas}
        made = [claim("m"), claim("models")] if claims is None else claims
        self.claims = {(c.namespace, c.name): c for c in made}
        self.volumes = {v.name: v for v in volumes}
        self.compare = compare
        self.foreign: dict[str, Pod] = {}
        self.landings: dict[str, Landing] = {}  # pods without a node of their own: where they may land
        self.version = 1
        self.wake_at: datetime | None = None
        self.ended: dict[Uid, JobStatus] = {}
        self._forget()

    # --- what only the process knows

    def _forget(self) -> None:
        self.planned: dict[Uid, JobStatus] = {}
        self.creating: dict[Uid, frozenset[str]] = {}
        self.landing: dict[tuple[Uid, str], Landing] = {}  # of those creates
        self.rejected: dict[Uid, str] = {}
        self.vanished: dict[Uid, frozenset[str]] = {}  # pods that were seen and are there no more
        self.gone: dict[Uid, Job] = {}  # deleted jobs with a create under way
        self.lanes: dict[Uid, deque[Action]] = {}
        self.ours: dict[Uid, str] = {}  # resourceVersion after our own last write
        self.dirty: set[Uid] = set(self.jobs)
        self.dirty_nodes: set[Any] = set()
        self.plan = True
        self.everything = True
        self.seen_quotas: dict[str, dict[str, ResourceQuota]] = {}
        self.scheduler = Scheduler()
        self.spins = 0  # turns in a row that did nothing and wanted the next at once

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
            on = pod.node or pod.wanted_node
            foreign[on] = (*foreign.get(on, ()), pod)
        return Snapshot(
            jobs=jobs,
            pods_of=pods_of,
            foreign=foreign,
            creating=dict(self.creating),
            landings=dict(self.landing),
            nodes=self.nodes,
            pools=self.pools,
            quotas=self.quotas,
            resource_quotas={ns: {q.name: replace(q, used=self._used(q))} for ns, q in self.resource_quotas.items()},
            priority_classes=CLASSES,
            claims=self.claims,
            volumes=self.volumes,
            defaults=DEFAULTS,
            rejected=dict(self.rejected),
            unwritten=frozenset(self.planned),
            gone=dict(self.vanished),
        )

    def turn(self, reports: Iterable[Report] = ()) -> list[Action]:
        seen, before = self.snapshot(), self.held()
        quotas = seen.resource_quotas
        dirt = Changes(
            jobs=set(self.dirty),
            nodes=set(self.dirty_nodes),
            namespaces={ns for ns in {*quotas, *self.seen_quotas} if quotas.get(ns) != self.seen_quotas.get(ns)},
            plan=self.plan or quotas != self.seen_quotas,
            everything=self.everything,
        )
        self.seen_quotas = quotas
        done = self.scheduler.turn(seen, dirt, reports=list(reports), now=self.now)
        if self.compare:
            self._compare_with_one_that_knows_nothing(seen, done.actions, list(reports))
        self.dirty, self.dirty_nodes, self.plan, self.wake_at = set(), set(), False, done.wake_at
        self.everything = False
        at_once = done.wake_at is not None and done.wake_at - self.now <= timedelta(milliseconds=1)
        self.spins = self.spins + 1 if at_once and not done.actions else 0
        assert self.spins < 3, "it turns round and round"
        for action in done.actions:
            match action:
                case PatchStatus(job=job, status=status):
                    assert not list(phases.broken(status)), (job.name, status)
                    self.planned[job.uid] = status
                    self.rejected.pop(job.uid, None)
                    self.lanes.setdefault(job.uid, deque()).append(action)
                case CreatePod(job_uid=uid, name=name, landing=landing):
                    self.creating[uid] = self.creating.get(uid, frozenset()) | {name}
                    if landing is not None:
                        self.landing[uid, name] = landing
                    self.lanes.setdefault(uid, deque()).append(action)
                case DeletePod(job_uid=uid) | DeleteJob(job=Job(uid=uid)):
                    self.lanes.setdefault(uid, deque()).append(action)
        self._check_quotas(before, self.held())
        return list(done.actions)

    def _compare_with_one_that_knows_nothing(
        self, seen: Snapshot, actions: Iterable[Action], reports: list[Report]
    ) -> None:
        """What is kept between turns is an index: without it the same is decided."""
        fresh = turn(seen, changed=list(seen.jobs), reports=reports, now=self.now, plan=True)
        mine, theirs = (
            {a.job.uid: a.status for a in made if isinstance(a, PatchStatus)} for made in (actions, fresh.actions)
        )
        for uid in mine.keys() | theirs.keys():
            ours, other = (skeleton(made.get(uid, seen.jobs[uid].status)) for made in (mine, theirs))
            assert ours == other, (uid, ours, other)

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
        self.landing.pop((uid, name), None)
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
        required = "requiredDuringSchedulingIgnoredDuringExecution"
        affinity = spec.get("affinity", {}).get("nodeAffinity", {}).get(required)
        fields = affinity["nodeSelectorTerms"][0]["matchFields"] if affinity else []
        wanted = next((f["values"][0] for f in fields if f["operator"] == "In"), None)
        barred: frozenset[str] = frozenset()
        if wanted is None:
            apart = spec["affinity"]["podAntiAffinity"][required]
            expressions = [e for term in apart for e in term["labelSelector"]["matchExpressions"]]
            barred = frozenset(v for e in expressions if e["key"] == contract.LABEL_NODE for v in e["values"])
            assert action.landing is not None
            assert action.landing.barred == barred
            assert dict(action.landing.selector) == spec.get("nodeSelector", {})
            self.landings[action.name] = action.landing
        labels = meta["labels"]
        self.pods[action.name] = Pod(
            namespace=owner.namespace,
            name=action.name,
            uid=Uid(f"pod-{action.name}-{self.version}"),
            kind=Kind(labels[contract.LABEL_KIND]),
            pool=labels[contract.LABEL_POOL],
            job_uid=owner.uid,
            attempt=int(labels[contract.LABEL_ATTEMPT]),
            index=int(labels.get(contract.LABEL_SHARD, labels.get(contract.LABEL_RANK, "0"))),
            wanted_node=wanted,
            landing=action.landing,
            for_new_node=action.landing is not None,
            created=self.now,
            requests=replace(
                room.shape_of(owner).requests,
                slots=int(spec["containers"][0]["resources"]["limits"].get(contract.GPU, "0")),
            ),
            claims=owner.claims,
        )

    # --- people, pods and nodes

    def touch(self, uid: Uid) -> None:
        self.dirty.add(uid)
        self.plan = True

    def _store(self, job: Job) -> None:
        self.version += 1
        self.jobs[job.uid] = replace(job, resource_version=str(self.version))
        self.touch(job.uid)
        self._touch_dependents(job)

    def _touch_dependents(self, job: Job) -> None:
        for other in self.jobs.values():
            if other.namespace == job.namespace and other.spec.model.from_training_job == job.name:
                self.touch(other.uid)

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
        self._touch_dependents(job)

    def change_pod(self, name: str, **changes: Any) -> None:
        self.pods[name] = replace(self.pods[name], **changes)
        self.touch(self.pods[name].job_uid)  # type: ignore[arg-type]

    def bind(self, name: str) -> None:
        pod = self.pods[name]
        held = self.nodes.get(pod.wanted_node or self._new_node_for(pod))
        if pod.node is None and pod.live and not pod.deleting and held is not None and held.ready:
            alone = pod.landing is not None and pod.landing.keeps_off(held)
            self.change_pod(name, node=held.name, bound_at=self.now, bars=True, alone=alone, landing=None)

    def _new_node_for(self, pod: Pod) -> NodeName:
        """Where the scheduler puts a pod that waits for a node to come: it knows slots, and nothing of our limits."""
        there = [p for p in self.pods.values() if p.live and p.node is not None]
        for name, held in sorted(self.nodes.items()):
            mine = [p for p in there if p.node == name]
            others = [p for p in self.foreign.values() if p.node == name]
            fits = all(
                sum(getattr(p.requests, what) for p in (*mine, *others, pod)) <= getattr(held.allocatable, what)
                for what in ("slots", "cpu_milli")
            )
            landing = self.landings[pod.name]
            alone = not any(p.name in self.landings or landing.keeps_off(held) for p in mine)
            if fits and alone and held.ready and landing.may_be(held):
                return name
        return NodeName("")

    def start(self, name: str) -> None:
        self.bind(name)
        pod = self.pods[name]
        if pod.node is not None and pod.phase is PodPhase.PENDING and not pod.deleting:
            self.change_pod(name, phase=PodPhase.RUNNING, started_at=self.now)

    def finish(self, name: str, code: int = 0, **changes: Any) -> None:
        phase = PodPhase.SUCCEEDED if code == 0 else PodPhase.FAILED
        if self.pods[name].phase is PodPhase.RUNNING:
            self.change_pod(name, phase=phase, exit_code=code, finished_at=self.now, **changes)

    def vanish(self, name: str) -> None:
        pod = self.pods.pop(name)
        assert pod.job_uid is not None
        self.vanished[pod.job_uid] = self.vanished.get(pod.job_uid, frozenset()) | {name}
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

    def set_quota(self, made: Quota | None, namespace: str = "") -> None:
        if made is None:
            self.quotas.pop(namespace, None)
        else:
            self.quotas[made.namespace] = made
        self.touch_all()

    def set_pool(self, name: str = "default", **spec: Any) -> None:
        held = self.pools[name]
        self.pools[name] = replace(held, spec=replace(held.spec, **spec), generation=held.generation + 1)
        self.touch_all()

    def touch_all(self) -> None:
        self.dirty |= set(self.jobs)
        self.plan = self.everything = True

    def set_foreign(self, *pods: Pod) -> None:
        self.dirty_nodes |= {p.node or p.wanted_node for p in (*self.foreign.values(), *pods)}
        self.foreign = {p.name: p for p in pods}
        self.plan = True

    def set_claim(self, made: Claim) -> None:
        self.claims[made.namespace, made.name] = made
        for job in self.jobs.values():
            if job.namespace == made.namespace and made.name in job.claims:
                self.touch(job.uid)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # --- for tests that tell a story

    def go(self, seconds: float = 0) -> "Cluster":
        """Time passes; then turns and writes until nothing is left to do."""
        self.pass_time(seconds)
        for _ in range(30):
            actions = self.turn()
            self.deliver_all()
            self.check()
            if not actions and not self.dirty:
                self.check(settled=True)
                return self
        raise AssertionError("it does not come to rest")

    def start_all(self) -> "Cluster":
        for name in list(self.pods):
            self.start(name)
        return self.go()

    def leave(self) -> "Cluster":
        """Pods that were told to stop have saved a checkpoint and are gone."""
        self.reap()
        return self.go()

    def named(self, name: str) -> Job:
        return next(j for j in self.jobs.values() if j.name == name)

    def status(self, name: str) -> JobStatus:
        return self.named(name).status

    def pods_of(self, name: str) -> list[Pod]:
        return sorted((p for p in self.pods.values() if p.job_uid == self.named(name).uid), key=lambda p: p.name)

    def running(self) -> set[str]:
        """Names of the jobs that are admitted."""
        return {j.name for j in self.jobs.values() if j.status.phase in (Phase.ADMITTED, Phase.RUNNING)}

    # --- quotas, counted apart from the core

    def held(self) -> dict[str, Owned]:
        """Every pod that lives or is to live, by name: recorded, created, or on its way."""
        found: dict[str, Owned] = {}
        jobs = self.snapshot().jobs
        for job in jobs.values():
            active = job.status.phase in (Phase.ADMITTED, Phase.RUNNING) and not job.deleting
            for a in job.status.assignments:
                pod = self.pods.get(a.pod)
                if (active or a.pod in self.creating.get(job.uid, ())) and (pod is None or pod.live):
                    found[a.pod] = job, a.gpus
        for pod in self.pods.values():
            if pod.live and pod.job_uid in jobs and not self._is_dead(pod):
                found.setdefault(pod.name, (jobs[pod.job_uid], pod.gpus))
        return found

    def _is_dead(self, pod: Pod) -> bool:
        return pod.deleting and pod.node is not None and pod.node not in self.nodes

    def _used(self, quota: ResourceQuota) -> dict[str, int]:
        mine = [p for p in self.pods.values() if p.namespace == quota.namespace and p.live]
        amounts = {"pods": len(mine), "requests.nvidia.com/gpu": sum(p.gpus for p in mine)}
        amounts |= {
            "requests.cpu": sum(p.requests.cpu_milli for p in mine),
            "requests.memory": sum(p.requests.memory for p in mine),
        }
        return {key: amounts[key] for key in quota.hard}

    def _check_quotas(self, before: dict[str, Owned], after: dict[str, Owned]) -> None:
        """What was admitted in this turn is within the quotas; what ran before may be beyond quotas that shrank."""
        fresh = {name: held for name, held in after.items() if name not in before}
        for pool_name, namespace in {(j.spec.pool, j.namespace) for j, _ in fresh.values()}:
            mine = [h for h in after.values() if (h[0].spec.pool, h[0].namespace) == (pool_name, namespace)]
            new = [h for h in fresh.values() if (h[0].spec.pool, h[0].namespace) == (pool_name, namespace)]
            quota = self.quotas.get(namespace)
            default = self.pools[pool_name].spec.default_quota or PoolQuota()
            entry = next((e for e in quota.spec.pools if e.name == pool_name), default) if quota else default
            used, limit = sum(gpus for _, gpus in mine), entry.gpus.borrowing_limit
            if limit is not None and any(gpus for _, gpus in new):
                assert used <= entry.gpus.nominal + limit, f"{namespace} uses {used}"
            for kind, most in ((Kind.TRAINING, entry.max_training_jobs), (Kind.INFERENCE, entry.max_inference_jobs)):
                ran = {j.uid for j, _ in before.values()}
                if most is not None and any(j.kind is kind and j.uid not in ran for j, _ in new):
                    count = len({j.uid for j, _ in mine if j.kind is kind})
                    assert count <= most, f"{namespace} runs {count} {kind}s"
            if (hard := self.resource_quotas.get(namespace)) is not None:
                everywhere = [h for h in after.values() if h[0].namespace == namespace]
                counts = {"pods": len(everywhere)}
                if any(gpus for _, gpus in new):
                    counts["requests.nvidia.com/gpu"] = sum(gpus for _, gpus in everywhere)
                for key, count in counts.items():
                    assert count <= hard.hard.get(key, count), f"{namespace}: {count} {key}, new {sorted(fresh)}"

    # --- what must always hold

    def check(self, *, settled: bool = False) -> None:
        """`settled`: a pod that came to a node unasked, whose place others had been given, has been told to stop."""
        by_node: dict[Any, list[Pod]] = {}
        units: set[tuple[Any, int]] = set()
        for pod in self.pods.values():
            if not pod.live or self._is_dead(pod):
                continue
            if pod.node is not None or not pod.deleting:  # else no scheduler binds it any more
                by_node.setdefault(pod.node or pod.wanted_node, []).append(pod)
            assert (pod.job_uid, pod.index) not in units, f"two pods live for one unit: {pod.name}"
            units.add((pod.job_uid, pod.index))
        for name, pods in by_node.items():
            held = self.nodes.get(name)
            if held is None:
                continue
            owner = room.pool_of(held, self.pools.values())
            if owner is None:  # its pool was deleted: nothing new goes there
                continue
            spec = self.pools[owner].spec
            tier = room.tier_of(held, spec.per_gpu)
            most = {Kind.TRAINING: held.gpus * tier.training, Kind.INFERENCE: held.gpus * tier.inference}
            # A node on which a pod landed that is not for it, or has no room for it, is left at once, which takes a turn.
            pods = [  # noqa: PLW2901
                p
                for p in pods
                if p.name not in self.landings or p.kind is None or (p.gpus <= most[p.kind] and not p.deleting)
                if settled or not p.alone
            ]
            training = sum(p.gpus for p in pods if p.kind is Kind.TRAINING)
            inference = sum(p.gpus for p in pods if p.kind is Kind.INFERENCE)
            assert training <= most[Kind.TRAINING], f"{name}: {training} training slots"
            assert inference <= most[Kind.INFERENCE], f"{name}: {inference} inference slots"
            assert training + inference <= held.gpu_slots, f"{name}: more slots than it has"
            for kind, limit in (
                (Kind.TRAINING, spec.per_node_cpu.training),
                (Kind.INFERENCE, spec.per_node_cpu.inference),
            ):
                assert sum(p.gpus == 0 and p.kind is kind for p in pods) <= limit, f"{name}: CPU jobs"
            assert sum(p.requests.cpu_milli for p in pods) <= held.allocatable.cpu_milli, f"{name}: CPU"
            assert sum(p.requests.memory for p in pods) <= held.allocatable.memory, f"{name}: memory"
        for uid, job in self.jobs.items():
            phase = job.status.phase
            if job.spec.nodes > 1:
                self._check_gang(job)
            if phase is not None and phase.terminal:
                first = self.ended.setdefault(uid, job.status)
                assert replace(job.status, observed_generation=0) == replace(first, observed_generation=0)

    def _check_gang(self, job: Job) -> None:
        """All pods or none are recorded, each on a node of its own, and all live ones are of one attempt."""
        held = job.status.assignments
        done = {p.name for p in self.pods.values() if not p.live}
        lives = [a for a in held if not a.stopping and a.pod not in done]
        assert not lives or len(held) == job.spec.nodes, f"{job.name}: {len(held)} pods"
        nodes = [a.node for a in held if a.node and a.pod not in done]
        assert len(set(nodes)) == len(nodes), f"{job.name}: two pods on one node"
        attempts = {p.attempt for p in self.pods.values() if p.job_uid == job.uid and p.live and not self._is_dead(p)}
        assert len(attempts) <= 1, f"{job.name}: attempts {attempts} live together"
