"""The docs name what is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / "reliability.md").read_text())


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_the_tests_that_show_a_promise_exist(file, test):
    assert f"def {test}(" in (ROOT / file).read_text() if test else (ROOT / file).is_file()


def test_promises_name_their_tests():
    assert len(NAMED) > 50


WHERE = re.findall(r"`((?:crds|docs|operator|trainer_image)/[\w/.]+)`", (ROOT / "docs" / "architecture.md").read_text())


@pytest.mark.parametrize("file", WHERE)
def test_where_to_go_for_a_change_exists(file):
    assert (ROOT / file).is_file()


def test_there_is_a_place_to_go_to():
    assert len(WHERE) > 10


def reasons(source):
    """The reasons that a file of the trainer gives to its errors: `reason = "..."`, `reason="..."`, `Failure("...", ...)`."""
    for node in ast.walk(ast.parse(source)):
        if (isinstance(node, ast.keyword) and node.arg == "reason") or (
            isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "reason" for target in node.targets)
        ):
            yield node.value
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "Failure":
            yield node.args[0]


def test_the_trainer_page_lists_every_reason():
    listed = set(
        re.findall(
            r"[A-Z]\w+", (ROOT / "docs/trainer.md").read_text().partition("## Exit codes")[2].partition("\n## ")[0]
        )
    )
    files = (ROOT / "trainer_image/src/rfuav_trainer").rglob("*.py")
    found = {node.value for path in files for node in reasons(path.read_text()) if isinstance(node, ast.Constant)}
    assert len(found) > 20
    assert found - listed <= {"Failed", "Unreadable", "Interrupted"}  # base classes, single files, a keyboard
