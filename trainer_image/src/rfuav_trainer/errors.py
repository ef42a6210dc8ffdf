"""All errors of a job, and the only place that turns an exception into an exit code.

In: any exception that reached the command line. Out: a `Failure` with reason, message and exit code of the pod
contract.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, TypeVar

from rfuav_crds import contract, reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

EXIT_INTERRUPTED = 130
"""Ctrl-C, as shells number it."""


class JobError(Exception):
    """An expected failure: `reason` is for machines, the message says what to write or do instead."""

    reason = reasons.CRASHED
    exit_code = contract.EXIT_FAILED

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class InvalidConfigurationError(JobError):
    """The job asks for something that cannot be done as written."""

    reason = reasons.INVALID_CONFIGURATION
    exit_code = contract.EXIT_INVALID_CONFIGURATION


class InputError(JobError):
    """An input of the job is missing, empty or unreadable."""

    reason = reasons.INPUT_MISSING
    exit_code = contract.EXIT_INPUT


class UnreadableFileError(InputError):
    """One input file cannot be read. Callers count it and continue; only too many of them end the job."""

    reason = reasons.UNREADABLE


class DeadInputError(UnreadableFileError):
    """A frame or picture can be read, and holds nothing. Callers count it, and it never ends a job by itself."""


@contextmanager
def as_unreadable(problem: str) -> Iterator[None]:
    """Whatever a decoder raises in the body makes its file unreadable. Decoders raise anything when a file is damaged.

    Raises:
        UnreadableFileError: it begins with `problem`.
        JobError: of the body, as it is: a store that does not answer says nothing about the file.
    """
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        full = disk_full(error)
        if full is not None:
            raise
        known = error.strerror if isinstance(error, OSError) else None
        detail = known or (str(error) if error.args else "") or type(error).__name__
        raise UnreadableFileError(f"{problem}: {detail}") from error


def naming(file: str, work: Callable[[], T]) -> T:
    """The result of `work`, which reads a file. Whatever else ends the process meanwhile, its message names the file.

    An exception gets a note. After a crash (SIGSEGV or SIGBUS in a decoder) nothing of Python runs any more: only
    faulthandler prints the names of the functions that were running. So one of them is called as the file is.
    """
    named = FunctionType(_call.__code__.replace(co_name=f"reading {file}"), globals())
    try:
        result: T = named(work)
    except Exception as error:
        error.add_note(f"while reading {file}")
        raise
    return result


def _call(work: Callable[[], T]) -> T:
    return work()


class StorageError(JobError):
    """An object store does not answer, or answers with an error. A later attempt may succeed."""

    reason = reasons.STORAGE_UNAVAILABLE


class DiskFullError(JobError):
    """The volume is full. Everything saved earlier is intact."""

    reason = reasons.DISK_FULL


class StoppedError(JobError):
    """SIGTERM arrived and everything worth keeping has been saved."""

    reason = reasons.STOPPED
    exit_code = contract.EXIT_STOPPED


class GpuOutOfMemoryError(JobError):
    """A step does not fit into the memory of the GPU."""

    reason = reasons.GPU_OUT_OF_MEMORY
    exit_code = contract.EXIT_GPU_OUT_OF_MEMORY

    @classmethod
    def advising(
        cls, *, size: int, fitting: int, image_size: int, accumulation: int, precision: str, problem: str
    ) -> GpuOutOfMemoryError:
        """The error, with settings that avoid it.

        Args:
            size: the batch that did not fit.
            fitting: the largest batch that fits, as measured; 0 if none does.
            image_size: side of the pictures in pixels.
            accumulation: batches in a step, as in the job.
            precision: of the forward pass.
            problem: torch's message.
        """
        what = f"the GPU ran out of memory with batchSize {size} at imageSize {image_size} in {precision}"
        detail = f"({(problem.splitlines() or [''])[0]})"
        if not fitting:
            return cls(
                f"{what}, and not even one picture fits: lower imageSize, choose a smaller architecture, or ask for a "
                f"GPU with more memory (resources.gpuMemory) {detail}"
            )
        steps = -(-size * accumulation // fitting)
        batch = -(-size * accumulation // steps)
        same = "the same size" if batch * steps == size * accumulation else f"{batch * steps} pictures"
        return cls(
            f"{what}; {fitting} fit: write batchSize: {batch} with gradientAccumulation: {steps}, which gives steps "
            f"of {same}, or batchSize: auto, or ask for a GPU with more memory (resources.gpuMemory) {detail}"
        )


class PeerLostError(JobError):
    """Another process of the training has gone. That process reports the cause; earlier checkpoints are intact."""

    reason = reasons.PEER_LOST
    exit_code = contract.EXIT_STOPPED


@dataclass(frozen=True)
class Failure:
    """How a job failed: `reason` in CamelCase, a message for people, and the exit code."""

    reason: str
    message: str
    exit_code: int


def disk_full(error: BaseException) -> OSError | None:
    """The "no space left" error behind `error`, following its causes, or None."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def describe(error: BaseException) -> Failure:
    """The failure that `error` means. The only place where exceptions become exit codes."""
    if isinstance(error, JobError):
        return Failure(error.reason, str(error), error.exit_code)
    full = disk_full(error)
    if full is not None:
        where = full.filename or "the output volume"
        return Failure(
            DiskFullError.reason,
            f"no space left while writing {where}: free some space or use a larger volume; earlier files are intact",
            DiskFullError.exit_code,
        )
    if _is_gpu_out_of_memory(error):
        return Failure(
            reasons.GPU_OUT_OF_MEMORY,
            "the GPU ran out of memory: lower batchSize or imageSize, or ask for a GPU with more memory "
            f"(resources.gpuMemory) ({_first_line(error)})",
            contract.EXIT_GPU_OUT_OF_MEMORY,
        )
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):
        advice = f"out of memory{_file(error)}: raise resources.memory, lower batchSize, or write batchSize: auto"
        return Failure(reasons.OUT_OF_HOST_MEMORY, advice, contract.EXIT_FAILED)
    if isinstance(error, KeyboardInterrupt):
        return Failure(reasons.INTERRUPTED, "interrupted from the keyboard", EXIT_INTERRUPTED)
    if isinstance(error, PermissionError):
        return Failure(
            reasons.PERMISSION_DENIED,
            f"{error}: the user of the pod must be able to read the volume and to write the output",
            contract.EXIT_INPUT,
        )
    return Failure(reasons.CRASHED, f"{type(error).__name__}{_file(error)}: {_first_line(error)}", contract.EXIT_FAILED)


def _is_gpu_out_of_memory(error: BaseException) -> bool:
    """Whether it is torch's out-of-memory error, by name: torch may not be imported, and cuBLAS raises RuntimeError."""
    if type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("CUDA out of memory" in text or "CUBLAS_STATUS_ALLOC_FAILED" in text)


def _file(error: BaseException) -> str:
    """The note of `naming`, if there is one."""
    return "".join(f" {note}" for note in getattr(error, "__notes__", [])[:1])


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "")
