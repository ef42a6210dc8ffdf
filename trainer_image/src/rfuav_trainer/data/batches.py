"""Batches of samples with read-ahead: while the network processes one batch, threads read and decode the next.

In: samples in order, a `Reader`. Out: batches in that order, for any number of threads; unreadable samples are listed.
Threads suffice instead of processes: decoding, resizing and transforms release the GIL.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch

from rfuav_trainer.errors import DeadInputError, UnreadableFileError, naming
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor

    from rfuav_trainer.data.samples import Sample
    from rfuav_trainer.process.stop import StopSignal

READ_AHEAD = 2  # batches
LOOK_SECONDS = 0.2
"""How often to check for a stop while waiting for a batch."""
A = TypeVar("A")
B = TypeVar("B")


class Reads(Protocol):
    """Reads a sample as a picture: a `Reader`, or one that augments."""

    def holds(self, sample: Sample) -> bool:
        """Whether it can be read without its file."""

    def read(self, sample: Sample) -> Tensor:
        """Uint8, (1 or 3, size, size), or UnreadableFileError."""


@dataclass(frozen=True)
class Batch:
    """Samples read together.

    Attributes:
        samples: the readable ones, in order.
        pictures: uint8, shape (n, 1 or 3, size, size); n may be 0.
        labels: int64, shape (n,).
        unreadable, dead: the others, with the reason: those that cannot be read, and those that hold nothing.
    """

    samples: list[Sample]
    pictures: Tensor
    labels: Tensor
    unreadable: list[tuple[Sample, str]] = field(default_factory=list)
    dead: list[tuple[Sample, str]] = field(default_factory=list)


def cut(samples: Sequence[Sample], batch_size: int) -> list[Sequence[Sample]]:
    """The samples in parts of `batch_size`; the last may be smaller."""
    return [samples[start : start + batch_size] for start in range(0, len(samples), batch_size)]


def batches(
    parts: Sequence[Sequence[Sample]], reader: Reads, workers: int = 0, *, stop: StopSignal | None = None
) -> Iterator[Batch]:
    """Batches, in the given order.

    Args:
        parts: the samples of each; a part may be empty.
        reader: how to read them.
        workers: threads that read ahead; with 0 a batch is read on demand.
        stop: if it is requested before the next batch is ready, the iteration ends without waiting for the readers:
            one may wait for a store much longer than the grace period of the pod.
    """
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="reader")
    ahead: deque[tuple[Sequence[Sample], list[Future[Tensor | UnreadableFileError]]]] = deque()
    remaining = iter(parts)
    nothing: Sequence[Sample] = []
    following = next(remaining, nothing)
    try:
        while True:
            while len(ahead) <= (READ_AHEAD if workers else 0) and following is not nothing:
                part, following = following, next(remaining, nothing)
                _fetch_ahead(part if workers else following, reader)
                ahead.append((part, [pool.submit(_read, reader, sample) for sample in part]))
            if not ahead:
                return
            part, futures = ahead.popleft()
            while wait(futures, LOOK_SECONDS if stop else None).not_done:
                if stop and stop.requested:
                    return
            yield _assemble(part, [future.result() for future in futures])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def side_by_side(work: Callable[[A], B], items: Iterable[A], workers: int, threads: int) -> Iterator[tuple[A, B]]:
    """Each item with the result of `work`, in order.

    Args:
        work: applied to an item; it mostly runs without the GIL.
        items: consumed `workers` ahead.
        workers: how many items are processed in parallel; up to 1 runs in the caller's thread.
        threads: of torch in each worker, and in the readers meanwhile. Several batches with few threads each are
            faster than one batch at a time with all threads, which synchronise in every layer.
    """
    if workers <= 1:
        for item in items:
            yield item, work(item)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    pool = ThreadPoolExecutor(workers, "worker", initializer=torch.set_num_threads, initargs=(threads,))
    coming: deque[tuple[A, Future[B]]] = deque()
    try:
        for item in items:
            coming.append((item, pool.submit(work, item)))
            if len(coming) > workers:
                first, future = coming.popleft()
                yield first, future.result()
        for first, future in coming:
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)


def _fetch_ahead(part: Sequence[Sample], reader: Reads) -> None:
    inputs.fetch_ahead(sample.path for sample in part if not reader.holds(sample))


def _read(reader: Reads, sample: Sample) -> Tensor | UnreadableFileError:
    try:
        return naming(sample.name, partial(reader.read, sample))
    except UnreadableFileError as error:
        return error


def _assemble(samples: Sequence[Sample], read: Sequence[Tensor | UnreadableFileError]) -> Batch:
    pairs = list(zip(samples, read, strict=True))
    good = [(s, r) for s, r in pairs if not isinstance(r, UnreadableFileError)]
    dead = [(s, str(r)) for s, r in pairs if isinstance(r, DeadInputError)]
    bad = [(s, str(r)) for s, r in pairs if isinstance(r, UnreadableFileError) and not isinstance(r, DeadInputError)]
    pictures = torch.stack([r for _, r in good]) if good else torch.empty(0, dtype=torch.uint8)
    return Batch([s for s, _ in good], pictures, torch.tensor([s.label for s, _ in good], dtype=torch.int64), bad, dead)
