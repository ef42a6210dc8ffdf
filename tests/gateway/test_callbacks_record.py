"""What has been settled is known after a restart, and the record of it stays short."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rfuav_gateway.callbacks import record
from rfuav_gateway.callbacks.record import NotMineError, Record
from rfuav_kube import clock
from rfuav_kube.connection import Answer, NotSent

NOW = datetime(2026, 2, 1, tzinfo=UTC)


class ConfigMaps:
    """One ConfigMap of an API server."""

    def __init__(self) -> None:
        self.held: dict[str, Any] | None = None
        self.away = False
        self.writes = 0

    async def request(self, method: str, path: str, body: Any = None, **_: Any) -> Answer:
        if self.away:
            raise NotSent("away")
        if method == "GET":
            return Answer(404, {}) if self.held is None else Answer(200, self.held)
        version = 0 if self.held is None else int(self.held["metadata"]["resourceVersion"])
        if (method == "POST") != (self.held is None) or int(body["metadata"].get("resourceVersion", 0)) != version:
            return Answer(409, {"message": "conflict"})
        self.writes += 1
        self.held = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version + 1)}}
        return Answer(200, self.held)


@pytest.fixture(autouse=True)
def now(monkeypatch):
    at = [NOW]
    monkeypatch.setattr(clock, "now", lambda: at[0])
    return at


def made(server) -> Record:
    return Record(server, "rfuav-system", "callbacks")


def ago(**span):
    return NOW - timedelta(**span)


async def test_what_was_settled_is_known_to_the_next_one(now):
    server = ConfigMaps()
    first = made(server)
    await first.load()
    assert first.has("before the first start", ago(seconds=1))
    assert not first.has("a", NOW)
    now[0] += timedelta(seconds=10)
    first.settle("a", NOW + timedelta(seconds=1))
    await first.save(None)
    await first.save(None)
    assert server.writes == 1
    second = made(server)
    await second.load()
    assert second.has("a", NOW + timedelta(seconds=1))
    assert not second.has("b", NOW + timedelta(seconds=1))


async def test_the_record_follows_the_oldest_that_is_not_settled(now):
    server = ConfigMaps()
    one = made(server)
    await one.load()
    for hours in range(1, 25):
        now[0] = NOW + timedelta(hours=hours)
        for index in range(100):
            one.settle(f"{hours}-{index}", now[0])
        await one.save(None)
    assert len(one._settled.uids) == 100
    assert one.has("3-7", NOW + timedelta(hours=3))
    waits = NOW + timedelta(hours=24, minutes=1)
    for hours in (25, 26):
        now[0] = NOW + timedelta(hours=hours)
        one.settle(f"{hours}", now[0])
        await one.save(waits)
    assert not one.has("waits", waits)
    assert set(one._settled.uids) == {"25", "26"}


async def test_the_record_has_a_size(monkeypatch):
    monkeypatch.setattr(record, "MOST", 10)
    server = ConfigMaps()
    one = made(server)
    await one.load()
    for index in range(50):
        one.settle(str(index), NOW + timedelta(seconds=index))
    await one.save(None)
    assert set(one._settled.uids) == {str(index) for index in range(40, 50)}


async def test_another_that_wrote_is_noticed():
    server = ConfigMaps()
    one, other = made(server), made(server)
    await one.load()
    one.settle("a", NOW)
    await one.save(None)
    await other.load()
    other.settle("b", NOW)
    await other.save(None)
    one.settle("c", NOW)
    with pytest.raises(NotMineError):
        await one.save(None)
    await one.load()
    await one.save(None)
    await other.load()
    assert all(other.has(uid, NOW) for uid in "abc")  # what it had settled meanwhile stays settled


async def test_an_outage_loses_nothing():
    server = ConfigMaps()
    one = made(server)
    await one.load()
    one.settle("a", NOW)
    server.away = True
    with pytest.raises(NotSent):
        await one.save(None)
    server.away = False
    await one.save(None)
    again = made(server)
    await again.load()
    assert again.has("a", NOW)


async def test_what_is_settled_while_the_record_is_written_stays_settled():
    server = ConfigMaps()
    one = made(server)
    await one.load()
    one.settle("a", NOW)
    request = server.request

    async def slow(*arguments: Any, **named: Any) -> Answer:
        one.settle("b", NOW)
        await asyncio.sleep(0)
        return await request(*arguments, **named)

    server.request = slow  # type: ignore[method-assign]
    await one.save(None)
    server.request = request  # type: ignore[method-assign]
    await one.save(None)
    again = made(server)
    await again.load()
    assert again.has("b", NOW)


@pytest.mark.parametrize("text", ["", "{}", "nonsense", '{"before": "yesterday", "uids": {}}'])
async def test_a_record_that_cannot_be_read_is_not_overwritten(text):
    server = ConfigMaps()
    server.held = {"metadata": {"resourceVersion": "1"}, "data": {"settled": text}}
    with pytest.raises(NotMineError, match="delete it"):
        await made(server).load()
    assert server.writes == 0
