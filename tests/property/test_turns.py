"""Whatever happens in whatever order, crashes at any write included: limits hold, nothing doubles, everything ends."""

import os
import random
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Step
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
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
STOPPED = ("None", "None", "Hold", "HoldAndDrain")
CODES = st.sampled_from([0, 0, 0, 1, 1, 2, 4, 75, 137])
PICK = st.integers(0, 10**6)


class Turns(RuleBasedStateMachine):
    """Rules are what users, pods, nodes and the network may do; `turn` is the operator."""

    @initialize(
        shapes=st.lists(
            st.sampled_from([(2, 8, 24000), (1, 4, 12000), (1, 2, 8000), (2, 2, 80000), (0, 0, None)]),
            min_size=1,
            max_size=2,
        ),
        seed=PICK,
        placement=st.sampled_from(["Pack", "Spread"]),
        queueing=st.sampled_from(["BestEffortFIFO", "BestEffortFIFO", "StrictFIFO"]),
        preemption=st.builds(
            Preemption,
            within_pool=st.sampled_from(["Never", "LowerPriority"]),
            reclaim_borrowed=st.sampled_from(["Never", "LowerPriority", "Any"]),
            min_runtime_seconds=st.sampled_from([0, 60]),
        ),
        starvation=st.sampled_from([0, 60, 1800]),
        growing=st.sampled_from([0, 0, 2]),
    )
    def begin(self, *, shapes, placement, queueing, seed, preemption, starvation, growing):
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

    @rule(
        kind=st.sampled_from(Kind),
        gpus=st.sampled_from([0, 1, 1, 1, 2]),
        cpu=st.sampled_from(["500m", "2"]),
        shards=st.sampled_from([1, 1, 2, 5]),
        parallelism=st.integers(1, 3),
        backoff_limit=st.integers(0, 2),
        together=st.sampled_from([1, 1, 1, 2, 3]),
        team=st.sampled_from(TEAMS),
        rank=st.sampled_from(RANKS),
    )
    def submit(self, *, kind, gpus, cpu, shards, parallelism, backoff_limit, together, team, rank):
        split = {"shards": shards, "parallelism": parallelism}
        who = {"together": together, "team": team, "rank": rank}
        self._submit(kind, gpus, cpu=cpu, backoff_limit=backoff_limit, **split, **who)

    def _submit_any(self, chance):
        self._submit(
            chance.choice(list(Kind)),
            chance.choice([0, 1, 1, 1, 2]),
            shards=chance.choice([1, 1, 3]),
            together=chance.choice([1, 1, 1, 2]),
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

    @precondition(lambda self: self.cluster.jobs)
    @rule(n=PICK, what=st.sampled_from(["suspend", "resume", "resume", "cancel", "delete", "touch", "deadline", "ttl"]))
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

    @precondition(lambda self: any(j.status.phase is Phase.QUEUED for j in self.cluster.jobs.values()))
    @rule(n=PICK, rank=st.sampled_from(RANKS))
    def reprioritize(self, n, rank):
        queued = [j for j in self.cluster.jobs.values() if j.status.phase is Phase.QUEUED]
        if queued:
            self.cluster.edit(self._pick(sorted(queued, key=lambda j: j.uid), n).uid, priority_class_name=rank)

    # --- quotas and the pool

    @rule(
        team=st.sampled_from(TEAMS),
        nominal=st.integers(0, 3),
        borrow=st.sampled_from([None, None, 0, 1]),
        lend=st.sampled_from([None, None, 0, 1]),
        jobs=st.sampled_from([None, None, 1, 2]),
        policy=st.sampled_from(["None", "None", "None", "Hold"]),
    )
    def set_quota(self, *, team, nominal, borrow, lend, jobs, policy):
        lend = None if lend is None else min(lend, nominal)
        limits = {"borrow": borrow, "lend": lend, "training": jobs, "inference": jobs, "stop_policy": policy}
        self.cluster.set_quota(quota(team, nominal, **limits))

    @rule(team=st.sampled_from(TEAMS))
    def remove_quota(self, team):
        self.cluster.set_quota(None, team)

    @rule(
        nominal=st.integers(0, 2),
        borrow=st.sampled_from([None, 0, 1]),
        lend=st.sampled_from([None, 0, 1]),
        given=st.booleans(),
    )
    def set_default_quota(self, *, nominal, borrow, lend, given):
        lend = None if lend is None else min(lend, nominal)
        share = GpuShare(nominal=nominal, borrowing_limit=borrow, lending_limit=lend)
        self.cluster.set_pool(default_quota=PoolQuota(gpus=share) if given else None)

    @rule(seconds=st.sampled_from([0, 1, 400]))
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

    @rule(team=st.sampled_from(TEAMS), gpus=st.sampled_from([None, 1, 3]))
    def set_resource_quota(self, team, gpus):
        if gpus is None:
            self.cluster.resource_quotas.pop(team, None)
        else:
            self.cluster.resource_quotas[team] = resource_quota(team, gpus=gpus, pods=gpus + 2)
        self.cluster.plan = True

    @rule(policy=st.sampled_from(STOPPED))
    def stop_policy(self, policy):
        self.cluster.set_pool(stop_policy=policy)

    @rule(
        within=st.sampled_from(["Never", "LowerPriority"]),
        reclaim=st.sampled_from(["Never", "LowerPriority", "Any"]),
        growing=st.sampled_from([0, 1, 3]),
        queueing=st.sampled_from(["BestEffortFIFO", "StrictFIFO"]),
    )
    def change_pool(self, within, reclaim, growing, queueing):
        self.cluster.set_pool(
            preemption=Preemption(within_pool=within, reclaim_borrowed=reclaim, min_runtime_seconds=60),
            scale_up=ScaleUp(max_jobs=growing, timeout_seconds=300),
            queueing=queueing,
        )

    # --- the operator and its writes

    @rule()
    def turn(self):
        self.cluster.turn()

    @precondition(lambda self: any(self.cluster.lanes.values()))
    @rule(n=PICK, outcome=st.sampled_from(["ok", "ok", "ok", "lost", "refused"]))
    def deliver(self, n, outcome):
        self._deliver(n, outcome)

    def _deliver(self, n, outcome):
        if not any(self.cluster.lanes.values()):
            return
        self.cluster.deliver(
            self._pick(sorted(u for u, lane in self.cluster.lanes.items() if lane), n), outcome=outcome
        )

    @rule()
    def settle(self):
        self.cluster.turn()
        self.cluster.deliver_all()

    @rule()
    def run_all(self):
        self._run()

    def _run(self):
        self.cluster.turn()
        self.cluster.deliver_all()
        for name in list(self.cluster.pods):
            self.cluster.start(name)

    @rule()
    def crash(self):
        self.cluster.crash()

    # --- pods

    @precondition(lambda self: self.cluster.pods)
    @rule(n=PICK)
    def bind(self, n):
        if found := self._pod(n, PodPhase.PENDING):
            self.cluster.bind(found.name)

    @precondition(lambda self: self.cluster.pods)
    @rule(n=PICK)
    def start(self, n):
        if found := self._pod(n, PodPhase.PENDING):
            self.cluster.start(found.name)

    @precondition(lambda self: self.cluster.pods)
    @rule(n=PICK, code=CODES, how=st.sampled_from(["", "", "", "OOMKilled", "evicted"]))
    def finish(self, n, code, how):
        found = self._pod(n, PodPhase.RUNNING)
        if found is None:
            return
        if how == "evicted":
            self.cluster.finish(found.name, 137, disrupted=True, reason="Evicted")
        else:
            self.cluster.finish(found.name, code, terminated_reason=how)

    @precondition(lambda self: self.cluster.pods)
    @rule(n=PICK)
    def image_missing(self, n):
        found = self._pod(n, PodPhase.PENDING)
        if found is not None and found.node is not None:
            self.cluster.change_pod(found.name, waiting_reason="ImagePullBackOff", waiting_message="not found")

    @precondition(lambda self: self.cluster.pods)
    @rule(n=PICK, how=st.sampled_from(["deleting", "vanish", "reap"]))
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

    @precondition(lambda self: self.cluster.pods)
    @rule(n=PICK, step=st.integers(0, 3), percent=st.integers(0, 99))
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

    @rule(n=PICK, how=st.sampled_from(["lost", "deleted", "back", "back", "cordoned"]))
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

    @precondition(lambda self: len(self.whole) < 4)
    @rule()
    def grow(self):
        """The autoscaler brings a node."""
        made = node(f"new{len(self.whole)}", gpus=2, slots=2, cpu=6, memory_gi=12)
        self.whole[made.name] = made
        self.cluster.set_node(made, made.name)

    @rule(n=PICK, gpus=st.integers(0, 2))
    def others(self, n, gpus):
        name = self._pick(sorted(self.whole), n)
        self.cluster.set_foreign(*([foreign_pod("x", name, gpus=gpus, cpu=1)] if gpus else []))

    @rule(seconds=st.sampled_from([1, 12, 70, 400, 2000]))
    def time(self, seconds):
        self.cluster.pass_time(seconds)

    # --- what must hold

    @invariant()
    def limits_hold_and_nothing_is_doubled(self):
        if hasattr(self, "cluster"):
            self.cluster.check()

    @invariant()
    def progress_never_moves_back_within_an_attempt(self):
        if not hasattr(self, "cluster"):
            return
        for found in self.cluster.jobs.values():
            progress = found.status.progress
            if found.kind is not Kind.TRAINING or progress is None or progress.sequence is None:
                continue
            key = (found.uid, found.status.attempt)
            assert (progress.percent or 0) >= self.seen.get(key, 0)
            self.seen[key] = progress.percent or 0

    def teardown(self):
        """With room, and pods that succeed, every job comes to its end."""
        if not hasattr(self, "cluster"):
            return
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


# A failing case is told as it was found: to make it short takes minutes. SHRINK=1 does so.
Turns.TestCase.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Step.explicit, Step.reuse, Step.generate, *([Step.shrink] if os.environ.get("SHRINK") else [])],
)
TestTurns = Turns.TestCase


@pytest.mark.parametrize("seed", range(48))
def test_long_walks(seed):
    """The same rules drawn by weight, over far longer ways than hypothesis takes, in a cluster that stays crowded."""
    chance = random.Random(seed)
    machine = Turns()
    shapes = [(2, 8, 24000), (1, 2, 8000)] if seed % 2 else [(1, 4, 12000)]
    policy = Preemption(
        within_pool=chance.choice(["Never", "LowerPriority"]),
        reclaim_borrowed=chance.choice(["Never", "LowerPriority", "Any"]),
        min_runtime_seconds=60,
    )
    queueing = chance.choice(["BestEffortFIFO", "BestEffortFIFO", "StrictFIFO"])
    more = {"preemption": policy, "starvation": chance.choice([0, 600]), "growing": chance.choice([0, 0, 1])}
    machine.begin(shapes=shapes, placement=chance.choice(["Pack", "Spread"]), queueing=queueing, seed=seed, **more)
    n = partial(chance.randrange, 10**6)
    steps = [
        (6, machine.turn),
        (8, lambda: machine._deliver(n(), chance.choice(["ok", "ok", "ok", "ok", "lost", "refused"]))),
        (3, machine._run),
        (1, machine.crash),
        (2, lambda: machine.people(n(), chance.choice(["suspend", "resume", "resume", "cancel", "delete", "ttl"]))),
        (3, lambda: machine.bind(n())),
        (3, lambda: machine.start(n())),
        (2, lambda: machine.finish(n(), chance.choice([0, 0, 1, 75]), chance.choice(["", "", "evicted"]))),
        (1, lambda: machine.image_missing(n())),
        (2, lambda: machine.take_away(n(), chance.choice(["deleting", "vanish", "reap", "reap"]))),
        (2, lambda: machine.report(n(), chance.randrange(3), chance.randrange(100))),
        (1, lambda: machine.nodes(n(), chance.choice(["lost", "deleted", *["back"] * 8]))),
        (2, lambda: machine.time(chance.choice([1, 12, 70, 400]))),
        (1, lambda: _any_quota(machine, chance)),
        (0.3, lambda: machine.stop_policy(chance.choice(["None", "None", "None", "Hold", "HoldAndDrain"]))),
        (1, lambda: machine.reprioritize(n(), chance.choice(RANKS))),
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
