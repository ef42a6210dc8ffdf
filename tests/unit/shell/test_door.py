"""Servers under strangers who connect and do nothing, or little, or too often: real sockets on the loopback."""

import asyncio
import contextlib
import resource
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from unit.kube.fake_api import until

from rfuav_kube import clock
from rfuav_operator.settings import Connections
from rfuav_operator.shell import metrics
from rfuav_operator.shell.serving import door, tls
from rfuav_operator.shell.serving.door import BURST, REQUESTS_A_SECOND, Door, serving

SWEEP = 0.02
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
SOON = 60.0  # seconds, on however slow a machine
LIMITS = Connections(handshake_seconds=60, request_seconds=1000, idle_seconds=2000, per_peer=64, total=512)
"""No test takes as long: time passes for a connection when the test says so."""


class House:
    """A server and those who come to it."""

    def __init__(self, port: int, door: Door, context: ssl.SSLContext | None, go_on: asyncio.Event) -> None:
        self.port, self.door, self.context = port, door, context
        self.go_on = go_on  # for the answers of /slow
        self.answering = 0  # of them
        self.ahead = 0.0  # seconds by which the door's clock goes before

    async def pass_time(self, seconds: float) -> None:
        """So many seconds later, and the door has looked for what has had its time."""
        self.ahead += seconds
        await asyncio.sleep(3 * SWEEP)

    async def connect(
        self, *, peer: str = "127.0.0.1", shake_hands: bool = True
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tls_context = self.context if shake_hands else None
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=tls_context, local_addr=(peer, 0))

    async def get(self, *, peer: str = "127.0.0.1") -> bytes:
        """The first line of an answer."""
        reader, writer = await self.connect(peer=peer)
        writer.write(GET)
        line = await asyncio.wait_for(reader.readline(), SOON)
        writer.close()
        return line


async def ended(reader: asyncio.StreamReader) -> None:
    """Wait until the server has closed the connection."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await asyncio.wait_for(reader.read(), SOON)


@contextlib.asynccontextmanager
async def house(limits: Connections = LIMITS, *, secure: bool = True) -> AsyncIterator[House]:
    app = web.Application()
    go_on = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text="hello")

    async def slow(_request: web.Request) -> web.Response:
        made.answering += 1
        try:
            await go_on.wait()
        finally:
            made.answering -= 1
        return web.Response(text="at last")

    async def large(_request: web.Request) -> web.Response:
        return web.Response(body=bytes(8 * 2**20))

    app.router.add_route("*", "/", answer)
    app.router.add_get("/large", large)
    app.router.add_get("/slow", slow)
    authority = tls.new_authority()
    context = ssl.create_default_context(cadata=authority.pem)
    context.check_hostname = False
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    leaf = tls.Leaf(authority, ["localhost"]).context if secure else None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(door, "SWEEP", SWEEP)
        async with serving(app, "127.0.0.1", port, limits, leaf) as open_door:
            made = House(port, open_door, context if secure else None, go_on)
            patched.setattr(clock, "monotonic", lambda: time.monotonic() + made.ahead)
            yield made
            go_on.set()


@pytest.mark.parametrize("secure", [True, False])
async def test_requests_are_answered_on_one_connection_after_the_other_and_on_the_same(secure):
    async with house(secure=secure) as h:
        assert (await h.get()).startswith(b"HTTP/1.1 200")
        reader, writer = await h.connect()
        for _ in range(3):
            writer.write(GET)
            assert b"hello" in await asyncio.wait_for(reader.readuntil(b"hello"), SOON)
        writer.close()


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (GET, 1),
        (GET * 3, 3),
        (GET * 100, 100),  # more than is parsed in one turn
        (SLOW, 1),  # longer than the time in which an answer begins
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n" + b"x" * 9000, 1),
    ],
    ids=["one", "three", "a hundred", "slow", "a body"],
)
async def test_who_ends_what_it_sends_gets_its_answers_and_is_closed(monkeypatch, sent, answers):
    monkeypatch.setattr(door, "BURST", 200.0)
    before = metrics.connections_closed.labels("idle")._value.get()
    async with house(secure=False) as h:
        reader, writer = await h.connect()
        writer.write(sent)
        writer.write_eof()
        if sent == SLOW:
            await until(lambda: any(guest.busy and guest.ended for guest in h.door._guests.values()))
            await h.pass_time(10)
            h.go_on.set()
        answered = await asyncio.wait_for(reader.readuntil(b" 200 OK"), SOON)
        for _ in range(answers - 1):
            answered += await asyncio.wait_for(reader.readuntil(b" 200 OK"), SOON)
        await h.pass_time(10)
        answered += await asyncio.wait_for(reader.read(), SOON)
        assert answered.count(b" 200 OK") == answers
        await until(lambda: not h.door._guests)
        writer.close()
    assert metrics.connections_closed.labels("idle")._value.get() == before


async def test_a_peer_that_ends_before_its_request_is_complete_is_closed():
    async with house(secure=False) as h:
        for sent in (b"", b"GET / HT", GET):
            reader, writer = await h.connect()
            writer.write(sent)
            writer.write_eof()
            await until(lambda: any(guest.ended for guest in h.door._guests.values()))
            await h.pass_time(10)
            await ended(reader)
            await until(lambda: not h.door._guests)
            writer.close()


@pytest.mark.parametrize(
    ("sent", "requests", "limit"),
    [
        (b"", 0, LIMITS.request_seconds),  # nothing
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-A: aaaa", 0, LIMITS.request_seconds),  # half a request
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf a body", 1, LIMITS.request_seconds),
        (GET, 1, LIMITS.idle_seconds),  # a whole one, and then nothing
        (GET + b"GET / HT", 1, LIMITS.idle_seconds),  # and half of the next
        (SLOW, 1, LIMITS.request_seconds),  # one whose answer takes for ever
    ],
)
@pytest.mark.parametrize("secure", [True, False])
async def test_who_does_not_go_on_is_closed(secure, sent, requests, limit):
    async with house(secure=secure) as h:
        reader, writer = await h.connect()
        writer.write(sent)
        await until(lambda: [g.requests for g in h.door._guests.values() if g.transport is not None] == [requests])
        if limit == LIMITS.idle_seconds:
            await asyncio.wait_for(reader.readuntil(b"hello"), SOON)
        await h.pass_time(limit - 200)
        assert h.door._guests
        assert not reader.at_eof()
        await h.pass_time(300)
        await ended(reader)
        writer.close()


async def test_a_request_that_trickles_does_not_live_longer():
    async with house() as h:
        reader, writer = await h.connect()
        sent = 0
        with contextlib.suppress(ConnectionError):
            for byte in b"GET / HTTP/1.1\r\nX-A: " + b"a" * 1000:
                writer.write(bytes([byte]))
                await writer.drain()
                sent += 1
                await h.pass_time(LIMITS.request_seconds / 20)
                if reader.at_eof():
                    break
        assert sent <= 25


@pytest.mark.parametrize("secure", [True, False])
async def test_what_is_closed_is_not_answered_any_more(secure):
    async with house(secure=secure) as h:
        _, writer = await h.connect()
        writer.write(SLOW)
        await until(lambda: h.answering == 1)
        await h.pass_time(LIMITS.request_seconds + 1)
        await until(lambda: h.answering == 0)
        writer.close()


@pytest.mark.parametrize("secure", [True, False])
async def test_who_does_not_read_its_answer_counts_until_it_is_closed(secure):
    async with house(LIMITS.model_copy(update={"per_peer": 2}), secure=secure) as h:

        def held() -> int:
            assert h.door.runner.server is not None
            return sum(one.transport is not None for one in h.door.runner.server.connections)

        clients = []  # one that is collected closes its connection
        for _ in range(4):
            clients.append(await h.connect(peer="127.0.0.2"))
            writer = clients[-1][1]
            writer.transport.pause_reading()
            writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await until(lambda: all(guest.requests and not guest.busy for guest in h.door._guests.values()))
            assert 0 < held() <= len(h.door._guests) <= 2
        await h.pass_time(LIMITS.idle_seconds + 1)
        await until(lambda: not held() and not h.door._guests)


async def test_a_handshake_that_does_not_come_is_not_waited_for():
    async with house(LIMITS.model_copy(update={"handshake_seconds": 0.3})) as h:
        reader, writer = await h.connect(shake_hands=False)
        await ended(reader)
        writer.close()


async def test_a_hundred_idle_connections_are_gone_after_a_while():
    async with house() as h:
        held = [await h.connect() for _ in range(60)]
        held += [await h.connect(peer="127.0.0.2") for _ in range(40)]
        for _, writer in held[::2]:
            writer.write(b"GET / HTTP/1.1\r\n")
        assert len(h.door._guests) == 100
        assert (await h.get()).startswith(b"HTTP/1.1 200")
        await h.pass_time(LIMITS.request_seconds + 1)
        await until(lambda: not h.door._guests)
        for _, writer in held:
            writer.close()


async def test_connections_that_were_closed_by_the_other_side_are_forgotten():
    async with house() as h:
        for _ in range(5):
            await h.get()
        await until(lambda: not h.door._guests)


async def test_a_peer_that_holds_too_many_loses_the_one_idle_longest():
    limits = LIMITS.model_copy(update={"per_peer": 3})
    async with house(limits) as h:
        held = [await h.connect(peer="127.0.0.2") for _ in range(3)]
        other, others_writer = await h.connect()
        assert (await h.get(peer="127.0.0.2")).startswith(b"HTTP/1.1 200")
        await asyncio.wait_for(held[0][0].read(), SOON)  # the oldest
        assert not any(reader.at_eof() for reader, _ in held[1:])
        assert not other.at_eof()  # another peer's
        others_writer.close()


async def test_a_peer_whose_requests_are_all_under_way_gets_no_further_connection():
    limits = LIMITS.model_copy(update={"per_peer": 2})
    async with house(limits) as h:
        held = [await h.connect(peer="127.0.0.2") for _ in range(2)]  # a writer that nobody holds is closed
        for _, writer in held:
            writer.write(SLOW)
        await until(lambda: sum(guest.busy for guest in h.door._guests.values()) == 2)
        before = metrics.connections_closed.labels("too many")._value.get()
        with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
            await h.connect(peer="127.0.0.2")
        assert metrics.connections_closed.labels("too many")._value.get() == before + 1
        assert (await h.get()).startswith(b"HTTP/1.1 200")  # others do
        for _, writer in held:
            writer.close()


async def test_all_peers_together_hold_no_more_than_the_total():
    limits = LIMITS.model_copy(update={"per_peer": 5, "total": 8})
    async with house(limits) as h:
        held = [await h.connect(peer=f"127.0.0.{2 + i // 4}") for i in range(12)]
        await until(lambda: len(h.door._guests) <= 8)
        assert (await h.get()).startswith(b"HTTP/1.1 200")
        assert len(h.door._guests) <= 8
        for _, writer in held:
            writer.close()


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01" + b"\xff" * 300, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n", b"\0" * 100_000]
)
@pytest.mark.parametrize("secure", [True, False])
async def test_garbage_is_answered_or_closed_and_the_server_continues(garbage: Any, secure):
    async with house(secure=secure) as h:
        for shake_hands in (True, False):
            reader, writer = await h.connect(shake_hands=shake_hands)
            writer.write(garbage)
            await ended(reader)
            writer.close()
        assert (await h.get()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("secure", [True, False])
async def test_a_connection_with_endless_requests_is_closed_and_others_are_answered(secure):
    async with house(secure=secure) as open_house:
        turns = 0

        async def floods() -> bool:
            began = time.monotonic()
            reader, writer = await open_house.connect()
            answered = b""
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                for _ in range(50):
                    writer.write(GET * 1000)
                    await writer.drain()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                answered = await asyncio.wait_for(reader.read(), SOON)
            return answered.count(b"200 OK") <= BURST + (time.monotonic() - began) * REQUESTS_A_SECOND + 2

        flooding = [asyncio.create_task(floods()) for _ in range(4)]
        while not all(task.done() for task in flooding):
            assert b"200" in await open_house.get(peer="127.0.0.2")
            turns += 1
        assert turns > 1
        assert all(task.result() for task in flooding)


async def test_a_request_that_is_larger_than_any_is_closed():
    async with house(secure=False) as h:
        reader, writer = await h.connect()
        writer.write(b"POST /slow HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        with contextlib.suppress(ConnectionError, TimeoutError):
            for _ in range(2000):  # 125 MiB: bodies are read no further than somebody wants them
                writer.write(chunk)
                await asyncio.wait_for(writer.drain(), 0.5)
        await h.pass_time(LIMITS.request_seconds + 1)
        await ended(reader)


async def test_a_body_that_grows_as_it_is_unpacked_is_refused():
    async with house(secure=False) as open_house:
        packed = zlib.compressobj(9, zlib.DEFLATED, 31)
        bomb = b"".join([*(packed.compress(bytes(2**20)) for _ in range(64)), packed.flush()])  # 64 MiB in 64 kB
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        reader, writer = await open_house.connect()
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
        writer.write(head.encode() + bomb)
        assert b"413" in await asyncio.wait_for(reader.readline(), SOON)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024  # kB
        writer.close()


async def test_whatever_fails_for_one_connection_the_others_come_in(monkeypatch):
    async with house() as h:
        with monkeypatch.context() as patched:

            async def broken(*_args: Any, **_more: Any) -> Any:
                raise RuntimeError("something nobody thought of")

            patched.setattr(asyncio.get_running_loop(), "connect_accepted_socket", broken)
            reader, writer = await h.connect(shake_hands=False)
            await ended(reader)
            writer.close()
        assert (await h.get()).startswith(b"HTTP/1.1 200")


async def test_the_port_is_free_again_afterwards(tmp_path: Path):
    async with house() as h:
        port = h.port
        _, writer = await h.connect()
    writer.close()
    with socket.create_server(("127.0.0.1", port)):
        pass
