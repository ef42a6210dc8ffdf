"""The floor plans of gateway and trainer: each package says what comes in, what goes out and what it must not know."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GATEWAY = ROOT / "gateway/src/rfuav_gateway"
TRAINER = ROOT / "trainer_image/src/rfuav_trainer"
PACKAGES = sorted({path.parent for root in (GATEWAY, TRAINER) for path in root.rglob("*.py")} - {TRAINER})


def test_there_are_packages():
    assert {GATEWAY / "tasks", TRAINER / "data"} <= set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_describes_itself_and_imports_nothing(package):
    tree = ast.parse((package / "__init__.py").read_text())
    description = ast.get_docstring(tree) or ""
    assert len(tree.body) == 1
    assert all(words in description for words in ("In:", "Out:", "must not know"))


def test_few_files_at_the_top():
    assert {path.name for path in GATEWAY.glob("*.py")} <= {"__init__.py", "__main__.py", "app.py", "settings.py"}
