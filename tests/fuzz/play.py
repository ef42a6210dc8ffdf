"""Many inputs, a handful in each world; one that breaks a promise is looked for in those that were fed together."""

import json
import os
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from fuzz import world
from fuzz.garbage import MAKERS, Input, draw
from fuzz.world import World

TOGETHER = len(MAKERS)  # one of each kind
CHUNK = 40 * TOGETHER


class Failure(NamedTuple):
    """Inputs, fed together, and what went wrong."""

    inputs: tuple[Input, ...]
    words: str

    def show(self) -> str:
        """As it is kept in `cases.json`."""
        return f"{self.words}\n{json.dumps([list(one) for one in self.inputs])}"


class Result(NamedTuple):
    """What a number of inputs came to."""

    inputs: int
    decoded: int
    failures: tuple[Failure, ...]


class Player:
    """Feeds inputs and compares."""

    def __init__(self) -> None:
        world.listen()
        world.errors.clear()
        self._expected = World().run()
        assert not world.errors, world.errors
        assert len(self._expected) > 20

    def play(self, inputs: Sequence[Input]) -> Result:
        """Feed these together; if that fails, fewer of them."""
        decoded, words = self.fault(inputs)
        failures = (Failure(tuple(self._fewest(inputs)), words),) if words else ()
        return Result(len(inputs), decoded, failures)

    def fault(self, inputs: Iterable[Input]) -> tuple[int, str]:
        """How many were read whole, and what went wrong; empty: nothing."""
        world.errors.clear()
        decoded = 0
        try:
            made = World()
            decoded = sum([made.feed(one) for one in inputs])
            decided = made.run()
        except Exception:  # noqa: BLE001  that is what is looked for
            return decoded, traceback.format_exc(limit=-4)
        if world.errors:
            return decoded, "logged: " + "; ".join(world.errors)
        if decided != self._expected:
            other = [one for one in decided if one not in self._expected]
            gone = [one for one in self._expected if one not in decided]
            return decoded, f"others got {other[:2]!r:.1500}\ninstead of {gone[:2]!r:.1500}"
        return decoded, ""

    def _fewest(self, inputs: Sequence[Input]) -> Sequence[Input]:
        left = list(inputs)
        for one in inputs:
            without = [other for other in left if other is not one]
            if without and self.fault(without)[1]:
                left = without
        return left


def play_range(first: int, count: int) -> Result:
    """The inputs `first` to `first + count - 1`, in this process."""
    player = Player()
    decoded, failures = 0, []
    for start in range(first, first + count, TOGETHER):
        done = player.play([draw(number) for number in range(start, min(start + TOGETHER, first + count))])
        decoded += done.decoded
        failures += done.failures
    return Result(count, decoded, tuple(failures))


def play_many(first: int, count: int, *, processes: int | None = None) -> Result:
    """The same over all cores."""
    starts = range(first, first + count, CHUNK)
    sizes = [min(CHUNK, first + count - start) for start in starts]
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        done = list(pool.map(play_range, starts, sizes))
    failures = tuple(failure for one in done for failure in one.failures)
    return Result(count, sum(one.decoded for one in done), failures)
