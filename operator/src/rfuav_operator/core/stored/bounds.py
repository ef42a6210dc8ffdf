"""What goes into a status and comes out of one fits the CRDs' schemas: the one place where it is trimmed.

A status that the API server refuses would be refused again with every try, and one that was stored by another version
or tool must not reach where it cannot be computed with.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from rfuav_crds.bounds import MISFIT, ORDINARY, Fit, clean, fit_to
from rfuav_crds.inference import InferenceJobSpec
from rfuav_crds.pool import GPUPoolSpec, GPUPoolStatus
from rfuav_crds.quota import GPUQuotaSpec, GPUQuotaStatus
from rfuav_crds.running import Resources as ResourcesSchema
from rfuav_crds.schema import structural
from rfuav_crds.status import RESULTS_BYTES
from rfuav_crds.status import JobStatus as Schema
from rfuav_crds.training import TrainingJobSpec
from rfuav_operator.core import quantity
from rfuav_operator.core.model import Job, JobSpec, JobStatus, Kind, Pool, PoolSpec, Quota, QuotaSpec, Resources

_INTEGER = "integer"


def _checked(schema: Mapping[str, Any]) -> Any:
    """The bounds of a schema as a type that msgspec checks at once: nearly all fits."""
    kind = schema.get("type")
    if schema.get("format") == "date-time":
        return Annotated[str, msgspec.Meta(pattern=ORDINARY)]
    if kind == "string":
        return Annotated[str, msgspec.Meta(max_length=schema.get("maxLength"))]
    if kind in (_INTEGER, "number"):
        within = msgspec.Meta(ge=schema.get("minimum"), le=schema.get("maximum"))
        return Annotated[int, within] if kind == _INTEGER else Annotated[float, within]
    if kind == "array":
        inner = _checked(schema["items"])
        within = msgspec.Meta(min_length=schema.get("minItems"), max_length=schema["maxItems"])
        return Annotated[list[inner], within]  # type: ignore[valid-type]
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
_check_whole = msgspec.json.Decoder(_checked(_SCHEMA)).decode
_encode = msgspec.json.Encoder().encode


def fitted(job: Job, before: JobStatus = _EMPTY) -> Job:
    """The job with a status that fits; what is the same object in `before` is known to."""
    try:
        _check_whole(_encode(job.status))
    except ValueError:  # too much of something, or a text that no JSON holds
        return _trimmed(job, before)
    return job


def _trimmed(job: Job, before: JobStatus) -> Job:
    """Field by field: those that fit stay the objects that they are."""
    changes = {}
    for name, kind, check, fit in _FIELDS:
        value = getattr(job.status, name)
        if value is None or value is getattr(before, name):
            continue
        try:
            check(_encode(value))
        except ValueError:
            fits = fit(msgspec.to_builtins(value))
            changes[name] = getattr(_EMPTY, name) if fits is MISFIT else msgspec.convert(fits, kind)
    return replace(job, status=replace(job.status, **changes)) if changes else job


def fitted_limits(target: Pool | Quota, status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status of a pool or quota, made to fit."""
    fits: Mapping[str, Any] = _LIMITS[type(target)](status)
    return fits


def stored(status: Any) -> Any:
    """A job's status as the API server holds it, made to fit; what has another type than it should is left so."""
    try:
        _check_whole(_encode(status))
    except (ValueError, OverflowError, RecursionError):
        return _WHOLE(status)
    return status


# --- results: they pass through the operator, which keeps none

_RESULTS = _SCHEMA["properties"]["results"]
_read_results = msgspec.json.Decoder(_checked(_RESULTS)).decode


def results(value: Any) -> bytes:
    """`status.results` as JSON, without fields that the CRD does not have.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        known = msgspec.to_builtins(_read_results(_encode(value)))
        if "classes" in known:  # all else is numbers, within their bounds
            known["classes"] = [clean(name) for name in known["classes"]]
        found = _encode(known)
    except (RecursionError, OverflowError) as error:
        raise ValueError("nested too deeply, or a number too large") from error
    if len(found) > RESULTS_BYTES:
        raise ValueError(f"{len(found)} bytes, of at most {RESULTS_BYTES}")
    curves = known.get("history", {})
    if any(len(curve) != len(curves.get("epochs", ())) for curve in curves.values()):
        raise ValueError("history: every curve has a value for each of the epochs")
    classes = len(known.get("classes", ()))
    if any(row >= classes or column >= classes for row, column, _ in known.get("confusion", ())):
        raise ValueError(f"confusion: there are only {classes} classes")
    return found


def replacing(results: bytes) -> dict[str, Any]:
    """The merge patch that makes these the results, whatever was there before."""
    return _all_of(msgspec.json.decode(results), _RESULTS)


def _all_of(value: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The object with null for what it does not have."""
    return {
        name: _all_of(value[name], inner) if name in value and "properties" in inner else value.get(name)
        for name, inner in schema["properties"].items()
    }


# --- specs


def _read_by(reader: type[msgspec.Struct], schema: Mapping[str, Any]) -> Mapping[str, Fit]:
    """The bounds of the numbers and sizes among those fields that the core reads."""
    names = [field.encode_name for field in msgspec.structs.fields(reader)]
    return {name: fit_to(schema["properties"][name], texts=False) for name in names if name in schema["properties"]}


_SPECS = {
    Kind.TRAINING: _read_by(JobSpec, structural(TrainingJobSpec)),
    Kind.INFERENCE: _read_by(JobSpec, structural(InferenceJobSpec)),
}
_RESOURCES = _read_by(Resources, structural(ResourcesSchema))
_POOL_SPEC = _read_by(PoolSpec, structural(GPUPoolSpec))
_QUOTA_SPEC = _read_by(QuotaSpec, structural(GPUQuotaSpec))
_QUANTITIES: Mapping[str, Callable[[Any], int]] = {
    name: quantity.milli if name.startswith("cpu") else quantity.whole
    for name, schema in structural(ResourcesSchema)["properties"].items()
    if "x-kubernetes-int-or-string" in schema
}
"""Of `spec.resources`, and how each is read."""


def check_spec(spec: Mapping[str, Any], kind: Kind) -> None:
    """Raise ValueError, naming the field, when a job's spec is beyond what its CRD allows."""
    _check(spec, _SPECS[kind])
    asked = spec.get("resources") or {}
    for name, read in _QUANTITIES.items():
        try:
            read(asked.get(name))
        except ValueError as error:
            raise ValueError(f"spec.resources.{name}: {error}") from error


def readable_spec(spec: Mapping[str, Any], kind: Kind) -> JobSpec:
    """What can be read, field by field and within the bounds, of a job's spec that cannot be read whole.

    The job waits; but where it runs already, how many pods make it whole is not to be read as the default.
    """
    found = _fields(spec, JobSpec, _SPECS[kind])
    asked = spec.get("resources")
    if isinstance(asked, Mapping):
        good = {name: value for name, value in asked.items() if name not in _QUANTITIES or _is_quantity(name, value)}
        found["resources"] = Resources(**_fields(good, Resources, _RESOURCES))
    found.setdefault("pool", str(spec.get("pool") or "default"))
    return JobSpec(**found)


def _fields(value: Mapping[str, Any], reader: type[msgspec.Struct], fits: Mapping[str, Fit]) -> dict[str, Any]:
    """Those fields that can be read, as their names are in `reader`."""
    found = {}
    for field in msgspec.structs.fields(reader):
        one = fits[field.encode_name](value.get(field.encode_name)) if field.encode_name in fits else None
        if one is not None and one is not MISFIT:
            with suppress(ValueError):
                found[field.name] = msgspec.convert(one, field.type)
    return found


def _is_quantity(name: str, value: Any) -> bool:
    try:
        _QUANTITIES[name](value)
    except (ValueError, TypeError):
        return False
    return True


def check_pool(spec: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the field, when a pool's spec is beyond what its CRD allows."""
    _check(spec, _POOL_SPEC)
    for tier in spec.get("perGPU") or ():
        quantity.whole(tier.get("minMemory"))
    sharing = spec.get("gpuSharing")
    if sharing is not None and quantity.whole(sharing.get("memory")) < 1:
        raise ValueError("spec.gpuSharing.memory: write the memory of one GPU, as in 24Gi")


def check_quota(spec: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the field, when a quota's spec is beyond what its CRD allows."""
    _check(spec, _QUOTA_SPEC)


def _check(spec: Mapping[str, Any], fields: Mapping[str, Fit]) -> None:
    for name, fit in fields.items():
        value = spec.get(name)
        if value is not None and fit(value) is not value:
            raise ValueError(f"spec.{name} is out of bounds")
