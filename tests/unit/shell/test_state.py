"""What the snapshot shows and what becomes dirty, after reads, plans and creates in any order."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace
from unit.shell.bodies import A1, A2, job_body, pod_body

from rfuav_operator.core.model import (
    Claim,
    Defaults,
    Kind,
    Namespace,
    Node,
    NodeName,
    PatchLimitsStatus,
    Phase,
    Quota,
    Uid,
    Volume,
)
from rfuav_operator.core.queue import quotas
from rfuav_operator.core.scheduler import turn
from rfuav_operator.shell.reading import ingest
from rfuav_operator.shell.reading.state import ClusterState

U1, U2 = Uid("u1"), Uid("u2")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def state() -> ClusterState:
    return ClusterState(Defaults())


@pytest.fixture
def held() -> ClusterState:
    return state()


def dirt(held: ClusterState) -> tuple[set[Any], set[Any], bool]:
    taken = held.take_dirt()
    return set(taken.jobs), set(taken.nodes), taken.plan


def put_job(held: ClusterState, *, kind: Kind = Kind.TRAINING, **more: Any) -> None:
    assert ingest.job(held, kind, job_body(kind=kind.value, **more))


def put_pod(held: ClusterState, **more: Any) -> None:
    body = json.loads(json.dumps(pod_body(**more)))
    ingest.pod(held, body)


def planned(held: ClusterState, uid: Uid, phase: Phase) -> Any:
    job = held.job(uid)
    assert job is not None
    status = replace(job.status, phase=phase)
    held.plan_status(uid, status)
    return status


def phase(held: ClusterState, uid: Uid) -> Phase | None:
    return held.snapshot().jobs[uid].status.phase


def test_a_version_that_is_known_is_not_read_again(held):
    """The watch event of a write whose answer has come."""
    read = ingest.job(held, Kind.TRAINING, job_body(version=5))
    assert ingest.job(held, Kind.TRAINING, job_body(version=5)) is read
    assert ingest.job(held, Kind.TRAINING, job_body(version=6)) is not read


def test_the_plan_covers_what_was_read_until_it_is_settled(held):
    put_job(held, status={"phase": "Queued"})
    status = planned(held, U1, Phase.ADMITTED)
    assert phase(held, U1) is Phase.ADMITTED
    put_job(held, version=2, status={"phase": "Queued"})  # somebody else's change, seen meanwhile
    assert phase(held, U1) is Phase.ADMITTED
    read = held.read_job(U1)
    assert read is not None
    assert read.status.phase is Phase.QUEUED
    put_job(held, version=3, status={"phase": "Admitted"})
    held.settle_status(U1, status)
    put_job(held, version=4, status={"phase": "Running"})
    assert phase(held, U1) is Phase.RUNNING


def test_settling_an_older_plan_keeps_the_newer(held):
    put_job(held)
    first = planned(held, U1, Phase.ADMITTED)
    planned(held, U1, Phase.CANCELLED)
    held.settle_status(U1, first)
    assert phase(held, U1) is Phase.CANCELLED


def test_a_dropped_plan_is_decided_again(held):
    put_job(held, status={"phase": "Queued"})
    held.take_dirt()
    planned(held, U1, Phase.ADMITTED)
    held.drop_plan(U1)
    assert phase(held, U1) is Phase.QUEUED
    assert dirt(held) == ({U1}, set(), True)


def test_our_own_write_seen_back_is_not_dirt(held):
    put_job(held, status={"phase": "Queued"})
    planned(held, U1, Phase.ADMITTED)
    held.take_dirt()
    put_job(held, version=2, status={"phase": "Admitted"})
    assert dirt(held) == (set(), set(), False)


def gone(held: ClusterState) -> Any:
    return held.snapshot().gone.get(U1)


def test_a_pod_that_is_gone_is_remembered_while_the_status_names_it(held):
    named = {"phase": "Admitted", "assignments": [{"pod": A1}]}
    put_job(held, status=named)
    put_pod(held, version=2)
    assert gone(held) is None
    held.pods.remove(("ns", A1), 3)
    assert gone(held) == {A1}
    planned(held, U1, Phase.QUEUED)
    held.drop_plan(U1)  # the write failed: it is decided again, on the same
    assert gone(held) == {A1}
    put_job(held, version=4, status={"phase": "Queued"})
    assert gone(held) is None
    put_pod(held, version=5, name="a-0")
    held.pods.remove(("ns", "a-0"), 6)  # of an older attempt
    assert gone(held) is None


def test_nothing_is_remembered_of_a_job_that_is_gone(held):
    put_job(held, status={"phase": "Admitted", "assignments": [{"pod": A1}]})
    put_pod(held, version=2)
    ingest.job_gone(held, Kind.TRAINING, job_body(version=3))
    held.pods.remove(("ns", A1), 4)
    assert held.snapshot().gone == {}


def test_what_is_not_known_to_be_stored(held):
    put_job(held, status={"phase": "Queued"})
    status = planned(held, U1, Phase.ADMITTED)
    assert U1 in held.snapshot().unwritten
    held.settle_status(U1, status)
    assert U1 not in held.snapshot().unwritten


def test_a_job_that_is_deleted_during_a_create_keeps_its_room(held):
    put_job(held)
    held.begin_create(U1, A1)
    ingest.job_gone(held, Kind.TRAINING, job_body(version=2))
    job = held.snapshot().jobs[U1]
    assert job.deleting
    assert held.read_job(U1) is None
    held.end_create(U1, A1)
    assert U1 not in held.snapshot().jobs
    assert U1 in held.take_dirt().jobs


def test_a_new_job_under_the_same_name_is_another_job(held):
    put_job(held)
    planned(held, U1, Phase.ADMITTED)
    put_job(held, version=9, uid="u2")
    assert set(held.snapshot().jobs) == {U2}
    assert phase(held, U2) is None
    named = held.job_named((Kind.TRAINING, "ns", "a"))
    assert named is not None
    assert named.uid == U2


def test_a_refusal_is_kept_until_the_status_is_decided_again(held):
    put_job(held)
    held.reject(U1, "exceeded quota")
    assert held.snapshot().rejected == {U1: "exceeded quota"}
    planned(held, U1, Phase.QUEUED)
    assert not held.snapshot().rejected
    held.reject(U2, "of a job that is gone")
    assert not held.snapshot().rejected


def test_pods_of_jobs_and_of_others(held):
    put_pod(held)
    put_pod(held, name="foreign", uid="p2", owner=None, spec={"nodeName": "n1"})
    put_pod(held, name="unbound", uid="p3", owner=None)
    snapshot = held.snapshot()
    assert list(snapshot.pods_of[U1]) == [A1]
    assert [p.name for p in snapshot.foreign[NodeName("n1")]] == ["foreign"]
    put_pod(held, name="foreign", uid="p2", owner=None, version=2, phase="Succeeded", spec={"nodeName": "n1"})
    held.pods.remove(("ns", A1), 5)
    assert not held.snapshot().foreign
    assert not held.snapshot().pods_of


BOUND = {"spec": {"nodeName": "n1"}}
_NAMED_N1 = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
MADE_FOR_N1 = {
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_NAMED_N1]}}}
}
ELSEWHERE = {**json.loads(json.dumps(pod_body()["metadata"])), "namespace": "other", "uid": "forged"}


def foreign(held: ClusterState) -> list[tuple[str, str]]:
    return [(p.namespace, p.name) for pods in held.snapshot().foreign.values() for p in pods]


@pytest.mark.parametrize("order", ["job", "own", "forged"])
def test_a_pod_of_another_namespace_does_not_belong_to_the_job(order, held):
    """Whatever was seen first: owner, labels and name are all copied from the job's own pod."""
    steps = {
        "job": lambda: put_job(held),
        "own": lambda: put_pod(held, **BOUND),
        "forged": lambda: put_pod(held, metadata=ELSEWHERE, phase="Succeeded"),
    }
    for step in sorted(steps, key=lambda name: name != order):
        steps[step]()
    assert [p.namespace for p in held.snapshot().pods_of[U1].values()] == ["ns"]
    put_pod(held, metadata=ELSEWHERE | {"resourceVersion": "5"}, **BOUND)
    assert foreign(held) == [("other", A1)]
    held.pods.remove(("other", A1), 9)
    assert foreign(held) == []
    assert [p.namespace for p in held.snapshot().pods_of[U1].values()] == ["ns"]


def test_forged_pods_are_sorted_out_when_their_job_becomes_known(held):
    put_pod(held, metadata=ELSEWHERE, **BOUND)
    assert list(held.snapshot().pods_of[U1]) == [A1]  # of a job that is gone, for all that is known
    put_job(held)
    assert not held.snapshot().pods_of
    assert foreign(held) == [("other", A1)]
    assert "n1" in held.take_dirt().nodes


def test_a_pod_that_is_orphaned_takes_room_by_its_kind_and_its_node_is_looked_at(held):
    put_job(held)
    put_pod(held, **BOUND)
    held.take_dirt()
    put_pod(held, version=2, metadata={"ownerReferences": []}, **BOUND)
    assert not held.snapshot().pods_of
    assert [p.kind for p in held.snapshot().foreign[NodeName("n1")]] == [Kind.TRAINING]
    assert dirt(held) == ({U1}, {NodeName("n1")}, True)
    put_pod(held, version=3, phase="Succeeded", metadata={"ownerReferences": []}, **BOUND)
    assert not held.snapshot().foreign
    assert dirt(held)[1:] == ({NodeName("n1")}, True)


@pytest.mark.parametrize(
    ("said", "counts"), [({}, True), ({"type": "PodScheduled", "status": "False", "message": "no"}, False)]
)
def test_an_orphan_that_is_not_bound_yet_counts_where_it_will_be(said, counts, held):
    put_pod(held, metadata={"ownerReferences": []}, spec=MADE_FOR_N1, status={"conditions": [said]} if said else {})
    assert bool(held.snapshot().foreign) is counts


def test_an_orphan_that_is_bound_after_all_is_looked_at(held):
    """It may have been unbound for so long that it counted there no more."""
    put_pod(held, metadata={"ownerReferences": []}, spec=MADE_FOR_N1)
    held.take_dirt()
    put_pod(held, metadata={"ownerReferences": []}, spec={**MADE_FOR_N1, "nodeName": "n1"}, version=2)
    assert "n1" in held.take_dirt().nodes
    put_pod(held, metadata={"ownerReferences": []}, spec={**MADE_FOR_N1, "nodeName": "n1"}, version=3, phase="Running")
    assert not held.take_dirt().nodes


def test_an_orphan_in_the_place_of_another_of_its_name_is_looked_at(held):
    """It is not bound yet, and its minute begins."""
    put_pod(held, metadata={"ownerReferences": []}, spec=MADE_FOR_N1)
    held.take_dirt()
    put_pod(
        held, uid="another", metadata={"ownerReferences": []}, spec=MADE_FOR_N1, version=2
    )  # lists tell of no deletion
    assert "n1" in held.take_dirt().nodes


def test_a_job_that_is_applied_again_is_looked_at_when_the_pods_of_the_one_before_are_gone(held):
    put_job(held)
    put_pod(held)
    held.begin_create(U1, A2)
    put_job(held, version=5, uid="u2")
    key = "ns", "a"
    assert list(held.snapshot().made_for[key]) == [A1]
    assert held.snapshot().leaving == {key: {U1}}
    held.take_dirt()
    held.end_create(U1, A2)
    assert U2 in held.take_dirt().jobs
    assert not held.snapshot().leaving
    held.pods.remove(("ns", A1), 9)
    assert U2 in held.take_dirt().jobs
    assert not held.snapshot().made_for


def test_nobody_waits_for_a_create_of_a_term_that_has_ended(held):
    put_job(held)
    held.begin_create(U1, A1)
    put_job(held, version=5, uid="u2")
    held.forget_plans()
    assert not held.snapshot().creating
    assert not held.snapshot().leaving
    assert held.job(U1) is None


def test_a_pod_of_the_same_name_with_another_uid_replaces_the_first(held):
    put_pod(held)
    put_pod(held, uid="p9", version=7)
    assert held.snapshot().pods_of[U1][A1].uid == "p9"


def test_foreign_noise_is_not_dirt(held):
    put_pod(held, name="f", owner=None, spec={"nodeName": "n1"})
    held.take_dirt()
    put_pod(
        held,
        name="f",
        owner=None,
        version=2,
        spec={"nodeName": "n1"},
        status={"conditions": [{"type": "Ready", "status": "True"}]},
    )
    assert dirt(held) == (set(), set(), False)


def test_a_source_that_ends_wakes_who_waits_for_it(held):
    put_job(held, name="source", uid="u1", status={"phase": "Running"})
    put_job(held, kind=Kind.INFERENCE, name="i", uid="u2", spec={"model": {"fromTrainingJob": "source"}})
    put_job(held, kind=Kind.INFERENCE, name="other", uid="u3", spec={"model": {"fromTrainingJob": "elsewhere"}})
    held.take_dirt()
    put_job(held, name="source", uid="u1", version=2, status={"phase": "Succeeded"})
    assert held.take_dirt().jobs == {U1, U2}


def test_a_node_that_changes_wakes_the_jobs_on_it(held):
    node = Node(name=NodeName("n1"), labels={})
    held.nodes.put("n1", 1, node)
    put_job(held)
    put_pod(held, spec={"nodeName": "n1"})
    held.take_dirt()
    held.nodes.put("n1", 2, node)  # a heartbeat
    assert dirt(held) == (set(), set(), False)
    held.nodes.put("n1", 3, replace(node, ready=False))
    assert dirt(held) == ({U1}, {"n1"}, True)


def test_a_namespace_that_comes_or_changes_has_its_own_jobs_decided_again(held):
    put_job(held)
    namespace = held.job(U1).namespace  # type: ignore[union-attr]
    known = Namespace(name=namespace, labels={"tier": "gold"})
    dirt(held)
    held.namespaces.put(namespace, 5, known)
    assert held.snapshot().namespaces == {namespace: known}
    assert dirt(held)[0] == {U1}
    held.namespaces.put(namespace, 6, known)
    held.namespaces.put("other", 7, Namespace(name="other", labels={}))
    assert not dirt(held)[0]
    held.namespaces.put(namespace, 8, Namespace(name=namespace, labels={}))
    assert dirt(held)[0] == {U1}
    held.namespaces.remove(namespace, 9)
    assert set(held.snapshot().namespaces) == {"other"}


# --- claims and volumes


def test_a_claim_or_its_volume_wakes_the_jobs_that_name_it(held):
    put_job(held, spec={"output": {"uri": "pvc://models/a"}})
    put_job(held, name="b", uid="u2", spec={"output": {"uri": "pvc://other/a"}})
    dirt(held)
    made = Claim(namespace="ns", name="models", volume="pv", phase="Bound")
    held.claims.put(("ns", "models"), 1, made)
    assert dirt(held)[0] == {U1}
    held.claims.put(("ns", "models"), 2, replace(made))  # nothing of it changed
    held.claims.put(("elsewhere", "models"), 3, replace(made, namespace="elsewhere"))
    assert dirt(held)[0] == set()
    held.volumes.put("pv", 4, Volume(name="pv"))
    assert dirt(held)[0] == {U1}
    assert held.snapshot().claims["ns", "models"] == made
    assert held.snapshot().volumes["pv"] == Volume(name="pv")
    held.volumes.remove("pv", 5)
    held.claims.remove(("ns", "models"), 6)
    assert dirt(held)[0] == {U1}
    assert ("ns", "models") not in held.snapshot().claims


def test_nothing_is_remembered_of_the_claims_of_a_job_that_is_gone(held):
    put_job(held, spec={"output": {"uri": "pvc://models/a"}})
    held.jobs.remove((Kind.TRAINING, "ns", "a"), 9)
    assert (held._mounts._users, held._mounts._uses) == ({}, {})


def test_a_job_that_cannot_be_read_takes_the_place_of_the_one_that_could(held):
    put_job(held, status={"phase": "Running", "assignments": [{"pod": "a-1", "node": "n1"}]})
    dirt(held)
    put_job(held, version=2, status={"phase": "Exploded", "assignments": [{"pod": "a-1", "node": "n1"}]})
    job = held.job(U1)
    assert "Exploded" in job.set_aside
    assert [a.pod for a in job.status.assignments] == ["a-1"]
    assert U1 in dirt(held)[0]
    assert list(held.unreadable()) == ["TrainingJob"]
    put_job(held, version=3, status={"phase": "Running"})
    assert not held.job(U1).set_aside
    assert list(held.unreadable()) == []


def test_objects_without_a_name_are_left_alone(held):
    for body in (
        {},
        {"metadata": 5},
        {"metadata": {"name": "a"}},
        {"metadata": {**job_body()["metadata"], "resourceVersion": "x"}},
    ):
        assert ingest.job(held, Kind.TRAINING, body) is None
        ingest.job_gone(held, Kind.TRAINING, body)
        ingest.pool(held, body)
        ingest.pool_gone(held, body)
        ingest.quota(held, body)
        ingest.quota_gone(held, body)
        ingest.pod(held, body)
    assert not held.snapshot().jobs


def test_what_cannot_be_read_of_a_pod_of_others_is_dirt(held):
    put_pod(held, name="f", owner=None, spec={"nodeName": "n1"})
    dirt(held)
    put_pod(
        held,
        name="f",
        version=2,
        owner=None,
        spec={"nodeName": "n1", "containers": [{"resources": {"requests": {"cpu": "x"}}}]},
    )
    assert dirt(held)[1] == {NodeName("n1")}
    assert held.snapshot().foreign["n1"][0].unreadable
    assert list(held.unreadable()) == ["Pod"]


def test_limits_that_become_unreadable_stay_in_force_and_admit_nothing(held):
    meta = {**job_body()["metadata"], "name": "default"}
    spec = {"nodeSelector": {"tier": "gold"}, "perGPU": [{"minMemory": "22Gi", "training": 1}]}
    ingest.pool(held, {"metadata": meta, "spec": spec})
    ingest.pool(held, {"metadata": {**meta, "resourceVersion": "2", "generation": 2}, "spec": 5})
    gold = held.snapshot().pools["default"]
    assert gold.unreadable
    assert (gold.spec.stop_policy, gold.spec.node_selector, len(gold.spec.per_gpu)) == ("Hold", {"tier": "gold"}, 1)
    shares = {"pools": [{"name": "default", "gpus": {"nominal": 4, "lendingLimit": 0}}]}
    ingest.quota(held, {"metadata": meta, "spec": shares})
    ingest.quota(held, {"metadata": {**meta, "resourceVersion": "2", "generation": 2}, "spec": {"pools": 5}})
    quota = held.snapshot().quotas["ns"]
    assert quota.unreadable
    assert (quota.spec.stop_policy, quota.spec.pools[0].gpus.nominal) == ("Hold", 4)
    assert sorted(held.unreadable()) == ["GPUPool", "GPUQuota"]


def test_what_an_unreadable_quota_reserves_is_known_after_a_restart_too():
    """Its own status says it; the status stays as it is until the spec can be read."""
    meta = {**job_body()["metadata"], "name": "default"}
    shares = {"pools": [{"name": "gold", "gpus": {"nominal": 4, "lendingLimit": 1}}, {"name": "silver"}]}
    before = state()
    ingest.quota(before, {"metadata": meta, "spec": shares})
    written = status_of(before)
    for _ in range(2):  # an operator of another version, started twice
        after = state()
        ingest.quota(after, {"metadata": meta, "spec": {"pools": 5}, "status": written})
        read = after.snapshot().quotas["ns"]
        assert read.unreadable
        assert [quotas.entry_of("ns", name, after.snapshot()).gpus.reserved for name in ("gold", "silver")] == [3, 0]
        written = status_of(after)


def status_of(held):
    """The status of the only quota after a turn."""
    made = turn(held.snapshot(), now=NOW).actions
    written = (a.status for a in made if isinstance(a, PatchLimitsStatus) and isinstance(a.target, Quota))
    return next(written, held.snapshot().quotas["ns"].status)


@pytest.mark.parametrize("pools", [5, [5], [{"name": 5}], [{"name": "gold", "reserved": -1}], [{"reserved": 3}]])
def test_a_status_that_cannot_be_read_reserves_nothing(pools, held):
    meta = {**job_body()["metadata"], "name": "default"}
    ingest.quota(held, {"metadata": meta, "spec": 5, "status": {"pools": pools}})
    assert quotas.entry_of("ns", "gold", held.snapshot()).gpus.reserved == 0


def test_the_room_of_a_job_that_becomes_unreadable_stays_held(held):
    put_job(held, status={"phase": "Running", "assignments": [{"pod": "a-1", "node": "n1", "gpus": 2}]})
    put_job(held, version=2, status={"phase": 5, "assignments": 5})
    job = held.job(U1)
    assert job.set_aside
    assert (job.status.phase, [a.node for a in job.status.assignments]) == (Phase.RUNNING, ["n1"])


def test_jobs_and_quotas_of_other_namespaces_are_left_alone_and_their_pods_count() -> None:
    held = ClusterState(Defaults(), namespaces=frozenset({"team-a"}))
    assert ingest.job(held, Kind.TRAINING, job_body()) is None  # of namespace ns
    quota = {"name": "default", "namespace": "ns", "uid": "q", "resourceVersion": "1", "generation": 1}
    ingest.quota(held, {"metadata": {**quota, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}})
    put_pod(held, spec={"nodeName": "n1", "containers": []})
    shown = held.snapshot()
    assert not shown.jobs
    assert not shown.quotas
    assert shown.pods_of.keys() == {U1}  # counted as pods of a job that is gone
    served = job_body()
    served["metadata"]["namespace"] = "team-a"
    assert ingest.job(held, Kind.TRAINING, served)
    assert [job.namespace for job in held.snapshot().jobs.values()] == ["team-a"]
