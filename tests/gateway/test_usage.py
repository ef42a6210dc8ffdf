"""GPU-hours from the jobs that exist."""

from datetime import UTC, datetime, timedelta

import pytest
from gateway.test_views import job
from hypothesis import given
from hypothesis import strategies as st

from rfuav_gateway.tasks import usage
from rfuav_gateway.tasks.usage import Window

NOW = datetime(2026, 2, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=400)


def ago(**span: float) -> str:
    return (NOW - timedelta(**span)).isoformat()


def hours(*jobs, by="namespace", start=LONG_AGO, end=NOW):
    found = usage.counted(jobs, by, Window(start, end), NOW)
    return {name: seconds / 3600 for name, seconds in found.seconds.items()}


def ended(**more):
    status = {"phase": "Succeeded", "startedAt": ago(hours=10), "finishedAt": ago(hours=6), "runningSeconds": 4 * 3600}
    return {"status": status | more}


def test_a_job_counts_its_gpus_for_the_time_in_which_its_pods_ran():
    assert hours(job(spec={"resources": {"gpus": 2}, "nodes": 3}, **ended())) == {"team-a": 24}
    assert hours(job(spec={"resources": {"gpus": 0}}, **ended())) == {}
    assert hours(job("inference", spec={"resources": {"gpus": 1}, "shards": 100, "parallelism": 5}, **ended())) == {
        "team-a": 20
    }


def test_of_a_window_that_cuts_a_run_the_part_inside_counts():
    one = job(spec={"resources": {"gpus": 1}}, **ended())
    assert hours(one, start=NOW - timedelta(hours=8)) == {"team-a": 2}
    assert hours(one, end=NOW - timedelta(hours=9)) == {"team-a": 1}
    assert hours(one, start=NOW - timedelta(hours=6)) == {}


def test_a_run_that_goes_on_counts_until_now_with_the_pods_that_it_has():
    status = {
        "phase": "Running",
        "startedAt": ago(hours=10),
        "admittedAt": ago(hours=2.1),
        "runningSeconds": 3600,
        "runningSince": ago(hours=2),
        "assignments": [{"pod": "x-", "gpus": 1, "shards": "0-2,9"}],
    }
    one = job("inference", spec={"resources": {"gpus": 1}, "shards": 100, "parallelism": 5}, status=status)
    assert hours(one) == pytest.approx({"team-a": 5 + 8})
    assert hours(one, start=NOW - timedelta(hours=1)) == pytest.approx({"team-a": 4})
    assert hours(one, end=NOW - timedelta(hours=2)) == pytest.approx({"team-a": 5})


def test_of_a_job_that_waits_again_the_run_before_is_where_it_was():
    status = {"phase": "Queued", "startedAt": ago(hours=10), "admittedAt": ago(hours=10), "runningSeconds": 7200}
    one = job(spec={"resources": {"gpus": 1}}, status=status)
    assert hours(one, end=NOW - timedelta(hours=8)) == {"team-a": 2}


def test_users_and_types_have_names_and_jobs_of_kubectl_have_no_user():
    alice = job(spec={}, annotations={"rfuav.io/created-by": "alice"}, **ended())
    other = job("inference", **ended())
    assert hours(alice, other, by="user") == {"alice": 4, "": 4}
    assert hours(alice, other, by="kind") == {"training": 4, "inference": 4}
    found = usage.counted([alice, other], "user", Window(LONG_AGO, NOW), NOW)
    shown = usage.answer(found, "user", Window(LONG_AGO, NOW), source="jobs", complete=False)
    assert [(one.name, one.gpu_hours) for one in shown.usage] == [(None, 4), ("alice", 4)]
    assert (shown.total_gpu_hours, shown.complete) == (8, False)
    assert shown.since == (NOW - timedelta(hours=10)).replace(tzinfo=None)


_instants = st.integers(-500_000, 500_000).map(lambda seconds: (NOW + timedelta(seconds=seconds)).isoformat())
_jobs = st.builds(
    lambda kind, spec, status, user, namespace: job(
        kind, spec=spec, status=status, annotations={"rfuav.io/created-by": user}, namespace=namespace
    ),
    st.sampled_from(["training", "inference"]),
    st.fixed_dictionaries(
        {
            "resources": st.fixed_dictionaries({"gpus": st.integers(0, 8)}),
            "nodes": st.integers(1, 4),
            "shards": st.integers(1, 9),
            "parallelism": st.integers(1, 9),
        }
    ),
    st.fixed_dictionaries(
        {"phase": st.sampled_from(["Queued", "Running", "Succeeded", "Failed"])},
        optional={
            "startedAt": _instants,
            "finishedAt": _instants,
            "admittedAt": _instants,
            "runningSince": _instants,
            "runningSeconds": st.integers(-5, 10**6),
            "assignments": st.lists(
                st.fixed_dictionaries(
                    {"pod": st.just("p"), "gpus": st.integers(-1, 3), "shards": st.sampled_from(["", "0-3,7", "x"])}
                ),
                max_size=3,
            ),
        },
    ),
    st.sampled_from(["", "alice", "bob"]),
    st.sampled_from(["team-a", "team-b"]),
)


@given(st.lists(_jobs, max_size=6), st.tuples(*[st.integers(-600_000, 0)] * 3).map(sorted))
def test_sums_do_not_depend_on_what_is_added_up_and_windows_that_touch_add_up(jobs, cuts):
    first, middle, last = (NOW + timedelta(seconds=seconds) for seconds in cuts)

    def total(by, start, end):
        return sum(usage.counted(jobs, by, Window(start, end), NOW).seconds.values())

    whole = [total(by, first, last) for by in ("namespace", "user", "kind")]
    assert whole[1:] == pytest.approx([whole[0]] * 2)
    assert total("kind", first, middle) + total("kind", middle, last) == pytest.approx(whole[0])
    assert all(total("kind", a, b) >= 0 for a, b in ((first, middle), (middle, last)))
