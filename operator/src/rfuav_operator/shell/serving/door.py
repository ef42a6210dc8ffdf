"""HTTP servers that others cannot exhaust: the time and the number of connections are bounded.

In: sockets. Out: requests to an aiohttp application. A connection that does not finish its TLS handshake, send its
request or get its answer in time is closed, and so is one that stays idle, sends requests faster than they are
answered, or too many of them. A connection beyond the limits, of its peer or of all, replaces the one that has been
idle longest; if none is idle, it is closed itself. A peer that has closed its sending side still gets its answers.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from rfuav_kube import clock
from rfuav_operator.settings import Connections
from rfuav_operator.shell import metrics

log = structlog.get_logger()

BACKLOG = 128
SWEEP = 0.5  # seconds between two looks for what has had its time
NO_SOCKET = 0.2  # seconds before the next try when the process has no file descriptor left
LONGEST_LINE, MOST_HEADERS = 8190, 64  # of a request; a token has some 1,000 bytes
PIECE = 2048  # bytes of a connection that are parsed in one turn of the loop: hundreds of requests fit into one read
MOST_WAITING = 256 * 1024  # bytes of a connection that wait for that: more than the largest request
REQUESTS_A_SECOND, BURST = 20.0, 40.0  # of one connection
AFTER_THE_END = 1.0  # seconds for answers to requests sent before the end of the stream; then the connection is closed


class _Guest:
    """One connection."""

    def __init__(self, accepted: socket.socket, peer: str) -> None:
        self.socket = accepted
        self.peer = peer
        self.shaking: asyncio.Task[None] | None = None  # the handshake
        self.transport: asyncio.Transport | None = None
        self.busy = False  # a request is being answered
        self.ended = False  # nothing more comes from it
        self.requests = 0
        self.allowed = BURST  # requests, as of the last one
        self.asked = clock.monotonic()  # when that came
        self.since = clock.monotonic()  # of what it does now

    def is_done(self, now: float) -> bool:
        """Whether it has ended, and owes and gets nothing more."""
        return self.ended and not self.busy and now - self.since > AFTER_THE_END

    def is_late(self, limits: Connections, now: float) -> bool:
        if self.transport is None:
            most = limits.handshake_seconds
        elif self.busy or not self.requests:
            most = limits.request_seconds
        else:
            most = limits.idle_seconds
        return now - self.since > most

    def end(self) -> None:
        self.ended, self.since = True, clock.monotonic()

    def may_ask(self, now: float) -> bool:
        """Whether one more request comes slowly enough."""
        self.allowed = min(BURST, self.allowed + (now - self.asked) * REQUESTS_A_SECOND) - 1
        self.asked = now
        return self.allowed >= 0

    def leave(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def send_away(self, why: str) -> None:
        metrics.connections_closed.labels(why).inc()
        if self.shaking is not None:
            self.shaking.cancel()
        if self.transport is not None:
            self.transport.abort()


class _InTurns(asyncio.Protocol):
    """Hands what a connection sends to its protocol piece by piece, so that everything else has its turn in between."""

    def __init__(
        self,
        inner: asyncio.Protocol,
        *,
        overflow: Callable[[], None],
        ended: Callable[[], None],
        gone: Callable[[], None],
        secure: bool,
    ) -> None:
        self._inner = inner
        self._overflow = overflow
        self._ended = ended
        self._gone = gone
        self._secure = secure
        self._waiting = bytearray()
        self.connection_made = inner.connection_made  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        goes_on = bool(self._waiting)
        self._waiting += data
        if len(self._waiting) > MOST_WAITING:
            self._waiting.clear()
            self._overflow()
        elif not goes_on:
            self._hand_on()

    def _hand_on(self) -> None:
        piece = bytes(self._waiting[:PIECE])
        del self._waiting[:PIECE]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._hand_on)
        if piece:
            self._inner.data_received(piece)

    def eof_received(self) -> bool:
        """Whether the connection stays open: what was sent before the end may wait to be parsed and answered.

        Not with TLS: asyncio knows no half of a TLS connection.
        """
        if not self._secure:
            self._ended()
        return not self._secure

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.clear()
        self._gone()
        self._inner.connection_lost(exc)


class Door:
    """Lets connections in.

    Args:
        app: answers requests; not started yet.
        limits: of the connections.
        tls: None: plain HTTP.
    """

    def __init__(self, app: web.Application, limits: Connections, tls: ssl.SSLContext | None = None) -> None:
        app.middlewares.insert(0, self._attend)
        self._limits = limits
        self._tls = tls
        self._guests: dict[object, _Guest] = {}  # by their protocol
        self.runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=limits.idle_seconds,
            handler_cancellation=True,  # what is closed is not answered any more
            lingering_time=1.0,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            max_headers=MOST_HEADERS,
        )

    @web.middleware
    async def _attend(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        await asyncio.sleep(
            0
        )  # those that came together take turns with everything else, and end with their connection
        guest = self._guests.get(request.protocol)
        if guest is None:
            return await handler(request)
        if not guest.may_ask(clock.monotonic()):
            self._close(guest, "too fast")
        guest.busy, guest.requests, guest.since = True, guest.requests + 1, clock.monotonic()
        try:
            return await handler(request)
        finally:
            guest.busy, guest.since = False, clock.monotonic()

    async def run(self, listening: socket.socket) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep())
            while True:
                try:
                    accepted, address = await loop.sock_accept(listening)
                except OSError as error:
                    log.warning("connection not accepted", error=str(error))
                    await asyncio.sleep(NO_SOCKET)
                    continue
                self._enter(accepted, str(address[0]), tasks)

    def _enter(self, accepted: socket.socket, peer: str, tasks: asyncio.TaskGroup) -> None:
        if not self._make_room(peer):
            metrics.connections_closed.labels("too many").inc()
            accepted.close()
            return
        accepted.setblocking(False)
        assert self.runner.server is not None  # noqa: S101  set up before this runs
        protocol = self.runner.server()
        guest = self._guests[protocol] = _Guest(accepted, peer)
        guest.shaking = tasks.create_task(self._shake_hands(guest, protocol))

    async def _shake_hands(self, guest: _Guest, protocol: asyncio.Protocol) -> None:
        in_turns = _InTurns(
            protocol,
            overflow=lambda: self._close(guest, "too fast"),
            ended=guest.end,
            gone=lambda: self._forget(protocol),
            secure=self._tls is not None,
        )
        loop = asyncio.get_running_loop()
        timeout = self._limits.handshake_seconds if self._tls is not None else None
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: in_turns, guest.socket, ssl=self._tls, ssl_handshake_timeout=timeout
            )
        except Exception as error:  # noqa: BLE001  this connection's alone: the door stays open for the others
            if not isinstance(error, OSError):  # of TLS and timeouts too: whoever was there is gone
                log.warning("connection not let in", error=repr(error))
            guest.socket.close()
            self._forget(protocol)
        except asyncio.CancelledError:
            guest.socket.close()
            raise
        else:
            guest.transport, guest.shaking = transport, None
            guest.since = clock.monotonic()

    def _make_room(self, peer: str) -> bool:
        """Whether one more may come; another may have to go for it."""
        mine = [guest for guest in self._guests.values() if guest.peer == peer]
        if len(mine) < self._limits.per_peer:
            mine = list(self._guests.values()) if len(self._guests) >= self._limits.total else []
            if not mine:
                return True
        idle = [guest for guest in mine if not guest.busy]
        if not idle:
            return False
        self._close(min(idle, key=lambda guest: guest.since), "replaced")
        return True

    def _forget(self, protocol: object) -> None:
        """It is gone. One that is only closing is not: what it has not read of its answer is held for it."""
        self._guests.pop(protocol, None)

    def _close(self, guest: _Guest, why: str) -> None:
        guest.send_away(why)
        self._guests = {protocol: held for protocol, held in self._guests.items() if held is not guest}

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            now = clock.monotonic()
            for protocol, guest in list(self._guests.items()):
                if guest.is_late(self._limits, now):
                    self._forget(protocol)
                    guest.send_away("late" if guest.busy or not guest.requests else "idle")
                elif guest.is_done(now):
                    guest.leave()


@contextlib.asynccontextmanager
async def serving(
    app: web.Application, host: str, port: int, limits: Connections, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Door]:
    """Serve an application on a port, for as long as the context lasts."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    door = Door(app, limits, tls)
    await door.runner.setup()
    try:
        with socket.create_server(address[:2], family=family, backlog=BACKLOG) as listening:
            listening.setblocking(False)
            accepting = asyncio.create_task(door.run(listening), name="door")
            try:
                yield door
            finally:
                accepting.cancel()
                await asyncio.gather(accepting, return_exceptions=True)
    finally:
        await door.runner.cleanup()
