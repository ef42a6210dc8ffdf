"""Whatever pods, reports, nodes and stored statuses say: what the core writes is what the API server takes."""

import json
from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace
from odd import Odd
from openapi import faults, schema_of
from unit.core.builders import T0, admitted, foreign_pod, job, node, pod_of, pool, quota, snapshot

from rfuav_crds.bounds import bounded
from rfuav_operator.core import ranges
from rfuav_operator.core.job.progress import parse_trainer_status
from rfuav_operator.core.model import (
    JobStatus,
    Kind,
    PatchLimitsStatus,
    PatchStatus,
    PodPhase,
    Pool,
    RecordEvent,
    Report,
    Resources,
)
from rfuav_operator.core.scheduler import Changes, Scheduler
from rfuav_operator.core.stored import bounds

STATUS = {kind: schema_of(f"{kind.value.lower()}s", "status") for kind in Kind}
LIMITS = {True: schema_of("gpupools", "status"), False: schema_of("gpuquotas", "status")}


def stored(odd: Odd, kind: Kind) -> JobStatus:
    """A status that another version or tool left behind, as it is read."""
    while True:
        try:
            status = msgspec.convert(bounds.stored(odd.of(STATUS[kind])), JobStatus)
            ranges.parse(status.shards.completed if status.shards else "")
        except ValueError:
            continue
        return status


def odd_report(odd: Odd, held, at: int) -> Report | None:
    a = held.status.assignments[at]
    body = {
        "progressPercentage": odd.number(finite=True),
        "estimatedRemainingSeconds": odd.number(finite=True),
        "metrics": [{"name": odd.text(253), "value": odd.text()} for _ in range(odd.choice([0, 1, 40]))]
        + [{"name": "valLoss", "value": odd.number()}],
        "rfuav": {
            name: value
            for name, value in {
                "samplesPerSecond": odd.number(),
                "gpuUUID": odd.text(253),
                "checkpoint": {"uri": odd.text(), "savedAt": "9999-12-31T23:59:59Z"},
                "outputs": {odd.text(): odd.text() for _ in range(odd.choice([1, 32]))},
                "total": odd.number(finite=True),
            }.items()
            if odd.often(0.5)
        },
    }
    try:
        parts = parse_trainer_status({"trainerStatus": body})
    except ValueError:
        return None
    return Report(
        job_uid=held.uid,
        pod=a.pod,
        attempt=1,
        index=a.shard or 0,
        sequence=2**53,
        progress=parts.progress,
        metrics=parts.metrics,
        custom_metrics=parts.custom_metrics,
        checkpoint=parts.checkpoint,
        outputs=parts.outputs,
        gpu_uuid=parts.gpu_uuid,
        received_at=T0,
    )


def odd_pods(odd: Odd, held):
    for i in range(len(held.status.assignments)):
        at = bounded(T0 + timedelta(days=odd.choice([0, 0, -700_000, 60_000])))
        yield pod_of(
            held,
            at=i,
            phase=odd.choice(list(PodPhase)),
            exit_code=odd.choice([None, 0, 1, 2, 75, 2**40]),
            reason=odd.choice(["", "Evicted", odd.text(1024)]),
            message=odd.text(32_768),
            waiting_reason=odd.choice(["", "ErrImagePull", odd.text(1024)]),
            waiting_message=odd.text(32_768),
            unschedulable=odd.text(32_768),
            termination_message=odd.choice([odd.text(), json.dumps({"error": odd.text(40_000)})]),
            finished_at=at,
            started_at=at,
            deleting=odd.often(0.2),
        )


def check(actions) -> int:
    written = 0
    for action in actions:
        if isinstance(action, PatchStatus):
            plain = json.loads(msgspec.json.encode(action.status))
            assert list(faults(plain, STATUS[action.job.kind])) == []
        elif isinstance(action, PatchLimitsStatus):
            plain = json.loads(msgspec.json.encode(action.status))
            assert list(faults(plain, LIMITS[isinstance(action.target, Pool)])) == []
        else:
            msgspec.json.encode(action.note if isinstance(action, RecordEvent) else "")
            continue
        written += 1
    return written


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_every_status_that_is_written_fits_the_schema(first):
    written = 0
    for seed in range(first, first + 20):
        odd = Odd(seed)
        nodes = [node(f"n{i}", gpus=odd.choice([1, 2**60]), slots=odd.choice([2, 10**12])) for i in range(3)]
        made = [
            job(
                f"j{i}",
                kind=odd.choice(list(Kind)),
                namespace=f"t{i % 2}",
                resources=Resources(gpus=odd.choice([0, 1]), cpu="1", memory="1Gi"),
                backoff_limit=odd.choice([0, 3]),
                **odd.choice([{}, {"shards": 3, "parallelism": 2}]),
            )
            for i in range(4)
        ]
        held = admitted(*made, nodes=nodes)
        held[0] = replace(held[0], status=replace(stored(odd, held[0].kind), assignments=held[0].status.assignments))
        late = [replace(job(f"q{i}"), status=stored(odd, Kind.TRAINING)) for i in range(2)]
        pods = [p for one in held for p in odd_pods(odd, one) if odd.often(0.8)]
        reports = [odd_report(odd, one, i) for one in held for i in range(len(one.status.assignments))]
        seen = snapshot(
            [*held, *late],
            pods=pods,
            nodes=nodes,
            pools=[pool()],
            quotas=[quota("t0", 3)],
            foreign=[foreign_pod("f", "n1", gpus=10**15)],
        )
        done = Scheduler().turn(
            seen,
            Changes(jobs=set(seen.jobs), plan=True, everything=True),
            reports=[r for r in reports if r is not None],
            now=T0 + timedelta(seconds=odd.choice([1, 100, 10**6])),
        )
        written += check(done.actions)
    assert written > 40
