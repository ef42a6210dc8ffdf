"""From a pydantic model to the structural schema that a CRD carries.

In: pydantic's JSON schema, with $refs, anyOf null and titles. Out: one nested object without references. What
Kubernetes cannot express, and every list, map or string without a bound (the cost of CEL rules depends on them), is an
error here rather than a rejection by the API server.
"""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

_KEPT = {
    "type",
    "description",
    "default",
    "enum",
    "format",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
}
_DROPPED = {"title", "$defs"}


class SchemaError(ValueError):
    """A model says something that a structural schema cannot."""


class _Generator(GenerateJsonSchema):
    """pydantic's generator, with the defaults that factories make."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        factory = schema.get("default_factory")
        value = factory() if factory is not None else super().get_default_value(schema)  # type: ignore[call-arg]
        return _plain(value)


def _plain(value: Any) -> Any:
    """A default as JSON. Whole, inner defaults too: the API server checks the rules on the default as it stands."""
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True, exclude_none=True)
    return [_plain(one) for one in value] if isinstance(value, list) else value


def structural(model: type[BaseModel], *, defaults: bool = True) -> dict[str, Any]:
    """The structural schema of `model`, with or without its defaults.

    A status has none: the API server would write them into every object.

    Raises:
        SchemaError: when the model uses what Kubernetes cannot express, or leaves something unbounded.
    """
    raw = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    schema = _convert(raw, raw.get("$defs", {}), model.__name__)
    return schema if defaults else _without_defaults(schema)


def stored_as_applied(node: dict[str, Any]) -> dict[str, Any]:
    """The schema without defaults inside fields that are owned whole: atomic objects, and lists not merged by a key.

    An atomic object that has a default is stored as `{}` where it is left out.
    """
    if node.get("x-kubernetes-map-type") == "atomic":
        return _without_defaults(node) | ({"default": {}} if "default" in node else {})
    found = dict(node)
    if "properties" in node:
        found["properties"] = {name: stored_as_applied(inner) for name, inner in node["properties"].items()}
    if "items" in node:
        whole = node.get("x-kubernetes-list-type", "atomic") != "map"
        found["items"] = _without_defaults(node["items"]) if whole else stored_as_applied(node["items"])
    return found


def _without_defaults(schema: dict[str, Any]) -> dict[str, Any]:
    def bare(node: Any, *, names: bool = False) -> Any:
        if not isinstance(node, dict):
            return node
        kept = {key: value for key, value in node.items() if names or key != "default"}
        return {key: bare(value, names=key == "properties" and not names) for key, value in kept.items()}

    found: dict[str, Any] = bare(schema)
    return found


def _convert(node: dict[str, Any], definitions: dict[str, Any], path: str) -> dict[str, Any]:
    node = _resolve(node, definitions, path)
    out: dict[str, Any] = {}
    for key, value in node.items():
        if key in _DROPPED or (key == "default" and value is None):
            continue
        if key in _KEPT or key.startswith("x-kubernetes-"):
            out[key] = value
        elif key in {"exclusiveMinimum", "exclusiveMaximum"}:
            out[key.replace("exclusiveM", "m")] = value
            out[key] = True
        elif key == "const":
            out["enum"] = [value]
        elif key == "properties":
            out[key] = {name: _convert(inner, definitions, f"{path}.{name}") for name, inner in value.items()}
        elif key == "items":
            out[key] = _convert(value, definitions, f"{path}[]")
        elif key == "additionalProperties":
            if isinstance(value, dict):
                out[key] = _convert(value, definitions, f"{path}.*")
        else:
            raise SchemaError(f"{path}: {key} has no place in a structural schema")
    _check_bounds(out, path)
    return out


def _resolve(node: dict[str, Any], definitions: dict[str, Any], path: str) -> dict[str, Any]:
    """Put the target of a $ref, or the one real branch of an optional, in the place of the node."""
    node = dict(node)
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            target = definitions[node.pop("$ref").removeprefix("#/$defs/")]
        else:
            branches = [branch for branch in node.pop("anyOf") if branch.get("type") != "null"]
            if len(branches) != 1:
                raise SchemaError(f"{path}: a field has one type; use IntOrString for numbers that may be strings")
            target = branches[0]
        rules = [*target.get("x-kubernetes-validations", []), *node.get("x-kubernetes-validations", [])]
        node = {**target, **node}
        if rules:
            node["x-kubernetes-validations"] = rules
    return node


def _check_bounds(node: dict[str, Any], path: str) -> None:
    kind = node.get("type")
    missing = (
        (kind == "string" and "maxLength" not in node and "enum" not in node and "format" not in node)
        or (kind == "array" and "maxItems" not in node)
        or (kind == "object" and "additionalProperties" in node and "maxProperties" not in node)
    )
    if missing:
        raise SchemaError(f"{path}: a {kind} needs an upper bound (Field(max_length=...))")
