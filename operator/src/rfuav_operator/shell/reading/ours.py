"""Our four kinds as the core's values. Plain dicts come in, as kopf, lists and answers hand them over.

What cannot be read of one is said in its value: a spec is a problem of its job, a limit that is not understood holds.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
import orjson

from rfuav_crds.modes import StopPolicy
from rfuav_crds.unsupported import unsupported
from rfuav_kube.objects import Bare, DecodeError, Meta, leniently, words
from rfuav_operator.core import ranges
from rfuav_operator.core.capacity import volumes
from rfuav_operator.core.job import podspec
from rfuav_operator.core.model import (
    Assignment,
    GpuShare,
    Job,
    JobSpec,
    JobStatus,
    Kind,
    Phase,
    Pool,
    PoolQuota,
    PoolSpec,
    Quota,
    QuotaSpec,
    Uid,
)
from rfuav_operator.core.stored import bounds, packing
from rfuav_operator.shell.reading import instants


def job(
    kind: Kind,
    body: Mapping[str, Any],
    known: JobStatus | None = None,
    *,
    before: Callable[[Uid], Job | None] = lambda _: None,
) -> Job:
    """A TrainingJob or InferenceJob. An unreadable spec is a problem of the job; an unreadable status sets it aside.

    Args:
        kind: which of the two.
        body: as the API server shows it.
        known: the status that was just written; kept if the stored one, which may have less, corresponds to it.
        before: gives the job as it was last read; an unchanged spec is not decoded again, nor a version that it has.

    Raises:
        DecodeError: its name, UID or version cannot be read.
    """
    meta, unreadable = _meta(body)
    last = before(Uid(meta.uid))
    if last is not None and last.resource_version == meta.resource_version:
        return last  # by the answer to a write, before its watch event
    spec, problem = _spec(body)
    if last is not None and _has_spec(last, kind, meta, spec):
        decoded, problems, claims, spec = last.spec, last.problems, last.claims, last.raw_spec
    else:
        decoded, problems = (JobSpec(), (problem,)) if problem else _read_spec(kind, spec)
        claims = volumes.named_in(spec)
    status, stored, lost = _status(body.get("status"), known)
    return Job(
        kind=kind,
        namespace=meta.namespace,
        name=meta.name,
        uid=Uid(meta.uid),
        resource_version=meta.resource_version,
        generation=meta.generation,
        created=instants.created(meta),
        deleting=meta.deletion_timestamp is not None,
        spec=decoded,
        raw_spec=spec,
        status=status,
        stored=stored,
        problems=problems,
        claims=claims,
        set_aside=unreadable or lost,
    )


def _has_spec(job: Job, kind: Kind, meta: Meta, spec: Mapping[str, Any]) -> bool:
    """Whether a job that was read has this spec: a status write changes neither its generation nor its spec."""
    if (job.uid, job.kind, job.generation) != (meta.uid, kind, meta.generation):
        return False
    try:
        return job.raw_spec == spec
    except RecursionError:  # nested too deep to be compared
        return False


def _read_spec(kind: Kind, spec: Mapping[str, Any]) -> tuple[JobSpec, tuple[str, ...]]:
    """A spec, and what is wrong with it."""
    try:
        problems = unsupported(spec, kind.value)
        decoded = msgspec.convert(spec, JobSpec)
        bounds.check_spec(spec, kind)
        orjson.dumps(spec)  # the pod gets it so
        problems += podspec.too_long(spec)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        return bounds.readable_spec(spec, kind), (f"spec cannot be read: {words(error)}",)
    return decoded, tuple(problems)


def _meta(body: Mapping[str, Any]) -> tuple[Meta, str]:
    try:
        return msgspec.convert(body["metadata"], Meta), ""
    except (ValueError, LookupError):
        try:
            read, why = leniently(orjson.dumps({"metadata": body.get("metadata")}), Bare)
        except TypeError as error:
            raise DecodeError(words(error)) from error
    return read.metadata, why


def _spec(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The spec, and why it is none."""
    spec = body.get("spec") or {}
    return (spec, "") if isinstance(spec, Mapping) else ({}, "spec cannot be read: it is not an object")


def _status(written: Any, known: JobStatus | None) -> tuple[JobStatus, Mapping[str, Any] | None, str]:
    """A job's status, its stored form if that differs, and why not all of it can be read.

    The readable part of an unreadable status is kept: the room that it records is held.
    """
    written = written or {}
    if isinstance(written, Mapping) and "results" in written:  # large, and nothing is decided by them
        written = {name: value for name, value in written.items() if name != "results"}
    plain = fits = bounds.stored(written)
    try:
        if (plain := packing.unpack(fits)) is not fits:
            plain = bounds.stored(plain)
        status = msgspec.convert(plain, JobStatus)
        if known is not None and plain is not fits and packing.pack(known) == written:
            status = known
        ranges.parse(status.shards.completed if status.shards else "")
    except (ValueError, RecursionError, AttributeError) as error:
        return _readable(plain), None, f"status cannot be read: {words(error)}"
    return status, None if plain is written else written, ""


def _readable(written: Any) -> JobStatus:
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(JobStatus) if isinstance(written, Mapping) else ():
        value = written.get(field.encode_name)
        if field.name == "assignments" and isinstance(value, list):
            found[field.name] = tuple(a for one in value for a in _converted(one, Assignment))
        elif value is not None and field.name != "shards":
            found.update((field.name, read) for read in _converted(value, field.type))
    if found.get("assignments"):
        found.setdefault("phase", Phase.ADMITTED)  # it holds their room
    return JobStatus(**found)


def _converted(value: Any, kind: Any) -> list[Any]:
    """The value in a list; nothing if it cannot be read."""
    try:
        return [msgspec.convert(value, kind)]
    except ValueError:
        return []


def pool(body: Mapping[str, Any]) -> Pool:
    """A GPUPool. If its spec cannot be read, it admits nothing: an unreadable limit is not ignored.

    Raises:
        DecodeError: its name, UID or version cannot be read.
    """
    meta, _ = _meta(body)
    spec, problem = _spec(body)
    decoded, problems = _nodes_of(spec), [problem]
    if not problem:
        try:
            problems = unsupported(spec, "GPUPool")
            decoded = msgspec.convert(spec, PoolSpec)
            bounds.check_pool(spec)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            problem = f"spec cannot be read: {words(error)}"
            decoded, problems = _nodes_of(spec), [problem]
    return Pool(
        name=meta.name,
        uid=Uid(meta.uid),
        resource_version=meta.resource_version,
        generation=meta.generation,
        spec=decoded,
        status=_object(body.get("status")),
        problems=tuple(problems),
        unreadable=problem,
    )


def _nodes_of(spec: Mapping[str, Any]) -> PoolSpec:
    """What remains of a pool whose spec cannot be read: its nodes belong to no other pool, and take nothing new."""
    try:
        selector = msgspec.convert(spec.get("nodeSelector") or {}, dict[str, str])
    except msgspec.ValidationError:
        selector = {}
    return PoolSpec(stop_policy=StopPolicy.HOLD, node_selector=selector)


def quota(body: Mapping[str, Any]) -> Quota:
    """A GPUQuota. One that cannot be read holds its namespace: a limit that is not understood is not ignored.

    Raises:
        DecodeError: its name, UID or version cannot be read.
    """
    meta, _ = _meta(body)
    spec, problem = _spec(body)
    decoded, status = QuotaSpec(stop_policy=StopPolicy.HOLD), _object(body.get("status"))
    if not problem:
        try:
            decoded = msgspec.convert(spec, QuotaSpec)
            bounds.check_quota(spec)
        except ValueError as error:
            problem = f"spec cannot be read: {words(error)}"
    if problem:
        decoded = QuotaSpec(stop_policy=StopPolicy.HOLD, pools=_reserved(status))
    return Quota(
        namespace=meta.namespace,
        uid=Uid(meta.uid),
        resource_version=meta.resource_version,
        generation=meta.generation,
        spec=decoded,
        status=status,
        unreadable=problem,
    )


def _reserved(status: Mapping[str, Any]) -> tuple[PoolQuota, ...]:
    """What remains of a quota whose spec cannot be read: the GPUs that the last readable one reserved, by pool."""
    pools = status.get("pools")
    found = [one for each in (pools if isinstance(pools, list) else ()) for one in _converted(each, _Reserve)]
    return tuple(PoolQuota(name=r.name, gpus=GpuShare(nominal=r.reserved, lending_limit=0)) for r in found)


class _Reserve(msgspec.Struct):
    """An entry of a quota's status."""

    name: str
    reserved: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
