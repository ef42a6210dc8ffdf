"""An outage is waited for together: one probe for all, two lines of the log, and everybody comes back at once."""

import asyncio
from pathlib import Path

import pytest
import structlog
from unit.kube.fake_api import FakeApi, serving

from rfuav_kube import outage
from rfuav_kube.outage import Outage


class Server:
    """Whether it is ready, and how often it was asked."""

    def __init__(self) -> None:
        self.problem = ""
        self.asked = 0

    async def probe(self) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        return self.problem


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(outage, "PROBE_EVERY", 0.02)


async def test_a_server_that_answers_is_not_waited_for():
    server = Server()
    with structlog.testing.capture_logs() as lines:
        assert await Outage(server.probe).over() is False
    assert (server.asked, lines) == (1, [])


async def test_all_wait_for_one_probe_and_the_log_has_two_lines():
    server = Server()
    server.problem = "connection refused"
    waited_for = Outage(server.probe)
    with structlog.testing.capture_logs() as lines:
        waiting = [asyncio.create_task(waited_for.over()) for _ in range(50)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        assert server.asked < 12
        server.problem = ""
        assert await asyncio.wait_for(asyncio.gather(*waiting), 1) == [True] * 50
    assert [line["event"] for line in lines] == ["API server unreachable", "API server reachable again"]
    assert lines[0]["error"] == "connection refused"


async def test_nobody_waits_for_ever(monkeypatch):
    """A server that says of itself that it is not ready may serve all the same."""
    monkeypatch.setattr(outage, "LONGEST", 0.05)
    server = Server()
    server.problem = "informer-sync failed"
    waited_for = Outage(server.probe)
    assert await asyncio.wait_for(waited_for.over(), 1)
    await waited_for.close()
    asked = server.asked
    await asyncio.sleep(0.05)
    assert server.asked == asked


async def test_one_who_is_cancelled_leaves_the_others_waiting():
    server = Server()
    server.problem = "away"
    waited_for = Outage(server.probe)
    first, second = (asyncio.create_task(waited_for.over()) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    server.problem = ""
    assert await asyncio.wait_for(second, 1)


async def test_the_api_servers_own_word_ends_it(tmp_path: Path):
    async with serving(tmp_path) as (api, connection):
        assert isinstance(api, FakeApi)
        assert not await connection.reachable()
        api.ready = False
        waiting = asyncio.create_task(connection.reachable())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        api.ready = True
        assert await asyncio.wait_for(waiting, 1)
