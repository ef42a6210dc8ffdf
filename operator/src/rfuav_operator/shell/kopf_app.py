"""Our own four kinds, watched by kopf: every event goes straight into ClusterState.

`@kopf.on.event` alone: no annotation and no finalizer is ever written, so jobs can be created and deleted while the
operator is down. Handlers return None, because kopf would patch a value into status.
"""

import asyncio
import logging
from typing import Any

import kopf

from rfuav_operator.core.model import Kind
from rfuav_operator.shell import ingest, paths
from rfuav_operator.shell.connection import Connection
from rfuav_operator.shell.state import ClusterState


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
        return connection.kopf_login()

    def watch_jobs(kind: Kind) -> None:
        @kopf.on.event(paths.GROUP, paths.VERSION, paths.PLURAL[kind], registry=registry, id=f"watch-{kind}")
        async def on_job(event: Any, **_: Any) -> None:
            if event["type"] == "DELETED":
                ingest.job_gone(state, kind, event["object"])
            else:
                ingest.job(state, kind, event["object"])

    for kind in Kind:
        watch_jobs(kind)

    @kopf.on.event(paths.GROUP, paths.VERSION, paths.POOLS, registry=registry)
    async def on_pool(event: Any, **_: Any) -> None:
        if event["type"] == "DELETED":
            ingest.pool_gone(state, event["object"])
        else:
            ingest.pool(state, event["object"])

    @kopf.on.event(paths.GROUP, paths.VERSION, paths.QUOTAS, registry=registry)
    async def on_quota(event: Any, **_: Any) -> None:
        if event["type"] == "DELETED":
            ingest.quota_gone(state, event["object"])
        else:
            ingest.quota(state, event["object"])

    return registry


def settings() -> kopf.OperatorSettings:
    """Kopf as cheap as it goes: it only watches."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    made = kopf.OperatorSettings()
    made.persistence.diffbase_storage = NoDiffBase()
    made.posting.enabled = False
    made.scanning.disabled = True  # the CRDs are there before kopf starts; it needs no rights on them
    made.process.ultimate_exiting_timeout = None
    made.queueing.exit_timeout = 0.5
    return made


async def run(state: ClusterState, connection: Connection, *, started: asyncio.Event, stop: asyncio.Event) -> None:
    """Set `started`, then watch until `stop` is set.

    kopf ends by itself when a watch cannot go on; the process is then started again.
    """
    await kopf.operator(
        registry=handlers(state, connection),
        settings=settings(),
        # Peering is off; left to itself kopf would look up the user, who has no name in the image.
        identity="rfuav-operator",  # type: ignore[arg-type]  # a NewType that kopf does not export
        standalone=True,
        clusterwide=True,
        ready_flag=started,
        stop_flag=stop,
    )
