"""The core answers others than the operator: when would this job start, on a snapshot of their own?"""

from msgspec.structs import replace
from unit.core.builders import DEFAULTS, T0, admitted, after, job, node, pod_of, pool

from rfuav_operator.core.model import JobStatus, Phase, PodPhase, Progress, Snapshot
from rfuav_operator.core.scheduler import turn


def of(*jobs, pods=(), on=None) -> Snapshot:
    """No more than somebody has who only reads."""
    return Snapshot(
        jobs={j.uid: j for j in jobs},
        pods_of={p.job_uid: {p.name: p} for p in pods},
        nodes={(n := on or node()).name: n},
        pools={(p := pool()).name: p},
        defaults=DEFAULTS,
    )


def test_on_a_free_node_it_would_start_now():
    asked = job("new", status=JobStatus())
    found = turn(of(asked), now=T0).status_of(asked)
    assert (found.phase, [a.node for a in found.assignments]) == (Phase.ADMITTED, ["n1"])


def test_behind_others_it_says_its_place_the_reason_and_when():
    one = node(gpus=1, slots=1)
    held = admitted(job("old"), nodes=[one])[0]
    running = pod_of(held, phase=PodPhase.RUNNING)
    reported = Progress(percent=50, remaining_seconds=600, updated_at=T0)
    held = replace(held, status=replace(held.status, progress=reported))
    asked = job("new", status=JobStatus())
    found = turn(of(held, asked, pods=[running], on=one), now=T0).status_of(asked)
    assert (found.phase, found.reason, found.queue.position) == (Phase.QUEUED, "WaitingForCapacity", 1)
    assert found.queue.estimated_start == after(600)


def test_a_job_for_which_nothing_changes_has_the_status_that_it_had():
    done = job("done", status=JobStatus(phase=Phase.SUCCEEDED, observed_generation=1))
    assert turn(of(done), now=T0).status_of(done) == done.status
