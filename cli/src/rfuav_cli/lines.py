"""Lines of the trainer's log, for people.

The trainer writes one JSON object a line: `event`, `level`, `time`, and values by name. Lines of other programs are
shown as they are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_OF_THE_LINE = frozenset({"event", "message", "level", "time", "timestamp", "exception", "job", "attempt", "shard"})
_LONGEST = 200  # characters of a value
_LOUD = {"warning": "yellow", "error": "red", "critical": "red", "exception": "red"}


@dataclass(frozen=True)
class Line:
    """A line in its parts.

    Attributes:
        time: when it was written, as the log has it; empty: it does not say.
        level: warning, error or critical; empty: neither.
        text: what happened, with the values.
        trace: lines of a traceback.
    """

    time: str
    level: str
    text: str
    trace: str = ""

    @property
    def style(self) -> str:
        """Its colour on a terminal."""
        return _LOUD.get(self.level, "")


def read(raw: str) -> Line:
    """A line of a log."""
    values = _values(raw)
    name = None if values is None else values.get("event", values.get("message"))
    if values is None or not isinstance(name, str):
        return Line("", "", _printable(raw.rstrip("\r\n")))
    level = str(values.get("level") or "").lower()
    shown = [
        name,
        *(f"{key}={_short(value)}" for key, value in values.items() if key not in _OF_THE_LINE and value is not None),
    ]
    trace = values.get("exception")
    return Line(
        str(values.get("time") or values.get("timestamp") or ""),
        level if level in _LOUD else "",
        _printable("  ".join(shown)),
        _printable(trace) if isinstance(trace, str) else "",
    )


def plain(line: Line, prefix: str = "") -> str:
    """The line for a file: the whole time, no colour."""
    parts = [prefix, line.time, line.level, line.text]
    return " ".join(p for p in parts if p) + (f"\n{line.trace}" if line.trace else "")


def local(line: Line) -> str:
    """The time of day of the line, here; empty: it does not say."""
    try:
        return f"{datetime.fromisoformat(line.time).astimezone():%H:%M:%S}"
    except ValueError:
        return ""


def _values(raw: str) -> Mapping[str, Any] | None:
    if not raw.startswith("{"):
        return None
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() or c in "\t\n" else "\ufffd" for c in text)
