"""Pauses between tries: they double up to a limit, and the jitter keeps many clients from trying together."""

import random

_MOST_DOUBLINGS = 16  # a float has room for far more; no limit is that far from its first pause


def grown(tries: int, *, first: float, most: float) -> float:
    """Seconds to wait after so many tries, at least one: `first`, doubled with each further try, at most `most`."""
    return min(first * 2.0 ** min(tries - 1, _MOST_DOUBLINGS), most)


def jittered(seconds: float) -> float:
    """A half to one and a half of it."""
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311  jitter
