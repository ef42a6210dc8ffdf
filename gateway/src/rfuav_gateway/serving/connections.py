"""Connections that others cannot exhaust: their number, and the time and size of a request, are bounded.

uvicorn bounds the idle time alone. Here a request has to be complete in time, its line and headers have a size, a
client has to take what it is sent, and connections are counted, in all and for each address.
"""

import asyncio
from collections import Counter
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rfuav_gateway.settings import Limits

LARGEST_HEAD = 64 * 1024  # bytes of the request line and all headers


class Connections:
    """Those that are open."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.refused = 0
        self._by_peer: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many are open."""
        return self._by_peer.total()

    def enter(self, peer: str) -> bool:
        """Whether one more may come from this address; if so, it is counted."""
        if self._by_peer.total() >= self.limits.connections or self._by_peer[peer] >= self.limits.connections_per_peer:
            self.refused += 1
            return False
        self._by_peer[peer] += 1
        return True

    def leave(self, peer: str) -> None:
        """One is closed."""
        self._by_peer[peer] -= 1
        if not self._by_peer[peer]:
            del self._by_peer[peer]


def protocol(open_ones: Connections) -> type[HttpToolsProtocol]:
    """The protocol of one server."""
    limits = open_ones.limits

    class Bounded(HttpToolsProtocol):
        """One connection."""

        _peer: str | None = None
        _late: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None  # set while what was sent waits for the client
        _head = 0  # bytes of the request line and headers
        _unfinished = 0  # bytes of a head whose end has not come
        _in_head = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            peer = self.client[0] if self.client else ""
            if open_ones.enter(peer):
                self._peer = peer
                self._expect_request()
            else:
                transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._request_came()
            self._taken()
            if self._peer is not None:
                open_ones.leave(self._peer)
                self._peer = None
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._unfinished = self._unfinished + len(data) if self._in_head else 0
            if self._unfinished > LARGEST_HEAD:  # the parser keeps a header until its line ends
                self.transport.abort()

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._head, self._in_head = 0, True
            if self._late is None:
                self._expect_request()

        def on_url(self, url: bytes) -> None:
            self._measure(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._measure(len(name) + len(value))
            super().on_header(name, value)

        def on_message_complete(self) -> None:
            self._request_came()
            super().on_message_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stalled = self.loop.call_later(limits.write_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            self._taken()
            super().resume_writing()

        def _taken(self) -> None:
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None

        def _measure(self, more: int) -> None:
            self._head += more
            if self._head > LARGEST_HEAD:
                self.transport.abort()
                raise ValueError("the head of the request is too large")

        def _expect_request(self) -> None:
            self._late = self.loop.call_later(limits.header_seconds, self.transport.abort)

        def _request_came(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Bounded


def uvicorn_options(open_ones: Connections) -> dict[str, Any]:
    """Arguments of `uvicorn.Config` for these limits."""
    return {
        "http": protocol(open_ones),
        "timeout_keep_alive": open_ones.limits.idle_seconds,
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # the peer's address decides who is believed
        "log_config": None,
    }
