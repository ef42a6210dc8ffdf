"""How often and how much: the limits of live streams, in one place."""

from typing import NamedTuple


class Pace(NamedTuple):
    """Seconds and numbers."""

    batch: float = 0.5
    """Between two deliveries to the readers: changes that come in between share one, the newest of each job."""
    board: float = 2.0
    """Between two looks at pools and quotas."""
    keep_alive: float = 15.0
    """Of silence, after which readers get a comment: proxies end silent connections."""
    recheck: float = 30.0
    """Between two questions what a reader may see; with `keep_alive`, at most a minute."""
    patience: float = 30.0
    """For which a reader's connection may take nothing before it is closed."""
    chunk: int = 500
    """Rows of one event."""
    ended: int = 1000
    """Jobs that have ended, the newest, in the first picture."""
    spare: int = 10_000
    """Jobs that are gone and still remembered; readers who are farther behind get a new picture."""
    streams: int = 500
    """That are read at the same time."""
