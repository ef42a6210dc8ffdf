"""API objects into ClusterState: watch events of our kinds, lists, and the answers to writes all take this way in."""

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from rfuav_operator.core.model import Job, JobStatus, Kind
from rfuav_operator.shell import decode
from rfuav_operator.shell.paths import POOL
from rfuav_operator.shell.state import ClusterState

log = structlog.get_logger()


def job(state: ClusterState, kind: Kind, body: Mapping[str, Any], known: JobStatus | None = None) -> Job | None:
    """Take in a job as read, perhaps after writing the status `known`.

    None when it cannot be read: it is left alone, and the log says why.
    """
    try:
        read = decode.job(kind, body, known)
    except (decode.DecodeError, msgspec.ValidationError) as error:
        log.warning("job cannot be read", kind=kind, name=_name(body), error=str(error))
        return None
    state.jobs.put((kind, read.namespace, read.name), decode.version(body["metadata"]), read)
    return read


def job_gone(state: ClusterState, kind: Kind, body: Mapping[str, Any]) -> None:
    """Take in that a job was deleted."""
    meta = body["metadata"]
    state.jobs.remove((kind, meta["namespace"], meta["name"]), decode.version(meta))


def pool(state: ClusterState, body: Mapping[str, Any]) -> None:
    """Take in a GPUPool as read."""
    try:
        read = decode.pool(body)
    except msgspec.ValidationError as error:
        log.warning("pool cannot be read", kind=POOL, name=_name(body), error=str(error))
        return
    state.pools.put(read.name, decode.version(body["metadata"]), read)


def pool_gone(state: ClusterState, body: Mapping[str, Any]) -> None:
    """Take in that a GPUPool was deleted."""
    state.pools.remove(body["metadata"]["name"], decode.version(body["metadata"]))


def pod(state: ClusterState, body: Mapping[str, Any]) -> None:
    """Take in a pod as a write's answer shows it."""
    read = msgspec.convert(body, decode.PodObject)
    state.pods.put((read.metadata.namespace, read.metadata.name), decode.version(read.metadata), decode.pod(read))


def quota(state: ClusterState, body: Mapping[str, Any]) -> None:
    """Take in a GPUQuota as read."""
    read = decode.quota(body)
    state.quotas.put(read.namespace, decode.version(body["metadata"]), read)


def quota_gone(state: ClusterState, body: Mapping[str, Any]) -> None:
    """Take in that a GPUQuota was deleted."""
    state.quotas.remove(body["metadata"]["namespace"], decode.version(body["metadata"]))


def _name(body: Mapping[str, Any]) -> str:
    meta = body.get("metadata") or {}
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}"
