"""One process for each GPU of a pod: this one, and the others that it starts and that end with it.

In: a job of several GPUs. Out: torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, ...) in every process, which
`process_group.join` and the choice of the device use. Started by torchrun, the trainer has that environment already,
and this module starts nothing.

This process represents the pod: it reports, receives SIGTERM and gives the cause of a failure, also of another process.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_crds import contract, reasons
from rfuav_trainer import errors
from rfuav_trainer.process import logs, termination
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from rfuav_trainer.job import Job

    Work = Callable[[Job, Progress, StopSignal], Any]

log = structlog.get_logger()

GRACE_SECONDS = 20
"""Time for the others to end after this process has ended, and for this process after another has failed."""
LOOK_EVERY = 1.0  # seconds


@dataclass
class _Member:
    """Another process of this pod."""

    rank: int
    process: SpawnProcess
    last_words: Connection
    _failure: errors.Failure | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def failure(self) -> errors.Failure | None:
        """Why it failed; None while it runs or if it succeeded."""
        with self._lock:
            if self._failure is None and self.last_words.poll():
                with contextlib.suppress(EOFError):
                    self._failure = self.last_words.recv()
            if self._failure is not None:
                return self._failure
        code = self.process.exitcode
        if code is None or code == 0:
            return None
        how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        what = f"the process of GPU {self.rank} was {how}" if code < 0 else f"the process of GPU {self.rank} {how}"
        advice = "; signal 9 usually means too little memory: raise resources.memory" if code == -9 else ""  # noqa: PLR2004
        return errors.Failure(reasons.PROCESS_LOST, what + advice, contract.EXIT_FAILED)


@dataclass
class Crew:
    """The other processes of this pod."""

    members: list[_Member] = field(default_factory=list)
    _waited_since: float | None = None

    def still_running(self, grace: float) -> list[_Member]:
        """Those still running `grace` seconds after the first wait: one deadline for all of them."""
        if self._waited_since is None:
            self._waited_since = time.monotonic()
        for member in self.members:
            member.process.join(max(0.0, self._waited_since + grace - time.monotonic()))
        return [member for member in self.members if member.process.is_alive()]

    def cause(self) -> errors.Failure | None:
        """The first failure among them other than having lost the others."""
        self.still_running(GRACE_SECONDS)
        return self.failed()

    def failed(self) -> errors.Failure | None:
        """Like `cause`, without waiting: only of those that have already ended."""
        failures = [failure for member in self.members if (failure := member.failure()) is not None]
        return next((failure for failure in failures if failure.exit_code != contract.EXIT_STOPPED), None)

    def watch(self, over: threading.Event) -> None:
        """Exit this process if another has failed and this one is blocked, as NCCL does when a peer is missing.

        Args:
            over: set when this process ends by itself.
        """
        while not over.wait(LOOK_EVERY):
            failure = self.failed()
            if failure is not None and not over.wait(GRACE_SECONDS):
                termination.abandon(failure)


@contextlib.contextmanager
def crew(job: Job, work: Work, environment: Mapping[str, str] = os.environ) -> Iterator[Crew]:
    """Run one process for each GPU of the job while the block runs; the others call `work`.

    Raises:
        JobError: this process lost another one. It carries the failure of that process if there is one.
    """
    count = job.spec.resources.gpus
    if count <= 1 or "LOCAL_RANK" in environment:
        yield Crew()
        return
    nodes, node = int(environment.get(contract.NODES, "1")), int(environment.get(contract.NODE_RANK, "0"))
    shared = {
        "WORLD_SIZE": str(nodes * count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": environment.get(contract.MASTER_ADDRESS, "127.0.0.1") if nodes > 1 else "127.0.0.1",
        "MASTER_PORT": environment[contract.MASTER_PORT] if nodes > 1 else str(_free_port()),
    }

    def place(local: int) -> dict[str, str]:
        return {**shared, "LOCAL_RANK": str(local), "RANK": str(node * count + local)}

    everyone, over = Crew(), threading.Event()
    before = dict(os.environ)
    try:
        for local in range(1, count):
            everyone.members.append(_start(job, work, local, place(local)))
        os.environ.update(place(0))
        log.info("started one process for each GPU", gpus=count)
        threading.Thread(target=everyone.watch, args=(over,), daemon=True, name="crew").start()
        yield everyone
    except errors.PeerLostError as error:
        over.set()
        cause = everyone.cause()
        if cause is None:
            raise
        raise _as_error(cause) from error
    finally:
        over.set()
        for name in ("LOCAL_RANK", "RANK", *shared):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]
        _end(everyone)


def _start(job: Job, work: Work, local: int, place: dict[str, str]) -> _Member:
    context = multiprocessing.get_context("spawn")  # a process that has used CUDA must not be forked
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_member, args=(job, work, place, theirs), daemon=True, name=f"gpu-{local}")
    process.start()
    theirs.close()
    return _Member(local, process, mine)


def _member(job: Job, work: Work, place: dict[str, str], last_words: Connection) -> None:
    """Main function of another process: the same work, without progress reports."""
    os.environ.update(place)
    logs.configure()
    structlog.contextvars.bind_contextvars(job=job.name, gpu=int(place["LOCAL_RANK"]))
    stop = StopSignal()
    stop.install()
    code = 0
    try:
        work(job, Progress(None), stop)
    except BaseException as error:  # every failure is sent to the first process
        failure = errors.describe(error)
        last_words.send(failure)
        code = failure.exit_code
        unforeseen = not isinstance(error, errors.JobError) and code == contract.EXIT_FAILED
        if code != contract.EXIT_STOPPED:
            log.log(logging.ERROR, failure.message, reason=failure.reason, exc_info=error if unforeseen else None)
    inputs.leave(code)


def _end(crew: Crew) -> None:
    for member in crew.still_running(GRACE_SECONDS / 2):
        member.process.terminate()
    for member in crew.still_running(GRACE_SECONDS):
        member.process.kill()
    for member in crew.members:
        member.last_words.close()


def _as_error(failure: errors.Failure) -> errors.JobError:
    error = errors.JobError(failure.message, reason=failure.reason)
    error.exit_code = failure.exit_code
    return error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
