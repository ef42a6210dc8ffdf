"""docs/rest-api.md: the reference that people read, from the OpenAPI document."""

from collections.abc import Iterator, Mapping
from typing import Any

from rfuav_crds.reference import default_of

Schema = Mapping[str, Any]
_HEAD = """\
# The REST interface, field by field

Generated from the code by `make generate`. A running gateway shows the same at `/docs`, and as OpenAPI at
`/openapi.json`; `rfuav-gateway openapi` prints it. What the calls mean, credentials, namespaces and rate limits:
[the gateway](gateway.md).

Any call may answer 400, 401, 403, 404, 409, 413, 422, 429 or 503; calls for logs also 410 (the log is gone), calls of
preprocessing also 501 (there is none here). All these are an [Error](#error). Times are UTC without a zone. A field
without a default may be left out unless it says *required*.
"""


def reference(document: Schema) -> str:
    """The whole page, as Markdown.

    Args:
        document: OpenAPI 3.1, as FastAPI writes it.
    """
    operations = [
        (method.upper(), path, operation)
        for path, operations in sorted(document["paths"].items())
        for method, operation in operations.items()
    ]
    lines = [_HEAD, "\n## Calls\n\n| call | meaning |\n|---|---|\n"]
    lines += [
        f"| [`{method} {path}`](#{_anchor(method, path)}) | {_first(one)} |\n" for method, path, one in operations
    ]
    for method, path, operation in operations:
        lines += [f"\n### {method} {path}\n\n", *_operation(operation)]
    lines.append("\n## Bodies\n")
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += _body(name, schema)
    return "".join(lines)


def _operation(operation: Schema) -> Iterator[str]:
    yield _text(operation["description"]) + "\n\n"
    if parameters := operation.get("parameters"):
        yield "| parameter | in | type | default | meaning |\n|---|---|---|---|---|\n"
        for one in parameters:
            default = default_of(one["schema"], required=one.get("required", False))
            kind = _type(one["schema"]).removesuffix(" or null")
            yield f"| `{one['name']}` | {one['in']} | {kind} | {default} | {_cell(one)} |\n"
        yield "\n"
    if body := operation.get("requestBody"):
        yield f"Body: {_content(body)}.\n\n"
    answers = {
        status: one for status, one in operation["responses"].items() if status < "400"
    }  # the head says errors once
    yield from (f"Answer {status}: {_content(one)}.\n" for status, one in answers.items())


def _content(one: Schema) -> str:
    """What a body or an answer holds, and a description that is not FastAPI's own."""
    kinds = [
        f"{_type(held['schema'])}" + ("" if media == "application/json" else f" (`{media}`)")
        if held.get("schema")
        else f"`{media}`"
        for media, held in one.get("content", {}).items()
    ]
    said = one.get("description", "").rstrip(".")
    return (", or ".join(kinds) or "nothing") + ("" if said in ("", "Successful Response") else f". {said}")


def _body(name: str, schema: Schema) -> Iterator[str]:
    yield f"\n### {name}\n\n{_text(schema.get('description', ''))}\n\n"
    yield "| field | type | default | meaning |\n|---|---|---|---|\n"
    required = schema.get("required", ())
    for field, one in schema.get("properties", {}).items():
        yield f"| `{field}` | {_type(one)} | {default_of(one, required=field in required)} | {_cell(one)} |\n"


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema or "const" in schema:
        return " \\| ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if options := schema.get("anyOf", schema.get("oneOf")):
        return " or ".join(_type(one) for one in options)
    if "allOf" in schema:
        return _type(schema["allOf"][0])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"map of {_type(schema['additionalProperties'])}"
    return "time" if schema.get("format") in ("date-time", "date-time-local") else str(schema.get("type", "any"))


def _cell(one: Schema) -> str:
    said = one.get("description") or one.get("schema", {}).get("description", "")
    return _text(said).replace("|", "\\|")


def _first(operation: Schema) -> str:
    return _cell({"description": operation["description"].partition("\n\n")[0]})


def _text(said: str) -> str:
    """Without the line breaks of the code."""
    return "\n\n".join(" ".join(part.split()) for part in said.split("\n\n"))


def _anchor(method: str, path: str) -> str:
    """As GitHub makes it of the heading."""
    kept = (letter for letter in f"{method} {path}".lower() if letter.isalnum() or letter in "-_ ")
    return "".join(kept).replace(" ", "-")
