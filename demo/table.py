"""What the demo shows of a job: one row, from the object as `kubectl get -o json` prints it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

TERMINAL = ("Succeeded", "Failed", "Cancelled")


class Row(NamedTuple):
    """A job in words."""

    kind: str
    name: str
    phase: str
    progress: str
    loss: str
    accuracy: str
    node: str
    why: str
    waited: float  # seconds from its creation until it was admitted, or until now
    ran: float  # seconds from its admission until its end, or until now


def row(job: dict[str, Any], now: datetime) -> Row:
    """The row of one TrainingJob or InferenceJob."""
    status = job.get("status") or {}
    created = _time(job["metadata"]["creationTimestamp"]) or now
    admitted, finished = _time(status.get("admittedAt")), _time(status.get("finishedAt"))
    progress, metrics = status.get("progress") or {}, status.get("metrics") or {}
    percent = progress.get("percent")
    done = "" if percent is None else f"{percent}%"
    if "totalEpochs" in progress:
        done += f" epoch {progress.get('epoch', 0)}/{progress['totalEpochs']}"
    elif "total" in progress:
        done += f" {progress.get('processed', 0)}/{progress['total']}"
    phase = status.get("phase") or "New"
    nodes = sorted({a["node"] for a in status.get("assignments") or () if a.get("node")})
    why = "" if phase in ("Running", "Succeeded") else status.get("message") or status.get("reason") or ""
    return Row(
        kind=job["kind"],
        name=job["metadata"]["name"],
        phase=phase,
        progress=done,
        loss=_number(metrics.get("valLoss")),
        accuracy=_number(metrics.get("bestValAccuracy", metrics.get("top1"))),
        node=",".join(nodes),
        why=why,
        waited=((admitted or finished or now) - created).total_seconds(),
        ran=((finished or now) - admitted).total_seconds() if admitted else 0.0,
    )


def _time(text: str | None) -> datetime | None:
    return None if not text else datetime.fromisoformat(text).astimezone(UTC)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
