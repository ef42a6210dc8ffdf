"""The pod contract is defined once: no other file has its variables, paths and labels as literals."""

import ast
from pathlib import Path

import pytest

from rfuav_crds import contract

ROOT = Path(__file__).parents[2]
WORDS = {
    value
    for name, value in vars(contract).items()
    if isinstance(value, str)
    and not name.startswith("_")
    and value.startswith(("RFUAV_", "KUBEFLOW_", "PET_", "/", "rfuav.io/"))
}


def spelled(source: str) -> list[str]:
    """The strings of the contract that are literals in a Python file."""
    nodes = ast.walk(ast.parse(source))
    return sorted({node.value for node in nodes if isinstance(node, ast.Constant)} & WORDS)


def test_literals_are_found():
    assert spelled("import os\nos.environ['RFUAV_JOB']") == ["RFUAV_JOB"]


@pytest.mark.parametrize("package", ["trainer_image/src/rfuav_trainer"])
def test_the_contract_is_defined_once(package):
    found = {str(path.relative_to(ROOT)): spelled(path.read_text()) for path in (ROOT / package).rglob("*.py")}
    assert len(found) > 50
    assert {path: words for path, words in found.items() if words} == {}


def test_exit_codes_differ():
    codes = [value for name, value in vars(contract).items() if name.startswith("EXIT_")]
    assert len({0, *codes}) == len(codes) + 1
