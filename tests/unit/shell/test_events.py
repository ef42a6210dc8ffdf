"""Events: the same one is counted, one job cannot flood, a refused one harms nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from msgspec.structs import replace
from unit.kube.fake_api import FakeApi, answer, serving, until
from unit.shell.bodies import job_body

from rfuav_operator.core.model import Kind, RecordEvent
from rfuav_operator.shell import metrics
from rfuav_operator.shell.reading import ours
from rfuav_operator.shell.writing import events
from rfuav_operator.shell.writing.events import Events

JOB = ours.job(Kind.TRAINING, job_body())


def event(note: str = "n", reason: str = "Queued", **job: str) -> RecordEvent:
    return RecordEvent(job=replace(JOB, **job), type="Normal", reason=reason, action="Queue", note=note)


async def all_sent(api: FakeApi, made: Events) -> None:
    """Wait until what was recorded before has been answered: the events of a namespace go one after the other."""
    made.record(event("the last of all", uid="other"))
    await until(lambda: api.seen and api.seen[-1][2].get("note") == "the last of all")
    api.seen.pop()


def events_of(namespace: str, count: int) -> list[RecordEvent]:
    """Of as many jobs."""
    return [event(namespace=namespace, uid=f"{namespace}-{index}") for index in range(count)]


@asynccontextmanager
async def recorder(folder: Path) -> AsyncIterator[tuple[FakeApi, Events]]:
    async with serving(folder) as (api, connection):

        async def accepts(request: web.Request, body: Any) -> web.StreamResponse:
            name = body["metadata"]["name"] if request.method == "POST" else request.path.rpartition("/")[2]
            return answer(201, {"metadata": {"name": name}})

        api.handle = accepts
        made = Events(connection, "pod-1")
        task = asyncio.create_task(made.run())
        try:
            yield api, made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_an_event_says_about_whom_and_why(tmp_path):
    async with recorder(tmp_path) as (api, made):
        made.record(event("x" * 2000))
        await until(lambda: api.seen)
        method, path, body = api.seen[0]
        assert (method, path) == ("POST", "/apis/events.k8s.io/v1/namespaces/ns/events")
        assert body["regarding"]["uid"] == "u1"
        assert (body["reason"], body["action"], body["reportingController"]) == ("Queued", "Queue", "rfuav.io/operator")
        assert len(body["note"]) == 1024


async def test_a_repeated_event_is_counted_and_not_written_again(tmp_path, monkeypatch):
    async with recorder(tmp_path) as (api, made):
        made.record(event())
        await until(lambda: api.seen)
        for _ in range(5):
            made.record(event())
        await all_sent(api, made)
        assert len(api.seen) == 1
        monkeypatch.setattr(events, "SERIES_EVERY", 0)
        made.record(event())
        await until(lambda: len(api.seen) == 2)
        method, path, body = api.seen[1]
        assert method == "PATCH"
        assert path.endswith(api.seen[0][2]["metadata"]["name"])
        assert body["series"]["count"] == 7


async def test_one_job_cannot_flood(tmp_path):
    async with recorder(tmp_path) as (api, made):
        for index in range(50):
            made.record(event(f"note {index}"))
        await all_sent(api, made)
        assert len(api.seen) == 10


@asynccontextmanager
async def slow_for(folder: Path, *slow: str) -> AsyncIterator[tuple[Events, Counter[str]]]:
    """The events of some namespaces wait at a webhook; those written are counted by namespace."""
    written: Counter[str] = Counter()
    async with recorder(folder) as (api, made):
        accepts = api.handle

        async def handle(request: web.Request, body: Any) -> web.StreamResponse:
            namespace = request.path.split("/")[5]
            if namespace in slow:
                await asyncio.sleep(60)
            written[namespace] += 1
            return await accepts(request, body)

        api.handle = handle
        yield made, written


async def test_a_namespace_whose_events_are_slow_does_not_hold_up_the_others(tmp_path):
    async with slow_for(tmp_path, "slow", "too") as (made, written):
        for one in (*events_of("slow", 20), *events_of("too", 20), *events_of("quick", 20), *events_of("other", 20)):
            made.record(one)
        await until(lambda: written == {"quick": 20, "other": 20})


async def test_a_namespace_whose_events_are_slow_loses_its_own_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "WAITING", 30)
    before = metrics.events_dropped._value.get()
    async with slow_for(tmp_path, "slow") as (made, written):
        for one in events_of("slow", 50):
            made.record(one)
        await asyncio.sleep(0.1)
        for one in events_of("quick", 15):
            made.record(one)
        await until(lambda: written == {"quick": 15})
        assert 20 <= metrics.events_dropped._value.get() - before <= 35
        made.record(events_of("slow", 50)[-1])  # it was dropped, so that it is no repetition
        assert len(made._queues["slow"]) >= 15


async def test_what_waits_is_written_in_the_next_term(tmp_path):
    async with serving(tmp_path) as (api, connection):
        begun = asyncio.Event()

        async def slow(_request: web.Request, _body: Any) -> web.StreamResponse:
            begun.set()
            await asyncio.sleep(60)
            return answer(500, {})

        async def quick(_request: web.Request, body: Any) -> web.StreamResponse:
            return answer(201, {"metadata": {"name": body["metadata"]["name"]}})

        made = Events(connection, "pod-1")
        for one in events_of("team", 5):
            made.record(one)
        for handler in (slow, quick):
            api.handle = handler
            term = asyncio.create_task(made.run())
            await begun.wait()
            if handler is quick:
                await until(lambda: len(api.seen) == 5)  # what was under way is lost with its term
            term.cancel()
            await asyncio.gather(term, return_exceptions=True)
        assert len({body["regarding"]["uid"] for _, _, body in api.seen}) == 5


async def test_a_refused_event_is_written_again_the_next_time(tmp_path):
    async with recorder(tmp_path) as (api, made):
        accepts = api.handle

        async def refuses(request: web.Request, body: Any) -> web.StreamResponse:
            api.handle = accepts
            return answer(404, {"message": "namespace gone"})

        api.handle = refuses
        made.record(event())
        await all_sent(api, made)
        made.record(event())
        await until(lambda: len(api.seen) == 2)
        assert [method for method, _, _ in api.seen] == ["POST", "POST"]


async def test_an_event_that_cannot_be_sent_does_not_stop_the_next(tmp_path):
    async with recorder(tmp_path) as (api, made):
        made.record(event("\ud83d"))
        made.record(event("ß" * 1024))
        await until(lambda: api.seen)
        assert len(api.seen[0][2]["note"].encode()) == 1024


async def test_an_answer_that_makes_no_sense_does_not_stop_the_next(tmp_path):
    async with recorder(tmp_path) as (api, made):
        accepts = api.handle

        async def odd(request: web.Request, body: Any) -> web.StreamResponse:
            return answer(200, ["?"])

        api.handle = odd
        made.record(event("one"))
        await until(lambda: len(api.seen) == 1)
        api.handle = accepts
        made.record(event("two"))
        await until(lambda: len(api.seen) == 2)
