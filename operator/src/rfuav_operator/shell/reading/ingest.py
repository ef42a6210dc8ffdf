"""API objects into ClusterState: watch events of our kinds, lists, and the answers to writes all take this way in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from msgspec.structs import replace

from rfuav_crds.modes import StopPolicy
from rfuav_kube import objects
from rfuav_kube.pods import PodObject
from rfuav_operator.core.model import Job, JobStatus, Kind, Pool, Quota
from rfuav_operator.shell.kinds import POOL, QUOTA
from rfuav_operator.shell.reading import ours, pods
from rfuav_operator.shell.reading.state import ClusterState

log = structlog.get_logger()


def job(state: ClusterState, kind: Kind, body: Mapping[str, Any], written: JobStatus | None = None) -> Job | None:
    """Take in a job as read, perhaps after writing a status.

    None when its namespace is not served, or when not even its name can be read: then the log says why.
    """
    with _apart(kind, body):
        read = read_job(state, kind, body, written)
        if not state.serves(read.namespace):
            return None
        if state.jobs.put((kind, read.namespace, read.name), int(read.resource_version), read):
            _say(kind, body, read.set_aside)
        return read
    return None


def read_job(state: ClusterState, kind: Kind, body: Mapping[str, Any], written: JobStatus | None = None) -> Job:
    """A job as it may come in; of one whose status can hardly be read, the room that was recorded before stays.

    Raises:
        DecodeError: its name, UID or version cannot be read.
    """
    read = ours.job(kind, body, written, before=state.read_job)
    known = state.read_job(read.uid)
    if read.set_aside and known is not None and not read.status.assignments:
        return replace(read, status=_with_room(read.status, known.status))
    return read


def job_gone(state: ClusterState, kind: Kind, body: Mapping[str, Any]) -> None:
    """Take in that a job was deleted."""
    with _apart(kind, body):
        meta = body["metadata"]
        state.jobs.remove((kind, meta["namespace"], meta["name"]), objects.version(meta))


def pool(state: ClusterState, body: Mapping[str, Any]) -> None:
    """Take in a GPUPool as read."""
    with _apart(POOL, body):
        read = read_pool(state, body)
        if state.pools.put(read.name, int(read.resource_version), read):
            _say(POOL, body, read.unreadable)


def read_pool(state: ClusterState, body: Mapping[str, Any]) -> Pool:
    """A GPUPool as it may come in; the nodes and limits of one that cannot be read stay what they were.

    Raises:
        DecodeError: its name, UID or version cannot be read.
    """
    read = ours.pool(body)
    held = state.pools.get(read.name)
    if read.unreadable and held is not None and held.uid == read.uid:
        stop = StopPolicy.HOLD if held.spec.stop_policy == StopPolicy.NONE else held.spec.stop_policy
        return replace(read, spec=replace(held.spec, stop_policy=stop))
    return read


def pool_gone(state: ClusterState, body: Mapping[str, Any]) -> None:
    """Take in that a GPUPool was deleted."""
    with _apart(POOL, body):
        state.pools.remove(body["metadata"]["name"], objects.version(body["metadata"]))


def pod(state: ClusterState, body: Mapping[str, Any]) -> None:
    """Take in a pod as a write's answer shows it."""
    with _apart("Pod", body):
        read, why = objects.converted(body, PodObject)
        key = read.metadata.namespace, read.metadata.name
        state.pods.put(key, objects.version(read.metadata), pods.pod(read, why))


def quota(state: ClusterState, body: Mapping[str, Any]) -> None:
    """Take in a GPUQuota as read, of a namespace that is served."""
    with _apart(QUOTA, body):
        read = read_quota(state, body)
        if not state.serves(read.namespace):
            return
        if state.quotas.put(read.namespace, int(read.resource_version), read):
            _say(QUOTA, body, read.unreadable)


def read_quota(state: ClusterState, body: Mapping[str, Any]) -> Quota:
    """A GPUQuota as it may come in; what one that cannot be read keeps for its namespace stays kept.

    Raises:
        DecodeError: its name, UID or version cannot be read.
    """
    read = ours.quota(body)
    held = state.quotas.get(read.namespace)
    if read.unreadable and held is not None and held.uid == read.uid:
        return replace(read, spec=replace(held.spec, stop_policy=StopPolicy.HOLD))
    return read


def quota_gone(state: ClusterState, body: Mapping[str, Any]) -> None:
    """Take in that a GPUQuota was deleted."""
    with _apart(QUOTA, body):
        state.quotas.remove(body["metadata"]["namespace"], objects.version(body["metadata"]))


def _with_room(read: JobStatus, known: JobStatus) -> JobStatus:
    """A status that can hardly be read, with the room that was recorded before."""
    if not known.assignments:
        return read
    return replace(read, phase=read.phase or known.phase, assignments=known.assignments)


@contextmanager
def _apart(kind: str, body: Any) -> Iterator[None]:
    """Whatever fails for this object is its own: the log has it, and the others come in as ever."""
    try:
        yield
    except objects.DecodeError as error:
        log.warning("object cannot be read", kind=kind, name=_name(body), error=str(error))
    except Exception:
        log.exception("object could not be processed", kind=kind, name=_name(body))


def _say(kind: str, body: Any, why: str) -> None:
    if why:
        log.warning("object set aside", kind=kind, name=_name(body), error=why)


def _name(body: Any) -> str:
    try:
        meta = body["metadata"]
        return f"{meta.get('namespace', '')}/{meta.get('name', '')}"
    except (LookupError, TypeError, AttributeError):
        return "?"
