"""What a report, a pod or an older version left behind can be computed with, and written."""

import functools
import json
import math

import pytest
from msgspec.structs import replace
from openapi import faults, schema_of
from unit.core.builders import T0, admitted, after, job, pod_of, quota, run, snapshot, statuses

from rfuav_operator.core.job.progress import parse_trainer_status
from rfuav_operator.core.model import JobStatus, Kind, PatchLimitsStatus, PodPhase, Progress, Report
from rfuav_operator.core.stored import bounds

STATUS = schema_of("trainingjobs", "status")


def wire(status):
    import msgspec

    return json.loads(msgspec.json.encode(status))


def running(name="a", **spec):
    held = admitted(job(name, **spec))[0]
    return held, [pod_of(held, at=i, phase=PodPhase.RUNNING) for i in range(len(held.status.assignments))]


def report(held, body, **changes):
    parts = parse_trainer_status({"trainerStatus": body})
    return Report(
        **{
            "job_uid": held.uid,
            "pod": held.status.assignments[0].pod,
            "attempt": 1,
            "index": 0,
            "sequence": parts.sequence or 1,
            "progress": parts.progress,
            "metrics": parts.metrics,
            "custom_metrics": parts.custom_metrics,
            "checkpoint": parts.checkpoint,
            "outputs": parts.outputs,
            "gpu_uuid": parts.gpu_uuid,
            "received_at": T0,
            **changes,
        }
    )


def test_an_estimate_of_ten_thousand_years_does_not_stop_the_queue():
    held, pods = running()
    told = statuses(run(snapshot([held], pods=pods), reports=[report(held, {"estimatedRemainingSeconds": 3e11})]))["a"]
    held = replace(held, status=told)
    waiting = [job(f"w{i}", created=after(i)) for i in range(3)]
    done = statuses(run(snapshot([held, *waiting], pods=pods, nodes=None), now=after(5)))
    assert {"w0", "w1", "w2"} <= set(done)


def test_what_a_gpu_report_names_is_cut_to_what_the_schema_takes():
    held, pods = running()
    uuids = ",".join(f"GPU-{i:036}" for i in range(8))
    told = statuses(run(snapshot([held], pods=pods), reports=[report(held, {"rfuav": {"gpuUUID": uuids}})]))["a"]
    assert told.assignments[0].gpu_uuid == uuids[:253]
    # Reported once more, there is nothing to write.
    held = replace(held, status=told)
    again = run(snapshot([held], pods=pods), reports=[report(held, {"rfuav": {"gpuUUID": uuids}})])
    assert "a" not in statuses(again)


def test_of_many_nodes_to_avoid_the_newest_stay():
    held, _ = running()
    avoided = {f"n{i}": after(900 + i) for i in range(256)}
    held = replace(held, status=replace(held.status, avoided_nodes=avoided))
    lost = pod_of(held, phase=PodPhase.FAILED, reason="UnexpectedAdmissionError", message="no device")
    told = statuses(run(snapshot([held], pods=[lost])))["a"]
    assert len(told.avoided_nodes) == 256
    assert "n1" in told.avoided_nodes
    assert held.status.assignments[0].node in told.avoided_nodes


def test_words_with_a_lone_surrogate_are_written_without_it():
    held, _ = running(backoff_limit=0)
    ended = pod_of(held, phase=PodPhase.FAILED, exit_code=1, termination_message='{"error":"\\ud83d"}', finished_at=T0)
    told = statuses(run(snapshot([held], pods=[ended])))["a"]
    assert "\ufffd" in told.message
    assert list(faults(wire(told), STATUS)) == []


def test_the_sum_of_huge_rates_can_be_written():
    held, pods = running(kind=Kind.INFERENCE, shards=2, parallelism=2)
    fast = [
        report(held, {"rfuav": {"samplesPerSecond": 1.7e308}}, pod=a.pod, index=a.shard)
        for a in held.status.assignments
    ]
    told = statuses(run(snapshot([held], pods=pods), reports=fast))["a"]
    assert list(faults(wire(told), STATUS)) == []


def test_the_status_of_a_quota_is_cut_to_what_the_schema_takes():
    from rfuav_operator.core.model import PoolQuota

    held = quota("team")
    held = replace(held, spec=replace(held.spec, pools=tuple(PoolQuota(name="p" * 60 + str(i)) for i in range(64))))
    done = run(snapshot([], quotas=[held]))
    written = next(a for a in done.actions if isinstance(a, PatchLimitsStatus) and a.target is held)
    assert list(faults(wire(written.status), schema_of("gpuquotas", "status"))) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_no_json_holds_is_left_out(value):
    odd = replace(job(), status=JobStatus(metrics={"valLoss": value, "top1": 0.5}, progress=Progress(percent=3)))
    assert bounds.fitted(odd).status.metrics == {"top1": 0.5}


def test_a_status_that_fits_is_the_same_object():
    held, _ = running()
    assert bounds.fitted(held) is held


# --- results


def test_results_come_out_as_the_schema_has_them():
    found = bounds.results({"classes": ["a", "b\u202e"], "confusion": [[0, 1, 5]], "bySNR": [[-10, 5, 0.5]], "own": 1})
    assert json.loads(found) == {
        "classes": ["a", "b\ufffd"],
        "confusion": [[0, 1, 5]],
        "bySNR": [[-10, 5, 0.5]],
    }


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([1], "object"),
        ("x", "object"),
        ({"history": None}, "object"),
        ({"history": {"epochs": [1], "valLoss": []}}, "each of the epochs"),
        ({"history": {"epochs": [*range(65)]}}, "length <= 64"),
        ({"confusion": [[0, 0]], "classes": ["a"]}, "length >= 3"),
        ({"confusion": [[0, 1, 1]], "classes": ["a"]}, "only 1 classes"),
        ({"confusion": [[0, 0, -1]], "classes": ["a"]}, ">= 0"),
        ({"bySNR": [[math.inf, 1, 1]]}, "null"),
        ({"bySNR": [[None, 1, 1]]}, "null"),
        ({"bySNR": [[10**400, 1, 1]]}, "bySNR"),
        ({"classes": ["a" * 254]}, "length <= 253"),
        ({"classes": ["\ud800"]}, "surrogates"),
        ({"classes": ["a" * 253] * 64}, "of at most 8192"),
        ({"classes": functools.reduce(lambda inner, _: [inner], range(10_000), [])}, "nested too deeply"),
    ],
)
def test_results_that_do_not_fit_are_refused(value, why):
    with pytest.raises(ValueError, match=why):
        bounds.results(value)


def test_results_replace_others_whole():
    patch = bounds.replacing(bounds.results({"history": {"epochs": [1], "valLoss": [0.5]}, "truncated": True}))
    assert patch["truncated"] is True
    assert patch["classes"] is None
    assert patch["history"]["valLoss"] == [0.5]
    assert patch["history"]["trainLoss"] is None
