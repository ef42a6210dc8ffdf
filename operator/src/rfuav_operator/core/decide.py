"""The one door of the core: what changed goes in, actions come out.

`turn` steps the dirty jobs through their lifecycle and, when room or the queue may have changed, plans admission.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from rfuav_operator.core.model import Action, Report, Snapshot, Uid


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one turn of the loop decided."""

    actions: Sequence[Action]
    wake_at: datetime | None = None  # the next instant at which time alone changes something (backoff, TTL, deadlines)


def turn(snapshot: Snapshot, *, dirty: Collection[Uid], reports: Sequence[Report], now: datetime, plan: bool) -> Turn:
    """Decide everything that follows from `snapshot` for the `dirty` jobs, and admission when `plan` is set."""
    raise NotImplementedError
