"""What the API server last said about the objects of one kind: the newer resourceVersion wins, whatever the order.

Watch events, lists and the answers to our own writes all come in here; what really changed goes out to one callback.
resourceVersions of one resource are compared as numbers, which Kubernetes promises since 1.35.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

REMEMBERED = 20_000  # removed keys whose late events are still recognised


class Cache(Generic[K, V]):
    """The objects of one kind by key.

    Args:
        changed: called with (old, new) for every change; old is None for a new object, new for one that is gone.
    """

    def __init__(self, changed: Callable[[V | None, V | None], None]) -> None:
        self._changed = changed
        self._held: dict[K, tuple[int, V]] = {}
        self._removed: OrderedDict[K, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[K]:
        return iter(self._held)

    def values(self) -> Iterator[V]:
        """The objects as last read."""
        return (value for _, value in self._held.values())

    def get(self, key: K) -> V | None:
        """The object as last read."""
        held = self._held.get(key)
        return None if held is None else held[1]

    def knows(self, key: K, version: int) -> bool:
        """Whether the object is known as it was at `version` or later: then `put` stores nothing."""
        held = self._held.get(key)
        return version <= (held[0] if held is not None else self._removed.get(key, -1))

    def put(self, key: K, version: int, value: V) -> bool:
        """Store an object as read at `version`; False if the cached one is as new or newer."""
        if self.knows(key, version):
            return False
        held = self._held.get(key)
        self._removed.pop(key, None)
        self._held[key] = (version, value)
        self._changed(None if held is None else held[1], value)
        return True

    def remove(self, key: K, version: int | None = None) -> bool:
        """Drop an object: deleted at `version`, or, without one, known to be gone (404)."""
        held = self._held.get(key)
        if held is None:
            if version is not None:
                self._remember(key, max(version, self._removed.get(key, -1)))
            return False
        if version is not None and version < held[0]:
            return False
        del self._held[key]
        self._remember(key, held[0] if version is None else version)
        self._changed(held[1], None)
        return True

    def replace(self, items: Iterable[tuple[K, int, V]], version: int) -> None:
        """Store a full list read at `version`: cached objects that are older and not listed are gone."""
        listed = set()
        for key, item_version, value in items:
            listed.add(key)
            self.put(key, item_version, value)
        self.retain(listed, version)

    def retain(self, keys: Iterable[K], version: int, *, among: Callable[[K], bool] = lambda _: True) -> None:
        """Drop what a list of all keys `among` those held, read at `version`, does not name."""
        listed = set(keys)
        for key in [k for k, (held, _) in self._held.items() if held <= version and k not in listed and among(k)]:
            self.remove(key, version)

    def part(self, among: Callable[[K], bool]) -> "Part[K, V]":
        """The objects whose keys are `among` those held, to be followed alone: no list of them drops another."""
        return Part(self, among)

    def _remember(self, key: K, version: int) -> None:
        self._removed[key] = version
        self._removed.move_to_end(key)
        if len(self._removed) > REMEMBERED:
            self._removed.popitem(last=False)


class Part(Generic[K, V]):
    """Some objects of a cache that several lists fill.

    Args:
        cache: of them all.
        among: whether a key is one of these.
    """

    def __init__(self, cache: Cache[K, V], among: Callable[[K], bool]) -> None:
        self._among = among
        self._cache = cache
        self.knows = cache.knows
        self.put = cache.put
        self.remove = cache.remove

    def retain(self, keys: Iterable[K], version: int) -> None:
        """Drop those that a list of these, read at `version`, does not name."""
        self._cache.retain(keys, version, among=self._among)
