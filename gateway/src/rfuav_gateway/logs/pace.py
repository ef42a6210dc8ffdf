"""How often, how long and how much: the limits of log streams, in one place."""

from typing import NamedTuple


class Pace(NamedTuple):
    """Seconds, lines and bytes."""

    batch: float = 0.05
    """Between two deliveries to the readers of a task: lines that come in between share one."""
    keep_alive: float = 15.0
    """Of silence, after which readers get a comment: proxies end silent connections."""
    recheck: float = 30.0
    """Between two questions whether a reader may still read; with `limits.writeSeconds`, at most a minute."""
    linger: float = 8.0
    """For which a stream is kept after its last reader: it may come back, or ask for the log once a second."""
    load: float = 5.0
    """For which readers wait for what the pods have logged so far."""
    last_lines: float = 10.0
    """For which the end of a task waits for the last lines of its pods."""
    patience: float = 20.0
    """For which a reader waits for the API server, `load` and `last_lines` included."""
    first_pause: float = 0.5
    """After which a log is asked for again; it doubles up to `longest_pause`."""
    longest_pause: float = 15.0
    lines: int = 2000
    """That are kept for each task."""
    kept_bytes: int = 512 * 1024
    """That are kept for each task."""
    lines_per_second: int = 2000
    """Of one pod: more come later, and wait at the kubelet."""
    pods: int = 64
    """Of one task whose logs are read at the same time."""
    streams: int = 500
    """Tasks whose logs are read at the same time."""
