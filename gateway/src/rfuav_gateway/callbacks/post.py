"""One POST to a receiver: to permitted addresses alone, without redirects, in bounded time.

The address is checked where its socket is made, so that no answer of a DNS server comes between check and connection.
"""

import errno
import socket
from collections.abc import Collection
from http import HTTPStatus
from typing import Any, Self

import aiohttp

from rfuav_gateway.tasks.callbacks import Network, permitted
from rfuav_kube.objects import printable

SECONDS = 10.0  # for one try, the answer's head included; its body is not read
_SHOWN = 200


class NotPermittedError(OSError):
    """The address is none that may be called."""


class Post:
    """Sends messages.

    Args:
        allowed: networks that may be called beside the public internet.
    """

    def __init__(self, allowed: Collection[Network]) -> None:
        self._allowed = allowed
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, force_close=True, use_dns_cache=False, socket_factory=self._socket)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": "rfuav-gateway"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=SECONDS),
        )
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._session is not None:
            await self._session.close()

    def _socket(self, found: Any) -> socket.socket:
        """A socket for an address that is about to be connected."""
        family, kind, protocol, _, address = found
        if not permitted(str(address[0]), self._allowed):
            raise NotPermittedError(errno.EACCES, f"{address[0]} is not an address that callbacks may go to")
        return socket.socket(family, kind, protocol)

    async def send(self, url: str, body: bytes, headers: dict[str, str]) -> str:
        """Send a message; why it was not taken, or an empty text."""
        if self._session is None:
            raise RuntimeError("it is not open")
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return f"{type(error).__name__}: {printable(str(error))[:_SHOWN]}"
        return "" if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES else f"answered {status}"
