"""Streams of what happens: each reader gets the newest of each job, as far as it may see it, and nothing is kept for it."""

import asyncio
import contextlib
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from gateway.test_tasks_cache import body

from rfuav_gateway.cluster.tasks import Tasks
from rfuav_gateway.live.hub import Hub
from rfuav_gateway.live.live import Live, TooManyStreams
from rfuav_gateway.live.pace import Pace
from rfuav_gateway.routes.streams import Stream
from rfuav_gateway.tasks import page_bodies, rows
from rfuav_gateway.tasks.sight import Sight

QUICK = Pace(batch=0.02, keep_alive=0.2, recheck=0.05, chunk=3, ended=2, spare=5, streams=2)
ALL = Sight(everywhere=frozenset(("training", "inference")))


class Cluster:
    """One that has not been read yet."""

    synced = False

    def follow(self, changed: Any) -> None:
        self.changed = changed

    def priority(self, named: str) -> int | None:
        return {"high": 1000}.get(named)


class World:
    """Jobs, and who looks at them."""

    def __init__(self, pace: Pace = QUICK) -> None:
        self.tasks, self.version, self.sight = Tasks(), 0, ALL
        self.live = Live(self.tasks, Cluster(), pace)

    def put(self, name: str, namespace: str = "a", **more: Any) -> None:
        self.version += 1
        self.tasks.take("training", body(name, self.version, namespace=namespace, age=self.version, **more))

    def drop(self, name: str, namespace: str = "a") -> None:
        self.tasks.gone(self.tasks.named("training", namespace, name))

    async def look(self) -> Sight | None:
        return self.sight

    def follow(self, *, packed: bool = False):
        return self.live.follow(self.look, packed=packed)


async def event(stream: AsyncIterator[bytes]) -> tuple[str, Any]:
    """The next one; comments are left out."""
    async with asyncio.timeout(5):
        while True:
            fields = dict(line.split(b": ", 1) for line in (await anext(stream)).split(b"\n") if line[:1] not in b":")
            if b"event" in fields:
                return fields[b"event"].decode(), json.loads(fields[b"data"])


async def picture(stream: AsyncIterator[bytes]) -> list[str]:
    """The jobs of the first events."""
    assert (await event(stream))[0] == "start"
    names: list[str] = []
    more = True
    while more:
        name, found = await event(stream)
        assert name == "jobs"
        names += [row["name"] for row in found["rows"]]
        more = found["more"]
    return names


async def test_first_a_picture_in_pieces_the_newest_first_and_of_the_ended_the_newest() -> None:
    world = World()
    for number in range(5):
        world.put(f"w{number}", phase="Queued")
        world.put(f"e{number}", phase="Succeeded")
    async with world.follow() as stream:
        assert await picture(stream) == ["e4", "w4", "e3", "w3", "w2", "w1", "w0"]


async def test_a_slow_reader_gets_the_newest_of_each_job_and_no_backlog() -> None:
    world = World()
    world.put("x", phase="Queued")
    world.put("y", phase="Queued")
    async with world.follow() as stream:
        await picture(stream)
        for _ in range(500):
            world.put("x", phase="Running")
        world.drop("y")
        await asyncio.sleep(0.1)
        name, found = await event(stream)
        assert (name, found["gone"], found["more"]) == ("jobs", ["training/a/y"], False)
        assert [(row["name"], row["phase"]) for row in found["rows"]] == [("x", "Running")]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await event(stream)


async def test_changes_that_come_together_are_sent_together() -> None:
    world = World(QUICK._replace(batch=0.2))
    async with world.follow() as stream:
        await picture(stream)
        world.put("first")
        assert (await event(stream))[1]["rows"][0]["name"] == "first"
        events = 0
        for number in range(30):
            world.put(f"j{number % 3}", phase="Running")
            await asyncio.sleep(0.01)
        names: set[str] = set()
        while len(names) < 3:
            names |= {row["name"] for row in (await event(stream))[1]["rows"]}
            events += 1
        assert events <= 3


async def test_a_reader_who_is_too_far_behind_gets_a_new_picture() -> None:
    world = World()
    world.put("stays")
    async with world.follow() as stream:
        await picture(stream)
        for number in range(20):
            world.put(f"j{number}")
            world.drop(f"j{number}")
        assert await picture(stream) == ["stays"]


async def test_who_loses_a_namespace_loses_its_jobs_and_a_new_one_appears() -> None:
    world = World(QUICK._replace(keep_alive=30.0))
    world.sight = Sight(jobs=frozenset({("training", "a")}))
    world.put("one", "a")
    world.put("two", "b")
    async with world.follow() as stream:
        assert await picture(stream) == ["one"]
        world.put("other", "b")
        world.sight = Sight(jobs=frozenset({("training", "b")}))
        assert await event(stream) == ("scope", {"scope": ["b"]})
        assert await event(stream) == ("jobs", {"rows": [], "gone": ["training/a/one"], "more": False})
        name, found = await event(stream)
        assert (name, [row["name"] for row in found["rows"]]) == ("jobs", ["other", "two"])
        world.put("secret", "a")
        world.put("three", "b")
        seen: list[str] = []
        while "three" not in seen:
            found = (await event(stream))[1]
            seen += [row["name"] for row in found["rows"]] + found["gone"]
        assert not [name for name in seen if "secret" in name]


async def test_a_stream_ends_with_its_token_and_with_the_gateway() -> None:
    world = World()
    async with world.follow() as stream:
        await picture(stream)
        world.sight = None
        assert await event(stream) == ("bye", {"why": "signed-out"})
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    world.sight = ALL
    async with world.follow() as stream:
        await picture(stream)
        world.live.close()
        assert await event(stream) == ("bye", {"why": "stopping"})


async def test_a_reader_who_pauses_in_the_picture_gets_no_more_of_it_once_its_token_has_ended() -> None:
    world = World()
    for number in range(9):
        world.put(f"j{number}", phase="Queued")
    async with world.follow() as stream:
        assert (await event(stream))[0] == "start"
        assert len((await event(stream))[1]["rows"]) == 3
        world.sight = None
        await asyncio.sleep(2 * QUICK.recheck)
        assert await event(stream) == ("bye", {"why": "signed-out"})


async def test_streams_are_bounded_and_nothing_is_kept_after_the_last() -> None:
    world = World()
    world.put("x")
    async with world.follow() as first, world.follow():
        with pytest.raises(TooManyStreams):
            await world.follow().__aenter__()
        await picture(first)
        world.put("y")
        assert world.live._hub._rows
        assert world.live.readers == 2
    assert world.live.readers == 0
    assert (world.live._hub._rows, dict(world.live._hub._changed)) == ({}, {})


async def test_each_event_of_a_compressed_stream_can_be_read_at_once() -> None:
    world = World()
    world.put("x", phase="Queued")
    unpack = zlib.decompressobj(31)
    async with world.follow(packed=True) as stream:
        data = b""
        async with asyncio.timeout(5):
            while b'"more":false}\n\n' not in data:
                data += unpack.decompress(await anext(stream))
    assert b"training/a/x" in data


async def test_what_is_remembered_of_jobs_that_are_gone_is_bounded() -> None:
    tasks = Tasks()
    hub = Hub(tasks, QUICK)
    hub.enter()
    for number in range(200):
        job = tasks.take("training", body(f"j{number}", number + 1))
        tasks.gone(job)
    assert len(hub._changed) <= QUICK.spare
    assert hub.since(0) is None
    assert hub.since(hub.number - 2) == [("training", "a", "j199")]
    hub.leave()


def test_a_row_is_as_the_document_says() -> None:
    described = {str(field.alias): field.annotation for field in page_bodies.Row.model_fields.values()}
    built = msgspec.json.decode(rows.encoded(Tasks().take("training", body("x", 1, phase="Running"))))
    assert list(built) == list(described)
    assert page_bodies.Row.model_validate(built)


async def test_a_connection_that_takes_nothing_is_let_go() -> None:
    left = asyncio.Event()

    @contextlib.asynccontextmanager
    async def following() -> AsyncIterator[AsyncIterator[bytes]]:
        async def events() -> AsyncIterator[bytes]:
            while True:
                yield b": x"

        try:
            yield events()
        finally:
            left.set()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    context = following()
    answer = Stream(await context.__aenter__(), context, patience=0.05)
    async with asyncio.timeout(5):
        await answer({"type": "http", "asgi": {}}, asyncio.Event().wait, send)
    assert left.is_set()
