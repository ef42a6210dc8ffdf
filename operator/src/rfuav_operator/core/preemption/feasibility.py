"""Where looking for victims is worth while: the nodes that would have room if all of lower priority were gone.

Neither age nor quotas count, so that an answer stands until the node changes: a shape with too few such nodes asks in
vain, whoever runs there. Plain sums of what a node has left come from here too.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rfuav_operator.core.capacity.placement import PoolRooms
from rfuav_operator.core.capacity.room import Held, Need, Room
from rfuav_operator.core.model import Kind, NodeName
from rfuav_operator.core.preemption.running import Runners


@dataclass(slots=True)
class Left:
    """What one node has left when some of its pods are gone: a trial that leaves the room as it is."""

    kind: dict[Kind, int]  # GPU slots by the kind's limit
    slots: int
    jobs: dict[Kind, int]  # places for pods without GPU
    cpu_milli: int
    memory_bytes: int
    pods: int
    alone: int  # pods that the scheduler lets no further pod of ours join

    @classmethod
    def of(cls, room: Room, gone: Iterable[Held] = ()) -> "Left":
        """The room's sums without these."""
        left = cls(
            {k: room.slot_limit[k] - room.slots_used[k] - room.stray_gpus[k] for k in Kind},
            room.node.gpu_slots - room.slots_used[Kind.TRAINING] - room.slots_used[Kind.INFERENCE] - room.foreign_gpus,
            {k: room.cpu_jobs[k] - room.jobs_used[k] for k in Kind},
            room.node.cpu_milli - room.cpu_milli,
            room.node.memory_bytes - room.memory_bytes,
            room.node.pods - room.pods,
            sum(held.alone for held in room.holders.values()),
        )
        for held in gone:
            left.give_back(held)
        return left

    def give_back(self, held: Held, sign: int = 1) -> None:
        """As if it were gone; `sign` -1: as if it were there again."""
        if held.gpus > 0:
            self.kind[held.kind] += sign * held.gpus
            self.slots += sign * held.gpus
        else:
            self.jobs[held.kind] += sign
        self.cpu_milli += sign * held.cpu_milli
        self.memory_bytes += sign * held.memory_bytes
        self.pods += sign
        self.alone -= sign * held.alone

    def fits(self, need: Need) -> bool:
        """Whether one pod of this shape would have room."""
        if need.gpus > 0:
            if need.gpus > self.kind[need.kind] or need.gpus > self.slots:
                return False
        elif self.jobs[need.kind] <= 0:
            return False
        enough = need.cpu_milli <= self.cpu_milli and need.memory_bytes <= self.memory_bytes and self.pods > 0
        return enough and self.alone == 0


class Clearable:
    """The nodes of one pool that shapes could be made to fit, by priority."""

    def __init__(self, rooms: PoolRooms, runners: Runners) -> None:
        self._rooms = rooms
        self._runners = runners
        self._left: dict[int, dict[NodeName, Left]] = {}
        self._nodes: dict[int, dict[Need, set[NodeName]]] = {}
        self._changed: set[NodeName] = set()
        self._forgot = 0

    def changed(self, name: NodeName) -> None:
        """Somebody came or went there, or the node is another."""
        if self._left:
            self._changed.add(name)

    def nodes(self, need: Need, *, below: int) -> set[NodeName]:
        """The nodes that could take this shape if nobody ran there whose priority is lower than `below`."""
        self._settle()
        left = self._left.get(below)
        if left is None:
            left = self._left[below] = {name: self._without(room, below) for name, room in self._rooms.rooms.items()}
        known = self._nodes.setdefault(below, {})
        if need not in known:
            suiting = (room.node.name for room in self._rooms.suits(need))
            known[need] = {name for name in suiting if left[name].fits(need)}
        return known[need]

    def _settle(self) -> None:
        if self._forgot != self._rooms.forgot:  # with them, what was kept of the same shapes here
            self._forgot = self._rooms.forgot
            self._nodes = {
                below: {need: names for need, names in known.items() if self._rooms.knows(need)}
                for below, known in self._nodes.items()
            }
        for below, left in self._left.items():
            for name in self._changed:
                room = self._rooms.rooms.get(name)
                now = None if room is None else self._without(room, below)
                if now is None:
                    left.pop(name, None)
                else:
                    left[name] = now
                for need, names in self._nodes.get(below, {}).items():
                    if now is not None and now.fits(need) and self._rooms.is_suiting(name, need):
                        names.add(name)
                    else:
                        names.discard(name)
        self._changed.clear()

    def _without(self, room: Room, below: int) -> Left:
        return Left.of(room, (held for key, held in room.holders.items() if self._runners.may_go(key, below)))
