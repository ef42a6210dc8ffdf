"""A small reader of structural schemas that shares nothing with `rfuav_crds.bounds`: what the API server would say."""

import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
# What Go's strfmt reads as a date-time.
INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)


def schema_of(plural: str, part: str) -> dict[str, Any]:
    """`spec` or `status` of a kind, as its CRD has it."""
    crd = yaml.safe_load((ROOT / "crds" / f"{plural}.rfuav.io.yaml").read_text())
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]


def faults(value: Any, schema: dict[str, Any], path: str = "status") -> Iterator[str]:
    """Where the value breaks the schema."""
    kind = schema.get("type")
    if kind is None:
        return
    if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        yield f"{path}: {value!r:.60} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r:.60} is none of {schema['enum']}"
    if kind == "string":
        if any(0xD800 <= ord(c) <= 0xDFFF for c in value):
            yield f"{path}: a lone surrogate"
        if len(value) > schema.get("maxLength", len(value)):
            yield f"{path}: {len(value)} characters"
        if schema.get("format") == "date-time" and not INSTANT.fullmatch(value):
            yield f"{path}: {value!r:.60} is no instant"
    elif kind in ("integer", "number"):
        if not isfinite(value):
            yield f"{path}: {value} is not finite"
        elif not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{path}: {value} is out of range"
    elif kind == "array":
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{path}: {len(value)} items"
        for i, item in enumerate(value):
            yield from faults(item, schema["items"], f"{path}[{i}]")
    elif kind == "object":
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{path}: without {name}"
        if "additionalProperties" in schema and len(value) > schema.get("maxProperties", len(value)):
            yield f"{path}: {len(value)} entries"
        for name, inner in value.items():
            known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if known is not None:
                yield from faults(inner, known, f"{path}.{name}")
