"""Lists of our kinds: complete ones before the first decision, and only metadata every minute.

kopf's watch misses deletions while it is interrupted; objects that a list does not name are dropped.
"""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import orjson
import structlog

from rfuav_kube import clock
from rfuav_kube.connection import Connection, ConnectionProblem
from rfuav_operator.core.model import Kind
from rfuav_operator.shell import kinds
from rfuav_operator.shell.reading import ingest
from rfuav_operator.shell.reading.state import ClusterState

log = structlog.get_logger()

PAGE = 200
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
RETRY = 1.0  # seconds
SOON = 0.1  # the same after an outage


async def read_all(state: ClusterState, connection: Connection) -> None:
    """Read all jobs, pools and quotas completely, retrying until it succeeds; waits for missing CRDs."""
    for plural in (*kinds.KIND_OF, kinds.POOLS, kinds.QUOTAS):
        while True:
            try:
                await _read(state, connection, plural, whole=True)
                break
            except ConnectionProblem as error:
                away = await connection.reachable()
                if not away:
                    log.warning("not read yet", resource=plural, error=str(error))
                await asyncio.sleep(SOON if away else RETRY)
            except Exception:  # whatever is in an answer, the next one may be another
                log.exception("not read yet", resource=plural)
                await asyncio.sleep(RETRY)


async def keep_dropping(state: ClusterState, connection: Connection, every: float) -> None:
    """Drop deleted objects at intervals, until cancelled."""
    while True:
        await asyncio.sleep(every)
        for plural in (*kinds.KIND_OF, kinds.POOLS, kinds.QUOTAS):
            try:
                await _read(state, connection, plural, whole=False)
            except ConnectionProblem as error:
                if not await connection.reachable():
                    log.warning("not listed", resource=plural, error=str(error))
            except Exception:  # the same
                log.exception("not listed", resource=plural)


async def _read(state: ClusterState, connection: Connection, plural: str, *, whole: bool) -> None:
    kind = kinds.KIND_OF.get(plural)
    found: list[tuple[str, str]] = []
    complete, version = True, 0
    async for page in _pages(connection, plural, accept="" if whole else METADATA_ONLY):
        version = int(page["metadata"]["resourceVersion"])
        for item in page["items"] or ():  # an empty list arrives as null
            try:
                found.append((item["metadata"].get("namespace", ""), item["metadata"]["name"]))
            except (LookupError, TypeError, AttributeError):  # it may be any of those that are held
                log.warning("object without a name", resource=plural)
                complete = False
                continue
            if whole and kind is not None:
                ingest.job(state, kind, item)
            elif whole and plural == kinds.POOLS:
                ingest.pool(state, item)
            elif whole:
                ingest.quota(state, item)
    state.heard_at[plural] = clock.monotonic()
    if not complete:
        return
    if kind is not None:
        state.jobs.retain(((kind, *key) for key in found), version, among=_of(kind))
    elif plural == kinds.POOLS:
        state.pools.retain((name for _, name in found), version)
    else:
        state.quotas.retain((namespace for namespace, _ in found), version)


def _of(kind: Kind) -> Any:
    return lambda key: key[0] is kind


async def _pages(connection: Connection, plural: str, *, accept: str) -> AsyncIterator[Any]:
    after = ""
    while True:
        params = {"limit": str(PAGE)} | ({"continue": after} if after else {})
        status, body, _ = await connection.get_bytes(f"{kinds.OURS}/{plural}", params, accept=accept)
        if status != HTTPStatus.OK:
            why = "its CRD is not installed" if status == HTTPStatus.NOT_FOUND else body[:300].decode(errors="replace")
            raise ConnectionProblem(f"list of {plural}: {status} {why}")
        page = orjson.loads(body)
        yield page
        after = page["metadata"].get("continue", "")
        if not after:
            return
