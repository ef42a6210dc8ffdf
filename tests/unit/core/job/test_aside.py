"""What fails for one job is that job's alone: the others are decided as if it were not there."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from unit.core.builders import (
    T0,
    admitted,
    after,
    created,
    foreign_pod,
    job,
    node,
    of_type,
    pod_of,
    pool,
    snapshot,
    statuses,
)

from rfuav_operator.core import conditions
from rfuav_operator.core.admission import waiting
from rfuav_operator.core.admission.positions import Places
from rfuav_operator.core.capacity import explain, gpu_sharing, room
from rfuav_operator.core.job import aside, deadlines, events, lifecycle, podspec
from rfuav_operator.core.model import (
    CreatePod,
    Job,
    JobStatus,
    PatchStatus,
    Phase,
    PodPhase,
    Progress,
    RecordEvent,
    ResourceQuota,
)
from rfuav_operator.core.quantity import Amounts
from rfuav_operator.core.scheduler import Changes, Scheduler

ALL = Changes(plan=True, everything=True)


def turn(scheduler: Scheduler, seen: Any, *, at: float = 0, dirt: Changes | None = None) -> Any:
    return scheduler.turn(seen, dirt or replace(ALL, jobs=set(seen.jobs)), reports=[], now=after(at))


def fails_for(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, who: Callable[[Any], bool]) -> None:
    """Have a function raise whenever one of its arguments is at fault."""
    real = getattr(owner, name)

    def broken(*args: Any, **named: Any) -> Any:
        if any(who(value) for value in (*args, *named.values())):
            raise RuntimeError("something nobody thought of")
        return real(*args, **named)

    monkeypatch.setattr(owner, name, broken)


def is_bad(value: Any) -> bool:
    return isinstance(value, Job) and value.name.startswith("bad") and not value.set_aside


FAULTS = [
    (lifecycle, "step"),
    (room, "shape_of"),
    (podspec, "manifest"),
    (deadlines, "next_time"),
    (waiting, "status"),
    (gpu_sharing, "is_active"),
]


@pytest.mark.parametrize(("owner", "name"), FAULTS, ids=lambda part: part if isinstance(part, str) else "")
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_job_that_cannot_be_handled_does_not_affect_the_others(monkeypatch, owner, name, place):
    waits = JobStatus(not_before=after(5)) if name == "status" else JobStatus()
    bad = job("bad", created=after(-10 if place == "first" else 0.5), status=waits)
    if (owner, name) == (gpu_sharing, "is_active"):
        held = admitted(job("bad"))[0]
        bad = replace(
            held,
            status=replace(held.status, assignments=(replace(held.status.assignments[0], gpu_uuid="GPU-1"),)),
        )
    others = [job(f"j{i}", created=after(i)) for i in range(4)]
    without = turn(Scheduler(), snapshot(others, nodes=[node("n1", gpus=2), node("n2", gpus=1, slots=1)]))
    fails_for(monkeypatch, owner, name, is_bad)
    seen = snapshot([bad, *others], nodes=[node("n1", gpus=2), node("n2", gpus=1, slots=1)])
    if bad.status.assignments:
        seen = replace(seen, nodes={**seen.nodes, "n0": node("n0", gpus=1)})
    done = turn(Scheduler(), seen)
    assert created(done) == created(without)
    assert {n: s.phase for n, s in statuses(done).items() if n != "bad"} == {
        n: s.phase for n, s in statuses(without).items()
    }
    assert [fault.of.name for fault in done.faults] == ["bad"]
    told = statuses(done)["bad"]
    assert told.reason == "InternalError"
    assert conditions.is_true(told.conditions, "Stalled")
    assert "something nobody thought of" in told.message
    assert any(e.reason == "InternalError" and e.job.name == "bad" for e in of_type(done, RecordEvent))


def test_one_whose_events_cannot_be_made_is_set_aside_in_silence(monkeypatch):
    fails_for(monkeypatch, events, "events", is_bad)
    done = turn(Scheduler(), snapshot([job("bad"), job("good")]))
    assert [fault.of.name for fault in done.faults] == ["bad"]
    assert list(statuses(done)) == ["good"]
    assert created(done)


def test_it_is_retried_at_growing_intervals_and_logged_once(monkeypatch):
    fails_for(monkeypatch, lifecycle, "step", is_bad)
    scheduler, bad = Scheduler(), job("bad")
    done = turn(scheduler, snapshot([bad]))
    bad = replace(bad, status=statuses(done)["bad"])
    tried = []
    for second in range(1, 100):
        done = turn(scheduler, snapshot([bad]), at=second, dirt=Changes(plan=True))
        assert not of_type(done, PatchStatus)
        if done.faults:
            tried.append(second)
    assert tried == [10, 30, 70]
    assert done.wake_at == after(150)


def test_a_changed_job_is_tried_immediately_and_its_recovery_is_reported(monkeypatch):
    with monkeypatch.context() as patched:
        fails_for(patched, lifecycle, "step", is_bad)
        scheduler, bad = Scheduler(), job("bad")
        bad = replace(bad, status=statuses(turn(scheduler, snapshot([bad])))["bad"])
        assert list(scheduler.aside) == [bad.uid]
    bad = replace(bad, generation=2)
    done = turn(scheduler, snapshot([bad]), at=1, dirt=Changes(jobs=[bad.uid], plan=True))
    assert created(done)
    assert not list(scheduler.aside)
    told = statuses(done)["bad"]
    assert told.phase is Phase.ADMITTED
    assert not conditions.is_true(told.conditions, "Stalled")


def test_a_job_that_is_gone_is_forgotten(monkeypatch):
    fails_for(monkeypatch, lifecycle, "step", is_bad)
    scheduler, bad = Scheduler(), job("bad")
    turn(scheduler, snapshot([bad]))
    turn(scheduler, snapshot([]), at=1, dirt=Changes(jobs=[bad.uid], plan=True))
    assert not list(scheduler.aside)


def test_hundreds_that_fail_are_set_aside_in_one_turn(monkeypatch):
    fails_for(monkeypatch, lifecycle, "step", is_bad)
    crowd = [job(f"bad{i}") for i in range(300)]
    done = turn(Scheduler(), snapshot([*crowd, job("good")]))
    assert len(done.faults) == 300
    assert len(created(done)) == 1


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "pod"])
def test_what_it_holds_stays_held(monkeypatch, recorded):
    small = [node("n1", gpus=1, slots=1)]
    bad = admitted(job("bad"), nodes=small)[0]
    pods = [] if recorded else [pod_of(bad, phase=PodPhase.RUNNING)]
    fails_for(monkeypatch, lifecycle, "step", is_bad)
    fails_for(monkeypatch, room, "shape_of", is_bad)
    done = turn(Scheduler(), snapshot([bad, job("next")], pods=pods, nodes=small))
    assert created(done) == []
    assert "0 of 1" in statuses(done)["next"].message


def test_a_running_job_that_makes_a_plan_fail_is_set_aside(monkeypatch):
    """The case of 2026: an estimate that cannot be added to an instant, met when others are told when they may start."""
    real = Places.ends

    def ends(self, usage, pool, jobs, now):
        for uid in {uid for uid, _, _ in usage.of_pool(pool)}:
            if jobs[uid].status.progress is not None and jobs[uid].status.progress.percent == 13:
                raise OverflowError("date value out of range")
        return real(self, usage, pool, jobs, now)

    monkeypatch.setattr(Places, "ends", ends)
    running = admitted(job("bad"), job("good"))
    running[0] = replace(running[0], status=replace(running[0].status, progress=Progress(percent=13)))
    pods = [pod_of(j, phase=PodPhase.RUNNING) for j in running]
    others = [job(f"w{i}", created=after(i)) for i in range(20)]
    done = turn(Scheduler(), snapshot([*running, *others], pods=pods))
    assert [fault.of.name for fault in done.faults] == ["bad"]
    assert {f"w{i}" for i in range(20)} <= set(statuses(done))


def test_the_job_that_makes_a_plan_fail_is_found_without_a_hint(monkeypatch):
    """Nobody is looked at when it fails: it is searched for."""
    real = explain.no_room

    def no_room(need, *rest):
        if need.requests.memory == 13 * 2**30:
            raise ZeroDivisionError
        return real(need, *rest)

    monkeypatch.setattr(explain, "no_room", no_room)
    crowd = [job(f"w{i}", created=after(i)) for i in range(30)]
    odd = job("bad", created=after(7.5))
    odd = replace(odd, spec=replace(odd.spec, resources=replace(odd.spec.resources, memory="13Gi")))
    done = turn(Scheduler(), snapshot([*crowd, odd], nodes=[node("n1", gpus=2)]))
    assert [fault.of.name for fault in done.faults] == ["bad"]
    assert len(created(done)) == 2


def test_a_plan_that_always_fails_leaves_running_jobs_alone(monkeypatch):
    def broken(*_args: Any, **_named: Any) -> Any:
        raise RuntimeError("the plan")

    held = admitted(job("a"))[0]
    ended = pod_of(held, phase=PodPhase.SUCCEEDED)
    monkeypatch.setattr("rfuav_operator.core.admission.index.admit_in_order", broken)
    scheduler = Scheduler()
    others = [job("b"), job("c")]
    done = turn(scheduler, snapshot([held, *others], pods=[ended]))
    assert statuses(done)["a"].phase is Phase.SUCCEEDED
    assert [fault.of for fault in done.faults] == [None]
    assert done.wake_at == after(10)
    again = turn(scheduler, snapshot([held, *others], pods=[ended]), at=1)
    assert not again.faults
    monkeypatch.undo()
    assert len(created(turn(scheduler, snapshot(others), at=11))) == 2


def test_many_that_fail_in_the_plan_are_found_turn_by_turn(monkeypatch):
    fails_for(monkeypatch, waiting, "status", is_bad)
    crowd = [job(f"bad{i}", created=after(i)) for i in range(12)]
    scheduler = Scheduler()
    names = set()
    for second in range(0, 60, 10):
        done = turn(
            scheduler,
            snapshot([*crowd, job("good", created=after(50))], nodes=[node("n1", gpus=1, slots=1)]),
            at=second,
        )
        names |= {fault.of.name for fault in done.faults if fault.of is not None}
        if created(done):
            break
    assert created(done)
    assert "good" not in names


def test_a_pool_whose_status_fails_does_not_affect_the_others(monkeypatch):
    from rfuav_operator.core import pool_status
    from rfuav_operator.core.model import PatchLimitsStatus, Pool

    fails_for(monkeypatch, pool_status, "_of_pool", lambda value: isinstance(value, Pool) and value.name == "zz")
    done = turn(Scheduler(), snapshot([job("a")], pools=[pool("zz"), pool()]))
    assert created(done)
    assert [a.target.name for a in of_type(done, PatchLimitsStatus)] == ["default"]
    assert [fault.of.name for fault in done.faults] == ["zz"]


# --- what could not be read


def test_an_unreadable_job_is_set_aside_and_says_so():
    odd = replace(job("odd"), set_aside="status cannot be read: Expected `int`, got `str`")
    done = turn(Scheduler(), snapshot([odd, job("good")]))
    assert len(created(done)) == 1
    told = statuses(done)["odd"]
    assert told.reason == "Undecodable"
    assert "Expected `int`" in told.message
    assert conditions.is_true(told.conditions, "Stalled")
    assert told.phase is None
    told_already = replace(odd, status=told)
    assert "odd" not in statuses(turn(Scheduler(), snapshot([told_already])))
    readable = replace(told_already, set_aside="")
    done = turn(Scheduler(), snapshot([readable]))
    assert not conditions.is_true(statuses(done)["odd"].conditions, "Stalled")


@pytest.mark.parametrize("nodes", [1, 2])
def test_of_a_spec_that_cannot_be_read_no_pod_is_made_though_it_was_recorded(nodes):
    held = admitted(job("a", nodes=nodes), nodes=[node("n1"), node("n2")])[0]
    done = turn(Scheduler(), snapshot([replace(held, problems=("spec cannot be read",))]))
    assert created(done) == []
    told = statuses(done)["a"]
    assert (told.phase, told.reason, told.assignments) == (Phase.QUEUED, "Misconfigured", ())


def test_a_finished_job_that_cannot_be_read_is_not_touched():
    odd = replace(job("odd", status=JobStatus(phase=Phase.SUCCEEDED, finished_at=T0)), set_aside="x")
    assert not of_type(turn(Scheduler(), snapshot([odd])), PatchStatus)


def test_a_node_that_cannot_be_read_offers_no_room_and_loses_nobody():
    held = admitted(job("a"))[0]
    running = pod_of(held, phase=PodPhase.RUNNING)
    gone_dark = replace(node("n1", gpus=0, slots=0, cpu=0, memory_gi=0), unreadable="1e999999 is out of range")
    seen = snapshot([replace(held, status=replace(held.status)), job("b")], pods=[running], nodes=[gone_dark])
    done = turn(Scheduler(), seen)
    assert created(done) == []
    assert statuses(done)["a"].phase is Phase.RUNNING
    assert "cannot be read (1e999999 is out of range)" in statuses(done)["b"].message
    assert created(turn(Scheduler(), snapshot([job("b", resources=placement_free())], nodes=[gone_dark]))) == []


def placement_free():
    from rfuav_operator.core.model import Resources

    return Resources(gpus=0, cpu="0", memory="0")


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_pod_that_cannot_be_read_closes_its_node(gpus):
    from rfuav_operator.core.model import Resources

    dark = replace(foreign_pod("dark", "n1"), unreadable="1e999999 is out of range")
    asked = job("a", resources=Resources(gpus=gpus, cpu="1", memory="1Gi"))
    done = turn(Scheduler(), snapshot([asked], foreign=[dark]))
    assert created(done) == []
    assert "closed by a pod that cannot be read: pod other/dark" in statuses(done)["a"].message
    assert created(turn(Scheduler(), snapshot([asked], foreign=[dark], nodes=[node("n1"), node("n2")])))


def test_nobody_is_stopped_for_room_beside_a_pod_that_cannot_be_read():
    from unit.core.builders import PREEMPTION

    held = admitted(job("low", priority_class_name="low"))[0]
    running = pod_of(held, phase=PodPhase.RUNNING, started_at=after(-1000))
    held = replace(
        held,
        status=replace(
            held.status,
            phase=Phase.RUNNING,
            assignments=(replace(held.status.assignments[0], started_at=after(-1000)),),
        ),
    )
    dark = replace(foreign_pod("dark", "n1"), unreadable="?")
    seen = snapshot(
        [held, job("high", priority_class_name="high")],
        pods=[running],
        foreign=[dark],
        pools=[pool(preemption=PREEMPTION)],
        nodes=[node("n1", gpus=1, slots=4)],
    )
    done = turn(Scheduler(), seen)
    assert not [a for a in done.actions if type(a).__name__ == "DeletePod"]


def test_a_pod_of_ours_that_cannot_be_read_is_not_judged_and_keeps_its_room():
    held = admitted(job("a"), nodes=[node("n1", gpus=1, slots=1)])[0]
    dark = pod_of(held, node="n1", phase=PodPhase.UNKNOWN, requests=Amounts(pods=1), unreadable="?")
    seen = snapshot([held, job("b")], pods=[dark], nodes=[node("n1", gpus=1, slots=1)])
    done = turn(Scheduler(), seen, at=100_000)
    assert created(done) == []
    assert not [a for a in done.actions if type(a).__name__ == "DeletePod"]
    assert statuses(done).get("a", held.status).phase is Phase.ADMITTED


def test_a_resource_quota_that_cannot_be_read_holds_its_namespace():
    dark = ResourceQuota(namespace="team", name="rq", hard={}, used={}, unreadable="`many` is not a quantity")
    done = turn(Scheduler(), snapshot([job("a"), job("b", namespace="other")], resource_quotas=[dark]))
    assert [a.namespace for a in of_type(done, CreatePod)] == ["other"]
    assert "ResourceQuota rq of namespace team cannot be read" in statuses(done)["a"].message


# --- the search


def searching(*at_fault, jobs, suspects=()):
    """What a search finds when it fails as long as one of these is there, and its trials."""
    trials = 0

    def fails(left_out):
        nonlocal trials
        trials += 1
        return any(not set(each) & set(left_out) for each in at_fault)

    return aside.search([f"u{i}" for i in range(jobs)], suspects, fails), trials


def test_the_search_finds_the_faulty_jobs_in_few_trials():
    found, trials = searching(["u13"], ["u77"], jobs=200)
    assert found == ["u13", "u77"]
    assert trials < 50


def test_of_those_that_fail_together_one_is_enough():
    # u5 fails with whoever waits: it alone is left out.
    found, _ = searching(*(["u5", f"u{i}"] for i in range(20) if i != 5), jobs=20)
    assert found == ["u5"]


def test_the_search_gives_up_rather_than_stop_the_process():
    found, trials = searching(["u19999"], jobs=20_000)
    assert found == []
    assert trials <= 4
    assert searching(["u19999"], jobs=20_000, suspects=["u19999"])[0] == ["u19999"]
