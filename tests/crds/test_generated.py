"""The generator: structural schemas, bounds, descriptions; and no generated file has drifted."""

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from rfuav_crds.__main__ import drift, generated, main
from rfuav_crds.common import Spec
from rfuav_crds.crd import CRDS, Crd, manifest
from rfuav_crds.reference import reference
from rfuav_crds.rules import IMMUTABLE, SET, Rule, unchanged
from rfuav_crds.schema import SchemaError, structural

ROOT = Path(__file__).parents[2]


def nodes(schema: dict[str, Any], path: str = ""):
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def schema_of(crd: Crd) -> dict[str, Any]:
    return manifest(crd)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def test_no_generated_file_has_drifted():
    assert drift(ROOT) == []


def test_the_check_fails_with_a_diff_when_a_file_drifts(tmp_path: Path, capsys):
    (tmp_path / "crds").mkdir()
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 0
    victim = tmp_path / "crds" / "gpupools.rfuav.io.yaml"
    victim.write_text(victim.read_text().replace("maximum: 1000", "maximum: 999", 1))
    capsys.readouterr()
    assert main(["--check", "--root", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "maximum: 999" in shown.out
    assert "make generate" in shown.err
    (tmp_path / "crds" / "old.yaml").write_text("")
    assert any("old.yaml" in line for line in drift(tmp_path))


def test_a_folder_that_is_no_repository_is_refused(tmp_path: Path, capsys):
    with pytest.raises(SystemExit):
        main(["--root", str(tmp_path)])
    assert "root of the repository" in capsys.readouterr().err


def test_the_chart_carries_the_same_crds():
    files = generated()
    for crd in CRDS:
        name = f"{crd.name}.yaml"
        assert files[Path("crds") / name] == files[Path("helm/rfuav-operator/files/crds") / name]


@pytest.mark.parametrize("crd", CRDS, ids=lambda crd: crd.kind)
def test_every_field_is_described_and_names_its_default(crd: Crd):
    for part in ("spec", "status"):
        for path, node in nodes(schema_of(crd)["properties"][part], f".{part}"):
            if path.endswith("[]"):
                continue
            text = node.get("description", "")
            assert text.endswith((".", "...")), path
            scalar = (
                node.get("type") in ("string", "integer", "number", "boolean") or "x-kubernetes-int-or-string" in node
            )
            if part == "spec" and scalar and "default" in node:
                assert "Default" in text, path


def test_one_rule_names_the_fields_that_cannot_change():
    class Fixed(Spec):
        """Fixed."""

        size: Annotated[int, IMMUTABLE] = 3
        side_dish: Annotated[int | None, IMMUTABLE] = None
        free: int = 1

    rule = unchanged(Fixed)
    assert rule.message.startswith("size, sideDish cannot change")
    assert "self.spec.size == oldSelf.spec.size && (has(self.spec.sideDish) == has(oldSelf.spec.sideDish)" in rule.cel
    assert "free" not in rule.cel + rule.words


@pytest.mark.parametrize("crd", CRDS, ids=lambda crd: crd.kind)
def test_every_rule_says_what_to_write(crd: Crd):
    for path, node in nodes(schema_of(crd)):
        for rule in node.get("x-kubernetes-validations", []):
            assert len(rule["message"]) > 20, path
            assert "\n" not in rule["message"], path


class Inner(Spec):
    """Inner."""

    rules = (Rule(cel="self.n < 5", message="write less than 5", field=".n", check=lambda v: v.n < 5),)
    n: Annotated[int, Field(gt=0)] = Field(3, description="N.")


class Outer(Spec):
    """Outer."""

    inner: Annotated[Inner, IMMUTABLE] = Field(default_factory=Inner, description="The inner one.")
    other: Inner | None = Field(None, description="Perhaps.")
    names: Annotated[list[Annotated[str, Field(max_length=5)]], Field(max_length=3), SET] = Field(default_factory=list)


def test_a_model_becomes_a_structural_schema():
    inner = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "default": 3, "description": "N."}
        },
    }
    own = {"rule": "self.n < 5", "message": "write less than 5", "fieldPath": ".n"}
    got = structural(Outer)["properties"]
    assert got["inner"] == {
        **inner,
        "description": "The inner one.",
        "default": {"n": 3},
        "x-kubernetes-validations": [own],
    }
    assert got["other"] == {**inner, "description": "Perhaps.", "x-kubernetes-validations": [own]}
    assert got["names"] == {
        "type": "array",
        "items": {"type": "string", "maxLength": 5},
        "maxItems": 3,
        "x-kubernetes-list-type": "set",
        "default": [],
    }


@pytest.mark.parametrize("annotation", [str, list[int], dict[str, int], int | list[int]])
def test_what_has_no_bound_or_no_single_type_is_an_error(annotation):
    model = type("Loose", (Spec,), {"__annotations__": {"field": annotation}, "__module__": __name__})
    with pytest.raises(SchemaError, match=r"Loose\.field"):
        structural(model)


@pytest.mark.parametrize("crd", CRDS, ids=lambda crd: crd.kind)
def test_what_is_owned_whole_is_stored_as_it_was_applied(crd: Crd):
    """A default inside it would make server-side apply after a client-side one conflict."""

    def check(node, path, *, whole):
        assert not (whole and "default" in node), path
        if node.get("x-kubernetes-map-type") == "atomic":
            assert node.get("default", {}) == {}, path
            whole = True
        for name, inner in node.get("properties", {}).items():
            check(inner, f"{path}.{name}", whole=whole)
        if "items" in node:
            kind = node.get("x-kubernetes-list-type", "atomic")
            check(node["items"], f"{path}[]", whole=whole or kind != "map")

    check(schema_of(crd)["properties"]["spec"], crd.kind, whole=False)


def test_the_pod_template_alone_of_the_objects_of_every_job_is_owned_whole():
    """Of what people write partly, every other object has defaults that are stored, so its fields have owners."""
    for crd in CRDS:
        if crd.kind.endswith("Job"):
            spec = schema_of(crd)["properties"]["spec"]["properties"]
            whole = {name for name, node in spec.items() if node.get("x-kubernetes-map-type") == "atomic"}
            assert whole - {"iq", "evaluation"} == {"podTemplate"}


def test_the_reference_has_the_defaults_that_readers_fill_in():
    assert "| `perGPU[].training` | integer | `1` |" in reference()
