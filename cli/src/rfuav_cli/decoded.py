"""Objects of the API server as the core's values."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from rfuav_operator.core.capacity import volumes
from rfuav_operator.core.model import Job, JobSpec, JobStatus, Kind, Pool, PoolSpec, Quota, QuotaSpec, Uid
from rfuav_operator.core.stored import packing

T = TypeVar("T")


def job(body: Mapping[str, Any]) -> Job:
    """A job. What cannot be read of it is said in `set_aside`, and left out."""
    meta, spec, stored = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    decoded, unread = _read(spec, JobSpec, JobSpec())
    try:
        plain = packing.unpack(stored)
    except ValueError:
        plain = stored
    status, lost = _read(plain, JobStatus, JobStatus())
    return Job(
        kind=Kind(body["kind"]),
        namespace=meta["namespace"],
        name=meta["name"],
        **_version(meta),
        created=datetime.fromisoformat(meta["creationTimestamp"]),
        deleting="deletionTimestamp" in meta,
        spec=decoded,
        raw_spec=spec,
        status=status,
        claims=volumes.named_in(spec),
        set_aside=unread or lost,
    )


def pool(body: Mapping[str, Any]) -> Pool:
    """A GPUPool."""
    meta = body["metadata"]
    spec, unread = _read(body.get("spec") or {}, PoolSpec, PoolSpec())
    return Pool(
        name=meta["name"],
        **_version(meta),
        spec=spec,
        status=body.get("status") or {},
        unreadable=unread,
    )


def quota(body: Mapping[str, Any]) -> Quota:
    """A GPUQuota."""
    meta = body["metadata"]
    spec, unread = _read(body.get("spec") or {}, QuotaSpec, QuotaSpec())
    return Quota(
        namespace=meta["namespace"],
        **_version(meta),
        spec=spec,
        status=body.get("status") or {},
        unreadable=unread,
    )


def _version(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Which object it is, and as of when."""
    return {
        "uid": Uid(meta["uid"]),
        "resource_version": meta["resourceVersion"],
        "generation": meta.get("generation", 0),
    }


def _read(value: Any, kind: type[T], otherwise: T) -> tuple[T, str]:
    try:
        return msgspec.convert(value, kind), ""
    except (ValueError, RecursionError) as error:
        return otherwise, f"{kind.__name__} of another version: {error}"
