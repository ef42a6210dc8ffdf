"""An API server that has logs of pods, as the kubelet writes them: real HTTP, in the test's hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web
from unit.kube.fake_api import answer, serving

from rfuav_gateway.logs.source import End, KeptFile, Pod, TaskState
from rfuav_kube.connection import Connection

BASE = 1_800_000_000  # seconds since 1970


def stamp(nanoseconds: int) -> str:
    """As the kubelet writes it."""
    return f"{datetime.fromtimestamp(BASE + nanoseconds // 10**9, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9:09}Z"


class Connected(NamedTuple):
    """One reader of a log that goes on."""

    request: web.Request
    response: web.StreamResponse
    task: "asyncio.Task[Any] | None"


@dataclass
class FakePod:
    """A container: its lines with nanoseconds after BASE, and whether it runs."""

    state: str = "running"  # waiting, running, ended, or an HTTP status
    lines: list[tuple[int, bytes]] = field(default_factory=list)
    connections: list[Connected] = field(default_factory=list)
    ending: bool = False  # connections end as if the log were complete
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    torn: bytes = b""  # of a line whose end is not written yet

    async def log(self, *lines: tuple[int, bytes | str]) -> None:
        async with self.news:
            self.lines += [(at, text.encode() if isinstance(text, str) else text) for at, text in lines]
            self.news.notify_all()

    async def become(self, state: str) -> None:
        async with self.news:
            self.state = state
            self.news.notify_all()

    async def drop(self, *, torn: bytes = b"") -> None:
        """Cut all connections, after the beginning of a line."""
        for one in list(self.connections):
            if torn:
                await one.response.write(torn)
            assert one.task is not None
            one.task.cancel()
        self.connections.clear()

    async def end_connections(self, *, torn: bytes = b"") -> None:
        """End all connections without an error, after the beginning of a line: a restart of the API server."""
        async with self.news:
            self.ending, self.torn = True, torn
            self.news.notify_all()
            await self.news.wait_for(lambda: not self.connections)
            self.ending, self.torn = False, b""


class FakeCluster:
    """Pods by name, and what was asked."""

    def __init__(self) -> None:
        self.pods: dict[str, FakePod] = {}
        self.asked: list[dict[str, str]] = []

    def pod(self, name: str, *lines: tuple[int, bytes | str], state: str = "running") -> FakePod:
        made = self.pods[name] = FakePod(state)
        made.lines = [(at, text.encode() if isinstance(text, str) else text) for at, text in lines]
        return made

    @property
    def followed(self) -> int:
        """Streams that are open now."""
        connections = [one for pod in self.pods.values() for one in pod.connections]
        return sum(one.request.transport is not None for one in connections)

    async def serve(self, request: web.Request, _body: Any) -> web.StreamResponse:
        *_, namespace, _pods, name, last = request.path.split("/")
        assert (namespace, last) == ("team-a", "log")
        assert request.query["container"] == "trainer"
        assert request.query["timestamps"] == "true"
        self.asked.append({"pod": name, **request.query})
        pod = self.pods.get(name) or FakePod("404")
        if pod.state == "waiting":
            message = f'container "trainer" in pod "{name}" is waiting to start: ContainerCreating'
            return answer(400, {"kind": "Status", "code": 400, "reason": "BadRequest", "message": message})
        if pod.state.isdecimal():
            return answer(int(pod.state), {"kind": "Status", "message": "dial tcp: connection refused\x1b[2J"})
        return await self._stream(request, pod)

    async def _stream(self, request: web.Request, pod: FakePod) -> web.StreamResponse:
        lines = list(pod.lines)
        done = len(lines)
        if since := request.query.get("sinceTime"):  # whole seconds alone reach a kubelet
            start = int(datetime.strptime(since, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()) - BASE
            lines = [line for line in lines if line[0] >= start * 10**9]
        if tail := request.query.get("tailLines"):
            lines = lines[-int(tail) :]
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"".join(b"%b %b\n" % (stamp(at).encode(), text) for at, text in lines))
        if request.query.get("follow") == "true":
            connected = Connected(request, response, asyncio.current_task())
            pod.connections.append(connected)
            try:
                while pod.state == "running" and not pod.ending:
                    async with pod.news:
                        while len(pod.lines) == done and pod.state == "running" and not pod.ending:
                            await pod.news.wait()
                        more, done = pod.lines[done:], len(pod.lines)
                    await response.write(b"".join(b"%b %b\n" % (stamp(at).encode(), text) for at, text in more))
            except asyncio.CancelledError:
                if request.transport is not None:
                    request.transport.abort()
                raise
            torn = pod.torn
            async with pod.news:
                pod.connections.remove(connected)
                pod.news.notify_all()
            await response.write(torn)
        elif pod.state == "ended":
            await response.write(pod.torn)
        await response.write_eof()
        return response


class Task:
    """A task in the test's hand."""

    namespace, where = "team-a", "s3://models/out/log.jsonl"
    kept: tuple[KeptFile, ...] = ()

    def __init__(self, *pods: Pod, end: End | None = None, key: str = "uid-1") -> None:
        self.key = key
        self._state = TaskState(pods, end)
        self._changed = asyncio.Event()
        self.loads = 0

    async def load(self) -> None:
        self.loads += 1

    def state(self) -> TaskState:
        return self._state

    def end_for(self, reader: "Task") -> End | None:
        return self._state.end

    async def changed(self, seen: TaskState) -> None:
        while self._state == seen:
            self._changed.clear()
            await self._changed.wait()

    def become(self, *pods: Pod, end: End | None = None) -> None:
        self._state = TaskState(pods, end)
        self._changed.set()


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[FakeCluster, Connection]]:
    """The API server with its pods, and a connection to it."""
    made = FakeCluster()
    async with serving(folder) as (api, connection):
        api.handle = made.serve
        yield made, connection
