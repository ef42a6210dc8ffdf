"""What pods report, applied to status.

Bodies of Kubeflow's progress protocol (KEP-2779) with our additions under `rfuav` come in, from the progress server or
from the termination message of a finished pod; progress, metrics, checkpoint and outputs of the status go out. Within
an attempt progress only moves forward.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any

import msgspec
from msgspec.structs import replace

from rfuav_crds.bounds import bounded, clean
from rfuav_crds.status import LONGEST_ESTIMATE, METRICS
from rfuav_operator.core import ranges
from rfuav_operator.core.model import Checkpoint, CustomMetric, JobStatus, Kind, Progress, Report
from rfuav_operator.core.stored import bounds

_MAX_CUSTOM_METRICS = 32
_MAX_METRICS = 256
_MAX_OUTPUTS = 32
_MAX_TEXT = 1024
_MAX_NAME = 253
_MAX_VALUE = 253
_MAX_COUNT = 2**53
_TERMINATION_TAIL = 512
_TERMINATION_MESSAGE = 16_384  # characters; the kubelet keeps 4,096 bytes of each container
_PERCENT = 100
_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """One report, read and bounded."""

    progress: Progress
    sequence: int | None = None
    metrics: Mapping[str, float] = {}
    custom_metrics: tuple[CustomMetric, ...] = ()
    checkpoint: Checkpoint | None = None
    outputs: Mapping[str, str] = {}
    gpu_uuid: str = ""
    final: bool = False
    results: bytes | None = None  # as JSON: nobody here looks into them
    unfit: str = ""  # why results were sent and are not taken


# --- reading


def parse_trainer_status(body: Any) -> Parts:
    """Read `{"trainerStatus": {...}}`. Raises ValueError, saying which field is wrong and what it must be."""
    status = _mapping(_mapping(body, "the body").get("trainerStatus"), "trainerStatus")
    ours = _mapping(status.get("rfuav") or {}, "trainerStatus.rfuav")
    metrics, custom = _metrics(status.get("metrics"))
    remaining = _estimate(status.get("estimatedRemainingSeconds"))
    percent = _percent(status, "progressPercentage", "trainerStatus")
    sequence = _count(ours, "sequence", "trainerStatus.rfuav")
    results, unfit = _results(ours.get("results"))
    return Parts(
        progress=Progress(
            percent=percent,
            epoch=_count(ours, "epoch", "trainerStatus.rfuav"),
            total_epochs=_count(ours, "totalEpochs", "trainerStatus.rfuav"),
            step=_count(ours, "step", "trainerStatus.rfuav"),
            total_steps=_count(ours, "totalSteps", "trainerStatus.rfuav"),
            processed=_count(ours, "processed", "trainerStatus.rfuav"),
            failed=_count(ours, "failed", "trainerStatus.rfuav"),
            total=_count(ours, "total", "trainerStatus.rfuav"),
            samples_per_second=_rate(ours.get("samplesPerSecond")),
            gpu_memory_bytes=_count(ours, "gpuMemoryBytes", "trainerStatus.rfuav"),
            gpu_utilization=_percent(ours, "gpuUtilization", "trainerStatus.rfuav"),
            remaining_seconds=remaining,
        ),
        sequence=sequence,
        metrics=metrics,
        custom_metrics=custom,
        checkpoint=_checkpoint(ours.get("checkpoint")),
        outputs=_outputs(ours.get("outputs")),
        gpu_uuid=_text(ours.get("gpuUUID") or "", "trainerStatus.rfuav.gpuUUID")[:_MAX_NAME],
        final=ours.get("final") is True,
        results=results,
        unfit=unfit,
    )


def parse_termination_message(text: str) -> Parts | None:
    """The last report, from the termination message of a finished pod; None when it holds none that can be read."""
    try:
        return parse_trainer_status(_json(text))
    except ValueError:  # another image's words, or cut short
        return None


def human_message(text: str) -> str:
    """What a termination message says to people: its `error` or `message`, or plain text from its end."""
    text = clean(text).strip()
    if not text.startswith("{"):
        return text[-_TERMINATION_TAIL:]
    try:
        document = _json(text)
    except ValueError:
        return text[-_TERMINATION_TAIL:]
    status = document.get("trainerStatus")
    for part in (document, status.get("rfuav") if isinstance(status, dict) else None):
        for key in ("error", "message"):
            if isinstance(part, dict) and isinstance(part.get(key), str):
                return clean(part[key]).strip()[:_TERMINATION_TAIL]
    return ""


def reason_word(text: str, exit_code: int | None) -> str:
    """The reason in a termination message that belongs to this exit code, if it is one short word; else empty."""
    try:
        document = _json(text)
    except ValueError:
        return ""
    if not isinstance(document, dict) or document.get("exitCode", exit_code) != exit_code:
        return ""  # of another end: a process that said that it was done, and crashed
    word = document.get("reason")
    return word if isinstance(word, str) and _REASON.fullmatch(word) else ""


def significant(value: float) -> float:
    """Rounded to four significant digits: printed columns show what is stored."""
    rounded = float(f"{value:.4g}")
    return rounded if isfinite(rounded) else value


def _json(text: str) -> Any:
    """A termination message as JSON. Raises ValueError, also if it is nested too deeply."""
    if len(text) > _TERMINATION_MESSAGE:
        raise ValueError(f"a termination message has at most {_TERMINATION_MESSAGE} characters")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a JSON object")  # noqa: TRY004  bad input, not a programming error
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ValueError(f"{where} must be a string of at most {_MAX_TEXT} characters")
    return clean(value)


def _number(value: Any, where: str) -> float | None:
    """A finite number, given as a number or as text; others are left out, because they cannot be stored."""
    if value is None:
        return None
    try:
        number = float(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        raise ValueError(f"{where} must be a number")
    return significant(number) if isfinite(number) else None


def _rate(value: Any) -> float | None:
    number = _number(value, "trainerStatus.rfuav.samplesPerSecond")
    if number is not None and number < 0:
        raise ValueError("trainerStatus.rfuav.samplesPerSecond must be 0 or more")
    return number


def _count(source: Mapping[str, Any], key: str, where: str) -> int | None:
    value = source.get(key)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_COUNT:
        raise ValueError(f"{where}.{key} must be a whole number of 0 or more")
    return value


def _percent(source: Mapping[str, Any], key: str, where: str) -> int | None:
    percent = _count(source, key, where)
    if percent is not None and percent > _PERCENT:
        raise ValueError(f"{where}.{key} is {percent}; it must be a whole number from 0 to 100")
    return percent


def _estimate(value: Any) -> int | None:
    """Seconds that are left; how long too long an estimate is does not matter."""
    if isinstance(value, int | float) and value > LONGEST_ESTIMATE:
        return LONGEST_ESTIMATE
    return _count({"estimatedRemainingSeconds": value}, "estimatedRemainingSeconds", "trainerStatus")


def _metrics(entries: Any) -> tuple[dict[str, float], tuple[CustomMetric, ...]]:
    if entries is None:
        return {}, ()
    if not isinstance(entries, list) or len(entries) > _MAX_METRICS:
        raise ValueError(f"trainerStatus.metrics must be a list of at most {_MAX_METRICS} items of name and value")
    known: dict[str, float] = {}
    custom: dict[str, str] = {}
    for i, entry in enumerate(entries):
        where = f"trainerStatus.metrics[{i}]"
        item = _mapping(entry, where)
        name = item.get("name")
        if not isinstance(name, str) or not name or len(name) > _MAX_NAME:
            raise ValueError(f"{where}.name must be a string of 1 to {_MAX_NAME} characters")
        value = item.get("value")
        if name in METRICS:
            number = _number(value, f"{where}.value")
            if number is not None:
                known[name] = number
        elif isinstance(value, str | int | float):
            custom[clean(name)] = clean(str(value)[:_MAX_VALUE])
        elif value is not None:
            raise ValueError(f"{where}.value must be a number or a string")
    shown = list(custom.items())[:_MAX_CUSTOM_METRICS]
    return known, tuple(CustomMetric(name=name, value=value) for name, value in shown)


def _checkpoint(value: Any) -> Checkpoint | None:
    if value is None:
        return None
    where = "trainerStatus.rfuav.checkpoint"
    found = _mapping(value, where)
    return Checkpoint(
        uri=_text(found.get("uri"), f"{where}.uri"),
        epoch=_count(found, "epoch", where),
        step=_count(found, "step", where),
        saved_at=_instant(found.get("savedAt"), f"{where}.savedAt"),
    )


def _instant(value: Any, where: str) -> datetime | None:
    if value is None:
        return None
    try:
        instant = msgspec.convert(value, datetime)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ValueError(f"{where} must be an RFC 3339 instant like 2026-01-31T12:00:00Z")
    return bounded(instant).replace(microsecond=0)


def _outputs(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    where = "trainerStatus.rfuav.outputs"
    found = _mapping(value, where)
    if len(found) > _MAX_OUTPUTS:
        raise ValueError(f"{where} may have at most {_MAX_OUTPUTS} entries")
    return {_text(key, where): _text(uri, f"{where}.{key}") for key, uri in found.items()}


def _results(value: Any) -> tuple[bytes | None, str]:
    """Results as JSON, or why they are not taken: the rest of the report counts all the same."""
    if value is None:
        return None, ""
    try:
        return bounds.results(value), ""
    except ValueError as error:
        return None, f"trainerStatus.rfuav.results: {error}"


# --- applying


def apply_report(status: JobStatus, report: Report, kind: Kind) -> JobStatus:
    """The status after a report of one of its present pods; unchanged for any other pod and for a stale sequence."""
    assignment = next((a for a in status.assignments if a.pod == report.pod), None)
    if assignment is None:
        return status
    if report.gpu_uuid and report.gpu_uuid != assignment.gpu_uuid:
        seen = replace(assignment, gpu_uuid=report.gpu_uuid)
        status = replace(status, assignments=tuple(seen if a is assignment else a for a in status.assignments))
    if assignment.rank:
        return status  # the first pod of a job of several nodes speaks for all
    before = _of_unit(status, assignment.shard, kind)
    if before.sequence is not None and report.sequence <= before.sequence:
        return status
    after = _forward(before, replace(report.progress, sequence=report.sequence, updated_at=report.received_at))
    return _store(status, assignment.shard, kind, after, _as_parts(report))


def apply_parts(status: JobStatus, shard: int | None, parts: Parts, kind: Kind, now: datetime) -> JobStatus:
    """The status after the termination message of a pod of its present attempt: the fallback for the last report."""
    before = _of_unit(status, shard, kind)
    if before.sequence is not None and parts.sequence is not None and parts.sequence < before.sequence:
        return status
    sequence = before.sequence if parts.sequence is None else parts.sequence
    after = _forward(before, replace(parts.progress, sequence=sequence, updated_at=now))
    if replace(after, updated_at=before.updated_at) == before:
        after = before
    return _store(status, shard, kind, after, parts)


def _as_parts(report: Report) -> Parts:
    return Parts(
        progress=report.progress,
        metrics=report.metrics,
        custom_metrics=report.custom_metrics,
        checkpoint=report.checkpoint,
        outputs=report.outputs,
    )


def _of_unit(status: JobStatus, shard: int | None, kind: Kind) -> Progress:
    if kind is Kind.TRAINING:
        return status.progress or Progress()
    return (status.shards.progress.get(str(shard)) if status.shards else None) or Progress()


def _forward(before: Progress, new: Progress) -> Progress:
    """`new` over `before`: missing values stay, and nothing that was reported in this attempt moves back."""
    merged = {name: getattr(before, name) if value is None else value for name, value in _fields(new).items()}
    if before.sequence is not None:
        for name in ("percent", "epoch", "processed", "failed"):
            old = getattr(before, name)
            if old is not None and merged[name] is not None:
                merged[name] = max(old, merged[name])
    if merged["updated_at"] is not None:
        merged["updated_at"] = merged["updated_at"].replace(microsecond=0)
    return Progress(**merged)


def _fields(progress: Progress) -> dict[str, Any]:
    return msgspec.structs.asdict(progress)


def _store(status: JobStatus, shard: int | None, kind: Kind, after: Progress, parts: Parts) -> JobStatus:
    metrics = {k: significant(v) for k, v in parts.metrics.items() if k in METRICS and isfinite(v)}
    metrics = {**status.metrics, **metrics}
    if "valAccuracy" in metrics:
        metrics["bestValAccuracy"] = max(metrics["valAccuracy"], metrics.get("bestValAccuracy", 0.0))
    custom = {m.name: m for m in (*status.custom_metrics, *parts.custom_metrics)}
    status = replace(
        status,
        metrics=metrics,
        custom_metrics=tuple(custom.values())[-_MAX_CUSTOM_METRICS:],
        checkpoint=parts.checkpoint or status.checkpoint,
        outputs=dict([*{**status.outputs, **parts.outputs}.items()][-_MAX_OUTPUTS:]),
    )
    if kind is Kind.TRAINING:
        return replace(status, progress=after)
    if status.shards is None:
        return status
    shards = replace(status.shards, progress={**status.shards.progress, str(shard): after})
    return sum_shards(replace(status, shards=shards))


def begin_attempt(status: JobStatus, shard: int | None, kind: Kind) -> JobStatus:
    """The status as a new attempt of the unit starts: its sequence starts over, its values where it continues."""
    before = _of_unit(status, shard, kind)
    if before == Progress():
        return status
    epoch = status.checkpoint.epoch if status.checkpoint else None
    percent = before.percent if kind is Kind.INFERENCE or status.checkpoint else 0
    if epoch is not None and before.total_epochs:
        percent = min(_PERCENT, epoch * _PERCENT // before.total_epochs)
    after = replace(
        before,
        percent=percent,
        epoch=epoch if kind is Kind.TRAINING else before.epoch,
        sequence=None,
        samples_per_second=None,
        gpu_memory_bytes=None,
        gpu_utilization=None,
        remaining_seconds=None,
    )
    if kind is Kind.TRAINING:
        return replace(status, progress=after)
    if status.shards is None:
        return status
    return replace(status, shards=replace(status.shards, progress={**status.shards.progress, str(shard): after}))


def complete_shard(status: JobStatus, shard: int) -> JobStatus:
    """Move a finished shard's numbers into the sum of the finished ones."""
    if status.shards is None:
        return status
    running = dict(status.shards.progress)
    last = running.pop(str(shard), None) or Progress()
    total = status.shards.finished or Progress(processed=0, failed=0, total=0)
    finished = Progress(
        processed=(total.processed or 0) + (last.processed or 0),
        failed=(total.failed or 0) + (last.failed or 0),
        total=(total.total or 0) + (last.total or last.processed or 0),
    )
    return replace(status, shards=replace(status.shards, progress=running, finished=finished))


def saved(status: JobStatus, shard: int | None) -> int:
    """How far the work of a unit is that a next attempt does not do again: steps or epochs, or inputs of a shard."""
    if shard is not None:
        last = (status.shards.progress.get(str(shard)) if status.shards else None) or Progress()
        return (last.processed or 0) + (last.failed or 0)
    checkpoint = status.checkpoint
    if checkpoint is None:
        return 0
    return (checkpoint.epoch if checkpoint.step is None else checkpoint.step) or 0


def sum_shards(status: JobStatus) -> JobStatus:
    """Progress of an InferenceJob from that of its shards: counts and rates summed, the longest remaining time."""
    shards = status.shards
    if shards is None:
        return status
    running = list(shards.progress.values())
    if not running and shards.finished is None:
        return status
    done = len(ranges.parse(shards.completed))
    parts = [*running, shards.finished] if shards.finished else running
    rates = [p.samples_per_second for p in running if p.samples_per_second is not None]
    memory = [p.gpu_memory_bytes for p in running if p.gpu_memory_bytes is not None]
    busy = [p.gpu_utilization for p in running if p.gpu_utilization is not None]
    remaining = [p.remaining_seconds for p in running if p.remaining_seconds is not None]
    times = [p.updated_at for p in running if p.updated_at is not None]
    old = status.progress or Progress()
    percent = (done * _PERCENT + sum(p.percent or 0 for p in running)) // max(1, shards.total)
    return replace(
        status,
        progress=Progress(
            percent=min(_PERCENT, percent),
            processed=sum(p.processed or 0 for p in parts),
            failed=sum(p.failed or 0 for p in parts),
            total=sum(p.total or 0 for p in parts),
            samples_per_second=significant(sum(rates)) if rates else None,
            gpu_memory_bytes=min(_MAX_COUNT, sum(memory)) if memory else None,
            gpu_utilization=sum(busy) // len(busy) if busy else None,
            remaining_seconds=max(remaining, default=None),
            updated_at=max(times, default=old.updated_at),
        ),
    )
