"""Plain HTTP for the kubelet and Prometheus: /healthz (the loop turns), /readyz (the caches are filled), /metrics."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import generate_latest

from rfuav_operator.shell import metrics


def app(*, alive: Callable[[], bool], ready: Callable[[], bool]) -> web.Application:
    """The server.

    Args:
        alive: whether the loop turned recently.
        ready: whether everything was read once.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return _word(good=alive(), bad="the loop does not turn")

    async def readyz(_request: web.Request) -> web.Response:
        return _word(good=ready(), bad="the caches are not filled yet")

    async def scrape(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), content_type="text/plain", charset="utf-8")

    server = web.Application()
    server.router.add_get("/healthz", healthz)
    server.router.add_get("/readyz", readyz)
    server.router.add_get("/metrics", scrape)
    return server


def _word(*, good: bool, bad: str) -> web.Response:
    return web.Response(status=200 if good else 503, text="ok" if good else bad)
