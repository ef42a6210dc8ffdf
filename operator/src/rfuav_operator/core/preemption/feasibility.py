"""Where a search for victims can succeed: the nodes that would have room if all lower priorities were gone.

Age and quotas do not count, so an answer holds until the node changes: a shape with too few such nodes need not
search. The sums of a node's headroom come from here too.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rfuav_operator.core.capacity.placement import PoolCapacity
from rfuav_operator.core.capacity.room import Allocation, Room, Shape
from rfuav_operator.core.model import KINDS, Kind, NodeName
from rfuav_operator.core.preemption.running import Runners
from rfuav_operator.core.quantity import Amounts


@dataclass(slots=True)
class Headroom:
    """What one node has left when some of its pods are gone: a trial that leaves the room as it is."""

    kind: dict[Kind, int]  # GPU slots by the kind's limit
    left: Amounts  # of the node in all
    jobs: dict[Kind, int]  # places for pods without GPU
    alone: int  # pods that the scheduler lets no further pod of ours join

    @classmethod
    def of(cls, room: Room, gone: Iterable[Allocation] = ()) -> "Headroom":
        """The room's sums without these."""
        headroom = cls(
            {k: slots.limit - slots.used - room.stray_gpus[k] for k, slots in room.slots.items()},
            room.left,
            {k: room.cpu_jobs[k] - room.jobs_used[k] for k in KINDS},
            sum(held.alone for held in room.holders.values()),
        )
        for held in gone:
            headroom.give_back(held)
        return headroom

    def give_back(self, held: Allocation, sign: int = 1) -> None:
        """As if it were gone; `sign` -1: as if it were there again."""
        if held.requests.slots > 0:
            self.kind[held.kind] += sign * held.requests.slots
        else:
            self.jobs[held.kind] += sign
        self.left = self.left + held.requests if sign > 0 else self.left - held.requests
        self.alone -= sign * held.alone

    def fits(self, shape: Shape) -> bool:
        """Whether one pod of this shape would have room."""
        asked = shape.requests
        if asked.slots > 0:
            if asked.slots > self.kind[shape.kind]:
                return False
        elif self.jobs[shape.kind] <= 0:
            return False
        return self.alone == 0 and asked.fits(self.left)


class Clearable:
    """The nodes of one pool that shapes could be made to fit, by priority."""

    def __init__(self, capacity: PoolCapacity, runners: Runners) -> None:
        self._capacity = capacity
        self._runners = runners
        self._headroom: dict[int, dict[NodeName, Headroom]] = {}
        self._nodes: dict[int, dict[Shape, set[NodeName]]] = {}
        self._changed: set[NodeName] = set()
        self._forgot = 0

    def changed(self, name: NodeName) -> None:
        """A pod arrived or left there, or the node is another."""
        if self._headroom:
            self._changed.add(name)

    def nodes(self, shape: Shape, *, below: int) -> set[NodeName]:
        """The nodes that could take this shape if no pod with a priority lower than `below` ran there."""
        self._settle()
        headroom = self._headroom.get(below)
        if headroom is None:
            headroom = self._headroom[below] = {
                name: self._without(room, below) for name, room in self._capacity.rooms.items()
            }
        known = self._nodes.setdefault(below, {})
        if shape not in known:
            suiting = (room.node.name for room in self._capacity.suits(shape))
            known[shape] = {name for name in suiting if headroom[name].fits(shape)}
        return known[shape]

    def _settle(self) -> None:
        if self._forgot != self._capacity.forgot:  # with them, what was kept of the same shapes here
            self._forgot = self._capacity.forgot
            self._nodes = {
                below: {shape: names for shape, names in known.items() if self._capacity.knows(shape)}
                for below, known in self._nodes.items()
            }
        for below, headroom in self._headroom.items():
            for name in self._changed:
                room = self._capacity.rooms.get(name)
                now = None if room is None else self._without(room, below)
                if now is None:
                    headroom.pop(name, None)
                else:
                    headroom[name] = now
                for shape, names in self._nodes.get(below, {}).items():
                    if now is not None and now.fits(shape) and self._capacity.is_suiting(name, shape):
                        names.add(name)
                    else:
                        names.discard(name)
        self._changed.clear()

    def _without(self, room: Room, below: int) -> Headroom:
        return Headroom.of(room, (held for key, held in room.holders.items() if self._runners.may_go(key, below)))
