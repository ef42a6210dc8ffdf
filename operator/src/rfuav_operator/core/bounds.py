"""What goes into a status and comes out of one fits the CRDs' schemas: the one place where it is trimmed.

A status that the API server refuses would be refused again with every try, and one that was stored by another version
or tool must not reach where it cannot be computed with.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from rfuav_crds.bounds import MISFIT, fit_to
from rfuav_crds.pool import GPUPoolStatus
from rfuav_crds.quota import GPUQuotaStatus
from rfuav_crds.schema import structural
from rfuav_crds.status import JobStatus as Schema
from rfuav_operator.core.model import Job, JobStatus, Pool, Quota

_INTEGER = "integer"


def _checked(schema: Mapping[str, Any]) -> Any:
    """The bounds of a schema as a type that msgspec checks: at once, where nearly all fits, and without instants."""
    kind = schema.get("type")
    if kind == "string":
        return Annotated[str, msgspec.Meta(max_length=schema.get("maxLength"))]
    if kind in (_INTEGER, "number"):
        within = msgspec.Meta(ge=schema.get("minimum"), le=schema.get("maximum"))
        return Annotated[int, within] if kind == _INTEGER else Annotated[float, within]
    if kind == "array":
        inner = _checked(schema["items"])
        return Annotated[list[inner], msgspec.Meta(max_length=schema["maxItems"])]  # type: ignore[valid-type]
    if "additionalProperties" in schema:
        inner = _checked(schema["additionalProperties"])
        return Annotated[dict[str, inner], msgspec.Meta(max_length=schema["maxProperties"])]  # type: ignore[valid-type]
    if kind == "object":
        # Not even null: a number that is not finite is written as that.
        fields = [(name, _checked(inner) | UnsetType, UNSET) for name, inner in schema["properties"].items()]
        return msgspec.defstruct("Checked", fields)
    return Any


_SCHEMA = structural(Schema)
_WHOLE = fit_to(_SCHEMA)
_FIELDS = [
    (field.name, field.type, msgspec.json.Decoder(_checked(schema)).decode, fit_to(schema))
    for field in msgspec.structs.fields(JobStatus)
    for schema in (_SCHEMA["properties"][field.encode_name],)
]
_EMPTY = JobStatus()
_LIMITS = {Pool: fit_to(structural(GPUPoolStatus)), Quota: fit_to(structural(GPUQuotaStatus))}
_encode = msgspec.json.Encoder().encode


def fitted(job: Job, before: JobStatus = _EMPTY) -> Job:
    """The job with a status that fits; what is the same object in `before` is known to."""
    changes = {}
    for name, kind, check, fit in _FIELDS:
        value = getattr(job.status, name)
        if value is None or value is getattr(before, name):
            continue
        try:
            check(_encode(value))
        except ValueError:  # too much of something, or a text that no JSON holds
            fits = fit(msgspec.to_builtins(value))
            changes[name] = getattr(_EMPTY, name) if fits is MISFIT else msgspec.convert(fits, kind)
    return replace(job, status=replace(job.status, **changes)) if changes else job


def fitted_limits(target: Pool | Quota, status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status of a pool or quota, made to fit."""
    fits: Mapping[str, Any] = _LIMITS[type(target)](status)
    return fits


def stored(status: Any) -> Any:
    """A job's status as the API server holds it, made to fit; what has another type than it should is left so."""
    return _WHOLE(status)
