"""Lines of a log as entries of the REST interface.

The trainer writes one JSON object a line: `event`, `level`, `time`, and values by name (docs/trainer.md). A line of
another program is a message. Whatever a line has, the entry is bounded, and its text can be shown on a terminal.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from rfuav_gateway.logs.places import instant
from rfuav_gateway.logs.pod_log import Line
from rfuav_gateway.logs.source import Pod
from rfuav_gateway.tasks import jobs, views
from rfuav_kube.objects import printable

LONGEST_MESSAGE = 16 * 1024
"""Characters."""
_LONGEST_DETAILS = 600  # characters
_LONGEST_DETAIL = 200
Level = Literal["INFO", "WARNING", "ERROR"]
Stage = Literal["epoch_start", "training", "validation", "epoch_end", "completed"]
_LEVELS: dict[str, Level] = {
    "warning": "WARNING",
    "warn": "WARNING",
    "error": "ERROR",
    "critical": "ERROR",
    "fatal": "ERROR",
    "exception": "ERROR",
}
_STAGES: dict[str, Stage] = {"training": "epoch_start", "epoch": "epoch_end", "done": "completed"}
_OF_THE_LINE = frozenset({"event", "message", "level", "time", "timestamp", "exception", "job", "attempt", "shard"})
_METRICS = {field.encode_name: field.name for field in msgspec.structs.fields(jobs.Metrics)}
_LARGEST = 2**53


class Entry(msgspec.Struct, omit_defaults=True, frozen=True):
    """As `bodies.LogEntry`: one line, and from which of the task's pods it comes."""

    timestamp: str
    level: Level
    message: str
    metrics: views.Metrics | None = None
    step: int | None = None
    stage: Stage | None = None
    attempt: int | None = None
    shard: int | None = None
    rank: int | None = None


def entry_of(line: Line, pod: Pod, now: datetime) -> Entry:
    """The entry of a line.

    Args:
        line: the line.
        pod: whose it is.
        now: the time of a line without one.
    """
    at = now if line.place is None else instant(line.place.nanoseconds)
    values = None if line.left_out else _values(line.text)
    name = None if values is None else values.get("event", values.get("message"))
    if values is None or not isinstance(name, str):
        message = _bounded(line.text.decode(errors="replace"), line.left_out)
        return Entry(
            timestamp(at),
            "WARNING" if line.place is None else "INFO",
            message,
            attempt=pod.attempt,
            shard=pod.shard,
            rank=pod.rank,
        )
    return Entry(
        timestamp(_time(values) or at),
        _LEVELS.get(str(values.get("level")).lower(), "INFO"),
        _message(name, values),
        metrics=_metrics(values),
        step=_count(values.get("step", values.get("processed"))),
        stage=_stage(name, values),
        attempt=pod.attempt,
        shard=pod.shard,
        rank=pod.rank,
    )


def timestamp(at: datetime) -> str:
    """A time as the reference writes it: ISO 8601, UTC, without a zone."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def _values(text: bytes) -> dict[str, Any] | None:
    if not text.startswith(b"{"):
        return None
    try:
        found = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _time(values: Mapping[str, Any]) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(values["time"]))
        return found.astimezone(UTC) if found.tzinfo else None
    except (KeyError, ValueError, OverflowError):
        return None


def _metrics(values: Mapping[str, Any]) -> views.Metrics | None:
    """The metrics among the values; what is no finite number is left out."""
    found = {
        name: values[key]
        for key, name in _METRICS.items()
        if isinstance(values.get(key), int | float) and not isinstance(values[key], bool) and math.isfinite(values[key])
    }
    if not found:
        return None
    return views.metrics(jobs.Metrics(**found), _count(values.get("epoch")), _count(values.get("epochs")))


def _stage(name: str, values: Mapping[str, Any]) -> Stage | None:
    if name == "progress" and "epoch" in values:
        return "validation" if "validated" in values else "training"
    return _STAGES.get(name)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST else None


def _message(name: str, values: Mapping[str, Any]) -> str:
    """The event with its values, as the trainer shows them to a person, and the traceback; metrics are beside it."""
    shown, length = [], 0
    for key, value in values.items():
        if key in _OF_THE_LINE or key in _METRICS or value is None:
            continue
        part = f"{key} {value}"
        part = part if len(part) <= _LONGEST_DETAIL else f"{part[:_LONGEST_DETAIL]}..."
        length += len(part)
        if length > _LONGEST_DETAILS:
            shown.append("...")
            break
        shown.append(part)
    message = f"{name} ({', '.join(shown)})" if shown else name
    trace = values.get("exception")
    return _bounded(f"{message}\n{trace}" if isinstance(trace, str) else message, 0)


def _bounded(text: str, left_out: int) -> str:
    kept = text[:LONGEST_MESSAGE]
    more = left_out + len(text) - len(kept)
    return printable(f"{kept}... ({more} more)" if more else kept)
