"""Whatever happens in whatever order, crashes at any write included: limits hold, nothing doubles, everything ends.

Every turn's decisions are compared with those of a scheduler that knows nothing but the snapshot.
"""

import random

import pytest
from msgspec.structs import replace
from unit.core.builders import after, foreign_pod, job, node, pool, quota, resource_quota
from unit.core.cluster import Cluster

from rfuav_crds import reasons
from rfuav_operator.core.model import (
    GpuShare,
    Job,
    Kind,
    Phase,
    Pod,
    PodPhase,
    PoolQuota,
    Preemption,
    Progress,
    Report,
    Resources,
    ScaleUp,
)

TEAMS = ("team", "other", "third")
RANKS = ("", "", "low", "high")
SMALL = {"cpu": 6, "memory_gi": 12}
EDITS = {
    "suspend": {"suspend": True},
    "resume": {"suspend": False},
    "cancel": {"cancel": True},
    "deadline": {"active_deadline_seconds": 500},
    "ttl": {"ttl_seconds_after_finished": 100},
}


class Walk:
    """A cluster that stays crowded, and what users, pods, nodes and the network do to it at random."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.pick, self.below = self.chance.choice, self.chance.randrange
        shapes = [(2, 8, 24000), (1, 2, 8000)] if seed % 2 else [(1, 4, 12000)]
        nodes = [node(f"n{i}", gpus=g, slots=s, memory_mib=m, **SMALL) for i, (g, s, m) in enumerate(shapes)]
        made = pool(placement=self.pick(["Pack", "Spread"]), starvation_seconds=self.pick([0, 600]))
        self.cluster = Cluster(nodes, [made])
        self.whole = dict(self.cluster.nodes)
        self.made = 0
        self.sequence = 0
        self.seen: dict[tuple[str, int], int] = {}
        self.change_pool()
        for _ in range(6):  # so that there is always somebody for room that is given away too early
            self.submit()
        self.settle()

    def step(self) -> None:
        """One thing that may happen, drawn by its weight."""
        if sum(j.status.phase in (None, Phase.QUEUED) for j in self.cluster.jobs.values()) < 8:
            self.submit()
        what = self.chance.choices(list(WEIGHTS), weights=list(WEIGHTS.values()))[0]
        what(self)
        self.cluster.check()
        self._progress_never_moves_back_within_an_attempt()

    def _pod(self, *phases: PodPhase) -> Pod | None:
        found = sorted((p for p in self.cluster.pods.values() if p.phase in phases), key=lambda p: p.name)
        return self.pick(found) if found else None

    def _job(self, *phases: Phase) -> Job | None:
        found = sorted(
            (j for j in self.cluster.jobs.values() if not phases or j.status.phase in phases), key=lambda j: j.uid
        )
        return self.pick(found) if found else None

    # --- people

    def submit(self) -> None:
        self.made += 1
        kind = self.pick(list(Kind))
        split = {"nodes": self.pick([1, 1, 1, 2, 3])}
        if kind is Kind.INFERENCE:
            split = {"shards": self.pick([1, 1, 3, 5]), "parallelism": self.chance.randint(1, 3)}
        self.cluster.add(
            job(
                f"j{self.made}",
                kind=kind,
                namespace=self.pick(TEAMS),
                priority_class_name=self.pick(RANKS),
                created=self.cluster.now,
                resources=Resources(
                    gpus=self.pick([0, 1, 1, 1, 2]), cpu=self.pick(["500m", "500m", "2"]), memory="1Gi"
                ),
                backoff_limit=self.below(3),
                **split,
            )
        )

    def edit(self) -> None:
        if found := self._job():
            what = self.pick(["suspend", "resume", "resume", "cancel", "delete", "ttl", "touch", "deadline"])
            if what == "delete":
                self.cluster.delete_job(found.uid)
            else:
                self.cluster.edit(found.uid, **EDITS.get(what, {"parallelism": self.below(3) + 1}))

    def reprioritize(self) -> None:
        if found := self._job(Phase.QUEUED):
            self.cluster.edit(found.uid, priority_class_name=self.pick(RANKS))

    # --- quotas and the pool

    def change_quota(self) -> None:
        team, nominal = self.pick(TEAMS), self.below(4)
        if self.chance.random() < 0.3:
            self.cluster.set_quota(None, team)
            return
        lend, most = self.pick([None, 0, min(1, nominal)]), self.pick([None, None, 2])
        borrow = self.pick([None, None, 0, 1])
        self.cluster.set_quota(quota(team, nominal, borrow=borrow, lend=lend, training=most, inference=most))

    def change_default_quota(self) -> None:
        nominal = self.below(3)
        lend = self.pick([None, 0, min(1, nominal)])
        share = GpuShare(nominal=nominal, borrowing_limit=self.pick([None, 0, 1]), lending_limit=lend)
        self.cluster.set_pool(default_quota=self.pick([PoolQuota(gpus=share), None]))

    def change_resource_quota(self) -> None:
        team, gpus = self.pick(TEAMS), self.pick([None, None, 1, 3])
        self.cluster.resource_quotas.pop(team, None)
        if gpus is not None:
            self.cluster.resource_quotas[team] = resource_quota(team, gpus=gpus, pods=gpus + 2)
        self.cluster.plan = True

    def change_stop_policy(self) -> None:
        self.cluster.set_pool(stop_policy=self.pick(["None", "None", "None", "Hold", "HoldAndDrain"]))

    def change_pool(self) -> None:
        self.cluster.set_pool(
            preemption=Preemption(
                within_pool=self.pick(["Never", "LowerPriority"]),
                reclaim_borrowed=self.pick(["Never", "LowerPriority", "Any"]),
                min_runtime_seconds=60,
            ),
            scale_up=ScaleUp(max_jobs=self.pick([0, 0, 1]), timeout_seconds=300),
            queueing=self.pick(["BestEffortFIFO", "BestEffortFIFO", "StrictFIFO"]),
        )

    def make_the_pool_again(self) -> None:
        held = self.cluster.pools.pop("default")
        self.cluster.touch_all()
        self.cluster.pass_time(self.pick([0, 1, 400]))
        before = self._timed_out()
        self.cluster.turn()
        self.cluster.deliver_all()
        assert self._timed_out() <= before, "a pod ran into a limit of a pool that is not there"
        self.cluster.pools["default"] = held
        self.cluster.touch_all()

    def _timed_out(self) -> set[str]:
        limits = (reasons.SCHEDULE_TIMEOUT, reasons.START_TIMEOUT, reasons.SCALE_UP_TIMEOUT)
        decided = self.cluster.snapshot().jobs.values()  # written or not
        return {a.pod for j in decided for a in j.status.assignments if a.stopping in limits}

    # --- the operator and its writes

    def turn(self) -> None:
        self.cluster.turn()

    def deliver(self) -> None:
        if lanes := sorted(uid for uid, lane in self.cluster.lanes.items() if lane):
            self.cluster.deliver(self.pick(lanes), outcome=self.pick(["ok", "ok", "ok", "ok", "lost", "refused"]))

    def settle(self) -> None:
        self.cluster.turn()
        self.cluster.deliver_all()
        for name in list(self.cluster.pods):
            self.cluster.start(name)

    def crash(self) -> None:
        self.cluster.crash()

    # --- pods

    def bind(self) -> None:
        if found := self._pod(PodPhase.PENDING):
            self.cluster.bind(found.name)

    def start(self) -> None:
        if found := self._pod(PodPhase.PENDING):
            self.cluster.start(found.name)

    def finish(self) -> None:
        if found := self._pod(PodPhase.RUNNING):
            how = self.pick(["", "", "", "OOMKilled", "evicted"])
            if how == "evicted":
                self.cluster.finish(found.name, 137, disrupted=True, reason="Evicted")
            else:
                code = self.pick([0, 0, 0, 0, 1, 1, 2, 4, 75, 75, 137])
                self.cluster.finish(found.name, code, terminated_reason=how)

    def miss_the_image(self) -> None:
        found = self._pod(PodPhase.PENDING)
        if found is not None and found.node is not None:
            self.cluster.change_pod(found.name, waiting_reason="ImagePullBackOff", waiting_message="not found")

    def take_away(self) -> None:
        if found := self._pod(*PodPhase):
            match self.pick(["deleting", "vanish", "reap", "reap"]):
                case "reap":
                    self.cluster.reap()
                case "vanish":
                    self.cluster.vanish(found.name)
                case _:
                    self.cluster.change_pod(found.name, deleting=True)

    def report(self) -> None:
        if found := self._pod(PodPhase.RUNNING):
            self.sequence += self.below(3)  # 0: a stale report
            percent = self.below(100)
            told = Report(
                job_uid=found.job_uid,
                pod=found.name,
                attempt=found.attempt,
                index=found.index,
                sequence=self.sequence,
                progress=Progress(percent=percent, epoch=percent),
                received_at=self.cluster.now,
            )
            self.cluster.turn([told])

    # --- nodes and others

    def change_node(self) -> None:
        name = self.pick(sorted(self.whole))
        whole = self.whole[name]
        bad = [replace(whole, ready=False), None, replace(whole, unschedulable=True)]
        self.cluster.set_node(self.pick([*bad, *[whole] * 10]), name)

    def grow(self) -> None:
        """The autoscaler brings a node."""
        if len(self.whole) < 4:
            made = node(f"new{len(self.whole)}", gpus=2, slots=2, **SMALL)
            self.whole[made.name] = made
            self.cluster.set_node(made, made.name)

    def change_others(self) -> None:
        name, gpus = self.pick(sorted(self.whole)), self.below(3)
        self.cluster.set_foreign(*([foreign_pod("x", name, gpus=gpus, cpu=1)] if gpus else []))

    def pass_time(self) -> None:
        self.cluster.pass_time(self.pick([1, 12, 70, 400]))

    # --- what must hold

    def _progress_never_moves_back_within_an_attempt(self) -> None:
        for found in self.cluster.jobs.values():
            progress = found.status.progress
            if found.kind is not Kind.TRAINING or progress is None or progress.sequence is None:
                continue
            key = (found.uid, found.status.attempt)
            assert (progress.percent or 0) >= self.seen.get(key, 0)
            self.seen[key] = progress.percent or 0

    def end(self) -> None:
        """With room, and pods that succeed, every job comes to its end."""
        cluster = self.cluster
        cluster.set_foreign()
        cluster.resource_quotas.clear()
        for held in list(cluster.quotas.values()):  # nobody keeps what others need
            (entry,) = held.spec.pools
            entry = replace(entry, gpus=replace(entry.gpus, lending_limit=None))
            cluster.set_quota(replace(held, spec=replace(held.spec, pools=(entry,))))
        cluster.set_pool(stop_policy="None", scale_up=ScaleUp(), default_quota=None)
        for name, whole in self.whole.items():
            cluster.set_node(whole, name)
        for found in list(cluster.jobs.values()):
            cluster.edit(found.uid, suspend=False, ttl_seconds_after_finished=None)
        for _ in range(60 + 25 * self.made):
            cluster.turn()
            cluster.deliver_all()
            cluster.check()
            cluster.reap()
            for name, found in list(cluster.pods.items()):
                if found.waiting_reason:
                    cluster.change_pod(name, waiting_reason="", waiting_message="")
                cluster.start(name)
                cluster.finish(name)
            if not any(cluster.dirty) and cluster.wake_at is not None:
                cluster.now = max(cluster.now, cluster.wake_at)
            if not cluster.dirty and all(map(settled, cluster.jobs.values())):
                break
        for found in cluster.jobs.values():
            assert settled(found), (found.name, found.status.phase, found.status.reason, found.status.message)


def settled(found: Job) -> bool:
    """Whether it has ended, or can never run."""
    phase, reason = found.status.phase, found.status.reason
    never = phase is Phase.QUEUED and reason in (reasons.NO_MATCHING_NODE, reasons.EXCEEDS_MAX_QUOTA)
    return never or (phase is not None and phase.terminal)


WEIGHTS = {
    Walk.turn: 6,
    Walk.deliver: 8,
    Walk.settle: 3,
    Walk.crash: 1,
    Walk.edit: 2,
    Walk.bind: 3,
    Walk.start: 3,
    Walk.finish: 2,
    Walk.miss_the_image: 1,
    Walk.take_away: 2,
    Walk.report: 2,
    Walk.change_node: 1,
    Walk.pass_time: 2,
    Walk.change_quota: 1,
    Walk.change_stop_policy: 0.3,
    Walk.reprioritize: 1,
    Walk.change_others: 0.5,
    Walk.change_resource_quota: 0.3,
    Walk.change_default_quota: 0.2,
    Walk.make_the_pool_again: 0.2,
    Walk.grow: 0.1,
    Walk.change_pool: 0.2,
}


@pytest.mark.parametrize("seed", range(16))
def test_long_walks(seed):
    walk = Walk(seed)
    for _ in range(400):
        walk.step()
    walk.end()


def test_jobs_of_the_cluster_in_memory_succeed_and_fail():
    """Else nothing else here says anything."""
    cluster = Cluster()
    cluster.add(job("good", created=after(0)))
    cluster.add(job("bad", created=after(1)))
    for _ in range(4):
        cluster.turn()
        cluster.deliver_all()
        for name in list(cluster.pods):
            cluster.start(name)
            cluster.turn()
            cluster.finish(name, 2 if name.startswith("bad") else 0)
    phases = {j.name: j.status.phase for j in cluster.jobs.values()}
    assert phases == {"good": Phase.SUCCEEDED, "bad": Phase.FAILED}
