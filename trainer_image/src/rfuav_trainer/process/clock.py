"""The time as files and reports state it."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """The time as RFC 3339 in UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
