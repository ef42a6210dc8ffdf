"""The docs name what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = [
    found
    for page in ("reliability", "security")
    for found in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / f"docs/{page}.md").read_text())
]


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_the_tests_that_show_a_promise_exist(file, test):
    assert f"def {test}(" in (ROOT / file).read_text() if test else (ROOT / file).is_file()


def test_promises_name_their_tests():
    assert len(NAMED) > 50


WHERE = {
    (page, path)
    for page in ("docs/architecture.md", "CONTRIBUTING.md")
    for path in re.findall(
        r"`((?:crds|docs|operator|gateway|cli|trainer_image|tests|helm)/[\w/.-]+\.\w+)`", (ROOT / page).read_text()
    )
}


@pytest.mark.parametrize(("page", "path"), sorted(WHERE))
def test_where_to_go_for_a_change_exists(page, path):
    assert (ROOT / path).is_file()


def test_there_is_a_place_to_go_to():
    assert len(WHERE) > 30


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        link = target[0] or target[1]
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link
