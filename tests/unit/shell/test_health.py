"""What the kubelet is told: who waits is alive, who is stuck is not."""

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer
from unit.core.builders import DEFAULTS

from rfuav_kube import clock
from rfuav_operator.shell.loop import Loop
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.serving import health
from rfuav_operator.shell.serving.health import STUCK_AFTER, Pulse


@pytest.fixture
def passed(monkeypatch):
    """Seconds that are over."""
    over = [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: over[0])
    monkeypatch.setattr(health, "BEAT", 0.001)
    return over


async def turn_of_the_event_loop():
    await asyncio.sleep(0.01)


async def test_a_wait_of_any_length_is_alive(passed):
    pulse = Pulse()
    async with pulse.waiting():
        for _ in range(5):
            passed[0] += STUCK_AFTER - 1
            await turn_of_the_event_loop()
            assert pulse.alive


async def test_without_a_wait_and_without_a_turn_it_is_stuck(passed):
    pulse = Pulse()
    async with pulse.waiting():
        await turn_of_the_event_loop()
    passed[0] += STUCK_AFTER - 1
    await turn_of_the_event_loop()
    assert pulse.alive
    passed[0] += 1
    assert not pulse.alive


async def test_a_wait_that_failed_beats_no_more(passed):
    pulse = Pulse()
    with pytest.raises(ValueError):
        async with pulse.waiting():
            raise ValueError
    passed[0] += STUCK_AFTER
    await turn_of_the_event_loop()
    assert not pulse.alive


async def test_the_loop_beats_while_nothing_happens_and_stops_when_it_is_stuck(passed, monkeypatch):
    monkeypatch.setattr("rfuav_operator.shell.loop.HEARTBEAT", 0.001)

    class Nobody:
        def submit(self, actions):
            pass

    pulse = Pulse()
    loop = Loop(ClusterState(DEFAULTS), Nobody(), lambda _: [], beat=pulse.beat)
    running = asyncio.create_task(loop.run())
    for _ in range(3):
        passed[0] += STUCK_AFTER - 1
        await asyncio.sleep(0.05)
        assert pulse.alive
    running.cancel()  # as good as stuck
    await asyncio.gather(running, return_exceptions=True)
    passed[0] += STUCK_AFTER
    assert not pulse.alive


@pytest.mark.parametrize(("alive", "ready"), [(True, True), (True, False), (False, True)])
async def test_each_probe_asks_for_its_own(alive, ready):
    async with TestClient(
        TestServer(health.app(alive=lambda: alive, unready=lambda: "" if ready else "why"))
    ) as client:
        assert (await client.get("/healthz")).status == (200 if alive else 503)
        answer = await client.get("/readyz")
        assert (answer.status, await answer.text()) == ((200, "ok") if ready else (503, "why"))
