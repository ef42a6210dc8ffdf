"""The rooms of one pool in the order in which jobs take them, and the known answers for each shape.

In: a `Shape`. Out: the room for it, or why there is none. Answers are kept until a room changes that could change
them.
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from rfuav_crds.modes import Placement
from rfuav_operator.core.capacity import explain
from rfuav_operator.core.capacity.explain import Reason
from rfuav_operator.core.capacity.room import Room, Shape
from rfuav_operator.core.model import Kind, NodeName, Pool, Uid

Kept = Mapping[NodeName, tuple[Uid, Shape]]  # nodes whose next room is reserved for a job
_UNKNOWN = Reason(reason="", message="")
_SPARE = 256  # shapes of no waiting job that may be kept


@dataclass(slots=True)
class _Known:
    """The known answers for one shape."""

    suits: set[NodeName]  # nodes that could ever take it
    full: bool = False  # it fits nowhere now
    never: Reason | None = _UNKNOWN
    words: Reason = _UNKNOWN
    words_version: int = -1  # version of the rooms that the words are about


@dataclass(slots=True)
class _Shelf:
    """Rooms sorted for one class of shapes (kind, with or without GPU): the first that fits is the one to take."""

    kind: Kind
    gpu: bool
    spread: bool
    entries: list[tuple[Any, ...]] = field(default_factory=list)
    keys: dict[NodeName, tuple[Any, ...]] = field(default_factory=dict)

    def put(self, name: NodeName, room: Room | None) -> None:
        new = None if room is None else self._key(name, room)
        old = self.keys.get(name)
        if old == new:
            return
        if old is not None:
            del self.entries[bisect_left(self.entries, old)]
            del self.keys[name]
        if new is not None:
            insort(self.entries, new)
            self.keys[name] = new

    def _key(self, name: NodeName, room: Room) -> tuple[Any, ...]:
        """Pack: the fullest that has room first. Spread: the emptiest. CPU jobs leave GPU nodes to others."""
        sign = -1 if self.spread else 1
        if self.gpu:
            return sign * room.slots[self.kind].free, sign * room.left.slots, name
        return int(room.node.gpu_slots > 0), sign * room.free(self.kind, gpu=False), name

    def candidates(self, gpus: int) -> Iterator[NodeName]:
        """Nodes that have this many slots left, in order."""
        if not self.gpu:
            return (name for _, _, name in self.entries)
        if self.spread:
            return (name for _, _, name in self.entries[: bisect_left(self.entries, (1 - gpus,))])
        start = bisect_left(self.entries, (gpus,))
        return (self.entries[i][2] for i in range(start, len(self.entries)))


class PoolCapacity:
    """The rooms of one pool and the known answers for the shapes that ask for them."""

    def __init__(self, pool: Pool, rooms: Mapping[NodeName, Room]) -> None:
        self.pool = pool
        self.rooms = rooms
        self.version = 0
        spread = pool.spec.placement == Placement.SPREAD
        self._shelves = {(kind, gpu): _Shelf(kind, gpu, spread) for kind in Kind for gpu in (False, True)}
        self._seen: dict[NodeName, Room] = {}
        self._unknown: dict[NodeName, Room] = {}  # rooms whose GPUs are not used because too little is known of them
        self._shapes: dict[Shape, _Known] = {}
        self._effective: dict[Shape, Shape] = {}
        self._loosened: set[NodeName] = set()
        self.forgot = 0  # times that shapes were forgotten
        for name in rooms:
            self.changed(name)

    # --- changes

    def changed(self, name: NodeName, *, released: bool = True) -> None:
        """A room was taken or given back, or its node changed, came or went."""
        room = self.rooms.get(name)
        self.version += 1
        for shelf in self._shelves.values():
            shelf.put(name, room)
        if self._seen.get(name) is not room:
            self._replaced(name, room)
        elif released:
            self._loosened.add(name)

    def _replaced(self, name: NodeName, room: Room | None) -> None:
        if room is None:
            self._seen.pop(name, None)
        else:
            self._seen[name] = room
        if room is not None and room.node.gpu_unknown:
            self._unknown[name] = room
        else:
            self._unknown.pop(name, None)
        self._effective.clear()
        for shape, known in self._shapes.items():
            known.never, known.full = _UNKNOWN, False
            known.suits.discard(name)
            if room is not None and _suits(room, shape):
                known.suits.add(name)

    def settle(self, waiting: Collection[Shape]) -> None:
        """Look again at the shapes that fitted nowhere, on the nodes where room was given back.

        Shapes without a `waiting` job are forgotten now and then; the answers for the others stay.
        """
        if self._loosened:
            changed = [self.rooms[name] for name in self._loosened if name in self.rooms]
            for shape, known in self._shapes.items():
                if known.full and any(r.node.name in known.suits and not r.lacks(shape) for r in changed):
                    known.full = False
            self._loosened.clear()
        if len(self._shapes) > 2 * len(waiting) + _SPARE:  # a shape that avoids nodes counts twice: without them too
            self._effective = {shape: other for shape, other in self._effective.items() if shape in waiting}
            kept = {*waiting, *self._effective.values()}
            self._shapes = {shape: known for shape, known in self._shapes.items() if shape in kept}
            self.forgot += 1

    # --- answers

    def effective(self, shape: Shape) -> Shape:
        """The shape with the nodes that it avoids forgiven when too few others could take it.

        Those that the scheduler refused are not: it would refuse them again.
        """
        if not shape.avoided:
            return shape
        if shape not in self._effective:
            enough = self._others(shape) >= shape.nodes
            self._effective[shape] = shape if enough else replace(shape, avoided=shape.avoided & shape.vetoed)
        return self._effective[shape]

    def is_refused(self, shape: Shape) -> bool:
        """Whether the scheduler refused so many suitable nodes that too few are left for this shape."""
        return bool(shape.avoided & shape.vetoed) and self._others(shape) < shape.nodes

    def _others(self, shape: Shape) -> int:
        return sum(name not in shape.avoided for name in self._known(shape).suits)

    def never(self, shape: Shape) -> Reason | None:
        """Why no node of the pool takes this shape, however empty; None: some does."""
        known = self._known(shape)
        if known.never is _UNKNOWN:
            enough = len(known.suits) >= shape.nodes
            known.never = None if enough else explain.never_fits(shape, self.pool, list(self.rooms.values()))
        return known.never

    def is_full(self, shape: Shape) -> bool:
        """Whether it is known that this shape fits nowhere now."""
        return self._known(shape).full

    def suits(self, shape: Shape) -> Iterator[Room]:
        """Rooms of the nodes that could take this shape when empty."""
        return map(self.rooms.__getitem__, self._known(shape).suits)

    def knows(self, shape: Shape) -> bool:
        """Whether anything is kept of this shape."""
        return shape in self._shapes

    def is_suiting(self, name: NodeName, shape: Shape) -> bool:
        """Whether this node could take the shape when empty."""
        return name in self._known(shape).suits

    def choose(self, shape: Shape, *, exclude: Collection[NodeName] = (), kept: Kept | None = None) -> Room | None:
        """The room for one more pod of this shape, or None.

        Args:
            shape: the shape.
            exclude: nodes that may not be chosen.
            kept: nodes reserved for other jobs; only room that does not delay those may be taken there.
        """
        known = self._known(shape)
        if known.full:
            return None
        turned_away = bool(exclude)
        last: Room | None = None  # of those that the scheduler refused a while ago, the first
        gpus = shape.gpus
        for name in self._shelves[shape.kind, gpus > 0].candidates(gpus):
            room = self.rooms[name]
            if name not in known.suits or name in exclude or room.lacks(shape):
                continue
            if kept and name in kept and room.delays(shape, kept[name][1]):
                turned_away = True
                continue
            if name not in shape.vetoed:
                return room
            last = last or room
        if last is not None:
            return last
        known.full = not turned_away
        return None

    def words(self, shape: Shape, *, fresh: bool) -> Reason:
        """What the pool is short of for this shape; unless `fresh`, words of an earlier moment will do."""
        known = self._known(shape)
        if known.words is _UNKNOWN or (fresh and known.words_version != self.version):
            known.words, known.words_version = self._no_room(shape), self.version
        return known.words

    def _no_room(self, shape: Shape) -> Reason:
        return explain.no_room(shape, self.pool, list(self.suits(shape)), self._unknown.values())

    def is_stale(self, shape: Shape) -> bool:
        """Whether rooms changed since the words about this shape."""
        return self._known(shape).words_version != self.version

    def _known(self, shape: Shape) -> _Known:
        known = self._shapes.get(shape)
        if known is None:
            suits = {name for name, room in self.rooms.items() if _suits(room, shape)}
            known = self._shapes[shape] = _Known(suits)
        return known


def _suits(room: Room, shape: Shape) -> bool:
    return not room.mismatch(shape) and not room.too_small(shape)
