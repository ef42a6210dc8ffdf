"""Many histories, spread over processes; what came of them in one line."""

import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import NamedTuple

from simulation import mutations
from simulation.play import Result, play_seed

CHUNK = 20


@dataclass
class Summary:
    """What came of all."""

    histories: int = 0
    events: int = 0
    requests: int = 0
    faults: int = 0
    hours: float = 0.0  # virtual
    seconds: float = 0.0  # of the wall
    failed: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count one."""
        self.histories += 1
        self.events += result.events
        self.requests += result.requests
        self.faults += result.faults
        self.hours += result.seconds / 3600
        if result.violation:
            self.failed.append(result)

    def __str__(self) -> str:
        rate = self.histories / self.seconds if self.seconds else 0.0
        return (
            f"{self.histories} histories, {len(self.failed)} failed; {self.events} events, {self.requests} requests, "
            f"{self.faults} faults, {self.hours:.0f} virtual hours; {self.seconds:.1f} s, {rate:.1f} histories/s"
        )


def executor(workers: int = 0) -> ProcessPoolExecutor:
    """Fresh processes, so that nothing of this one's state is in them."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers or os.cpu_count() or 1, mp_context=context, initializer=_freeze)


def _freeze() -> None:
    """What is imported by now is left alone by the garbage collector, which otherwise takes a third of the time."""
    gc.collect()
    gc.freeze()


def play_many(
    seeds: Iterable[int], pool: ProcessPoolExecutor, *, told: Callable[[Summary, Result], None] = lambda *_: None
) -> Summary:
    """Play all seeds; `told` hears of each history as soon as it is known."""
    began, summary = time.monotonic(), Summary()
    for played in as_completed([pool.submit(_play_chunk, chunk) for chunk in _chunks(list(seeds))]):
        for result in played.result():
            summary.add(result)
            summary.seconds = time.monotonic() - began
            told(summary, result)
    summary.failed.sort(key=lambda result: result.seed)
    return summary


def _play_chunk(seeds: Sequence[int]) -> list[Result]:
    return [play_seed(seed) for seed in seeds]


def _chunks(seeds: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(seeds), CHUNK):
        yield seeds[start : start + CHUNK]


class Noticed(NamedTuple):
    """The history that noticed a mutation."""

    seed: int
    played: int  # histories until then
    violation: str


def first_failure(name: str, seeds: Iterable[int]) -> Noticed | None:
    """The first of the seeds whose history notices a mutation."""
    with mutations.ALL[name]():
        for played, seed in enumerate(seeds, start=1):
            if violation := play_seed(seed).violation:
                return Noticed(seed, played, violation)
    return None
