"""Sets of small integers as text: `{0, 1, 2, 3, 7}` is `0-3,7`. Status keeps completed shards this way."""

from collections.abc import Iterable

LARGEST = 100_000


def parse(text: str) -> set[int]:
    """The integers of a text like `0-3,7`; an empty text is the empty set.

    Raises:
        ValueError: for anything else, and for integers beyond `LARGEST`.
    """
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        end = int(last if dash else first)
        if end > LARGEST:
            raise ValueError(f"{end} is out of range: at most {LARGEST}")
        found.update(range(int(first), end + 1))
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
