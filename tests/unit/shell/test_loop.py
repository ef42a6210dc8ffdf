"""The loop keeps nothing of what is gone; a turn or a job that fails ends nothing."""

from typing import Any

from msgspec.structs import replace
from unit.core.builders import T0, admitted, after, job, node, pod_of
from unit.shell.bodies import job_body

from rfuav_kube import clock
from rfuav_operator.core.admission.index import Admission
from rfuav_operator.core.job import lifecycle
from rfuav_operator.core.model import Action, Defaults, Kind, NodeName, PatchStatus, PodPhase
from rfuav_operator.core.scheduler import Scheduler
from rfuav_operator.shell import gpu_time, loop, metrics
from rfuav_operator.shell.gpu_time import GpuTime
from rfuav_operator.shell.loop import Loop
from rfuav_operator.shell.reading import ingest
from rfuav_operator.shell.reading.state import ClusterState


def test_ends_on_nodes_that_are_gone_are_forgotten(monkeypatch):
    """A cluster that scales has another name for every node that comes."""
    now = [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    writer: Any = None
    made = Loop(ClusterState(Defaults()), writer, lambda _jobs: [])
    held = admitted(job("a"), nodes=[node()])[0]
    for index in range(1000):
        now[0] += 1.0
        pod = pod_of(held, phase=PodPhase.RUNNING, node=NodeName(f"spot-{index}"))
        made.pod_changed(pod, replace(pod, phase=PodPhase.SUCCEEDED))
    assert len(made._freed) <= 2 * loop.HANDOFF_LIMIT + 1


class Sink:
    """Takes what a writer would."""

    def __init__(self) -> None:
        self.actions: list[Action] = []

    def submit(self, actions: Any) -> None:
        self.actions += actions


def looping() -> tuple[Loop, ClusterState, Sink]:
    state, sink = ClusterState(Defaults()), Sink()
    made = Loop(state, sink, lambda _jobs: [])  # type: ignore[arg-type]
    for i, name in enumerate(("a", "bad")):
        ingest.job(state, Kind.TRAINING, job_body(name, uid=f"u{i}", version=i + 1))
    return made, state, sink


def told(sink: Sink) -> set[str]:
    return {action.job.name for action in sink.actions if isinstance(action, PatchStatus)}


def counted(name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0


def test_a_turn_that_fails_is_made_again_on_everything(monkeypatch):
    made, state, sink = looping()
    before = counted("rfuav_faults_total", part="turn")
    with monkeypatch.context() as patched:

        def broken(*_args: Any, **_named: Any) -> Any:
            raise RuntimeError("something nobody thought of")

        patched.setattr(Scheduler, "turn", broken)
        made.turn(T0)
    assert not sink.actions
    assert counted("rfuav_faults_total", part="turn") == before + 1
    dirt = state.take_dirt()
    assert dirt.everything
    state.touch_all()
    made.turn(after(5))
    assert told(sink) == {"a", "bad"}


def test_a_job_whose_handling_fails_is_counted_by_its_kind(monkeypatch):
    made, _, sink = looping()
    step = lifecycle.step

    def broken(job: Any, facts: Any) -> Any:
        if job.name == "bad":
            raise RuntimeError("something nobody thought of")
        return step(job, facts)

    monkeypatch.setattr(lifecycle, "step", broken)
    before = counted("rfuav_faults_total", part="job")
    made.turn(T0)
    assert told(sink) == {"a", "bad"}
    assert list(made.set_aside()) == ["TrainingJob"]
    assert counted("rfuav_faults_total", part="job") == before + 1


def test_a_plan_that_fails_for_no_job_is_counted(monkeypatch):
    made, _, _ = looping()
    before = counted("rfuav_faults_total", part="plan")

    def broken(*_args: Any, **_named: Any) -> Any:
        raise RuntimeError("something nobody thought of")

    monkeypatch.setattr(Admission, "plan", broken)
    made.turn(T0)
    assert counted("rfuav_faults_total", part="plan") == before + 1


def test_a_turn_that_takes_long_is_seen(monkeypatch):
    made, _, _ = looping()
    seconds = iter([100.0, 101.5])
    monkeypatch.setattr(loop.time, "perf_counter", lambda: next(seconds))
    before = {le: counted("rfuav_turn_seconds_bucket", le=le) for le in ("1.0", "2.0")}
    made.turn(T0)
    assert {le: counted("rfuav_turn_seconds_bucket", le=le) - was for le, was in before.items()} == {"1.0": 0, "2.0": 1}


def test_gpu_seconds_follow_what_jobs_hold_and_only_grow(monkeypatch):
    """Two GPUs for ten seconds, then one for five, then another process leads."""
    now = [100.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    told = GpuTime()
    two = {("team", Kind.TRAINING, "default"): 2}

    def values() -> dict[str, list[tuple[tuple[str, ...], float]]]:
        return {f.name: [(tuple(s.labels.values()), s.value) for s in f.samples] for f in told.collect()}

    told.note(two)
    now[0] += 10
    assert values() == {
        "rfuav_gpu_seconds": [(("team", "TrainingJob", "default"), 20.0)],
        "rfuav_gpus_held": [(("team", "TrainingJob", "default"), 2)],
    }
    two["team", Kind.TRAINING, "default"] = 1  # the scheduler's own map, which changes
    told.note(two)
    now[0] += 5
    told.note({})
    now[0] += 1000
    assert values() == {"rfuav_gpu_seconds": [(("team", "TrainingJob", "default"), 25.0)], "rfuav_gpus_held": []}


def test_series_of_gpu_seconds_are_bounded(monkeypatch):
    monkeypatch.setattr(gpu_time, "MOST_HOLDERS", 3)
    told = GpuTime()
    for index in range(10):
        told.note({(f"ns{index}", Kind.TRAINING, "default"): 1, ("old", Kind.INFERENCE, "default"): 1})
    (seconds, _) = told.collect()
    assert {sample.labels["namespace"] for sample in seconds.samples} == {"ns8", "ns9", "old"}


def test_a_turn_notes_the_gpus_that_its_jobs_hold(monkeypatch):
    made, state, _ = looping()
    told = GpuTime()
    monkeypatch.setattr(loop, "gpu_time", told)
    held = admitted(job("c"), nodes=[node()])[0]
    state.jobs.put((held.kind, held.namespace, held.name), 99, held)
    made.turn(T0)
    assert dict(made.usage.gpus) == {(held.namespace, Kind.TRAINING, "default"): 1}
    assert [s.value for s in list(told.collect())[1].samples] == [1]
