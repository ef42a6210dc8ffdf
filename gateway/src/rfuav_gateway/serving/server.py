"""The server: uvicorn on this process's loop; at its end it is first not ready, then finishes what it has."""

import asyncio
import logging
from collections.abc import Callable
from types import FrameType

import structlog
import uvicorn
from starlette.types import ASGIApp

from rfuav_gateway.serving.connections import Connections, uvicorn_options
from rfuav_gateway.settings import Settings

log = structlog.get_logger()

LAST_ANSWERS = 10  # seconds for requests under way at the end


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT.

    Args:
        settings: of the gateway.
        app: answers the requests.
        stopping: called when the end begins: the gateway is not ready any more, and streams end.
    """

    def __init__(self, settings: Settings, app: ASGIApp, *, stopping: Callable[[], None]) -> None:
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        self.open_ones = Connections(settings.limits)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                ssl_certfile=settings.tls_certificate,
                ssl_keyfile=settings.tls_key,
                timeout_graceful_shutdown=LAST_ANSWERS,
                **uvicorn_options(self.open_ones),
            )
        )
        self._drain = settings.drain_seconds
        self._stopping = stopping
        self._ending: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: stop being ready, and end when load balancers have noticed."""
        del frame
        asyncio.get_event_loop().call_soon_threadsafe(self.end, sig)

    def end(self, sig: int = 0) -> None:
        """Begin the end; a second call ends it without delay."""
        if self._ending is not None:
            self.should_exit = self.force_exit = True
            return
        log.info("stopping", signal=sig, seconds=self._drain)
        self._stopping()
        self._ending = asyncio.get_running_loop().call_later(self._drain, self._exit)

    def _exit(self) -> None:
        self.should_exit = True
