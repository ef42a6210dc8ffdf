"""What of the chart is generated: `python helm/generate.py`, or with --check a comparison.

In: values.yaml with its comments, the CRD of the GPUPool, the settings of operator and gateway.
Out: in values.schema.json the schema of `defaultPool.spec`, in the chart's README.md the table of values, and
deploy/base/install.yaml, the chart as plain manifests. That needs helm, so a test compares it instead of --check.
"""

import difflib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel
from rich.console import Console

from localcluster import binaries
from rfuav_gateway.settings import Settings as GatewaySettings
from rfuav_operator.settings import Settings as OperatorSettings

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "rfuav-operator"
WIDTH = 150  # of a line of the schema
INSTALL = ROOT / "deploy" / "base" / "install.yaml"
NAMESPACE = "rfuav-system"
BEGIN, END = "<!-- values: `make generate` -->\n", "<!-- end of values -->\n"
SETTINGS: dict[str, type[BaseModel]] = {"settings": OperatorSettings, "gateway.settings": GatewaySettings}
WHOLE = ("defaultPool.spec", "resources", "gateway.resources")  # one row each
_OF_HELM = ("helm.sh/chart:", "app.kubernetes.io/managed-by:", "# Source:")
_LINE = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z]+):(?P<value>[^#]*)(?:#(?P<comment>.*))?$")


class Row(NamedTuple):
    """A row of the table."""

    path: str
    default: str
    text: str


# --- the schema


def draft7(node: dict[str, Any]) -> dict[str, Any]:
    """A structural schema of Kubernetes as JSON schema, in which unknown fields are errors.

    Rules in CEL are left out: the operator checks them at its start, and the API server when the pool is applied.
    """
    found = {name: value for name, value in node.items() if not name.startswith("x-kubernetes-") and name != "default"}
    if node.get("x-kubernetes-int-or-string"):
        found["type"] = ["integer", "string"]
    if "properties" in node:
        found["properties"] = {name: draft7(inner) for name, inner in node["properties"].items()}
        found["additionalProperties"] = False
    elif isinstance(node.get("additionalProperties"), dict):
        found["additionalProperties"] = draft7(node["additionalProperties"])
    if "items" in node:
        found["items"] = draft7(node["items"])
    return found


def schema() -> str:
    """values.schema.json with the schema of the pool as the CRD has it."""
    crd = yaml.safe_load((ROOT / "crds" / "gpupools.rfuav.io.yaml").read_text())
    (version,) = crd["spec"]["versions"]
    found = json.loads((CHART / "values.schema.json").read_text())
    found["definitions"]["gpuPoolSpec"] = draft7(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    return "".join(_written(found, "")) + "\n"


def _written(node: Any, indent: str) -> Iterator[str]:
    """JSON, with what fits on a line on one line."""
    flat = json.dumps(node, ensure_ascii=False)
    if not isinstance(node, dict | list) or (indent and len(indent) + len(flat) <= WIDTH):
        yield flat
        return
    inner = indent + "  "
    left, right = "{}" if isinstance(node, dict) else "[]"
    yield left + "\n"
    entries = (
        [(f"{json.dumps(k)}: ", v) for k, v in node.items()] if isinstance(node, dict) else [("", v) for v in node]
    )
    for number, (name, value) in enumerate(entries):
        yield from (inner, name, *_written(value, inner), "\n" if number == len(entries) - 1 else ",\n")
    yield indent + right


# --- the table


def rows() -> list[Row]:
    """All values, in the order of values.yaml, with the settings that it does not name."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    offered = json.loads((CHART / "values.schema.json").read_text())["properties"]
    texts = _comments((CHART / "values.yaml").read_text())
    found = list(_rows(values, offered, texts, ""))
    unused = texts.keys() - {row.path for row in found}
    if missing := sorted(row.path for row in found if not row.text):
        raise SystemExit(f"helm/rfuav-operator/values.yaml: say in a comment what these are: {', '.join(missing)}")
    if strange := sorted(path for path in unused if not path.startswith(WHOLE)):
        raise SystemExit(f"helm/rfuav-operator/values.yaml: these are no values: {', '.join(strange)}")
    return found


def _comments(text: str) -> dict[str, str]:
    """The description of each value by its path: what is written behind it, or in the lines above it."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    above: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip(" #").rstrip())
            continue
        match = _LINE.match(line)
        if match is None:
            above = []
            continue
        indent = len(match["indent"])
        path = [(depth, name) for depth, name in path if depth < indent] + [(indent, match["name"])]
        words = (match["comment"] or "").strip() or " ".join(above)
        if words:
            found[".".join(name for _, name in path)] = words
        above = []
    return found


def _rows(values: Any, offered: dict[str, Any], texts: dict[str, str], prefix: str) -> Iterator[Row]:
    for name, value in values.items():
        path = f"{prefix}{name}"
        inner = offered[name]
        if path in SETTINGS:
            yield Row(path, "", texts[path])
            yield from _settings(value, inner["properties"], SETTINGS[path], texts, f"{path}.")
        elif "properties" in inner and path not in WHOLE:
            if path in texts:
                yield Row(path, "", texts[path])
            yield from _rows(value, inner["properties"], texts, f"{path}.")
        else:
            yield Row(path, _default(value), texts.get(path, ""))


def _settings(
    values: dict[str, Any], offered: dict[str, Any], model: type[BaseModel], texts: dict[str, str], prefix: str
) -> Iterator[Row]:
    """Those of a section that the schema offers: as values.yaml has them, else as the program has them."""
    for field in model.model_fields.values():
        name = str(field.alias)
        if name not in offered:
            continue
        path, section = f"{prefix}{name}", field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            if path in texts:
                yield Row(path, "", texts[path])
            yield from _settings(values.get(name) or {}, offered[name]["properties"], section, texts, f"{path}.")
            continue
        default = values[name] if name in values else field.get_default(call_default_factory=True)
        yield Row(path, _default(default), texts.get(path) or field.description or "")


def _default(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    if isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    flow = yaml.safe_dump(plain, default_flow_style=True, width=10_000, sort_keys=False)
    return flow.removesuffix("\n").removesuffix("\n...") if plain != "" else '""'


def readme() -> str:
    """The chart's README.md with the table in it."""
    text = (CHART / "README.md").read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for row in rows():
        cells = (f"`{row.path}`", f"`{row.default}`" if row.default else "", row.text.replace("|", "\\|"))
        lines.append("| " + " | ".join(cells) + " |")
    return before + BEGIN + "\n".join(lines) + "\n" + END + after


# --- plain manifests


def install() -> str:
    """The chart with its default values, in a namespace of its own, without the labels that say it is Helm's."""
    helm = binaries.ensure(("helm",), Console(stderr=True))["helm"]
    command = [str(helm), "template", "rfuav", str(CHART), "--namespace", NAMESPACE, "--kube-version", "1.35.4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kept = (line for line in done.stdout.splitlines() if not line.lstrip().startswith(_OF_HELM))
    labels = "".join(f"    pod-security.kubernetes.io/{mode}: restricted\n" for mode in ("enforce", "warn"))
    return (
        "# Generated from helm/rfuav-operator by `make generate`.\n"
        f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels:\n{labels}" + "\n".join(kept) + "\n"
    )


def main(arguments: list[str]) -> int:
    """Write the files, or with --check compare them; 1 when one differs."""
    differs = False
    for file, made in ((CHART / "values.schema.json", schema), (CHART / "README.md", readme)):
        text, found = made(), file.read_text()
        if "--check" not in arguments:
            file.write_text(text)
        elif text != found:
            differs = True
            name = str(file.relative_to(ROOT))
            sys.stdout.writelines(
                difflib.unified_diff(found.splitlines(True), text.splitlines(True), name, "generated")
            )
    if "--check" not in arguments:
        INSTALL.write_text(install())
    if differs:
        sys.stderr.write("files of the chart differ from what they are made of: run `make generate`\n")
    return int(differs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
