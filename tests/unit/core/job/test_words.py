"""Whatever happens to a job: its status, conditions, failures and events say something, and not the reason twice."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from unit.core.builders import T0, admitted, job, node, of_type, pod_of, pool, run, snapshot, statuses

from rfuav_operator.core.job.lifecycle import sentence
from rfuav_operator.core.model import (
    Job,
    JobStatus,
    Kind,
    Phase,
    Pod,
    PodPhase,
    Progress,
    RecordEvent,
    ShardCounts,
    Snapshot,
)

LATER = T0 + timedelta(seconds=30)


def said(seen: Snapshot) -> Iterator[tuple[str, str]]:
    """Every reason with its message that one turn writes."""
    done = run(
        seen, now=LATER, dirty=[j.uid for j in seen.jobs.values() if not j.status.phase or not j.status.phase.terminal]
    )
    for name, status in statuses(done).items():
        before = next(j.status for j in seen.jobs.values() if j.name == name)
        yield status.reason or "Running", status.message
        old = set(before.conditions)
        yield from ((c.reason, c.message) for c in status.conditions if c not in old)
        yield from ((f.reason, f.message) for f in status.failures)
    for event in of_type(done, RecordEvent):
        yield event.reason, event.note


def holds(seen: Snapshot, name: str = "a") -> JobStatus | None:
    """The status after it, when all of it says something."""
    found = list(said(seen))
    for reason, message in found:
        assert message.strip(), reason
        assert message.strip().lower() not in (reason.lower(), f"{reason}: {reason}".lower(), "none"), reason
    return statuses(run(seen, now=LATER)).get(name)


def running(made: Job, **changes: Any) -> Job:
    """Admitted, and its pods run."""
    held = admitted(made, nodes=[node(), node("n2")])[0]
    pods = [pod_of(held, at=i, phase=PodPhase.RUNNING) for i in range(len(held.status.assignments))]
    status = statuses(run(snapshot([held], pods=pods, nodes=[node(), node("n2")])))[held.name]
    return replace(held, status=replace(status, **changes))


ENDS: dict[str, dict[str, Any]] = {
    "exit 0": {"phase": PodPhase.SUCCEEDED, "exit_code": 0},
    "exit 0, nothing known": {"phase": PodPhase.SUCCEEDED},
    **{f"exit {code}": {"exit_code": code, "terminated_reason": "Error"} for code in (1, 2, 3, 4, 75, 137, 255)},
    "out of memory": {"exit_code": 137, "terminated_reason": "OOMKilled"},
    "nothing is known": {},
    "empty words": {"exit_code": 2, "termination_message": '{"error": ""}'},
    "blank words": {"exit_code": 3, "termination_message": "  \n "},
    "a message that is no JSON object": {"exit_code": 1, "termination_message": "[]"},
    "evicted": {"reason": "Evicted"},
    "evicted, the reason twice": {"reason": "Evicted", "message": "Evicted"},
    "disrupted": {"disrupted": True},
    "out of room": {"reason": "OutOfcpu", "message": ""},
    "not admitted by the kubelet": {"reason": "UnexpectedAdmissionError"},
    "lost sight": {"terminated_reason": "ContainerStatusUnknown", "exit_code": 137},
}


@pytest.mark.parametrize("kind", ["training", "gang", "inference", "shards"])
@pytest.mark.parametrize("end", ENDS.values(), ids=list(ENDS))
def test_every_end_of_a_pod(kind, end):
    more: dict[str, Any] = {
        "training": {},
        "gang": {"nodes": 2},
        "inference": {"kind": Kind.INFERENCE},
        "shards": {"kind": Kind.INFERENCE, "shards": 2, "parallelism": 2},
    }[kind]
    for limit in (0, 3):
        held = running(job("a", backoff_limit=limit, **more))
        pods = [
            pod_of(held, at=i, **{"phase": PodPhase.FAILED} | end, finished_at=LATER)
            for i in range(len(held.status.assignments))
        ]
        holds(snapshot([held], pods=pods, nodes=[node(), node("n2")]))


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        (Kind.TRAINING, {}, "its container ended with exit code 0"),
        (Kind.TRAINING, {"progress": Progress(epoch=10, total_epochs=10)}, "all 10 epochs are done"),
        (Kind.TRAINING, {"progress": Progress(epoch=1, total_epochs=1)}, "all 1 epoch are done"),
        (Kind.INFERENCE, {"shards": ShardCounts(progress={"0": Progress(processed=7)})}, "7 inputs classified"),
        (
            Kind.INFERENCE,
            {"shards": ShardCounts(progress={"0": Progress(processed=7, failed=2)})},
            "7 inputs classified, 2 could not be read",
        ),
    ],
)
def test_a_success_says_what_was_done(kind, changes, expected):
    held = running(job("a", kind=kind), **changes)
    status = holds(snapshot([held], pods=[pod_of(held, phase=PodPhase.SUCCEEDED, exit_code=0)]))
    assert status is not None
    assert (status.phase, status.message) == (Phase.SUCCEEDED, expected)


@pytest.mark.parametrize(
    "change", [{"cancel": True}, {"suspend": True}, {"active_deadline_seconds": 1}, {"pool": "elsewhere"}]
)
@pytest.mark.parametrize("runs", [True, False])
def test_what_people_do(change, runs):
    held = running(job("a")) if runs else admitted(job("a"), nodes=[node(slots=0, gpus=0)])[0]
    pods = [pod_of(held, phase=PodPhase.RUNNING)] if runs else []
    held = replace(held, spec=replace(held.spec, **change), generation=2)
    nodes = [node()] if runs else [node(slots=0, gpus=0)]
    if "active_deadline_seconds" in change and not runs:
        return
    holds(snapshot([held], pods=pods, nodes=nodes))


def test_resumed():
    held = admitted(job("a", suspend=True))[0]
    assert "spec.suspend" in held.status.message
    resumed = replace(held, spec=replace(held.spec, suspend=False), generation=2)
    holds(snapshot([resumed]))
    holds(snapshot([resumed], nodes=[]))


@pytest.mark.parametrize("stop", ["Hold", "HoldAndDrain"])
def test_a_pool_that_stops(stop):
    held = running(job("a"))
    pods = [pod_of(held, phase=PodPhase.RUNNING)]
    waiting = job("b")
    holds(snapshot([held, waiting], pods=pods, pools=[pool(stop_policy=stop)]))


@pytest.mark.parametrize(
    "pod",
    [
        {"unschedulable": "0/1 nodes are available"},
        {"node": "n1", "waiting_reason": "ErrImagePull"},
        {"node": "n1", "waiting_reason": "CreateContainerConfigError"},
        {"node": "n1", "waiting_reason": "ContainerCreating"},
        {"phase": PodPhase.RUNNING},
        {"phase": PodPhase.RUNNING, "deleting": True},
    ],
)
def test_what_a_live_pod_waits_for(pod):
    held = admitted(job("a"))[0]
    made: Pod = pod_of(held, **pod)
    for late in (T0, T0 - timedelta(hours=2)):
        holds(snapshot([held], pods=[replace(made, created=late)]))


def test_pods_that_are_gone_and_refused():
    held = running(job("a"))
    holds(snapshot([held]))
    fresh = admitted(job("a"))[0]
    holds(snapshot([fresh], rejected={fresh.uid: "exceeded quota"}))
    holds(snapshot([fresh], rejected={fresh.uid: " "}))


def test_a_source_that_failed():
    for message in ("", "Failed"):
        source = job("t", status=JobStatus(phase=Phase.FAILED, reason="Failed", message=message, finished_at=T0))
        status = holds(snapshot([source, job("i", kind=Kind.INFERENCE, source="t")]), "i")
        assert status is not None
        assert status.phase is Phase.FAILED


@pytest.mark.parametrize(("reason", "message"), [("Evicted", ""), ("Evicted", " evicted "), ("Evicted", "low on disk")])
def test_a_sentence(reason, message):
    assert sentence(reason, message) == ("low on disk" if "disk" in message else "Evicted (no further message)")
