"""Chromium, and a server that speaks the gateway's interface, in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web
from page.chromium import chromium
from page.cluster_data import Cluster
from page.gateway_double import Double
from playwright.sync_api import Browser, Page, expect

expect.set_options(timeout=15_000)  # a busy machine


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@contextmanager
def serving(double: Double) -> Iterator[str]:
    """The double behind an address of this machine."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)  # Playwright has the loop of the test's thread
    thread.start()
    runner = web.AppRunner(double.app, shutdown_timeout=0.1)

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port: int = runner.addresses[0][1]
        return port

    double.call = loop.call_soon_threadsafe
    port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


@pytest.fixture
def double() -> Double:
    """What the pages of a test are served by; a test changes it before it opens one."""
    return Double(Cluster(), period=0.2)


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, double: Double) -> Iterator[Open]:
    """Open an address of the page; a test fails if the page logs an error, breaks its content security policy or asks another server."""
    errors: list[str] = []
    with serving(double) as url:
        contexts = []

        def open_(
            place: str = "#/", *, size: tuple[int, int] = (1440, 900), theme: Any = "light", language: str = "en-US"
        ) -> Page:
            context = browser.new_context(
                viewport={"width": size[0], "height": size[1]},
                color_scheme=theme,
                locale=language,
                reduced_motion="reduce",
            )
            context.set_default_timeout(15_000)
            contexts.append(context)
            page = context.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on(
                "console",
                lambda message: (
                    errors.append(message.text)
                    if message.type == "error" and "Failed to load resource" not in message.text
                    else None
                ),
            )
            page.on(
                "request",
                lambda request: (
                    None if request.url.startswith((url, "data:")) else errors.append(f"asks {request.url}")
                ),
            )
            page.goto(url + place)
            return page

        yield open_
        for context in contexts:
            context.close()
    assert errors == []
