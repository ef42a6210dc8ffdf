"""List-and-watch against a real HTTP server: pages, bookmarks, 410, errors in the stream, refusals, large objects."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from unit.kube.fake_api import FakeApi, answer, serving, until
from unit.shell.bodies import pod_body

from rfuav_kube import clock, paths
from rfuav_kube.cache import Cache
from rfuav_kube.pods import PodObject
from rfuav_kube.reflector import Reflector
from rfuav_operator.core.model import Pod
from rfuav_operator.shell.reading import nodes
from rfuav_operator.shell.reading.pods import pod as pod_value

Watch = Callable[[web.StreamResponse, str], Any]


class Bench:
    """A reflector of pods, and a server that lists `pods` and runs `watch` for every watch."""

    def __init__(self, api: FakeApi, reflector: Any, cache: Cache[tuple[str, str], Pod]) -> None:
        self.api, self.reflector, self.cache = api, reflector, cache
        self.pods: list[Any] = []
        self.version = 10
        self.lists = 0
        self.held_at_page: list[int] = []
        self.let_go = asyncio.Event()
        self.watched_from: list[str] = []
        self.watch: Watch = self.quiet
        api.handle = self.serve

    async def quiet(self, _response: web.StreamResponse, _version: str) -> None:
        await self.let_go.wait()

    async def serve(self, request: web.Request, body: Any) -> web.StreamResponse:
        if "watch" not in request.query:
            self.lists += 1
            self.held_at_page.append(len(self.cache))
            size = 2
            start = int(request.query.get("continue", 0))
            after = str(start + size) if start + size < len(self.pods) else ""
            meta = {"resourceVersion": str(self.version), "continue": after}
            return answer(200, {"metadata": meta, "items": self.pods[start : start + size]})
        self.watched_from.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        await self.watch(response, request.query["resourceVersion"])
        return response

    def names(self) -> list[str]:
        return sorted(name for _, name in self.cache)


async def send(response: web.StreamResponse, kind: str, obj: Any) -> None:
    await response.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")


@asynccontextmanager
async def bench(folder: Path, pods: list[Any], watch: Watch | None = None) -> AsyncIterator[Bench]:
    async with serving(folder) as (api, connection):
        cache: Cache[tuple[str, str], Pod] = Cache(lambda _old, _new: None)
        reflector = Reflector(
            connection,
            paths.PODS,
            cache,
            read=PodObject,
            key=lambda read: (read.metadata.namespace, read.metadata.name),
            value=pod_value,
        )
        made = Bench(api, reflector, cache)
        made.pods = pods
        if watch is not None:
            made.watch = watch
        task = asyncio.create_task(reflector.run())
        try:
            async with asyncio.timeout(60):
                await reflector.synced.wait()
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_list_in_pages_then_a_watch(tmp_path):
    async def watch(response: web.StreamResponse, _version: str) -> None:
        await send(response, "ADDED", pod_body("d", version=11))
        await send(response, "DELETED", pod_body("a", version=12))
        await asyncio.sleep(30)

    pods = [pod_body(n, version=i) for i, n in enumerate("abc", 1)]
    async with bench(tmp_path, pods, watch) as b:
        await until(lambda: b.names() == ["b", "c", "d"])
        assert (b.lists, b.watched_from) == (2, ["10"])


async def test_a_watch_that_ends_continues_from_the_last_bookmark(tmp_path):
    async def watch(response: web.StreamResponse, version: str) -> None:
        if version == "10":
            await send(response, "BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": "50"}})
            return
        await asyncio.sleep(30)

    async with bench(tmp_path, [], watch) as b:
        await until(lambda: b.watched_from == ["10", "50"])
        assert b.lists == 1


async def test_too_old_a_version_is_listed_again_and_diffed(tmp_path):
    async def watch(response: web.StreamResponse, version: str) -> None:
        if version == "10":
            b.pods, b.version = [pod_body("b", version=20)], 30
            await send(response, "ERROR", {"kind": "Status", "code": 410, "message": "too old"})
            return
        await asyncio.sleep(30)

    async with bench(tmp_path, [pod_body("a")], watch) as b:
        await until(lambda: b.names() == ["b"])
        await until(lambda: b.watched_from[-1] == "30")


async def test_an_error_in_the_stream_is_listed_again(tmp_path):
    async def watch(response: web.StreamResponse, version: str) -> None:
        if version == "10":
            b.version = 40
            await send(response, "ERROR", {"kind": "Status", "code": 500, "message": "etcd"})
            return
        await asyncio.sleep(30)

    async with bench(tmp_path, [], watch) as b:
        await until(lambda: b.watched_from == ["10", "40"])


async def test_a_refusal_is_waited_out_as_asked(tmp_path):
    async with serving(tmp_path) as (api, connection):
        asked: list[float] = []

        async def busy(request: web.Request, body: Any) -> web.StreamResponse:
            asked.append(asyncio.get_running_loop().time())
            if len(asked) == 1:
                return answer(429, {}, **{"Retry-After": "1"})
            return answer(200, {"metadata": {"resourceVersion": "5"}, "items": []})

        api.handle = busy
        reflector = Reflector(
            connection,
            paths.NODES,
            Cache(lambda _o, _n: None),
            read=nodes.NodeObject,
            key=lambda r: r.metadata.name,
            value=nodes.node,
        )
        task = asyncio.create_task(reflector.run())
        await until(reflector.synced.is_set)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert asked[1] - asked[0] >= 1


@pytest.mark.parametrize("what", ["list", "watch"])
async def test_a_retry_after_of_days_is_not_obeyed(tmp_path, monkeypatch, what):
    monkeypatch.setattr("rfuav_kube.connection.LONGEST_WAIT", 0.2)
    async with bench(tmp_path, []) as b:
        serve, refused = b.serve, 0

        async def busy(request: web.Request, body: Any) -> web.StreamResponse:
            nonlocal refused
            if ("watch" in request.query) == (what == "watch") and refused < 2:
                refused += 1
                return answer(503, {}, **{"Retry-After": "9" * 400})
            return await serve(request, body)

        b.api.handle = busy
        seen = len(b.watched_from)
        b.reflector._version = ""
        await b.reflector.refresh()
        b.let_go.set()
        await until(lambda: len(b.watched_from) > seen)


async def test_a_watch_that_is_too_old_again_and_again_does_not_list_without_end(tmp_path):
    async def watch(response: web.StreamResponse, _version: str) -> None:
        await send(response, "ERROR", {"kind": "Status", "code": 410, "message": "too old"})

    async with bench(tmp_path, [], watch) as b:
        await asyncio.sleep(1.5)
        assert 3 <= b.lists <= 6  # after 0, 0.4, 0.8 seconds


async def test_a_watch_that_ends_at_once_again_and_again_is_not_tried_without_end(tmp_path):
    async def watch(response: web.StreamResponse, version: str) -> None:
        await send(response, "BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(int(version) + 1)}})

    async with bench(tmp_path, [], watch) as b:
        await asyncio.sleep(1.5)
        assert 3 <= len(b.watched_from) <= 6
        assert b.lists == 1


async def test_of_a_list_one_page_at_a_time_is_held(tmp_path):
    async with bench(tmp_path, [pod_body(n, version=i) for i, n in enumerate("abcde", 1)]) as b:
        assert b.held_at_page == [0, 2, 4]


ODD = {"nodeName": "n1", "containers": [{"resources": {"requests": {"cpu": "1e999999"}}}]}


async def test_an_object_that_cannot_be_read_comes_in_as_such_and_does_not_stop_the_others(tmp_path):
    async def watch(response: web.StreamResponse, _version: str) -> None:
        await send(response, "ADDED", pod_body("odd2", version=11, spec={"containers": 5}))
        await send(response, "ADDED", {"metadata": 5})
        await send(response, "ADDED", pod_body("good2", version=12))
        await asyncio.sleep(30)

    async with bench(tmp_path, [pod_body("odd", spec=ODD), {"kind": "Pod"}, pod_body("good", version=2)], watch) as b:
        await until(lambda: b.names() == ["good", "good2", "odd", "odd2"])
        assert b.lists == 2  # one list of two pages
        assert [name for (_, name), at in held(b) if at.unreadable] == ["odd", "odd2"]


def held(b: Bench) -> list[Any]:
    return sorted((key, b.cache.get(key)) for key in b.cache)


async def test_a_new_version_that_cannot_be_read_takes_the_place_of_the_one_that_could(tmp_path):
    async def watch(response: web.StreamResponse, _version: str) -> None:
        await send(response, "MODIFIED", pod_body("a", version=11, spec=ODD))
        await asyncio.sleep(0.2)
        await send(response, "MODIFIED", pod_body("a", version=12))
        await send(response, "MODIFIED", pod_body("b", version=13, spec={"containers": 5}))
        await send(response, "DELETED", pod_body("b", version=14, spec={"containers": 5}))
        await asyncio.sleep(30)

    async with bench(tmp_path, [pod_body("a"), pod_body("b", version=2)], watch) as b:
        await until(lambda: b.cache.get(("ns", "a")).unreadable)
        await until(lambda: not b.cache.get(("ns", "a")).unreadable)
        await until(lambda: b.names() == ["a"])


async def test_what_is_held_is_not_dropped_by_a_list_with_a_nameless_object(tmp_path):
    async with bench(tmp_path, [pod_body("a")]) as b:
        b.pods, b.version = [{"metadata": {"labels": 5}}], 20
        await b.reflector.relist()
        assert b.names() == ["a"]
        b.pods = []
        await b.reflector.relist()
        assert b.names() == []


async def test_an_answer_that_is_no_list_ends_neither_the_watch_nor_the_process(tmp_path):
    async def watch(response: web.StreamResponse, _version: str) -> None:
        if b.lists == 1:
            await response.write(b"[1, 2\n")
        await asyncio.sleep(30)

    async with bench(tmp_path, [pod_body("a")], watch) as b:
        await until(lambda: b.lists == 2 and len(b.watched_from) == 2)
        assert b.names() == ["a"]


async def test_a_change_that_nobody_can_follow_is_that_object_s_own(tmp_path):
    async with bench(tmp_path, [pod_body("a")]) as b:

        def changed(_old: Any, new: Any) -> None:
            if new is not None and new.name == "odd":
                raise RuntimeError("something nobody thought of")

        b.cache._changed = changed
        b.pods, b.version = [pod_body("odd", version=11), pod_body("b", version=12)], 20
        await b.reflector.relist()
        assert "b" in b.names()


async def test_an_object_that_nobody_can_turn_into_a_value_is_alone_with_it(tmp_path):
    def value(read: Any, why: str) -> Pod:
        if read.metadata.name == "odd":
            raise OverflowError("something nobody thought of")
        return pod_value(read, why)

    async with bench(tmp_path, [pod_body("a")]) as b:
        b.reflector._value = value
        b.pods, b.version = [pod_body("odd", version=11), pod_body("b", version=12)], 20
        await b.reflector.relist()
        assert b.names() == ["a", "b"]


async def test_what_is_known_is_not_turned_into_a_value_again(tmp_path):
    """As by the answer to a write: a list of a thousand nodes, of which one has changed, is one value."""
    made: list[str] = []

    def value(read: Any, why: str) -> Pod:
        made.append(read.metadata.name)
        return pod_value(read, why)

    async with bench(tmp_path, [pod_body("a"), pod_body("b", version=2)]) as b:
        b.reflector._value = value
        b.pods, b.version = [pod_body("a"), pod_body("b", version=3)], 20
        await b.reflector.relist()
        assert (made, b.names()) == (["b"], ["a", "b"])


async def test_an_object_larger_than_a_read_buffer(tmp_path):
    async def watch(response: web.StreamResponse, _version: str) -> None:
        large = pod_body("large", version=11)
        large["metadata"]["annotations"] = {"x": "y" * 300_000}
        await send(response, "ADDED", large)
        await send(response, "ADDED", pod_body("small", version=12))
        await asyncio.sleep(30)

    async with bench(tmp_path, [], watch) as b:
        await until(lambda: b.names() == ["large", "small"])


async def test_a_watch_that_says_nothing_is_silent_until_an_event_or_a_bookmark_comes(tmp_path, monkeypatch):
    """What the API server has not said for minutes is a fault that no error shows."""
    seconds = [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: seconds[0])
    speak = asyncio.Event()

    async def watch(response: web.StreamResponse, _version: str) -> None:
        await speak.wait()
        await send(response, "BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": "20"}})
        await asyncio.Event().wait()

    async with bench(tmp_path, [pod_body(version=5)], watch) as b:
        await until(lambda: len(b.watched_from) == 1)
        seconds[0] = 300.0
        await asyncio.sleep(0.05)
        assert b.reflector.heard_at == 0.0
        speak.set()
        await until(lambda: b.reflector.heard_at == 300.0)
