"""The operator's time is the API server's, whatever the own machine's clock says and does."""

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from aiohttp import web
from unit.kube.fake_api import answer, serving

from rfuav_kube import clock

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()


class Clocks:
    """The server's clock is right; this machine's is off by `own_off`."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.own_off = 0.0

    def own(self) -> float:
        return T0 + self.passed + self.own_off

    def error(self) -> float:
        return clock.now().timestamp() - (T0 + self.passed)

    def request(self, there: float, back: float) -> None:
        sent = self.passed
        self.passed += there
        date = (T0 + self.passed) // 1
        self.passed += back
        clock.heard(date, sent)


@pytest.fixture
def clocks(monkeypatch) -> Clocks:
    made = Clocks()
    monkeypatch.setattr(clock, "_ahead", None)
    monkeypatch.setattr(clock, "_told", float("-inf"))
    monkeypatch.setattr(clock, "monotonic", lambda: made.passed)
    monkeypatch.setattr(clock, "wall", made.own)
    return made


@pytest.mark.parametrize("off", [-300, -1.4, 1.4, 300, 86400])
def test_one_answer_corrects_a_wrong_clock_to_the_second(clocks, off):
    clocks.own_off = off
    with structlog.testing.capture_logs() as lines:
        clocks.request(0.01, 0.01)
    assert abs(clocks.error()) <= 1.02
    assert [line["event"] for line in lines] == (
        ["clock corrected by that of the API server"] if abs(off) > 2.1 else []
    )


def test_api_servers_whose_clocks_differ_do_not_fill_the_log(clocks):
    with structlog.testing.capture_logs() as lines:
        for turn in range(1000):
            clocks.passed += 0.1
            clock.heard(T0 + clocks.passed + 60 * (turn % 2), clocks.passed)
    assert len(lines) == 2  # in a hundred seconds


def test_many_answers_correct_it_further(clocks):
    clocks.own_off = -300
    chance = random.Random(1)
    for _ in range(200):
        clocks.passed += chance.uniform(0, 3)
        clocks.request(chance.uniform(0.001, 0.02), chance.uniform(0.001, 0.02))
    assert abs(clocks.error()) < 0.05


def test_a_right_clock_is_left_as_it_is(clocks):
    chance = random.Random(2)
    for _ in range(200):
        clocks.passed += chance.uniform(0, 3)
        clocks.request(chance.uniform(0, 2), chance.uniform(0, 2))  # slow answers prove little
        assert abs(clocks.error()) < 1e-5


def test_steps_of_the_own_clock_change_nothing(clocks):
    clocks.request(0.01, 0.01)
    for step in (-300, 300, 7200):
        clocks.own_off = step
        clocks.passed += 10
        assert abs(clocks.error()) < 1e-5


def test_a_step_of_the_servers_clock_is_followed(clocks):
    clocks.request(0.01, 0.01)
    sent, clocks.passed = clocks.passed, clocks.passed + 0.02
    clock.heard((T0 + clocks.passed + 60) // 1, sent)
    assert 59 <= clocks.error() <= 61


async def test_every_answer_is_listened_to(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(clock, "_ahead", None)

    async def late(request: web.Request, body: object) -> web.StreamResponse:
        return answer(200, {"kind": "List"}, Date="Tue, 01 Jan 2030 00:00:00 GMT")

    async with serving(tmp_path) as (api, connection):
        api.handle = late
        for ask in (connection.request("GET", "/a"), connection.get_bytes("/a")):
            monkeypatch.setattr(clock, "_ahead", None)
            await ask
            assert (clock.now().year, clock.now().day) == (2030, 1)
        monkeypatch.setattr(clock, "_ahead", None)
        async with connection.stream("/a", idle=5):
            assert clock.now().year == 2030


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2026 00:00:00 +99999999999999",
        "Mon, 01 Jan 1960 00:00:00 GMT",
        "soon",
    ],
)
async def test_a_date_that_is_none_is_not_listened_to(tmp_path: Path, monkeypatch, date: str):
    monkeypatch.setattr(clock, "_ahead", None)

    async def odd(request: web.Request, body: object) -> web.StreamResponse:
        return answer(200, {"kind": "List"}, Date=date)

    async with serving(tmp_path) as (api, connection):
        api.handle = odd
        assert (await connection.request("GET", "/a")).ok
        assert clock._ahead is None
