"""What pods report: read, bounded, and only ever forward."""

import json
import re

import pytest
from msgspec.structs import replace
from unit.core.builders import T0, admitted, after, job, node, of_type, pod_of, run, snapshot, statuses

from rfuav_operator.core.job import progress
from rfuav_operator.core.model import Checkpoint, JobStatus, Kind, PatchStatus, Phase, PodPhase, Progress, Report


def body(percent=None, metrics=(), remaining=None, **ours):
    status = {"metrics": [{"name": n, "value": v} for n, v in metrics], "rfuav": ours}
    if percent is not None:
        status["progressPercentage"] = percent
    if remaining is not None:
        status["estimatedRemainingSeconds"] = remaining
    return {"trainerStatus": status}


def test_a_whole_report():
    parts = progress.parse_trainer_status(
        body(
            45,
            [("valLoss", "0.234567"), ("top1", 0.9), ("f/score", "12 %"), ("trainLoss", "nan"), ("valAccuracy", "inf")],
            300,
            sequence=7,
            epoch=3,
            totalEpochs=10,
            samplesPerSecond=123.456,
            gpuMemoryBytes=2**33,
            gpuUtilization=87,
            checkpoint={"uri": "pvc://m/c", "epoch": 3, "savedAt": "2026-01-01T12:00:00.5Z"},
            outputs={"bestWeights": "pvc://m/b"},
            gpuUUID="GPU-1",
            final=True,
        )
    )
    assert parts.progress == Progress(
        percent=45,
        epoch=3,
        total_epochs=10,
        samples_per_second=123.5,
        gpu_memory_bytes=2**33,
        gpu_utilization=87,
        remaining_seconds=300,
    )
    assert parts.metrics == {"valLoss": 0.2346, "top1": 0.9}
    assert [(m.name, m.value) for m in parts.custom_metrics] == [("f/score", "12 %")]
    assert parts.checkpoint == Checkpoint(uri="pvc://m/c", epoch=3, saved_at=T0)
    assert (parts.sequence, parts.outputs, parts.gpu_uuid, parts.final) == (
        7,
        {"bestWeights": "pvc://m/b"},
        "GPU-1",
        True,
    )


def test_kubeflow_alone_is_enough():
    parts = progress.parse_trainer_status({"trainerStatus": {"progressPercentage": 5}})
    assert (parts.progress.percent, parts.sequence) == (5, None)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ([], "the body must be a JSON object"),
        ({}, "trainerStatus must be a JSON object"),
        (body(101), "progressPercentage is 101"),
        (body(-1), "progressPercentage must be a whole number"),
        (body("5"), "progressPercentage must be a whole number"),
        (body(True), "progressPercentage must be a whole number"),
        (body(sequence=-1), "rfuav.sequence"),
        (body(epoch=1.5), "rfuav.epoch"),
        (body(samplesPerSecond="fast"), "samplesPerSecond must be a number"),
        (body(samplesPerSecond=-1), "samplesPerSecond must be 0 or more"),
        (body(gpuUtilization=101), "gpuUtilization is 101; it must be a whole number from 0 to 100"),
        (body(gpuMemoryBytes=-1), "gpuMemoryBytes must be a whole number of 0 or more"),
        (body(metrics=[("valLoss", "low")]), "metrics[0].value must be a number"),
        (body(metrics=[("", 1)]), "metrics[0].name"),
        ({"trainerStatus": {"metrics": {}}}, "metrics must be a list"),
        (body(checkpoint={"uri": 5}), "checkpoint.uri"),
        (body(checkpoint={"uri": "x", "savedAt": "yesterday"}), "checkpoint.savedAt"),
        (body(outputs={"a": 5}), "outputs.a"),
        (body(metrics=[("x", [[[1]]])]), "metrics[0].value must be a number or a string"),
        (body(epoch=2**64), "rfuav.epoch"),
        (body(epoch=1e300), "rfuav.epoch"),
    ],
)
def test_what_is_wrong_is_named(sent, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        progress.parse_trainer_status(sent)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("plain words", "plain words"),
        ('{"error": "no folder"}', "no folder"),
        ('{"trainerStatus": {"rfuav": {"message": "disk full"}}}', "disk full"),
        ('{"trainerStatus": {}}', ""),
        ('{"cut', '{"cut'),
        ('{"trainerStatus": 5}', ""),
    ],
)
def test_words_for_people(text, words):
    assert progress.human_message(text) == words


def test_other_words_are_no_report():
    assert progress.parse_termination_message("killed") is None
    assert progress.parse_termination_message("[]") is None


@pytest.mark.parametrize(
    "text", ["[" * 4096, '{"a":' * 800, "1" * 5000, '{"error":' + "9" * 5000 + "}", '{"a":"' + "x" * 10**6]
)
def test_a_termination_message_that_is_built_to_break_its_reader_is_just_text(text):
    assert progress.parse_termination_message(text) is None
    assert len(progress.human_message(text)) <= 512


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"error": "\\ud83d lost"}', "\ufffd lost"),
        ("bell\x07 \x1b[2J", "bell\ufffd \ufffd[2J"),
        ('{"error": "a\\u0000b"}', "a\ufffdb"),
    ],
)
def test_words_for_people_hold_nothing_that_cannot_be_written(text, words):
    assert progress.human_message(text) == words
    assert progress.human_message(text).encode()


@pytest.mark.parametrize("seconds", [315_360_001, 3e11, 2**53, 1e300, 10**30])
def test_an_estimate_beyond_ten_years_counts_as_ten_years(seconds):
    assert progress.parse_trainer_status(body(remaining=seconds)).progress.remaining_seconds == 315_360_000


def test_a_report_of_huge_numbers_is_stored_as_what_can_be_computed_with():
    parts = progress.parse_trainer_status(
        body(metrics=[("valLoss", 1.7976931348623157e308), ("top1", "1e999")], samplesPerSecond=1.7976931348623157e308)
    )
    assert parts.metrics == {"valLoss": 1.7976931348623157e308}
    assert parts.progress.samples_per_second == 1.7976931348623157e308


@pytest.mark.parametrize("year", ["0001", "9999"])
def test_a_checkpoint_of_the_first_or_the_last_year_can_be_computed_with(year):
    saved = progress.parse_trainer_status(
        body(checkpoint={"uri": "x", "savedAt": f"{year}-12-31T23:00:00Z"})
    ).checkpoint
    assert saved.saved_at.year in (1970, 2200)


# --- applying


def running(kind=Kind.TRAINING, **spec):
    held = admitted(job(kind=kind, **spec))[0]
    pods = [pod_of(held, at=i, phase=PodPhase.RUNNING) for i in range(len(held.status.assignments))]
    return replace(held, status=statuses(run(snapshot([held], pods=pods)))["a"]), pods


def report(pod, sequence, now=T0, final=False, metrics=None, **values):
    return Report(
        job_uid=pod.job_uid,
        pod=pod.name,
        attempt=pod.attempt,
        index=pod.index,
        sequence=sequence,
        progress=Progress(**values),
        metrics=metrics or {},
        final=final,
        received_at=now,
    )


def told(held, pods, *reports):
    done = run(snapshot([held], pods=pods), reports=reports, dirty=[], plan=False)
    return replace(held, status=statuses(done).get("a", held.status)), done


def test_progress_moves_forward_only():
    held, pods = running()
    held, done = told(held, pods, report(pods[0], 5, percent=40, epoch=4, metrics={"valAccuracy": 0.8}))
    assert (held.status.progress.percent, held.status.progress.sequence) == (40, 5)
    assert [p.urgent for p in of_type(done, PatchStatus)] == [False]
    _stale, done = told(held, pods, report(pods[0], 5, percent=90))
    assert of_type(done, PatchStatus) == []
    held, _ = told(held, pods, report(pods[0], 6, percent=30, epoch=5, metrics={"valAccuracy": 0.7}))
    assert (held.status.progress.percent, held.status.progress.epoch) == (40, 5)
    assert held.status.metrics == {"valAccuracy": 0.7, "bestValAccuracy": 0.8}
    _, done = told(held, pods, report(pods[0], 7, percent=50, final=True))
    assert [(p.urgent, p.final) for p in of_type(done, PatchStatus)] == [(False, True)]


def test_gpu_use_of_shards_is_the_sum_of_their_memory_and_the_mean_of_their_utilisation():
    held, pods = running(Kind.INFERENCE, shards=4, parallelism=2)
    held, _ = told(
        held,
        pods,
        report(pods[0], 1, gpu_memory_bytes=2**30, gpu_utilization=90),
        report(pods[1], 1, gpu_memory_bytes=2**31, gpu_utilization=41),
    )
    summed = held.status.progress
    assert (summed.gpu_memory_bytes, summed.gpu_utilization) == (3 * 2**30, 65)
    again = progress.begin_attempt(held.status, 0, Kind.INFERENCE)
    assert again.shards.progress["0"].gpu_memory_bytes is None


def test_reports_of_other_pods_are_refused():
    held, pods = running()
    other = replace(pods[0], name="a-other-1")
    _, done = told(held, pods, report(other, 9, percent=90))
    assert of_type(done, PatchStatus) == []


def test_shards_are_summed():
    held, pods = running(Kind.INFERENCE, shards=4, parallelism=2)
    held, _ = told(
        held,
        pods,
        report(pods[0], 1, percent=50, processed=10, failed=1, total=20, samples_per_second=2.0, remaining_seconds=9),
        report(pods[1], 1, percent=30, processed=3, failed=0, total=10, samples_per_second=1.5, remaining_seconds=30),
    )
    summed = held.status.progress
    assert (summed.percent, summed.processed, summed.failed, summed.total) == (20, 13, 1, 30)
    assert (summed.samples_per_second, summed.remaining_seconds) == (3.5, 30)
    last = body(100, processed=19, failed=1, total=20, sequence=2)
    ended = replace(pods[0], phase=PodPhase.SUCCEEDED, exit_code=0, termination_message=json.dumps(last))
    held = replace(held, status=statuses(run(snapshot([held], pods=[ended, pods[1]])))["a"])
    summed = held.status.progress
    assert (summed.percent, summed.processed, summed.failed, summed.total) == (32, 22, 1, 30)
    assert list(held.status.shards.progress) == ["1"]


def test_the_metrics_of_the_shard_that_evaluates_stay():
    """The last shard evaluates the whole; the others, which may end after it was seen, report none."""
    held, pods = running(Kind.INFERENCE, shards=2, parallelism=2)
    held, _ = told(held, pods, report(pods[1], 1, percent=100, metrics={"top1": 0.9}))
    held, _ = told(held, pods, report(pods[0], 1, percent=100))
    assert held.status.metrics == {"top1": 0.9}


def test_the_termination_message_replaces_a_missing_last_report():
    held, pods = running()
    held, _ = told(held, pods, report(pods[0], 5, percent=90))
    last = body(99, [("bestValAccuracy", 0.95)], sequence=8, outputs={"bestWeights": "pvc://m/b"})
    ended = replace(pods[0], phase=PodPhase.SUCCEEDED, exit_code=0, termination_message=json.dumps(last))
    status = statuses(run(snapshot([held], pods=[ended])))["a"]
    assert (status.phase, status.progress.percent) == (Phase.SUCCEEDED, 100)
    assert (status.metrics, status.outputs) == ({"bestValAccuracy": 0.95}, {"bestWeights": "pvc://m/b"})


def test_last_words_of_other_pods_of_a_gang_are_not_its_progress():
    held = admitted(job(nodes=2), nodes=[node("n1"), node("n2")])[0]
    said = json.dumps(body(3, sequence=900, epoch=1))
    held = replace(held, status=replace(held.status, progress=Progress(percent=50, sequence=10)))
    pods = [
        pod_of(held, phase=PodPhase.RUNNING),
        pod_of(held, at=1, phase=PodPhase.SUCCEEDED, termination_message=said),
    ]
    seen = snapshot([held], pods=pods, nodes=[node("n1"), node("n2")])
    status = statuses(run(seen))["a"]
    assert (status.progress.percent, status.progress.sequence) == (50, 10)


@pytest.mark.parametrize(
    ("checkpoint", "percent", "epoch"),
    [(None, 0, None), (Checkpoint(uri="x", epoch=4), 40, 4), (Checkpoint(uri="x"), 55, None)],
)
def test_a_new_attempt_starts_where_it_continues(checkpoint, percent, epoch):
    status = JobStatus(
        phase=Phase.QUEUED,
        attempt=1,
        queued_at=T0,
        checkpoint=checkpoint,
        progress=Progress(percent=55, epoch=5, total_epochs=10, sequence=9),
    )
    held = admitted(job(status=status), now=after(60))[0]
    now = held.status.progress
    assert (now.percent, now.epoch, now.sequence) == (percent, epoch, None)
    pods = [pod_of(held, phase=PodPhase.RUNNING)]
    held = replace(held, status=statuses(run(snapshot([held], pods=pods)))["a"])
    held, _ = told(held, pods, report(pods[0], 1, percent=12))
    assert held.status.progress.percent == 12
