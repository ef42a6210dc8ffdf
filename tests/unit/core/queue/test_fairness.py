"""Who is next: priority, then the namespace with the smallest weighted share, then age; and who may pass whom."""

import pytest
from msgspec.structs import replace
from unit.core.builders import after, job, node, pool, quota, run, snapshot, statuses, whole
from unit.core.cluster import Cluster

from rfuav_operator.core.admission import cycle
from rfuav_operator.core.model import Kind, Phase, Resources
from rfuav_operator.core.queue.ordering import InOrder

CPU_JOB = Resources(gpus=0, cpu="1", memory="1Gi")


def crowd(**counts):
    """Jobs of several namespaces; those named first are the oldest."""
    made, age = [], 0
    for namespace, count in counts.items():
        for index in range(count):
            made.append(job(f"{namespace}{index}", namespace=namespace, created=after(age)))
            age += 1
    return made


def admitted(made, *, slots, **snap):
    done = statuses(run(snapshot(made, nodes=[whole(gpus=slots)], **snap)))
    return sorted(name for name, s in done.items() if s.phase is Phase.ADMITTED)


def counts(made, *, slots, **snap):
    names = [name.rstrip("0123456789") for name in admitted(made, slots=slots, **snap)]
    return {ns: names.count(ns) for ns in sorted({j.namespace for j in made})}


# --- shares


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ([], {"a": 3, "b": 3}),  # equal without quotas, however old the jobs are
        ([quota("a", weight=2), quota("b")], {"a": 4, "b": 2}),  # idle room by weight
        ([quota("a", nominal=4), quota("b", nominal=2)], {"a": 4, "b": 2}),  # each by its own first
        ([quota("a", nominal=2), quota("b", nominal=2)], {"a": 3, "b": 3}),
        ([quota("a", nominal=4)], {"a": 5, "b": 1}),  # one with nothing of its own waits for those that have
        ([quota("a", nominal=1, weight=3), quota("b", nominal=1)], {"a": 4, "b": 2}),
        ([quota("a", borrow=0)], {"a": 0, "b": 6}),
    ],
)
def test_shares_of_namespaces(quotas, expected):
    assert counts(crowd(a=9, b=9), slots=6, quotas=quotas) == expected


def test_the_share_in_use_counts_and_not_the_queue():
    cluster = Cluster([whole(gpus=4)])
    for made in crowd(a=2):
        cluster.add(made)
    cluster.go().start_all()
    cluster.now = after(100)
    for index, namespace in enumerate("aabb"):
        cluster.add(job(f"late{index}{namespace}", namespace=namespace, created=after(100 + index)))
    assert cluster.go().running() == {"a0", "a1", "late2b", "late3b"}


def test_priority_goes_before_shares_and_age_decides_within_a_namespace():
    made = [
        *crowd(a=3),
        job("b-low", namespace="b", created=after(50), priority_class_name="low"),
        job("a-high", namespace="a", created=after(60), priority_class_name="high"),
    ]
    assert admitted(made, slots=3) == ["a-high", "a0", "a1"]


def test_uid_decides_last():
    made = [job(name, uid=uid) for name, uid in (("x", "uid-2"), ("y", "uid-1"))]
    assert admitted(made, slots=1) == ["y"]


def test_a_resumed_job_keeps_its_old_place():
    cluster = Cluster([whole(gpus=1)])
    for made in crowd(a=3):
        cluster.add(made)
    cluster.go().start_all()
    cluster.edit(cluster.named("a0").uid, suspend=True)
    cluster.go(60)
    cluster.edit(cluster.named("a0").uid, suspend=False)
    assert cluster.go().status("a0").phase is Phase.QUEUED
    cluster.leave()
    assert cluster.running() == {"a0"}


def test_shards_take_turns_with_other_namespaces():
    """A shard is the unit of admission: a wide job does not take all that is free at once."""
    wide = job("wide", namespace="a", kind=Kind.INFERENCE, shards=8, parallelism=8)
    others = [job(f"b{i}", namespace="b", kind=Kind.INFERENCE, created=after(9 + i)) for i in range(8)]
    done = statuses(run(snapshot([wide, *others], nodes=[whole(gpus=6)])))
    assert [a.shard for a in done["wide"].assignments] == [0, 1, 2]
    assert done["wide"].attempt == 1
    assert done["wide"].message == "starts on n1"
    assert sum(bool(s.assignments) for s in done.values()) == 4


def test_jobs_without_gpu_have_shares_of_their_own():
    """What a namespace holds in GPUs does not set its CPU jobs back."""
    cluster = Cluster()
    for index in range(2):
        cluster.add(job(f"a-gpu{index}", namespace="a"))
    cluster.go()
    for made in crowd(a=2, b=2):
        cluster.add(replace(made, spec=replace(made.spec, resources=CPU_JOB)))
    assert cluster.go().running() == {"a-gpu0", "a-gpu1", "a0", "b0"}


# --- who passes whom

BIG = Resources(gpus=2)


def queue(**rest):
    return [
        job("runs", created=after(-9)),
        job("big", created=after(0), resources=BIG),
        job("small", created=after(1)),
        job("other", namespace="other", created=after(2)),
        *rest.get("more", ()),
    ]


@pytest.mark.parametrize(
    ("queueing", "quotas", "expected"),
    [
        ("BestEffortFIFO", [], {"runs", "other"}),  # the smaller share first
        ("StrictFIFO", [], {"runs", "other"}),  # nobody of a smaller share is behind `big`
        ("BestEffortFIFO", [quota(nominal=2), quota("other", nominal=0)], {"runs", "small"}),
        ("StrictFIFO", [quota(nominal=2), quota("other", nominal=0)], {"runs"}),
    ],
)
def test_who_passes_a_head_that_does_not_fit(queueing, quotas, expected):
    done = statuses(run(snapshot(queue(), nodes=[whole(gpus=2)], quotas=quotas, pools=[pool(queueing=queueing)])))
    assert {n for n, s in done.items() if s.phase is Phase.ADMITTED} == expected


def test_a_head_that_waits_for_quota_stops_its_own_namespace_alone_when_strict():
    """Nobody passes within a namespace; the quota of one is no reason for another to wait."""
    snap = {"nodes": [whole(gpus=8)], "quotas": [quota(nominal=2, borrow=0)]}
    strict = statuses(run(snapshot(queue(), pools=[pool(queueing="StrictFIFO")], **snap)))
    assert {n for n, s in strict.items() if s.phase is Phase.ADMITTED} == {"runs", "other"}
    assert (strict["big"].reason, strict["small"].reason) == ("WaitingForQuota", "WaitingForQuota")
    assert strict["small"].message == "behind team/big, which waits for quota (queueing: StrictFIFO)"
    best = statuses(run(snapshot(queue(), **snap)))
    assert {n for n, s in best.items() if s.phase is Phase.ADMITTED} == {"runs", "small", "other"}


def test_a_job_behind_the_head_of_its_namespace_names_that_head_only():
    more = [job("wide", namespace="other", created=after(3), resources=Resources(gpus=8))]
    snap = {"nodes": [whole(gpus=8)], "quotas": [quota(nominal=2, borrow=0), quota("other", weight=3)]}
    told = statuses(run(snapshot(queue(more=more), pools=[pool(queueing="StrictFIFO")], **snap)))
    assert told["wide"].message.startswith("needs 8 GPUs; pool default has")
    assert told["big"].message.startswith("needs 2 GPUs; namespace team uses 1 of 2")
    assert told["small"].message == "behind team/big, which waits for quota (queueing: StrictFIFO)"


def test_a_job_that_can_never_run_stops_nobody():
    made = [job("never", resources=Resources(gpus=9)), job("next", created=after(1))]
    done = statuses(run(snapshot(made, nodes=[whole()], pools=[pool(queueing="StrictFIFO")])))
    assert (done["never"].reason, done["next"].phase) == ("ExceedsMaxQuota", Phase.ADMITTED)


def test_order_holds_across_shapes_when_room_comes_back():
    """Two shapes that compete for the same slot: the older goes, whatever shape it has."""
    cluster = Cluster([node(gpus=1, slots=1)])
    cluster.add(job("first"))
    cluster.go().start_all()
    for index in range(4):
        cluster.add(job(f"w{index}", created=after(1 + index), resources=Resources(gpus=1, cpu=str(1 + index % 2))))
    cluster.go()
    order = []
    for _ in range(4):
        cluster.finish(next(iter(p.name for p in cluster.pods.values() if p.live)))
        cluster.go().start_all()
        order += sorted(cluster.running())
    assert order == ["w0", "w1", "w2", "w3"]


# --- how many are asked


def asked_after_one_end(monkeypatch, namespaces, *, running, gpus, quotas=()):
    """Turns in the line that a plan takes after one pod has ended, with jobs of five shapes in every namespace."""
    cluster = Cluster([whole(gpus=gpus)], quotas=quotas)
    for made in [
        *(job(f"r{index}", namespace=f"ns{index}", created=after(-index)) for index in range(running)),
        *(
            job(f"w{ns}-{cpu}", namespace=f"ns{ns}", resources=Resources(gpus=1, cpu=f"{cpu}", memory="1Gi"))
            for ns in range(namespaces)
            for cpu in range(1, 6)
        ),
    ]:
        cluster.add(made)
    cluster.go().start_all()
    turns = []

    class Counted(InOrder):
        def pop(self):
            turns.append(1)
            return super().pop()

    monkeypatch.setattr(cycle, "InOrder", Counted)
    cluster.finish(next(iter(cluster.pods)))
    cluster.go()
    monkeypatch.undo()
    assert len([j for j in cluster.jobs.values() if j.status.phase is Phase.ADMITTED]) == 1
    return len(turns)


def test_when_the_room_is_gone_nobody_more_is_asked(monkeypatch):
    """A cycle costs as much with many who wait as with few."""
    few, many = (asked_after_one_end(monkeypatch, namespaces, running=4, gpus=4) for namespaces in (10, 60))
    assert many <= few


def test_a_namespace_whose_quota_is_used_up_is_asked_once(monkeypatch):
    quotas = [quota(f"ns{index}", nominal=1, training=1) for index in range(10)]
    asked = asked_after_one_end(monkeypatch, 10, running=10, gpus=20, quotas=quotas)
    assert asked <= 4 * (10 + 2)  # the plans of two turns, each made by two: once for each namespace and the end
