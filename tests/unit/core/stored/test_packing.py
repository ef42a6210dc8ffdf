"""A job of a thousand shards fits into 64 kB, and nothing that a decision needs is lost on the way."""

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from unit.core.builders import T0

from rfuav_operator.core.model import Assignment, JobStatus, Phase, Progress, ShardCounts
from rfuav_operator.core.stored import bounds, packing

COUNT = st.integers(0, 2**53)


def status(shards: int = 1000, nodes: int = 125, **counts: Any) -> JobStatus:
    """All shards run and have reported."""
    held = tuple(
        Assignment(
            pod=f"classify-flights-abcde-1-{i}",
            node=f"gpu-node-{i * nodes // shards:04}",
            gpus=1,
            shard=i,
            started_at=T0 + timedelta(seconds=i // 10),
            gpu_uuid=f"GPU-{i:036}",
        )
        for i in range(shards)
    )
    reports = {
        str(i): Progress(
            percent=(1234 + i) * 100 // 2468,
            processed=1234 + i,
            failed=i % 7,
            total=2468,
            samples_per_second=310.5,
            remaining_seconds=3000,
            sequence=1_769_860_800_123 + 37 * i,
            updated_at=T0,
        )
        for i in range(shards)
    }
    values = {"attempts": {str(i): 1 for i in range(shards)}, "progress": reports} | counts
    return JobStatus(phase=Phase.RUNNING, assignments=held, shards=ShardCounts(total=shards, **values))


def read(stored: Any) -> JobStatus:
    return msgspec.convert(bounds.stored(packing.unpack(bounds.stored(stored))), JobStatus)


def needed(full: JobStatus) -> JobStatus:
    """What has to survive: all but rates, times of reports and the GPU of a shard."""
    assert full.shards is not None
    held = sorted((replace(a, gpu_uuid="") for a in full.assignments), key=str)
    reports = {
        shard: replace(report, samples_per_second=None, remaining_seconds=None, updated_at=None, epoch=None, step=None)
        for shard, report in full.shards.progress.items()
    }
    return replace(full, assignments=tuple(held), shards=replace(full.shards, progress=reports))


@pytest.mark.parametrize("nodes", [1, 42, 125, 500, 1000])
def test_a_thousand_shards_take_less_than_64_kb(nodes):
    full = status(nodes=nodes)
    assert len(json.dumps(msgspec.to_builtins(full))) > 350_000
    assert len(json.dumps(packing.pack(full), separators=(",", ":"))) < 64_000


def test_all_that_a_decision_needs_comes_back():
    full = status(
        shards=900,
        retries={"3": 2, "4": 2, "999": 1},
        counted_failures={"3": 1},
        not_before={"3": T0, "5": T0 + timedelta(hours=1)},
        furthest={"7": 12},
        completed="1-2",
        finished=Progress(processed=5, failed=0, total=5),
    )
    stopping = replace(full.assignments[7], stopping="Preempted", stopping_for="u2")
    odd_one = Assignment(pod="made-by-hand", node="n", shard=5000)
    twice = replace(full.assignments[9], node="elsewhere")
    full = replace(full, assignments=(*full.assignments[:7], stopping, *full.assignments[8:], odd_one, twice))
    assert needed(read(json.loads(json.dumps(packing.pack(full))))) == needed(full)


def test_packing_is_stable():
    """What was read back is stored as the same: nothing is written for it."""
    once = packing.pack(status())
    assert packing.pack(read(once)) == once


def test_a_job_of_few_shards_is_stored_as_it_is():
    few = status(shards=packing.MANY, nodes=4)
    assert packing.pack(few) == msgspec.to_builtins(few)
    assert packing.unpack(packing.pack(few))["shards"].get("packed") is None
    assert "packed" in packing.pack(status(shards=packing.MANY + 1))["shards"]


def test_the_entries_can_be_read_by_people():
    packed = packing.pack(status(nodes=500))
    assert packed["assignments"] == [{"pod": "classify-flights-abcde-1-", "gpus": 1, "shards": "0-999"}]
    assert packed["shards"]["packed"]["node"]["gpu-node-0000"] == "0-1"
    assert packed["shards"]["packed"]["startedAt"]["2026-01-01T12:00:00Z"] == "0-9"
    assert packed["shards"]["packed"]["attempts"] == {"1": "0-999"}
    assert packed["shards"]["packed"]["progress"]["0"] == "1234/0/2468 1769860800123"


@pytest.mark.parametrize(
    "broken",
    [
        {"packed": {"attempts": {"1": "0-99999"}}},
        {"packed": {"attempts": {"one": "0"}}},
        {"packed": {"attempts": {"1": "x"}}},
        {"packed": {"attempts": []}},
        {"packed": {"progress": {"0": "1"}}},
        {"packed": {"progress": {"0": "1 2/3/x 4"}}},
        {"packed": {"startedAt": {"x": "0-1000"}}},
        {"packed": []},
    ],
)
def test_what_something_else_has_packed_is_refused(broken):
    with pytest.raises(ValueError):
        packing.unpack({"shards": {"total": 100, **broken}})


def test_more_pods_than_a_job_may_have_are_refused():
    entries = [{"pod": f"p{i}-", "shards": "0-999"} for i in range(1000)]
    with pytest.raises(ValueError, match="more than 1000"):
        packing.unpack({"assignments": entries, "shards": {"total": 1000, "packed": {}}})


@settings(deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 999).map(str),
        st.builds(
            Progress,
            percent=st.none() | st.integers(0, 100),
            processed=st.none() | COUNT,
            failed=st.none() | COUNT,
            total=st.none() | COUNT,
            sequence=st.none() | COUNT,
        ),
        max_size=20,
    ),
    st.dictionaries(st.integers(0, 999).map(str), COUNT, max_size=20),
    st.lists(
        st.tuples(st.integers(0, 999), st.sampled_from("abc"), st.booleans()), max_size=20, unique_by=lambda t: t[0]
    ),
)
def test_any_status_comes_back(progress, attempts, held):
    assignments = tuple(
        Assignment(pod=f"j-{n}-{i}", node=n, shard=i, started_at=T0 if started else None) for i, n, started in held
    )
    shards = ShardCounts(total=1000, progress=progress, attempts=attempts, retries=attempts)
    full = JobStatus(assignments=assignments, shards=shards)
    assert needed(read(json.loads(json.dumps(packing.pack(full))))) == needed(full)
