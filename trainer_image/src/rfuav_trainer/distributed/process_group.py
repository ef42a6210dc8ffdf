"""Data-parallel training: each process takes its part of every batch, and all take the same step.

In: torchrun's environment (PET_*, which the operator sets for a node; RANK etc. for a process). Out: a `World` that
sums over all processes; with a single process it changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
import torch
from torch import distributed

from rfuav_crds import contract, reasons
from rfuav_trainer.errors import JobError, PeerLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from rfuav_trainer.process.stop import StopSignal

log = structlog.get_logger()

T = TypeVar("T")
JOIN_SECONDS = 600
"""How long the first process waits for the others: their images may still be pulled."""
SILENCE_SECONDS = 1800
"""Maximum duration of a step, including saving a checkpoint to a slow volume. A process that dies is noticed at once,
one that hangs after this time."""
BLOCKING = "TORCH_NCCL_BLOCKING_WAIT"
"""Makes NCCL raise an error in the waiting call. Otherwise torch's watchdog kills the process without a message."""
_LOOK_EVERY = 0.2


_LOST = re.compile(r"\b(reset|closed|closure|refused)\b|broken pipe|time(d )?out|ncclRemoteError", re.IGNORECASE)
_SHARED_MEMORY = re.compile(r"/dev/shm|shared memory", re.IGNORECASE)  # noqa: S108  (NCCL's words)


class NoMeetingError(JobError):
    """The processes cannot connect or exchange data, and a retry would not help: it counts as a failure."""

    reason = reasons.NO_MEETING


@contextlib.contextmanager
def with_the_others() -> Iterator[None]:
    """Translates the errors of collective operations.

    Raises:
        PeerLostError: a connection broke or timed out: the fault is not in this process.
        NoMeetingError: this process cannot exchange data with the others.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        text = str(error).partition("Exception raised from")[0]  # after it torch lists its own functions
        words = (text.splitlines() or [""])[0]
        if _SHARED_MEMORY.search(text):
            advice = "too little shared memory for the processes of the pod: raise resources.sharedMemory"
            raise NoMeetingError(f"{advice} ({words})", reason=reasons.SHARED_MEMORY_TOO_SMALL) from error
        counted = "ncclSystemError" in text  # its text contains "connection" too, without one having existed
        if not counted and (isinstance(error, distributed.DistNetworkError) or _LOST.search(text)):
            raise PeerLostError(
                f"another process of the training has gone; all processes restart together ({words})"
            ) from error
        if counted or isinstance(error, distributed.DistBackendError):
            raise NoMeetingError(
                "the processes of the training cannot exchange data: check the node's GPU driver, and that the pods "
                f"can connect to each other; NCCL_DEBUG=INFO in podTemplate.env shows more ({words})"
            ) from error
        raise


@contextlib.contextmanager
def _meeting(what: str) -> Iterator[None]:
    """Translates the errors of the rendezvous, during which no process can have been lost."""
    try:
        yield
    except RuntimeError as error:
        raise NoMeetingError(f"{what} ({(str(error).splitlines() or [''])[0]})") from error


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, in place; requires several."""
    with with_the_others():
        distributed.all_reduce(values)
    return values


@dataclass(frozen=True)
class World:
    """All processes of a training.

    Attributes:
        rank: index of this process; rank 0 writes and reports.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def part(self, batch: Sequence[T]) -> Sequence[T]:
        """This process's part of a batch."""
        return batch[self.rank :: self.size] if self.size > 1 else batch

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        return summed(values) if self.size > 1 else values

    def all_together(self, mine: int, total: Tensor) -> int:
        """The total over all processes. For a single process it is known without synchronising with the device."""
        return mine if self.size == 1 else int(total.item())

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Broadcast the tensors of rank 0 to all processes, in place."""
        if self.size > 1:
            with with_the_others():
                for tensor in tensors:
                    distributed.broadcast(tensor, src=0)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with with_the_others():
            distributed.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Barrier: wait for all processes."""
        if self.size > 1:
            with with_the_others():
                distributed.barrier()

    def leave(self) -> None:
        """Close the connections."""
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


def join(device: torch.device, stop: StopSignal, environment: Mapping[str, str] = os.environ) -> World:
    """Join the process group; a world of one process if the environment names no others.

    Raises:
        StoppedError: SIGTERM arrived while waiting.
        PeerLostError: a process that had joined has gone.
        NoMeetingError: the port is in use, or the processes cannot connect to each other.
        TimeoutError: the others did not join in time.
    """
    if "WORLD_SIZE" in environment:  # one of several processes of a pod
        names = "WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"
    else:
        names = contract.NODES, contract.NODE_RANK, contract.MASTER_ADDRESS, contract.MASTER_PORT
    size = int(environment.get(names[0], "1"))
    if size == 1:
        return World()
    rank, host, port = int(environment[names[1]]), environment[names[2]], int(environment[names[3]])
    log.info("waiting for the other processes", rank=rank, size=size, first=f"{host}:{port}")
    # torch's own waits ignore SIGTERM, so all waiting is done here.
    if rank:
        _wait(lambda: _listens(host, port), stop, f"the first process of the job, at {host}:{port}")
    with (
        with_the_others()
        if rank
        else _meeting(f"cannot listen on port {port}: stop the process that uses it, or choose another port")
    ):
        store = distributed.TCPStore(  # type: ignore[attr-defined]  # missing in its stubs
            host if rank else "0.0.0.0",  # noqa: S104  rank 0 has a DNS name in the cluster
            port,
            is_master=rank == 0,
            wait_for_workers=False,
            timeout=timedelta(seconds=SILENCE_SECONDS),
        )
    with with_the_others():
        store.add("here", 1)
        _wait(lambda: store.add("here", 0) >= size, stop, f"all {size} processes of the job, at {host}:{port}")
    if device.type == "cuda":
        os.environ.setdefault(BLOCKING, "1")
    with _meeting("the processes found each other, but cannot connect: allow traffic between their pods on all ports"):
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=SILENCE_SECONDS),
        )
    log.info("all processes have joined", rank=rank, size=size)
    return World(rank, size)


def _wait(until: Callable[[], bool], stop: StopSignal, what: str) -> None:
    end = time.monotonic() + JOIN_SECONDS
    while not until():
        stop.check()
        if time.monotonic() > end:
            raise TimeoutError(f"gave up after {JOIN_SECONDS} s of waiting for {what}")
        time.sleep(_LOOK_EVERY)


def _listens(host: str, port: int) -> bool:
    """Whether rank 0 accepts connections. Its name resolves only once its pod has an address."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False
