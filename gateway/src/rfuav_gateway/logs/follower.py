"""Follows the log of one pod, over reconnects: each line is taken once, in order, as long as the pod exists.

After a lost connection the log is asked for again from the second of the last line, and lines up to that one are
dropped. Since nothing in an answer tells the end of the container from that of the connection, a log is complete when
an answer ends that began after the container had ended.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import structlog

from rfuav_gateway.logs.pace import Pace
from rfuav_gateway.logs.places import Place  # noqa: TC001  the other imports of types are at run time too
from rfuav_gateway.logs.pod_log import PROBLEMS, Absent, Line, NotStarted, lines
from rfuav_gateway.logs.source import Pod
from rfuav_kube import backoff, clock
from rfuav_kube.connection import Connection
from rfuav_kube.objects import words

log = structlog.get_logger()

_BURST = 0.25  # seconds: the rate of lines holds over this time
_WORTH_TELLING = 3  # tries in a row that failed


class Follower:
    """One pod.

    Args:
        connection: the way to the API server.
        namespace: of the pod.
        pod: the pod, as it is now.
        take: called with each new line.
        pace: the limits.
    """

    def __init__(
        self, connection: Connection, namespace: str, pod: Pod, *, take: Callable[[Pod, Line], None], pace: Pace
    ) -> None:
        self._connection, self._namespace, self._take, self._pace = connection, namespace, take, pace
        self.pod = pod
        self.found = False
        """Whether the API server had its log."""
        self._complete = False  # what was loaded is all that there will be
        self._last: Place | None = None
        self._news = asyncio.Event()
        self._problem = ""  # that readers were told of
        self._burst, self._burst_began = 0, 0.0

    def update(self, pod: Pod | None) -> None:
        """Take note of what is known of the pod now; None: the task no longer has it."""
        pod = self.pod._replace(finished=True, started=self.found) if pod is None else pod
        if pod != self.pod:
            self.pod = pod
            self._news.set()

    async def load(self, share: float) -> tuple[list[Line], bool]:
        """What the pod has logged so far, and whether that is cut; nothing if it cannot be read now.

        Args:
            share: of the lines and bytes that are kept for the task.
        """
        most, most_bytes = max(1, int(self._pace.lines * share)), int(self._pace.kept_bytes * share)
        found: deque[Line] = deque()
        size, cut = 0, False
        pod = self.pod
        if not pod.started:
            return [], False
        try:
            async with aclosing(self._new_lines(follow=False, complete=pod.finished, tail=most)) as new:
                async for line in new:
                    found.append(line)
                    size += len(line.text)
                    while size > most_bytes and len(found) > 1:
                        size -= len(found.popleft().text)
                        cut = True
            self.found, self._complete = True, pod.finished
        except (NotStarted, Absent, *PROBLEMS):
            pass  # `run` asks again
        except asyncio.CancelledError:
            self._last = None
            raise
        return list(found), cut or len(found) >= most

    async def run(self) -> None:
        """Take the lines until the log is complete or the pod is gone."""
        tries = 0
        while not self._complete:
            self._news.clear()
            pod, before, problem, asked = self.pod, self._last, "", None
            if not pod.started:
                if pod.finished:
                    return
                await self._news.wait()
                continue
            try:
                new = self._new_lines(follow=True, complete=pod.finished, tail=self._pace.lines)
                async with aclosing(new):
                    async for line in new:
                        self._take(pod, line)
                        await self._slow_down()
                self.found = True
                if pod.finished:
                    return
            except NotStarted:
                if pod.finished:
                    return
            except Absent:
                if pod.finished or self.found:
                    return
            except PROBLEMS as error:
                problem, asked = words(error), getattr(error, "retry_after", None)
                tries = 0 if await self._connection.reachable() else tries
            except Exception:  # whatever is in an answer, the next one may be another
                log.exception("log of a pod cannot be read", namespace=self._namespace, pod=pod.name)
            tries = 1 if self._last != before else tries + 1
            self._tell(pod, problem if tries >= _WORTH_TELLING else "")
            pause = backoff.grown(tries, first=self._pace.first_pause, most=self._pace.longest_pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), asked or backoff.jittered(pause))

    async def _new_lines(self, *, follow: bool, complete: bool, tail: int) -> AsyncGenerator[Line, None]:
        """The lines after the last one that was taken, or the last `tail` if none was."""
        last, passing = self._last, self._last is not None
        found = lines(
            self._connection,
            self._namespace,
            self.pod.name,
            follow=follow,
            complete=complete,
            since=None if last is None else last.nanoseconds,
            tail=tail if last is None else None,
        )
        async with aclosing(found):
            async for line in found:
                place = line.place
                if place is None:
                    self._tell(self.pod, line.text.decode(errors="replace"))
                    continue
                if passing and last is not None and place.in_pod <= last.in_pod:
                    continue
                passing, self._last, self._problem = False, place, ""
                yield line

    def _tell(self, pod: Pod, problem: str) -> None:
        """Tell the readers why no lines come, but not the same again."""
        if problem and problem != self._problem:
            self._problem = problem
            log.warning("log of a pod cannot be read", namespace=self._namespace, pod=pod.name, error=problem)
            self._take(pod, Line(None, f"the log of pod {pod.name} cannot be read now: {problem}".encode()))

    async def _slow_down(self) -> None:
        """Wait while the pod logs more than its readers should get a second; the rest waits at the kubelet."""
        self._burst += 1
        if self._burst < self._pace.lines_per_second * _BURST:
            return
        left = self._burst_began + _BURST - clock.monotonic()
        if left > 0:
            await asyncio.sleep(left)
        self._burst, self._burst_began = 0, clock.monotonic()
