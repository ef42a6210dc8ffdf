"""A small API server for tests of the shell: real HTTP, answers scripted by the test."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from rfuav_kube.connection import Connection

Handler = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]


class FakeApi:
    """Hands every request but that of /readyz to `handle`, and remembers (method, path, body)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, Any]] = []
        self.ready = True
        self.handle: Handler = self._nothing

    async def _nothing(self, request: web.Request, body: Any) -> web.StreamResponse:
        return answer(404, {"kind": "Status", "reason": "NotFound", "message": "not found"})

    async def _any(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/readyz":
            return web.Response(status=200 if self.ready else 500, text="ok" if self.ready else "etcd failed")
        text = await request.text()
        body = json.loads(text) if text else None
        self.seen.append((request.method, request.path, body))
        return await self.handle(request, body)


def answer(status: int, body: Any, **headers: str) -> web.Response:
    """A JSON answer."""
    return web.json_response(body, status=status, headers=headers)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[FakeApi, Connection]]:
    """The fake server, and a connection to it."""
    api = FakeApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api._any)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "secret"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    try:
        async with Connection(str(kubeconfig), agent="test") as connection:
            yield api, connection
    finally:
        await runner.cleanup()


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until `condition` holds; `seconds` end a test that would never end, on however slow a machine."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  any condition, not one that somebody announces
            await asyncio.sleep(0.005)
