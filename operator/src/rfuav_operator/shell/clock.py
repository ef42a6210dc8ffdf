"""What time it is: seconds for intervals, an instant for what is written. The simulation puts its own clock in here."""

import time
from datetime import UTC, datetime


def monotonic() -> float:
    """Seconds that never go back."""
    return time.monotonic()


def now() -> datetime:
    """The present instant."""
    return datetime.now(UTC)
