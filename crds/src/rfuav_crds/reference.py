"""docs/api.md: the reference that people read, from the same models as the CRDs."""

from collections.abc import Iterator, Mapping
from typing import Any

from rfuav_crds.crd import CRDS, Crd, manifest

_HEAD = """\
# The API, field by field

Generated from `crds/src/rfuav_crds` by `make generate`. The cluster says the same: `kubectl explain tj.spec.training`.
Quantities are written as Kubernetes writes them: `500m`, `16Gi`, `100M`. A field without a default may be left out
unless it says *required*.
"""


def reference() -> str:
    """The whole page, as Markdown."""
    return _HEAD + "".join(_kind(crd) for crd in CRDS)


def _kind(crd: Crd) -> str:
    schema = manifest(crd, stored=False)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    lines = [f"\n## {crd.kind}\n\n{schema['description']} Short name `{crd.short}`; {crd.scope.lower()}.\n\n"]
    rows: list[str] = []
    rules = [_rule("", rule) for rule in schema.get("x-kubernetes-validations", [])]
    for path, node, required in _fields(schema["properties"]["spec"], "spec", required=True):
        rows.append(_row(path.removeprefix("spec."), node, required=required))
        rules += [
            _rule(path, rule) for rule in node.get("x-kubernetes-validations", []) if "oldSelf" not in rule["rule"]
        ]
    lines += ["| field of `spec` | type | default | meaning |\n|---|---|---|---|\n", *rows[1:]]
    if rules:
        lines += ["\nRules:\n\n", *dict.fromkeys(rules)]
    lines += ["\n| field of `status` | type | meaning |\n|---|---|---|\n"]
    for name, node in schema["properties"]["status"]["properties"].items():
        lines.append(f"| `{name}` | {_type(node)} | {_cell(node['description'])} |\n")
    return "".join(lines)


def _fields(node: dict[str, Any], path: str, *, required: bool) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every field below `node`, parents first: its path, its schema, whether it must be written."""
    yield path, node, required
    inner = node.get("items", {}) if node.get("type") == "array" else node
    mark = "[]" if inner is not node else ""
    for name, child in inner.get("properties", {}).items():
        yield from _fields(child, f"{path}{mark}.{name}", required=name in inner.get("required", []))


def _row(path: str, node: dict[str, Any], *, required: bool) -> str:
    text = node["description"].partition(" Default:")[0].removesuffix(" Required.")
    return f"| `{path}` | {_type(node)} | {default_of(node, required=required)} | {_cell(text)} |\n"


def default_of(node: Mapping[str, Any], *, required: bool) -> str:
    """The default of a field in a table of a reference; empty: it has none worth a word."""
    if required:
        return "*required*"
    value = node.get("default")
    if value in (None, "") or isinstance(value, dict | list):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(node: dict[str, Any]) -> str:
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"] if value != "")
    if node.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}"
    return str(node.get("format", node["type"]))


def _rule(path: str, rule: dict[str, str]) -> str:
    return f"- `{(path + rule.get('fieldPath', '')).lstrip('.')}`: {rule['message']}\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
