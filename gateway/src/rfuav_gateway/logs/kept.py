"""The log that the trainer keeps in a job's output, where the gateway can read that place itself.

The gateway reads with its own rights, so each place is for one namespace alone, and what is read has to be below it:
the path is walked step by step, and a link, wherever it points, is not followed. The first line of the file has to name
the job: what else lies there is nobody's log.
"""

import asyncio
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import msgspec
import structlog

from rfuav_gateway.logs.places import Place, nanoseconds
from rfuav_gateway.logs.pod_log import LONGEST_LINE, Line
from rfuav_gateway.logs.source import KeptFile, Pod

log = structlog.get_logger()

MOST_FILES = 64
"""Of one task: an inference has one for each of its shards."""
MOST_BYTES = 1024**2
"""From the ends of all files of a task together."""
SECONDS = 5.0
"""For which a reader waits for the file system."""
THREADS = 4  # a file system that hangs holds so many at most
_LONGEST_HEAD = 4096
_INTO = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # the latter for what is no file


class Output(NamedTuple):
    """A place where outputs of a namespace are: what is below `uri` is below the folder `path`."""

    uri: str
    namespace: str
    path: str


class Found(NamedTuple):
    """The lines, by time, whose they are, and whether there were earlier ones."""

    lines: Sequence[tuple[Pod, Line]]
    cut: bool


class Kept:
    """Reads kept logs.

    Args:
        outputs: the places that can be read.
    """

    def __init__(self, outputs: Iterable[Output] = ()) -> None:
        # The longest first: the place that is nearest to the file.
        self._outputs = sorted(outputs, key=lambda output: -len(output.uri))
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kept-logs")

    async def read(self, namespace: str, uid: str, files: Sequence[KeptFile]) -> Found | None:
        """The last lines of a task's log; None: none of its files can be read here.

        Args:
            namespace: of the task.
            uid: of its job.
            files: where the output has its log.
        """
        places = [(place, file) for file in files[:MOST_FILES] if (place := self._place(namespace, file.uri))]
        if not places:
            return None
        most = MOST_BYTES // len(places)

        def read_all() -> list[tuple[KeptFile, bytes, bool]]:
            ends = ((file, _end_of(output.path, steps, uid, most)) for (output, steps), file in places)
            return [(file, *end) for file, end in ends if end is not None]

        try:
            reading = asyncio.get_running_loop().run_in_executor(self._threads, read_all)
            ends = await asyncio.wait_for(reading, SECONDS)
        except TimeoutError:
            log.warning("log not read from the output: the file system does not answer", namespace=namespace)
            return None
        if not ends:
            return None
        lines = [line for file, data, _ in ends for line in _lines(file, data)]
        lines.sort(key=lambda one: one[1].place.nanoseconds if one[1].place is not None else 0)
        return Found(lines, any(cut for _, _, cut in ends))

    def _place(self, namespace: str, uri: str) -> tuple[Output, tuple[str, ...]] | None:
        """The place that a URI is below, and the steps from its folder."""
        for output in self._outputs:
            if output.namespace != namespace or not uri.startswith(f"{output.uri}/"):
                continue
            steps = tuple(step for step in uri[len(output.uri) :].split("/") if step)
            return None if any(step in (".", "..") or "\0" in step for step in steps) else (output, steps)
        return None


def _end_of(folder: str, steps: Sequence[str], uid: str, most: int) -> tuple[bytes, bool] | None:
    """The last lines of a file below a folder, and whether there are earlier ones; None: it is no log of the job."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        for number, step in enumerate(steps, 1):
            try:
                found = os.open(step, _FILE if number == len(steps) else _INTO, dir_fd=held)
            finally:
                os.close(held)
            held = found
    except (OSError, ValueError):
        return None
    try:
        return _end(held, uid, most)
    except OSError:
        return None
    finally:
        os.close(held)


def _end(opened: int, uid: str, most: int) -> tuple[bytes, bool] | None:
    """The same of an open file, or of what is in its place."""
    state = os.fstat(opened)
    if not stat.S_ISREG(state.st_mode):
        return None
    head = os.pread(opened, _LONGEST_HEAD, 0).partition(b"\n")[0]
    if not _names(head, uid):
        return None
    begin = len(head) + 1
    start = max(begin, state.st_size - most)
    data = os.pread(opened, most, start)
    return (data, False) if start == begin else (data.partition(b"\n")[2], True)  # the rest of a line


class _Head(msgspec.Struct):
    uid: str


def _names(head: bytes, uid: str) -> bool:
    try:
        return msgspec.json.decode(head, type=_Head).uid == uid
    except ValueError:
        return False


class _Own(msgspec.Struct):
    """What a line says of itself."""

    time: str = ""
    attempt: int = 1


def _lines(file: KeptFile, data: bytes) -> Iterator[tuple[Pod, Line]]:
    """The lines with their places, as if the file were a pod; a line without a time has that of the one before it."""
    name = file.uri.rpartition("/")[2]
    last = Place(name, 0, -1)
    for text in data.split(b"\n"):
        if not text:
            continue
        own = _Own()
        with suppress(ValueError):
            own = msgspec.json.decode(text, type=_Own)
        at = nanoseconds(own.time)
        at = last.nanoseconds if at is None or at < last.nanoseconds else at  # clocks of attempts may differ
        last = Place(name, at, last.nth + 1 if at == last.nanoseconds else 0)
        pod = Pod(name=name, attempt=max(1, min(own.attempt, 10**6)), shard=file.shard, finished=True)
        yield pod, Line(last, text[:LONGEST_LINE], max(0, len(text) - LONGEST_LINE))
