"""One version: that of pyproject.toml. `make set-version` writes it everywhere else."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGE = re.compile(r"rfuav-(?:operator|trainer):(\d[\w.-]*)")
NAMING = [
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "examples/**/*.yaml",
        "demo/*.py",
        "demo/*.yaml",
        "helm/rfuav-operator/*.yaml",
        "deploy/**/*.yaml",
    )
    for path in ROOT.glob(pattern)
    if IMAGE.search(path.read_text())
]


@pytest.mark.parametrize("package", sorted(ROOT.glob("*/pyproject.toml")), ids=lambda path: path.parent.name)
def test_packages(package):
    assert tomllib.loads(package.read_text())["project"]["version"] == VERSION


def test_chart():
    chart = yaml.safe_load((ROOT / "helm/rfuav-operator/Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


@pytest.mark.parametrize("page", NAMING, ids=lambda path: str(path.relative_to(ROOT)))
def test_images(page):
    assert set(IMAGE.findall(page.read_text())) == {VERSION}


def test_images_are_named():
    assert {"README.md", "install.md", "values.yaml", "run.py"} <= {path.name for path in NAMING}


def test_changelog_begins_with_it():
    released = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert released[0] == VERSION


def test_its_minor_version_gets_security_fixes():
    minor = ".".join(VERSION.split(".")[:2])
    assert f"| {minor}.x | yes |" in (ROOT / "SECURITY.md").read_text()
