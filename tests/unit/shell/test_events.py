"""Events: the same one is counted, one job cannot flood, a refused one harms nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from unit.kube.fake_api import FakeApi, answer, serving, until
from unit.shell.bodies import job_body

from rfuav_operator.core.model import Kind, RecordEvent
from rfuav_operator.shell.reading import ours
from rfuav_operator.shell.writing import events
from rfuav_operator.shell.writing.events import Events

JOB = ours.job(Kind.TRAINING, job_body())


def event(note: str = "n", reason: str = "Queued") -> RecordEvent:
    return RecordEvent(job=JOB, type="Normal", reason=reason, action="Queue", note=note)


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


async def test_the_same_again_is_counted_not_written_anew(tmp_path, monkeypatch):
    async with recorder(tmp_path) as (api, made):
        made.record(event())
        await until(lambda: api.seen)
        for _ in range(5):
            made.record(event())
        await asyncio.sleep(0.05)
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
        await asyncio.sleep(0.3)
        assert len(api.seen) == 10


async def test_a_refused_event_is_written_anew_the_next_time(tmp_path):
    async with recorder(tmp_path) as (api, made):
        accepts = api.handle

        async def refuses(request: web.Request, body: Any) -> web.StreamResponse:
            api.handle = accepts
            return answer(404, {"message": "namespace gone"})

        api.handle = refuses
        made.record(event())
        await until(lambda: api.seen)
        await asyncio.sleep(0.05)
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
