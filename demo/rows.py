"""From job objects to the rows of the tables; nothing here looks at the cluster.

In: TrainingJobs and InferenceJobs as the API server returns them, and the time. Out: one `Row` a job, and what each
waited for.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

TERMINAL = ("Succeeded", "Failed", "Cancelled")


@dataclass(frozen=True)
class Row:
    """One job in words and numbers for people."""

    name: str
    kind: str
    phase: str
    reason: str = ""
    message: str = ""
    percent: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    done: str = ""  # epochs or inputs, as in 3/8
    node: str = ""
    waited: float | None = None  # seconds from queuing to the start of its pod, or to now
    ran: float | None = None  # seconds from there to the end, or to now

    @property
    def terminal(self) -> bool:
        """Whether the job never moves again."""
        return self.phase in TERMINAL

    @property
    def why(self) -> str:
        """Why it waits, or why it failed; nothing while all goes well."""
        if self.phase in ("Running", "Succeeded") or not self.reason:
            return ""
        return f"{self.reason}: {self.message}" if self.message else self.reason


def row(job: dict[str, Any], now: datetime) -> Row:
    """The row of one job."""
    status = job.get("status") or {}
    progress, metrics = status.get("progress") or {}, status.get("metrics") or {}
    phase = status.get("phase") or "New"
    queued = _time(status.get("queuedAt")) or _time(job["metadata"].get("creationTimestamp"))
    started, finished = _time(status.get("startedAt")), _time(status.get("finishedAt"))
    training = job["kind"] == "TrainingJob"
    return Row(
        name=job["metadata"]["name"],
        kind=job["kind"],
        phase=phase,
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        percent=progress.get("percent"),
        loss=metrics.get("valLoss"),
        accuracy=metrics.get("valAccuracy") if training else metrics.get("top1"),
        done=_done(
            progress.get("epoch" if training else "processed"), progress.get("totalEpochs" if training else "total")
        ),
        node=", ".join(dict.fromkeys(a["node"] for a in status.get("assignments") or [] if a.get("node"))),
        waited=_between(queued, started or finished or now),
        ran=_between(started, finished or now),
    )


def _done(part: int | None, whole: int | None) -> str:
    return "" if part is None else f"{part}/{whole}" if whole is not None else str(part)


def _between(start: datetime | None, end: datetime) -> float | None:
    return None if start is None else max(0.0, (end - start).total_seconds())


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


@dataclass
class History:
    """What was seen of each job so far: the reasons it waited for, and which rows are news."""

    reasons: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # (kind, name): reasons in order
    _seen: dict[tuple[str, str], tuple[object, ...]] = field(default_factory=dict)

    def note(self, rows: Iterable[Row]) -> list[Row]:
        """Take the rows of one look; returns those with another phase, reason or quarter of progress than before."""
        news = []
        for one in rows:
            key = (one.kind, one.name)
            waits = self.reasons.setdefault(key, [])
            if one.phase == "Queued" and one.reason and one.reason not in waits:
                waits.append(one.reason)
            look = (one.phase, one.reason if one.phase == "Queued" else "", (one.percent or 0) // 25)
            if self._seen.get(key) != look:
                self._seen[key] = look
                news.append(one)
        return news

    def waited_for(self, one: Row) -> str:
        """The reasons a job waited for, in order; `-` when it was never seen to wait."""
        return ", ".join(self.reasons.get((one.kind, one.name), [])) or "-"
