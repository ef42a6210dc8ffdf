"""The Dockerfiles hold the packages that their programs need, and the locked versions of all that these import."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = {"operator": ("rfuav-operator", "rfuav-gateway"), "trainer": ("rfuav-trainer",)}
PROJECTS = {
    tomllib.loads(path.read_text())["project"]["name"]: path.parent for path in sorted(ROOT.glob("*/pyproject.toml"))
}


def dependencies(package: str) -> set[str]:
    """Normalized names of what a package of this project needs directly."""
    listed = tomllib.loads((PROJECTS[package] / "pyproject.toml").read_text())["project"].get("dependencies", [])
    return {re.split(r"[\[<>=!~; ]", one, maxsplit=1)[0].lower().replace("_", "-") for one in listed}


def needed(package: str) -> set[str]:
    """The packages of this project that it needs, itself included."""
    return {package}.union(*(needed(one) for one in dependencies(package) & set(PROJECTS)))


@pytest.mark.parametrize(("image", "package"), [(image, one) for image, all_ in PROGRAMS.items() for one in all_])
def test_an_image_holds_its_programs_and_what_they_need(image, package):
    dockerfile = (ROOT / f"Dockerfile.{image}").read_text()
    copied = set(re.findall(r"^COPY (\S+) /build/", dockerfile, flags=re.MULTILINE))
    (wheels,) = re.findall(r"pip wheel .*", dockerfile)
    for one in needed(package):
        folder = PROJECTS[one].name
        assert folder in copied
        assert f"/build/{folder}" in wheels.split()


@pytest.mark.parametrize(("image", "package"), [(image, one) for image, all_ in PROGRAMS.items() for one in all_])
def test_versions_of_all_imports_are_locked(image, package):
    locked = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / f"requirements/{image}.txt").read_text(), flags=re.MULTILINE))
    for one in needed(package):
        assert dependencies(one) - set(PROJECTS) <= locked


def test_the_builder_is_sent_all_that_is_copied():
    sent = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), flags=re.MULTILINE)
    for image in PROGRAMS:
        copied = re.findall(r"^COPY (?!--from)(\S+) ", (ROOT / f"Dockerfile.{image}").read_text(), flags=re.MULTILINE)
        assert copied
        assert [one for one in copied if not any(fnmatch(one, pattern) for pattern in sent)] == []


def test_the_operator_is_what_its_image_runs():
    assert 'ENTRYPOINT ["rfuav-operator"]' in (ROOT / "Dockerfile.operator").read_text()
