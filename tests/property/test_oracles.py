"""Order, shares, quotas, gangs and backfill against small schedulers that know one rule each and nothing else."""

from collections import Counter
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from unit.core.builders import CLASSES, job, pool, quota, whole
from unit.core.cluster import Cluster

from rfuav_operator.core.model import Kind, Phase, Resources

few = settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))

TEAMS = ("a", "b", "c")
maybe = st.sampled_from([None, None, 0, 1, 2, 3])
shares = st.tuples(st.integers(0, 4), maybe, maybe, maybe, st.integers(1, 3))
quotas = st.fixed_dictionaries({}, optional=dict.fromkeys(TEAMS, shares))
nodes = st.lists(st.integers(1, 4), min_size=1, max_size=4)
arrivals = st.lists(
    st.tuples(
        st.sampled_from(TEAMS),
        st.sampled_from(["low", "mid", "mid", "mid"]),
        st.sampled_from([1, 1, 1, 2, 3]),
        st.sampled_from([1, 1, 1, 2]),
    ),
    min_size=2,
    max_size=7,
)


def gpus(count, **rest):
    return Resources(gpus=count, **{"cpu": "1", "memory": "1Gi"} | rest)


def quota_of(name, share):
    nominal, borrow, lend, training, weight = share
    lend = None if lend is None else min(lend, nominal)
    return quota(name, nominal, borrow=borrow, lend=lend, training=training, weight=weight)


class Oracle:
    """At each step the one that the documented key puts first, if its quota and a node have room for it."""

    def __init__(self, cluster):
        self.quotas = {team: held.spec for team, held in cluster.quotas.items()}
        self.free = {name: node.gpu_slots for name, node in cluster.nodes.items()}
        self.size = sum(self.free.values())
        self.used, self.jobs = Counter(), Counter()
        for held in cluster.jobs.values():
            for a in held.status.assignments if held.status.phase in (Phase.ADMITTED, Phase.RUNNING) else ():
                self.free[a.node] -= a.gpus
                self.used[held.namespace] += a.gpus
            self.jobs[held.namespace] += held.status.phase in (Phase.ADMITTED, Phase.RUNNING)

    def entry(self, team):
        return self.quotas[team].pools[0] if team in self.quotas else quota(team).spec.pools[0]

    def key(self, waiting, used):
        nominal = self.entry(waiting.namespace).gpus.nominal
        mine, weight = (
            used[waiting.namespace],
            self.quotas[waiting.namespace].weight if waiting.namespace in self.quotas else 1,
        )
        share = mine / nominal if mine < nominal else 1 + (mine - nominal) / weight
        return -CLASSES[waiting.spec.priority_class_name].value, share, waiting.created, waiting.uid

    def allows(self, waiting):
        team, wants = waiting.namespace, waiting.spec.resources.gpus * waiting.spec.nodes
        entry = self.entry(team)
        after = self.used[team] + wants
        if entry.max_training_jobs is not None and self.jobs[team] >= entry.max_training_jobs:
            return False
        if entry.gpus.borrowing_limit is not None and after > entry.gpus.nominal + entry.gpus.borrowing_limit:
            return False
        kept = 0
        for other in self.quotas.keys() - {team}:
            held = self.entry(other).gpus
            if held.lending_limit is not None:
                kept += max(0, held.nominal - held.lending_limit - self.used[other])
        return after <= entry.gpus.nominal or sum(self.used.values()) + wants + kept <= self.size

    def place(self, waiting):
        wants = waiting.spec.resources.gpus
        fitting = sorted((free, name) for name, free in self.free.items() if free >= wants)
        return [name for _, name in fitting[: waiting.spec.nodes]] if len(fitting) >= waiting.spec.nodes else []

    def admit(self, waiting):
        """Who is admitted, where; and those who wait, in the order in which they stand."""
        found, left, refused = {}, list(waiting), []
        while left:
            first = min(left, key=lambda w: self.key(w, self.used))
            left.remove(first)
            chosen = self.place(first) if self.allows(first) else []
            if not chosen:
                refused.append(first)
                continue
            found[first.name] = set(chosen)
            for name in chosen:
                self.free[name] -= first.spec.resources.gpus
            self.used[first.namespace] += first.spec.resources.gpus * first.spec.nodes
            self.jobs[first.namespace] += 1
        line, used = [], Counter(self.used)
        while refused:
            first = min(refused, key=lambda w: self.key(w, used))
            refused.remove(first)
            used[first.namespace] += first.spec.resources.gpus * first.spec.nodes
            line.append(first.name)
        return found, line


@few
@given(nodes=nodes, limits=quotas, waves=st.lists(st.tuples(arrivals, st.integers(0, 3)), min_size=1, max_size=3))
def test_each_admission_is_the_one_that_the_key_puts_first(nodes, limits, waves):
    """Waves of jobs come, some that run end; every plan is what the small scheduler would have done."""
    held = [quota_of(team, share) for team, share in limits.items()]
    cluster = Cluster([whole(f"n{i}", gpus=size) for i, size in enumerate(nodes)], [pool()], quotas=held, compare=False)
    made = 0
    for wave, ends in waves:
        for team, priority, size, together in wave:
            made += 1
            cluster.add(
                job(
                    f"j{made:02}",
                    namespace=team,
                    created=cluster.now,
                    nodes=together,
                    resources=gpus(size),
                    priority_class_name=priority,
                )
            )
        waiting = [j for j in cluster.jobs.values() if j.status.phase in (None, Phase.QUEUED)]
        found, line = Oracle(cluster).admit(waiting)
        cluster.go(1).start_all()
        for one in waiting:
            status = cluster.status(one.name)
            assert {a.node for a in status.assignments} == found.get(one.name, set())
            assert len(status.assignments) in (0, one.spec.nodes)
        for place, name in enumerate(line[:10], 1):
            assert cluster.status(name).queue.position == place
        for name in sorted(p.name for p in cluster.pods.values() if p.live)[:ends]:
            cluster.finish(name)
        cluster.go()
        _nominal_is_had_while_there_is_room(cluster)


def _nominal_is_had_while_there_is_room(cluster):
    """A job of one GPU that stays within its namespace's own share waits only where no GPU is free."""
    oracle = Oracle(cluster)
    for waits in (
        j for j in cluster.jobs.values() if j.status.phase is Phase.QUEUED and j.status.reason != "BackingOff"
    ):
        entry = oracle.entry(waits.namespace)
        own = oracle.used[waits.namespace] + 1 <= entry.gpus.nominal and entry.max_training_jobs is None
        if own and waits.spec.nodes == waits.spec.resources.gpus == 1:
            assert not any(oracle.free.values()), waits.name


# --- backfill

times = st.integers(1, 9)
running = st.lists(st.tuples(st.integers(1, 3), times), min_size=2, max_size=5)
small = st.lists(
    st.tuples(
        st.integers(0, 2),
        times,
        st.sampled_from([None, None, "1", "9"]),
        st.sampled_from(list(Kind)),
        st.sampled_from("aab"),
    ),
    min_size=1,
    max_size=7,
)


def start_of_head(nodes, running, head, small):
    """When the head starts, with the others that came after it waiting beside it; `spare` has no room for it ever."""
    quotas = [quota("a", nominal=2, borrow=2, training=2)]
    spare = whole("spare", gpus=2, labels={"spare": "1"})
    cluster = Cluster([*nodes, spare], [pool(starvation_seconds=0)], quotas=quotas, compare=False)
    only = replace(head.spec.pod_template, node_selector={"main": "1"})
    head = replace(head, spec=replace(head.spec, pod_template=only))
    ends: dict[str, int] = {}
    for index, (size, length) in enumerate(running):
        cluster.add(job(f"r{index}", namespace="r", resources=gpus(size, cpu="2"), pod_template=only))
        cluster.go()
        ends[f"r{index}"] = length
    cluster.add(replace(head, created=cluster.now))
    for index, (size, length, cpu, kind, team) in enumerate(small):
        cluster.add(
            job(
                f"s{index}",
                namespace=team,
                kind=kind,
                created=cluster.now + timedelta(seconds=1),
                resources=gpus(size, cpu=cpu),
                priority_class_name="low",
            )
        )
        ends[f"s{index}"] = length
    began: dict[str, int] = {}
    for now in range(60):
        cluster.go(1).start_all()
        for name in cluster.running() - began.keys():
            began[name] = now
        if "head" in began:
            return now
        for name in cluster.running():
            if began[name] + ends[name] <= now:
                for pod in cluster.pods_of(name):
                    cluster.finish(pod.name)
    raise AssertionError("the head never starts")


@few
@given(
    running=running, small=small, size=st.integers(1, 4), cpu=st.sampled_from(["1", "8"]), pods=st.sampled_from([3, 9])
)
def test_backfill_does_not_delay_the_head(running, small, size, cpu, pods):
    nodes = [whole("n1", gpus=4, cpu=9, pods=pods, labels={"main": "1"})]
    head = job("head", namespace="a", resources=gpus(size, cpu=cpu), priority_class_name="high")
    assert start_of_head(nodes, running, head, small) == start_of_head(nodes, running, head, [])


@few
@given(running=running, small=small, size=st.integers(1, 2))
def test_backfill_does_not_delay_a_gang(running, small, size):
    nodes = [whole(name, gpus=3, cpu=12, labels={"main": "1"}) for name in ("n1", "n2")]
    head = job("head", namespace="a", resources=gpus(size), nodes=2, priority_class_name="high")
    assert start_of_head(nodes, running, head, small) == start_of_head(nodes, running, head, [])
