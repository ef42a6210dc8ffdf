"""Preemption against brute force: whom it stops is allowed, enough, and not one too many; when it stops nobody, why."""

from collections import Counter
from itertools import combinations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from unit.core.builders import CLASSES, job, pool, quota, whole
from unit.core.cluster import Cluster

from rfuav_operator.core.model import Kind, Phase, Preemption, Resources

many = settings(max_examples=400, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))

TEAMS = ("a", "b", "c")
MIN_RUNTIME = 60
team = st.sampled_from(TEAMS)
priority = st.sampled_from(["low", "mid", "high"])
policies = st.builds(
    Preemption,
    within_pool=st.sampled_from(["Never", "LowerPriority", "LowerPriority"]),
    reclaim_borrowed=st.sampled_from(["Never", "LowerPriority", "Any"]),
    min_runtime_seconds=st.just(MIN_RUNTIME),
)
limits = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(TEAMS, st.tuples(st.integers(0, 4), st.sampled_from([None, None, 0, 2])))
)
jobs = st.lists(
    st.tuples(
        team,
        priority,
        st.sampled_from([1, 1, 2]),  # GPUs
        st.sampled_from([1, 1, 1, 2]),  # nodes
        st.sampled_from([0, 30, 100]),  # seconds before the next
    ),
    min_size=1,
    max_size=7,
)
waits = st.tuples(team, priority, st.integers(1, 3), st.sampled_from([1, 1, 2]))


def world(nodes, policy, shares, running):
    """A cluster in which these run, as many of them as there is room for."""
    cluster = Cluster(
        [whole(f"n{i}", gpus=size) for i, size in enumerate(nodes)],
        [pool(preemption=Preemption())],
        quotas=[quota(name, nominal, borrow=borrow) for name, (nominal, borrow) in shares.items()],
        compare=False,
    )
    for index, (namespace, rank, size, together, seconds) in enumerate(running):
        made = job(
            f"r{index}",
            namespace=namespace,
            created=cluster.now,
            resources=Resources(gpus=size),
            nodes=together,
            priority_class_name=rank,
        )
        cluster.add(made)
        cluster.go().start_all()
        if made.name not in cluster.running():
            cluster.delete_job(made.uid)
        cluster.go(seconds)
    cluster.set_pool(preemption=policy)
    return cluster.go()


class Brute:
    """What the page says of victims, over all jobs that run."""

    def __init__(self, cluster, waiting):
        self.cluster, self.waiting = cluster, waiting
        self.policy = cluster.pools["default"].spec.preemption
        self.runs = [j for j in cluster.jobs.values() if j.status.phase is Phase.RUNNING and j.uid != waiting.uid]
        self.used = Counter()
        for one in self.runs:
            self.used[one.namespace] += self.size(one)

    def size(self, one):
        return one.spec.nodes * one.spec.resources.gpus

    def entry(self, namespace):
        held = self.cluster.quotas.get(namespace, quota(namespace))
        return held.spec.pools[0].gpus

    def may_stop(self, victim):
        """Whether it may be stopped at all, the others that are stopped with it aside."""
        mine, theirs = (CLASSES[j.spec.priority_class_name].value for j in (self.waiting, victim))
        foreign = victim.namespace != self.waiting.namespace
        borrows = self.used[victim.namespace] > self.entry(victim.namespace).nominal
        nominal = (
            self.used[self.waiting.namespace] + self.size(self.waiting) <= self.entry(self.waiting.namespace).nominal
        )
        old = all((self.cluster.now - a.started_at).total_seconds() >= MIN_RUNTIME for a in victim.status.assignments)
        by_rank = self.policy.within_pool == "LowerPriority" and theirs < mine and (borrows or not foreign)
        reclaims = {"Never": False, "LowerPriority": theirs < mine, "Any": True}[self.policy.reclaim_borrowed]
        return old and (by_rank or (nominal and foreign and borrows and reclaims))

    def leaves_its_own(self, victims):
        """No other namespace loses more than what it borrows: only the last of its victims may reach below."""
        for namespace in {v.namespace for v in victims} - {self.waiting.namespace}:
            sizes = [self.size(v) for v in victims if v.namespace == namespace]
            if sum(sizes) - max(sizes) >= self.used[namespace] - self.entry(namespace).nominal:
                return False
        return True

    def lets_in(self, victims):
        """Whether quota and nodes have room for the waiting job without them."""
        gone = {v.uid for v in victims}
        used = sum(self.size(j) for j in self.runs if j.namespace == self.waiting.namespace and j.uid not in gone)
        entry = self.entry(self.waiting.namespace)
        if entry.borrowing_limit is not None and used + self.size(self.waiting) > entry.nominal + entry.borrowing_limit:
            return False
        free = {name: held.gpu_slots for name, held in self.cluster.nodes.items()}
        for one in self.runs:
            for a in one.status.assignments if one.uid not in gone else ():
                free[a.node] -= a.gpus
        wants = self.waiting.spec
        return sum(left >= wants.resources.gpus for left in free.values()) >= wants.nodes


@many
@given(
    nodes=st.lists(st.integers(1, 4), min_size=1, max_size=3), policy=policies, shares=limits, running=jobs, last=waits
)
def test_victims_are_allowed_enough_and_none_too_many(nodes, policy, shares, running, last):
    cluster = world(nodes, policy, shares, running)
    namespace, rank, size, together = last
    waiting = job(
        "waits",
        namespace=namespace,
        created=cluster.now,
        resources=Resources(gpus=size),
        nodes=together,
        priority_class_name=rank,
    )
    brute = Brute(cluster, waiting)
    cluster.add(waiting)
    cluster.go()
    victims = [j for j in cluster.jobs.values() if any(a.stopping_for == waiting.uid for a in j.status.assignments)]
    if brute.lets_in([]):
        assert (victims, cluster.status("waits").phase) == ([], Phase.ADMITTED)
        return
    candidates = [one for one in brute.runs if brute.may_stop(one)]
    if not victims:
        assume(candidates)
        assert not any(brute.lets_in([one]) for one in candidates)
        assert not (brute.leaves_its_own(candidates) and brute.lets_in(candidates))
        return
    by_uid = {one.uid: one for one in candidates}
    chosen = [by_uid.get(v.uid) for v in victims]
    assert None not in chosen, "somebody is stopped who may not be"
    assert brute.leaves_its_own(chosen)
    assert brute.lets_in(chosen)
    for fewer in combinations(chosen, len(chosen) - 1):
        assert not brute.lets_in(fewer), "one is stopped in vain"
    for one in victims:
        assert all(a.stopping_for == waiting.uid for a in one.status.assignments)
    # Others that wait beside it do not get what the victims leave.
    cluster.add(job("late", namespace="late", created=cluster.now, priority_class_name="high"))
    cluster.go()
    for pod in [p for p in cluster.pods.values() if p.deleting]:
        cluster.vanish(pod.name)
        cluster.go()
    assert cluster.status("waits").phase is Phase.ADMITTED
    for one in victims:
        assert cluster.status(one.name).phase in (Phase.QUEUED, Phase.ADMITTED)
        assert cluster.status(one.name).queued_at == replace(one, status=one.status).status.queued_at
        assert cluster.status(one.name).uncounted_failures == 0


@many
@given(policy=policies, running=jobs, last=waits, seed=st.integers(0, 3))
def test_whoever_waits_and_whoever_is_stopped_comes_to_an_end(policy, running, last, seed):
    """Preemption does not go round in circles: with time, all of them end."""
    cluster = world([2, 2], policy, {"a": (2, None), "b": (2, 1)}, running)
    namespace, rank, _, together = last
    for index in range(3):
        cluster.add(
            job(
                f"w{index}",
                kind=Kind.TRAINING,
                namespace=TEAMS[(TEAMS.index(namespace) + index) % 3],
                created=cluster.now,
                resources=Resources(gpus=1),
                nodes=together,
                priority_class_name=rank,
            )
        )
    began: dict[str, int] = {}
    stops = 0
    for now in range(60):
        cluster.go(40).start_all()
        for pod in [p for p in cluster.pods.values() if p.live]:
            if pod.deleting:
                cluster.finish(pod.name, 75)
                stops += 1
                began.pop(pod.name, None)
            elif now - began.setdefault(pod.name, now) >= 3 + seed:
                cluster.finish(pod.name)
        cluster.leave()
        if all(j.status.phase is Phase.SUCCEEDED for j in cluster.jobs.values()):
            break
    left = {
        j.name: (j.status.phase, j.status.reason)
        for j in cluster.jobs.values()
        if j.status.phase is not Phase.SUCCEEDED
    }
    assert not left or all(reason == "ExceedsMaxQuota" for _, reason in left.values())
    assert stops <= 4 * len(cluster.jobs)
