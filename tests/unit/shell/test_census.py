"""What Prometheus is told of the cluster: numbers that move with the fault, and series that do not grow with jobs."""

from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from unit.core.builders import T0, after, foreign_pod, job, node, pool, quota, snapshot, statuses, whole
from unit.kube.fake_api import serving
from unit.shell.bodies import pod_body

from rfuav_kube import clock
from rfuav_operator.app import Operator
from rfuav_operator.core.model import (
    Assignment,
    Failure,
    Job,
    JobStatus,
    Kind,
    Node,
    Phase,
    Pool,
    Progress,
    Resources,
    Snapshot,
)
from rfuav_operator.core.scheduler import Changes, Scheduler
from rfuav_operator.settings import Settings
from rfuav_operator.shell import census, metrics
from rfuav_operator.shell.census import Census
from rfuav_operator.shell.reading import ingest
from rfuav_operator.shell.writing import transitions

Series = dict[tuple[str, ...], float]


def told(seen: Snapshot, *, leading: bool = True, **process: Any) -> dict[str, Series]:
    """The values after one turn on what the API server holds, by the name of the gauge."""
    scheduler = Scheduler()
    done = scheduler.turn(seen, Changes(jobs=list(seen.jobs), plan=True, everything=True), reports=(), now=T0)
    wrote = statuses(done)
    jobs = {uid: replace(held, status=wrote.get(held.name, held.status)) for uid, held in seen.jobs.items()}
    counted = Census(lambda: replace(seen, jobs=jobs), lambda: scheduler.usage, lambda: leading, lambda: process)
    return {f.name: {tuple(s.labels.values()): s.value for s in f.samples} for f in counted.collect()}


@pytest.fixture(autouse=True)
def now(monkeypatch):
    monkeypatch.setattr(clock, "now", lambda: after(60))


def test_jobs_that_find_no_room_wait_by_reason_and_leave_no_gpu_idle():
    values = told(snapshot([job(f"j{i}") for i in range(5)], nodes=[whole(gpus=2)]))
    assert values["rfuav_jobs"] == {("TrainingJob", "Admitted"): 2, ("TrainingJob", "Queued"): 3}
    assert values["rfuav_waiting_jobs"] == {("default", "TrainingJob", "WaitingForCapacity"): 3}
    assert values["rfuav_longest_wait_seconds"] == {("default", "TrainingJob"): 60}
    assert values["rfuav_namespace_jobs"] == {
        ("team", "TrainingJob", "Admitted"): 2,
        ("team", "TrainingJob", "Queued"): 3,
    }
    assert values["rfuav_pool_gpus"] == {("default",): 2}
    assert values["rfuav_pool_gpu_slots_free"] == {("default", "TrainingJob"): 0, ("default", "InferenceJob"): 0}
    assert values["rfuav_pool_gpus_idle"] == values["rfuav_pool_gpus_idle_while_waiting"] == {("default",): 0}


def test_gpus_that_stay_idle_while_a_job_waits_for_room_are_told():
    """A job of four GPUs on two nodes of two."""
    nodes = [whole("n1", gpus=2), whole("n2", gpus=4)]
    wide = replace(job("wide"), spec=replace(job().spec, resources=Resources(gpus=4, cpu="1", memory="1Gi")))
    values = told(
        snapshot(
            [job("a"), wide], nodes=[*nodes[:1], replace(nodes[1], gpus=4)], foreign=[foreign_pod("x", "n2", gpus=1)]
        )
    )
    assert values["rfuav_waiting_jobs"] == {("default", "TrainingJob", "WaitingForCapacity"): 1}
    assert values["rfuav_pool_gpu_slots_foreign"] == {("default",): 1}
    assert values["rfuav_pool_gpus_idle"] == values["rfuav_pool_gpus_idle_while_waiting"] == {("default",): 4}
    assert told(snapshot([job("a")], nodes=nodes))["rfuav_pool_gpus_idle_while_waiting"] == {("default",): 0}


def test_a_job_on_hold_is_not_kept_waiting_by_idle_gpus():
    values = told(snapshot([job("a")], pools=[pool(stop_policy="Hold")]))
    assert values["rfuav_waiting_jobs"] == {("default", "TrainingJob", "OnHold"): 1}
    assert values["rfuav_pool_gpus_idle"] == {("default",): 2}
    assert values["rfuav_pool_gpus_idle_while_waiting"] == {("default",): 0}


@pytest.mark.parametrize(
    ("fault", "unusable"),
    [
        (node("n2", gpus=1, slots=4, capacity=8), 4),  # a GPU is unhealthy
        (node("n2", memory_mib=None), 8),  # no labels of GPU feature discovery
        (node("n2", ready=False), 8),
        (node("n2", unschedulable=True), 8),
    ],
)
def test_slots_that_take_no_jobs_are_told(fault: Node, unusable: int):
    values = told(snapshot(nodes=[node("n1"), fault]))
    assert values["rfuav_pool_gpu_slots_unusable"] == {("default",): unusable}
    assert values["rfuav_pool_nodes"]["default", "closed"] == (not fault.is_open)


def test_what_running_jobs_report_is_summed_and_the_longest_silence_told():
    def running(name: str, rate: float | None, seconds: float) -> Job:
        progress = Progress(samples_per_second=rate, updated_at=after(60 - seconds))
        return job(name, status=JobStatus(phase=Phase.RUNNING, progress=progress))

    seen = snapshot([running("a", 100.0, 2), running("b", 50.5, 700), running("c", None, 1)])
    values = census.of_jobs(seen, after(60))
    assert values["rfuav_samples_per_second"] == {("default", "TrainingJob"): 150.5}
    assert values["rfuav_longest_silence_seconds"] == {("default", "TrainingJob"): 700}


def test_gpu_use_is_summed_over_jobs_and_utilisation_is_the_mean():
    def running(name: str, memory: int | None, percent: int | None) -> Job:
        progress = Progress(gpu_memory_bytes=memory, gpu_utilization=percent, updated_at=T0)
        return job(name, status=JobStatus(phase=Phase.RUNNING, progress=progress))

    values = census.of_jobs(
        snapshot([running("a", 2**30, 80), running("b", 2**31, 20), running("cpu", None, None)]), T0
    )
    assert values["rfuav_trainer_gpu_memory_bytes"] == {("default", "TrainingJob"): 3 * 2**30}
    assert values["rfuav_trainer_gpu_utilization"] == {("default", "TrainingJob"): 0.5}


def test_a_pool_that_is_not_ready_says_why():
    broken: Pool = replace(pool(), status={"conditions": [{"type": "Ready", "status": "False", "reason": "NoNodes"}]})
    values = told(snapshot(pools=[broken], quotas=[quota(nominal=3), quota("red", 2), quota("blue", 1, pool="gone")]))
    assert values["rfuav_pool_ready"] == {("default", "NoNodes"): 0}
    assert values["rfuav_quota_gpu_slots"] == {("team", "default"): 3, ("red", "default"): 2}


def test_a_replica_on_standby_tells_of_itself_alone():
    values = told(snapshot([job("a")]), leading=False, rfuav_ready={(): 1.0})
    assert values["rfuav_leader"] == {(): 0}
    assert values["rfuav_ready"] == {(): 1}
    assert not values.keys() & census.OF_CLUSTER.keys()


def test_namespaces_beyond_the_hundred_with_most_jobs_are_one(monkeypatch):
    monkeypatch.setattr(census, "MOST_NAMESPACES", 2)
    jobs = [
        job(f"{name}{i}", namespace=name)
        for name, count in (("a", 1), ("b", 3), ("c", 2), ("d", 1))
        for i in range(count)
    ]
    found = census.of_jobs(snapshot(jobs), T0)["rfuav_namespace_jobs"]
    assert found == {
        ("b", "TrainingJob", "New"): 3,
        ("c", "TrainingJob", "New"): 2,
        ("(other)", "TrainingJob", "New"): 2,
    }


def play(jobs: int) -> set[tuple[str, ...]]:
    """The series of everything that so many jobs of every sort leave behind, each in a pool and with words of its own."""
    seen = []
    for index in range(jobs):
        kind, sort = list(Kind)[index % 2], index // 2 % 5
        before = job(f"j{index}", kind=kind, pool=f"pool{index}" if sort == 0 else "default")
        failure = Failure(attempt=1, pod=f"p{index}", reason=f"Word{index}", finished_at=T0, counted=sort == 1)
        held = Assignment(pod=f"p{index}", node="n1", gpus=1, stopping="Preempted" if sort == 2 else "")
        status = {
            0: JobStatus(phase=Phase.QUEUED, reason=f"Word{index}", queued_at=T0),
            1: JobStatus(phase=Phase.QUEUED, reason="BackingOff", failures=(failure,), queued_at=T0, admitted_at=T0),
            2: JobStatus(phase=Phase.RUNNING, assignments=(held,), queued_at=T0, admitted_at=T0, started_at=T0),
            3: JobStatus(phase=Phase.RUNNING, progress=Progress(samples_per_second=1.0 + index, updated_at=T0)),
            4: JobStatus(phase=Phase.FAILED, reason=f"Word{index}", finished_at=T0),
        }[sort]
        transitions.count(before, status, after(1))
        seen.append(replace(before, status=status))
    snap = snapshot(seen, nodes=[node()])
    scheduler = Scheduler()
    scheduler.turn(snap, Changes(jobs=list(snap.jobs), plan=True, everything=True), reports=(), now=T0)
    metrics.registry.register(counted := Census(lambda: snap, lambda: scheduler.usage, lambda: True, dict))
    try:
        return {(s.name, *map(str, s.labels.items())) for f in metrics.registry.collect() for s in f.samples}
    finally:
        metrics.registry.unregister(counted)


def test_a_thousand_jobs_have_no_more_series_than_ten():
    few = play(10)
    assert {name for name, *_ in few} >= {"rfuav_waiting_jobs", "rfuav_pod_failures_total", "rfuav_jobs_finished_total"}
    assert play(1000) == few


def counters() -> dict[tuple[str, ...], float]:
    return {
        (s.name, *s.labels.values()): s.value
        for f in metrics.registry.collect()
        for s in f.samples
        if not s.name.endswith(("_bucket", "_created"))
    }


def gained(*steps: JobStatus) -> dict[tuple[str, ...], float]:
    """What the metrics gain by a training's way through these statuses."""
    before, held = counters(), job("a", created=T0)
    for index, status in enumerate(steps):
        transitions.count(held, status, after(100 + index))
        held = replace(held, status=status)
    return {key: value - before.get(key, 0.0) for key, value in counters().items() if value != before.get(key, 0.0)}


def test_waits_are_counted_at_the_first_admission_and_the_first_start():
    queued = JobStatus(phase=Phase.QUEUED, queued_at=T0)
    admitted = replace(queued, phase=Phase.ADMITTED, admitted_at=after(30))
    running = replace(admitted, phase=Phase.RUNNING, started_at=after(42))
    again = replace(running, phase=Phase.ADMITTED, admitted_at=after(90))
    where = ("default", "TrainingJob")
    assert gained(queued, admitted, running, again) == {
        ("rfuav_admission_wait_seconds_count", *where): 1,
        ("rfuav_admission_wait_seconds_sum", *where): 30,
        ("rfuav_start_wait_seconds_count", *where): 1,
        ("rfuav_start_wait_seconds_sum", *where): 12,
    }


def test_stops_failures_and_ends_are_counted_once_by_their_cause():
    held = Assignment(pod="p", node="n1", gpus=1)
    running = JobStatus(phase=Phase.RUNNING, assignments=(held,))
    stopping = replace(running, assignments=(replace(held, stopping="Preempted"),))
    later = replace(stopping, message="still saves")
    failure = Failure(attempt=1, pod="p", reason="OutOfMemory", finished_at=T0, counted=True)
    evicted = Failure(attempt=2, pod="q", reason="SomethingThatAnImageSays", finished_at=T0)
    failed = JobStatus(phase=Phase.FAILED, reason="OutOfMemory", failures=(failure, evicted))
    assert gained(running, stopping, later, failed, failed) == {
        ("rfuav_pods_stopped_total", "default", "TrainingJob", "Preempted"): 1,
        ("rfuav_pod_failures_total", "TrainingJob", "OutOfMemory", "true"): 1,
        ("rfuav_pod_failures_total", "TrainingJob", "(other)", "false"): 1,
        ("rfuav_jobs_finished_total", "TrainingJob", "Failed", "OutOfMemory"): 1,
    }


def test_the_lag_of_a_report_ends_when_a_status_has_it():
    reported = JobStatus(phase=Phase.RUNNING, progress=Progress(percent=1, updated_at=after(97)))
    assert gained(reported, replace(reported, message="x")) == {
        ("rfuav_progress_lag_seconds_count",): 1,
        ("rfuav_progress_lag_seconds_sum",): 3,
    }


async def test_a_pod_that_cannot_be_read_is_counted_by_its_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "registry", CollectorRegistry())
    async with serving(tmp_path) as (_, connection):
        operator = Operator(Settings(namespace="rfuav-system", leader={"identity": "test"}), connection)
        body = pod_body(owner=None, spec={"containers": [{"resources": {"requests": {"cpu": "x"}}}]})
        ingest.pod(operator.state, body)
        operator.state.heard_at["trainingjobs"] = clock.monotonic() - 400
        text = generate_latest(metrics.registry).decode()
    assert 'rfuav_objects_set_aside{resource="Pod"} 1.0' in text
    (silent,) = (line for line in text.splitlines() if line.startswith("rfuav_watch_silent_seconds{"))
    assert 'resource="trainingjobs"' in silent
    assert float(silent.split()[-1]) >= 400
    assert "rfuav_ready 0.0" in text
    assert "rfuav_waiting_jobs" not in text  # it does not lead
