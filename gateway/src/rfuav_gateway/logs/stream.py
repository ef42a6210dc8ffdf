"""The logs of one task for all of its readers: its pods are followed once, over all attempts, until the task has ended.

What the pods have logged so far is read first, merged by time; then lines come as the pods write them. Of a task whose
pods are gone it is what its output keeps, where that can be read. Readers are woken together, at most every `batch`
seconds.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
import structlog

from rfuav_gateway.logs.entries import entry_of
from rfuav_gateway.logs.follower import Follower
from rfuav_gateway.logs.kept import Kept
from rfuav_gateway.logs.pace import Pace
from rfuav_gateway.logs.pod_log import Line
from rfuav_gateway.logs.source import End, Pod, TaskSource, TaskState
from rfuav_gateway.logs.window import Event, Window
from rfuav_kube import clock
from rfuav_kube.connection import Connection

log = structlog.get_logger()

_AT_ONCE = 100  # lines that are encoded before others get their turn
_encode = msgspec.json.Encoder().encode


class Stream:
    """One task, from the first reader until some seconds after the last.

    Args:
        connection: the way to the API server.
        source: the task.
        kept: reads the logs in outputs.
        pace: the limits.
    """

    def __init__(self, connection: Connection, source: TaskSource, kept: Kept, pace: Pace) -> None:
        self._connection, self._kept, self._pace = connection, kept, pace
        self.source = source
        self.window = Window(most=pace.lines, most_bytes=pace.kept_bytes)
        self.ready = asyncio.Event()
        """Set when the window has what the pods have logged so far; of a task that has ended, all of it."""
        self.end: End | None = None
        """How the task ended; set when the window has its last lines."""
        self.broken = False
        """Whether the stream has failed: readers are to come back."""
        self.readers = 0
        self._found = False
        self._done: set[str] = set()  # pods that were followed to their end and may still be listed
        self._state = TaskState()
        self._followers: dict[str, Follower] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._bell = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")
        self._rang = float("-inf")
        self._task = asyncio.create_task(self._run(), name=f"logs {source.key}")

    @property
    def found(self) -> bool:
        """Whether the log of one of the pods, or that in the output, could be read."""
        return self._found or any(follower.found for follower in self._followers.values())

    async def bell(self) -> None:
        """Wait until there may be something new, `keep_alive` seconds at most."""
        await self._bell.wait()

    async def close(self) -> None:
        """Let go of the pods."""
        await _ended(self._task, *self._running.values())
        self.broken = self.end is None
        self._ring()
        if self._timer is not None:
            self._timer.cancel()

    async def _run(self) -> None:
        try:
            self._ring()
            await self._follow()
        except Exception:
            log.exception("stream of logs failed", task=self.source.key)
            self.broken = True
        finally:
            self.ready.set()
            self._ring()

    async def _follow(self) -> None:
        await self.source.load()
        self._update()
        await self._load()
        if self._state.end is None:
            self.ready.set()
        for name in self._followers:
            self._start(name)
        while self._state.end is None:
            await self.source.changed(self._state)
            self._update()
            for name in self._followers.keys() - self._running.keys():
                self._start(name)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=self._pace.last_lines)
            await _ended(*self._running.values())
        if not self.found and self.source.kept:
            await self._take_kept()
        self.end = self._state.end

    def _update(self) -> None:
        """Take note of the pods that the task has now."""
        self._state = self.source.state()
        ended = self._state.end is not None  # then what a log has is all that it will have
        most = _most(self._state.pods, self._pace.pods)
        pods = {pod.name: pod._replace(finished=pod.finished or ended) for pod in most}
        for name, follower in list(self._followers.items()):
            if name not in pods and name in self._running and self._running[name].done():
                self._found = self._found or follower.found
                self._done.add(name)
                del self._followers[name], self._running[name]
            else:
                follower.update(pods.get(name))
        for name, pod in pods.items():
            if name not in self._followers and name not in self._done:
                self._followers[name] = Follower(
                    self._connection, self.source.namespace, pod, take=self._take, pace=self._pace
                )

    async def _load(self) -> None:
        """Read what there is, oldest first; a pod that does not answer in time is followed from its own beginning."""
        if not self._followers:
            return
        share = 1 / len(self._followers)
        loads = {asyncio.create_task(one.load(share)): one for one in self._followers.values()}
        try:
            done, late = await asyncio.wait(loads, timeout=self._pace.load)
        finally:
            await _ended(*(load for load in loads if not load.done()))
        found: list[tuple[int, Pod, Line]] = []
        for load in done:
            lines, cut = load.result()
            self.window.cut = self.window.cut or cut
            found += [(line.place.nanoseconds, loads[load].pod, line) for line in lines if line.place is not None]
        self.window.cut = self.window.cut or bool(late)
        await self._take_all((pod, line) for _, pod, line in sorted(found, key=lambda one: one[0]))

    async def _take_kept(self) -> None:
        """Take the lines that the output keeps."""
        found = await self._kept.read(self.source.namespace, self.source.key, self.source.kept)
        if found is None:
            return
        self._found, self.window.cut = True, found.cut
        await self._take_all(found.lines)

    async def _take_all(self, lines: Iterable[tuple[Pod, Line]]) -> None:
        for number, (pod, line) in enumerate(lines):
            self._take(pod, line)
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)

    def _start(self, name: str) -> None:
        self._running[name] = asyncio.create_task(self._followers[name].run(), name=f"log of {name}")

    def _take(self, pod: Pod, line: Line) -> None:
        head = b"data: " if line.place is None else b"id: %b\ndata: " % str(line.place).encode()
        try:
            data = b"%b%b\n\n" % (head, _encode(entry_of(line, pod, clock.now())))
        except Exception:  # of this line; the others come all the same
            log.exception("line of a log set aside", task=self.source.key, place=str(line.place))
            return
        self.window.append(Event(data, len(head), line.place))
        self._ring_in(max(0.0, self._rang + self._pace.batch - clock.monotonic()))

    def _ring_in(self, seconds: float) -> None:
        """Wake all readers then, unless they are woken before."""
        due = clock.monotonic() + seconds
        if due < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = due
            self._timer = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        """Wake all readers."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, float("inf")
        self._rang = clock.monotonic()
        self._bell.set()
        self._bell = asyncio.Event()
        self._ring_in(self._pace.keep_alive)


def _most(pods: tuple[Pod, ...], most: int) -> list[Pod]:
    """The pods that are followed: those that run before those that have ended, later attempts before earlier ones."""
    return sorted(pods, key=lambda pod: (pod.finished, -pod.attempt))[:most]


async def _ended(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait for them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
