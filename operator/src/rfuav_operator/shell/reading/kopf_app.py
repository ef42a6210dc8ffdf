"""Our own four kinds, watched by kopf: every event goes straight into ClusterState.

`@kopf.on.event` alone: no annotation and no finalizer is ever written, so jobs can be created and deleted while the
operator is down. Handlers return None, because kopf would patch a value into status.
"""

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import kopf
import structlog

from rfuav_crds.contract import GROUP, PLURALS, VERSION
from rfuav_kube import clock
from rfuav_kube.connection import Connection
from rfuav_operator.core.model import Kind
from rfuav_operator.shell import kinds
from rfuav_operator.shell.reading import ingest, resync
from rfuav_operator.shell.reading.state import ClusterState

log = structlog.get_logger()

FIRST_BACKOFF, LAST_BACKOFF = 0.2, 30.0  # seconds before kopf is started again
LONG_ENOUGH = 60.0  # seconds of a kopf that ended for a new reason
# They log every request of an outage, and kopf's end; our own log has each once.
TOLD_BY_US = ("kopf._cogs.clients", "kopf._core.reactor.running", "kopf._core.reactor.orchestration")


class NoDiffBase(kopf.DiffBaseStorage):
    """No last-handled state: the default copies every object deeply for differences that nobody reads."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        """Nothing of the body."""
        del body, extra_fields
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> None:
        """Nothing was stored."""

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Store nothing."""


def handlers(state: ClusterState, connection: Connection) -> kopf.OperatorRegistry:
    """The handlers that feed `state`."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        found = connection.credentials()
        return kopf.ConnectionInfo(**found._asdict(), scheme="Bearer" if found.token else None)

    def watch_jobs(kind: Kind) -> None:
        @kopf.on.event(GROUP, VERSION, PLURALS[kind], registry=registry, id=f"watch-{kind}")
        async def on_job(event: Any, **_: Any) -> None:
            if event["type"] == "DELETED":
                ingest.job_gone(state, kind, event["object"])
            else:
                ingest.job(state, kind, event["object"])

    for kind in Kind:
        watch_jobs(kind)

    @kopf.on.event(GROUP, VERSION, kinds.POOLS, registry=registry)
    async def on_pool(event: Any, **_: Any) -> None:
        if event["type"] == "DELETED":
            ingest.pool_gone(state, event["object"])
        else:
            ingest.pool(state, event["object"])

    @kopf.on.event(GROUP, VERSION, kinds.QUOTAS, registry=registry)
    async def on_quota(event: Any, **_: Any) -> None:
        if event["type"] == "DELETED":
            ingest.quota_gone(state, event["object"])
        else:
            ingest.quota(state, event["object"])

    return registry


def settings() -> kopf.OperatorSettings:
    """Kopf as cheap as it goes: it only watches."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    for told in TOLD_BY_US:
        logging.getLogger(told).setLevel(logging.CRITICAL)
    made = kopf.OperatorSettings()
    made.persistence.diffbase_storage = NoDiffBase()
    made.posting.enabled = False
    made.scanning.disabled = True  # the CRDs exist before kopf starts; it needs no rights on them
    made.process.ultimate_exiting_timeout = None
    made.queueing.exit_timeout = 0.5
    made.networking.error_backoffs = Backoffs()
    made.networking.connect_timeout = 5.0
    made.networking.request_timeout = 60.0
    return made


class Backoffs(Iterable[float]):
    """Seconds between tries of one request of kopf: short and without end, as its watches must outlast any outage."""

    def __iter__(self) -> Iterator[float]:
        """Growing to the longest."""
        for longest in itertools.chain((0.2, 0.5), itertools.repeat(1.2)):
            yield longest * random.uniform(0.5, 1.0)  # noqa: S311  jitter


class _Everything(frozenset[Any]):
    """kopf cancels at its end all tasks of the process that are not in here."""

    def __contains__(self, _: object) -> bool:
        return True


async def run(
    state: ClusterState,
    connection: Connection,
    *,
    started: asyncio.Event,
    stop: asyncio.Event,
    spawned: Callable[[], None],
) -> None:
    """Read everything, set `started`, and watch until `stop` is set.

    kopf ends by itself when a watch cannot go on; everything is then read, and it is started, again.

    `spawned` is called whenever kopf has put its signal handlers in place of others.
    """
    backoff = FIRST_BACKOFF
    while True:
        await resync.read_all(state, connection)
        began = clock.monotonic()
        try:
            await watch(state, connection, started=started, stop=stop, spawned=spawned)
            ended = "it gave no reason"
        except Exception as error:  # noqa: BLE001  whatever ended kopf, the process goes on with another
            ended = f"{type(error).__name__}: {error}"
        if stop.is_set():
            return
        if await connection.reachable() or clock.monotonic() - began > LONG_ENOUGH:
            backoff = FIRST_BACKOFF
        log.warning("kopf has ended; its watches start again", error=ended, wait=backoff)
        await asyncio.sleep(backoff)
        backoff = min(backoff * 2, LAST_BACKOFF)


async def watch(
    state: ClusterState,
    connection: Connection,
    *,
    started: asyncio.Event,
    stop: asyncio.Event,
    spawned: Callable[[], None],
) -> None:
    """kopf, until `stop` is set or one of its watches cannot go on."""
    tasks = await kopf.spawn_tasks(
        registry=handlers(state, connection),
        settings=settings(),
        # Peering is off; otherwise kopf would look up the user, who has no name in the image.
        identity="rfuav-operator",  # type: ignore[arg-type]  # a NewType that kopf does not export
        standalone=True,
        clusterwide=True,
        ready_flag=started,
        stop_flag=stop,
    )
    spawned()
    await kopf.run_tasks(tasks, ignored=_Everything())
