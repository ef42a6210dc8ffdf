"""Lengths of time, for people."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def span(seconds: float) -> str:
    """A length of time in the two largest units, as kubectl shows ages: 45s, 12m, 3h5m, 2d4h."""
    total = max(0, int(seconds))
    if total < _MINUTE:
        return f"{total}s"
    if total < _HOUR:
        return _two(total // _MINUTE, "m", total % _MINUTE if total < 10 * _MINUTE else 0, "s")
    if total < _DAY:
        return _two(total // _HOUR, "h", total % _HOUR // _MINUTE, "m")
    return _two(total // _DAY, "d", total % _DAY // _HOUR, "h")


def _two(large: int, unit: str, small: int, its: str) -> str:
    return f"{large}{unit}{small}{its}" if small else f"{large}{unit}"
