"""Plain HTTP for the kubelet and Prometheus: /healthz, /readyz, /metrics.

Healthy: the process turns. Ready: the caches are full, and no other release of the operator serves the cluster.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from rfuav_kube import clock
from rfuav_operator.shell import metrics

BEAT = 5.0  # seconds between two beats of a wait
STUCK_AFTER = 60.0  # seconds without a beat after which the process should be started again


class Pulse:
    """Whether the process turns. The loop beats with every turn; whatever is waited for without it beats meanwhile."""

    def __init__(self) -> None:
        self._at = clock.monotonic()

    def beat(self) -> None:
        """Something has moved."""
        self._at = clock.monotonic()

    @property
    def alive(self) -> bool:
        """Whether it beat recently."""
        return clock.monotonic() - self._at < STUCK_AFTER

    @contextlib.asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Beat for as long as the event loop turns: around a wait that may take any time, as that for the lease."""
        beating = asyncio.create_task(self._keep_beating(), name="pulse")
        try:
            yield
        finally:
            beating.cancel()

    async def _keep_beating(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(BEAT)


def app(
    *, alive: Callable[[], bool], unready: Callable[[], str], registry: CollectorRegistry = metrics.registry
) -> web.Application:
    """The server.

    Args:
        alive: whether the process turned recently.
        unready: why it is not ready; empty: it is.
        registry: the metrics.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return _word("" if alive() else "the main loop is stuck")

    async def readyz(_request: web.Request) -> web.Response:
        return _word(unready())

    async def scrape(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")

    server = web.Application()
    server.router.add_get("/healthz", healthz)
    server.router.add_get("/readyz", readyz)
    server.router.add_get("/metrics", scrape)
    return server


def _word(problem: str) -> web.Response:
    return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK, text=problem or "ok")
