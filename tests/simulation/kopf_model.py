"""A model of kopf's watches, which replaces `kopf_app.watch` and calls the operator's own kopf handlers.

Events of one kind come in order. After a cut everything is listed again and handed over as it is: a deletion that
happened meanwhile is never told. An error inside the stream, other than 410, ends kopf.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from simulation.connection import SimConnection
from simulation.feeds import ERROR, Feed

from rfuav_kube.connection import ConnectionProblem
from rfuav_operator.shell.reading import kopf_app
from rfuav_operator.shell.reading.state import ClusterState

RECONNECT = 0.1  # seconds, kopf's watching.reconnect_backoff
RETRY = 1.0
SERVER_TIMEOUT = 600.0  # seconds

Handler = Callable[..., Awaitable[None]]


class KopfEnded(Exception):
    """kopf has given up."""


async def watch(
    state: ClusterState,
    connection: SimConnection,
    *,
    started: asyncio.Event,
    stop: asyncio.Event,
    spawned: Callable[[], None],
) -> None:
    """As `kopf_app.watch`."""
    spawned()
    registry = kopf_app.handlers(state, connection)  # type: ignore[arg-type]
    handlers = {handler.selector.any_name: handler.fn for handler in registry._watching.get_all_handlers()}
    started.set()
    watching = [
        asyncio.create_task(_watch(connection, plural, handler), name=f"kopf-{connection.process}-{plural}")
        for plural, handler in handlers.items()
    ]
    stopping = asyncio.create_task(stop.wait(), name=f"kopf-{connection.process}-stop")
    try:
        done, _ = await asyncio.wait([*watching, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (*watching, stopping):
            task.cancel()
        await asyncio.gather(*watching, stopping, return_exceptions=True)


async def _watch(connection: SimConnection, plural: str, handler: Handler) -> None:
    while True:
        try:
            items, version = await connection.list_objects(plural)
        except ConnectionProblem:
            await asyncio.sleep(RETRY)
            continue
        for item in items:
            await handler(event=_event(None, item))
        connection.sees_no_deletions(plural, version)
        connection.knows(plural, version)
        feed = Feed(connection.world, connection, plural, version)
        connection.world.feeds.append(feed)
        try:
            async for batch in feed.changes(SERVER_TIMEOUT):
                for change in batch:
                    await handler(event=_event(change.type, change.new))
                    connection.knows(plural, change.version)
            await feed.fall_silent()
        finally:
            connection.world.feeds.remove(feed)
        if feed.ends == ERROR:
            raise KopfEnded
        await asyncio.sleep(RECONNECT)


def _event(kind: str | None, body: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": body}
