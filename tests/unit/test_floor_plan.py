"""The floor plan of the gateway: each package says what comes in, what goes out and what it must not know."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GATEWAY = ROOT / "gateway/src/rfuav_gateway"
PACKAGES = sorted({path.parent for path in GATEWAY.rglob("*.py")})


def test_there_are_packages():
    assert GATEWAY / "tasks" in PACKAGES


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_package_describes_itself_and_imports_nothing(package):
    tree = ast.parse((package / "__init__.py").read_text())
    description = ast.get_docstring(tree) or ""
    assert len(tree.body) == 1
    assert all(words in description for words in ("In:", "Out:", "must not know"))


def test_few_files_at_the_top():
    assert {path.name for path in GATEWAY.glob("*.py")} <= {"__init__.py", "__main__.py", "app.py", "settings.py"}
