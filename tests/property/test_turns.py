"""Whatever happens in whatever order, crashes at any write included: limits hold, nothing doubles, everything ends."""

import random
from functools import partial

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
PEOPLE = ("suspend", "resume", "resume", "cancel", "delete", "ttl", "touch", "deadline")
CODES = (0, 0, 0, 0, 1, 1, 2, 4, 75, 75, 137)
ENDS = ("", "", "", "OOMKilled", "evicted")


class Turns:
    """What users, pods, nodes and the network may do; `turn` is the operator."""

    def __init__(self, *, shapes, placement, queueing, seed, preemption, starvation, growing):
        nodes = [
            node(f"n{i}", gpus=g, slots=s, memory_mib=m, cpu=6, memory_gi=12) for i, (g, s, m) in enumerate(shapes)
        ]
        made = pool(
            placement=placement,
            queueing=queueing,
            preemption=preemption,
            starvation_seconds=starvation,
            scale_up=ScaleUp(max_jobs=growing, timeout_seconds=300),
        )
        self.cluster = Cluster(nodes, [made])
        self.whole = dict(self.cluster.nodes)
        self.made = 0
        self.sequence = 0
        self.seen: dict[tuple[str, int], int] = {}
        # A crowd from the start, so that there is always somebody for room that is given away too early.
        chance = random.Random(seed)
        for _ in range(6):
            self._submit_any(chance)
        self._run()

    def _pick(self, things, n):
        return things[n % len(things)] if things else None

    def _pod(self, n, *phases) -> Pod | None:
        return self._pick(sorted((p for p in self.cluster.pods.values() if p.phase in phases), key=lambda p: p.name), n)

    def _job(self, n) -> Job | None:
        return self._pick(sorted(self.cluster.jobs.values(), key=lambda j: j.uid), n)

    # --- people

    def _submit_any(self, chance):
        self._submit(
            chance.choice(list(Kind)),
            chance.choice([0, 1, 1, 1, 2]),
            cpu=chance.choice(["500m", "500m", "2"]),
            backoff_limit=chance.randrange(3),
            shards=chance.choice([1, 1, 3, 5]),
            parallelism=chance.randint(1, 3),
            together=chance.choice([1, 1, 1, 2, 3]),
            team=chance.choice(TEAMS),
            rank=chance.choice(RANKS),
        )

    def _submit(
        self, kind, gpus, *, cpu="500m", backoff_limit=2, shards=1, parallelism=2, together=1, team="team", rank=""
    ):
        self.made += 1
        split = {"shards": shards, "parallelism": parallelism} if kind is Kind.INFERENCE else {"nodes": together}
        self.cluster.add(
            job(
                f"j{self.made}",
                kind=kind,
                namespace=team,
                priority_class_name=rank,
                created=self.cluster.now,
                resources=Resources(gpus=gpus, cpu=cpu, memory="1Gi"),
                backoff_limit=backoff_limit,
                **split,
            )
        )

    def people(self, n, what):
        found = self._job(n)
        if found is None:
            return
        if what == "delete":
            self.cluster.delete_job(found.uid)
        else:
            changes = {
                "suspend": {"suspend": True},
                "resume": {"suspend": False},
                "cancel": {"cancel": True},
                "touch": {"parallelism": n % 3 + 1},
                "deadline": {"active_deadline_seconds": 500},
                "ttl": {"ttl_seconds_after_finished": 100},
            }
            self.cluster.edit(found.uid, **changes[what])

    def reprioritize(self, n, rank):
        queued = [j for j in self.cluster.jobs.values() if j.status.phase is Phase.QUEUED]
        if queued:
            self.cluster.edit(self._pick(sorted(queued, key=lambda j: j.uid), n).uid, priority_class_name=rank)

    # --- quotas and the pool

    def set_quota(self, *, team, nominal, borrow, lend, jobs, policy):
        lend = None if lend is None else min(lend, nominal)
        limits = {"borrow": borrow, "lend": lend, "training": jobs, "inference": jobs, "stop_policy": policy}
        self.cluster.set_quota(quota(team, nominal, **limits))

    def remove_quota(self, team):
        self.cluster.set_quota(None, team)

    def set_default_quota(self, *, nominal, borrow, lend, given):
        lend = None if lend is None else min(lend, nominal)
        share = GpuShare(nominal=nominal, borrowing_limit=borrow, lending_limit=lend)
        self.cluster.set_pool(default_quota=PoolQuota(gpus=share) if given else None)

    def make_the_pool_again(self, seconds):
        held = self.cluster.pools.pop("default")
        self.cluster.touch_all()
        self.cluster.pass_time(seconds)
        before = self._timed_out()
        self.cluster.turn()
        self.cluster.deliver_all()
        assert self._timed_out() <= before, "a pod ran into a limit of a pool that is not there"
        self.cluster.pools["default"] = held
        self.cluster.touch_all()

    def _timed_out(self):
        limits = (reasons.SCHEDULE_TIMEOUT, reasons.START_TIMEOUT, reasons.SCALE_UP_TIMEOUT)
        held = [
            a for j in self.cluster.snapshot().jobs.values() for a in j.status.assignments
        ]  # decided, written or not
        return {a.pod for a in held if a.stopping in limits}

    def set_resource_quota(self, team, gpus):
        if gpus is None:
            self.cluster.resource_quotas.pop(team, None)
        else:
            self.cluster.resource_quotas[team] = resource_quota(team, gpus=gpus, pods=gpus + 2)
        self.cluster.plan = True

    def stop_policy(self, policy):
        self.cluster.set_pool(stop_policy=policy)

    def change_pool(self, within, reclaim, growing, queueing):
        self.cluster.set_pool(
            preemption=Preemption(within_pool=within, reclaim_borrowed=reclaim, min_runtime_seconds=60),
            scale_up=ScaleUp(max_jobs=growing, timeout_seconds=300),
            queueing=queueing,
        )

    # --- the operator and its writes

    def turn(self):
        self.cluster.turn()

    def _deliver(self, n, outcome):
        if not any(self.cluster.lanes.values()):
            return
        self.cluster.deliver(
            self._pick(sorted(u for u, lane in self.cluster.lanes.items() if lane), n), outcome=outcome
        )

    def _run(self):
        self.cluster.turn()
        self.cluster.deliver_all()
        for name in list(self.cluster.pods):
            self.cluster.start(name)

    def crash(self):
        self.cluster.crash()

    # --- pods

    def bind(self, n):
        if found := self._pod(n, PodPhase.PENDING):
            self.cluster.bind(found.name)

    def start(self, n):
        if found := self._pod(n, PodPhase.PENDING):
            self.cluster.start(found.name)

    def finish(self, n, code, how):
        found = self._pod(n, PodPhase.RUNNING)
        if found is None:
            return
        if how == "evicted":
            self.cluster.finish(found.name, 137, disrupted=True, reason="Evicted")
        else:
            self.cluster.finish(found.name, code, terminated_reason=how)

    def image_missing(self, n):
        found = self._pod(n, PodPhase.PENDING)
        if found is not None and found.node is not None:
            self.cluster.change_pod(found.name, waiting_reason="ImagePullBackOff", waiting_message="not found")

    def take_away(self, n, how):
        found = self._pod(n, *PodPhase)
        if found is None:
            return
        if how == "reap":
            self.cluster.reap()
        elif how == "vanish":
            self.cluster.vanish(found.name)
        else:
            self.cluster.change_pod(found.name, deleting=True)

    def report(self, n, step, percent):
        found = self._pod(n, PodPhase.RUNNING)
        if found is None:
            return
        self.sequence += step  # 0: a stale report
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

    def nodes(self, n, how):
        name = self._pick(sorted(self.whole), n)
        whole = self.whole[name]
        change = {
            "lost": replace(whole, ready=False),
            "deleted": None,
            "back": whole,
            "cordoned": replace(whole, unschedulable=True),
        }[how]
        self.cluster.set_node(change, name)

    def grow(self):
        """The autoscaler brings a node."""
        made = node(f"new{len(self.whole)}", gpus=2, slots=2, cpu=6, memory_gi=12)
        self.whole[made.name] = made
        self.cluster.set_node(made, made.name)

    def others(self, n, gpus):
        name = self._pick(sorted(self.whole), n)
        self.cluster.set_foreign(*([foreign_pod("x", name, gpus=gpus, cpu=1)] if gpus else []))

    def time(self, seconds):
        self.cluster.pass_time(seconds)

    # --- what must hold

    def progress_never_moves_back_within_an_attempt(self):
        for found in self.cluster.jobs.values():
            progress = found.status.progress
            if found.kind is not Kind.TRAINING or progress is None or progress.sequence is None:
                continue
            key = (found.uid, found.status.attempt)
            assert (progress.percent or 0) >= self.seen.get(key, 0)
            self.seen[key] = progress.percent or 0

    def teardown(self):
        """With room, and pods that succeed, every job comes to its end."""
        cluster = self.cluster
        cluster.set_foreign()
        cluster.resource_quotas.clear()
        for held in list(cluster.quotas.values()):  # nothing on hold, and nobody keeps what others need
            (entry,) = held.spec.pools
            entry = replace(entry, gpus=replace(entry.gpus, lending_limit=None))
            cluster.set_quota(replace(held, spec=replace(held.spec, stop_policy="None", pools=(entry,))))
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
            if not cluster.dirty and all(self._settled(j) for j in cluster.jobs.values()):
                break
        for found in cluster.jobs.values():
            assert self._settled(found), (found.name, found.status.phase, found.status.reason, found.status.message)

    def _settled(self, found):
        phase, reason = found.status.phase, found.status.reason
        never = phase is Phase.QUEUED and reason in ("NoMatchingNode", "ExceedsMaxQuota")
        return never or (phase is not None and phase.terminal)


@pytest.mark.parametrize("seed", range(16))
def test_long_walks(seed):
    """Whatever may happen, drawn by weight, in a cluster that stays crowded."""
    chance = random.Random(seed)
    shapes = [(2, 8, 24000), (1, 2, 8000)] if seed % 2 else [(1, 4, 12000)]
    policy = Preemption(
        within_pool=chance.choice(["Never", "LowerPriority"]),
        reclaim_borrowed=chance.choice(["Never", "LowerPriority", "Any"]),
        min_runtime_seconds=60,
    )
    queueing = chance.choice(["BestEffortFIFO", "BestEffortFIFO", "StrictFIFO"])
    more = {"preemption": policy, "starvation": chance.choice([0, 600]), "growing": chance.choice([0, 0, 1])}
    machine = Turns(shapes=shapes, placement=chance.choice(["Pack", "Spread"]), queueing=queueing, seed=seed, **more)
    n = partial(chance.randrange, 10**6)
    steps = [
        (6, machine.turn),
        (8, lambda: machine._deliver(n(), chance.choice(["ok", "ok", "ok", "ok", "lost", "refused"]))),
        (3, machine._run),
        (1, machine.crash),
        (2, lambda: machine.people(n(), chance.choice(PEOPLE))),
        (3, lambda: machine.bind(n())),
        (3, lambda: machine.start(n())),
        (2, lambda: machine.finish(n(), chance.choice(CODES), chance.choice(ENDS))),
        (1, lambda: machine.image_missing(n())),
        (2, lambda: machine.take_away(n(), chance.choice(["deleting", "vanish", "reap", "reap"]))),
        (2, lambda: machine.report(n(), chance.randrange(3), chance.randrange(100))),
        (1, lambda: machine.nodes(n(), chance.choice(["lost", "deleted", "cordoned", *["back"] * 10]))),
        (2, lambda: machine.time(chance.choice([1, 12, 70, 400]))),
        (1, lambda: _any_quota(machine, chance)),
        (0.3, lambda: machine.stop_policy(chance.choice(["None", "None", "None", "Hold", "HoldAndDrain"]))),
        (1, lambda: machine.reprioritize(n(), chance.choice(RANKS))),
        (0.5, lambda: machine.others(n(), chance.randrange(3))),
        (0.3, lambda: machine.set_resource_quota(chance.choice(TEAMS), chance.choice([None, None, 1, 3]))),
        (0.2, lambda: _default_quota(machine, chance)),
        (0.2, lambda: machine.make_the_pool_again(chance.choice([0, 1, 400]))),
        (0.1, lambda: len(machine.whole) < 4 and machine.grow()),
        (0.2, lambda: _any_pool(machine, chance)),
    ]
    for _ in range(400):
        waiting = sum(j.status.phase in (None, Phase.QUEUED) for j in machine.cluster.jobs.values())
        if waiting < 8:
            machine._submit_any(chance)
        _, step = chance.choices(steps, weights=[w for w, _ in steps])[0]
        if machine.cluster.pods or step in (machine.turn, machine._run, machine.crash):
            step()
        machine.cluster.check()
        machine.progress_never_moves_back_within_an_attempt()
    machine.teardown()


def _any_quota(machine, chance):
    if chance.random() < 0.3:
        machine.remove_quota(chance.choice(TEAMS))
        return
    machine.set_quota(
        team=chance.choice(TEAMS),
        nominal=chance.randrange(4),
        borrow=chance.choice([None, None, 0, 1]),
        lend=chance.choice([None, 0, 1]),
        jobs=chance.choice([None, None, 2]),
        policy="None",
    )


def _default_quota(machine, chance):
    nominal = chance.randrange(3)
    machine.set_default_quota(
        nominal=nominal,
        borrow=chance.choice([None, 0, 1]),
        lend=chance.choice([None, 0, 1]),
        given=chance.choice([True, False]),
    )


def _any_pool(machine, chance):
    machine.change_pool(
        within=chance.choice(["Never", "LowerPriority"]),
        reclaim=chance.choice(["Never", "LowerPriority", "Any"]),
        growing=chance.choice([0, 1]),
        queueing=chance.choice(["BestEffortFIFO", "StrictFIFO"]),
    )


def test_the_machine_reaches_success_and_failure():
    """The driver itself works: a job that runs ends well, one that fails for good ends badly."""
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
