"""How much an object keeps: the entries of every map, set and list below it, wherever they are."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Any

_OURS = "rfuav_operator."
_SLACK = 48  # a round's worth, since a bound may be reached at any of them


def sizes(root: object) -> Counter[str]:
    """Entries by path; keys and indices are left out of the path, so that equal places add up.

    Values that are passed around (frozen structs) are not looked into.
    """
    found: Counter[str] = Counter()
    seen: set[int] = set()
    todo = [(type(root).__name__, root)]
    while todo:
        path, value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping | set | frozenset | list | deque):
            found[path] += len(value)
            inner = value.values() if isinstance(value, Mapping) else value
            todo += [(f"{path}[]", one) for one in inner]
        elif type(value).__module__.startswith(_OURS):
            todo += [(f"{path}.{name}", one) for name, one in _fields(value)]
    return found


def _fields(value: object) -> Iterator[tuple[str, Any]]:
    yield from getattr(value, "__dict__", {}).items()
    for kind in type(value).__mro__:
        if hasattr(kind, "__struct_fields__"):
            return
        for name in getattr(kind, "__slots__", ()):
            if hasattr(value, name):
                yield name, getattr(value, name)


def grown(rounds: list[Counter[str]]) -> dict[str, tuple[int, int]]:
    """What was larger in the second half of the rounds than ever in the first: by path, the two maxima."""
    half = len(rounds) // 2
    paths = {path for found in rounds for path in found}
    most = {
        path: tuple(max(found[path] for found in part) for part in (rounds[:half], rounds[half:])) for path in paths
    }
    return {path: (first, second) for path, (first, second) in sorted(most.items()) if second > first + _SLACK}
