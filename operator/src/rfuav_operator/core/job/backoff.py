"""How long a failed unit waits: doubling from the base to the cap, with jitter that follows from the unit alone."""

from datetime import timedelta
from hashlib import sha256

from rfuav_operator.core.model import Defaults, Uid

_JITTER = 0.2  # at most this share more
_MAX_DOUBLINGS = 30


def delay(uid: Uid, shard: int | None, failures: int, defaults: Defaults) -> timedelta:
    """The wait after the `failures`-th failure in whole seconds; equal for equal arguments, whoever asks."""
    doubled = defaults.backoff_base_seconds * 2 ** min(max(0, failures - 1), _MAX_DOUBLINGS)
    share = int.from_bytes(sha256(f"{uid}/{shard}/{failures}".encode()).digest()[:4]) / 2**32
    return timedelta(seconds=round(min(doubled, defaults.backoff_cap_seconds) * (1 + _JITTER * share)))
