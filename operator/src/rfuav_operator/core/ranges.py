"""Sets of small integers as text: `{0, 1, 2, 3, 7}` is `0-3,7`. Status keeps completed shards this way."""

from collections.abc import Iterable


def parse(text: str) -> set[int]:
    """The integers of a text like `0-3,7`; an empty text is the empty set. Raises ValueError for anything else."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        found.update(range(int(first), int(last if dash else first) + 1))
    return found


def show(numbers: Iterable[int]) -> str:
    """The shortest text for the integers, ascending."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
