"""The docs name what is there."""

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
