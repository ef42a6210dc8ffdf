import re
import shutil
import threading
from pathlib import Path

import pytest
from rich.console import Console

from localcluster import binaries
from localcluster.errors import LocalClusterError

QUIET = Console(quiet=True)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of tools/ that a test may change."""
    copy = tmp_path / "tools"
    shutil.copytree(binaries.TOOLS, copy)
    monkeypatch.setattr(binaries, "TOOLS", copy)
    return copy


def test_the_key_follows_all_that_goes_into_a_build(tools: Path, own_cache: Path) -> None:
    keys = {binaries.cached_path("etcd")}
    for name in ("go.mod", "go.sum"):
        (tools / "etcd" / name).open("a").write("\n")
        keys.add(binaries.cached_path("etcd"))
    assert len(keys) == 3
    assert binaries.cached_path("kube-apiserver").parent != binaries.cached_path("kubelet").parent
    assert all(key.is_relative_to(own_cache) for key in keys)


def test_kubebuilder_assets_come_first_for_what_envtest_ships(
    script, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = tmp_path / "assets"
    for name in ("etcd", "kubelet"):
        script(assets, name, "true")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    assert binaries.locate("etcd") == assets / "etcd"
    assert binaries.locate("kubectl") is None
    assert binaries.locate("kubelet") is None


def test_no_go_is_an_error_that_names_programs_and_remedy(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalClusterError, match=r"(?s)etcd.*Install Go.*KUBEBUILDER_ASSETS.*sudo"):
        binaries.ensure(("etcd",), QUIET)


def test_too_little_disk_is_an_error_before_the_build(
    script, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "bin", "go", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(binaries, "BUILD_SPACE", 2**62)
    with pytest.raises(LocalClusterError, match="XDG_CACHE_HOME"):
        binaries.ensure(("etcd",), QUIET)


def test_a_cache_of_another_user_is_said_with_the_way_out(another_users, script, tmp_path, monkeypatch) -> None:
    folder, as_user = another_users
    script(tmp_path / "bin", "go", "exit 1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setattr(binaries, "_check_can_build", lambda _: None)
    with as_user(), pytest.raises(LocalClusterError, match=rf"{folder}.*Permission denied.*chown.*XDG_CACHE_HOME"):
        binaries.ensure(("etcd",), QUIET)


def test_the_go_that_is_asked_for_builds_all_modules() -> None:
    versions = [
        re.findall(r"^go (\d+)\.(\d+)", file.read_text(), re.MULTILINE) for file in binaries.TOOLS.glob("*/go.mod")
    ]
    newest = max((int(major), int(minor)) for ((major, minor),) in versions)
    assert f"{newest[0]}.{newest[1]}" == binaries.GO_VERSION


def test_the_guide_has_a_place_for_the_time_of_each_build() -> None:
    guide = (binaries.TOOLS.parents[1] / "docs" / "local-cluster.md").read_text()
    for name in {*binaries.API_PROFILE, *binaries.FULL_PROFILE}:
        assert f"| `{name}` | " in guide


def test_a_failed_build_shows_the_end_of_its_output_and_leaves_nothing(
    script, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "bin", "go", "echo missing module xyz >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(LocalClusterError, match="missing module xyz"):
        binaries.ensure(("etcd",), QUIET)
    assert binaries.locate("etcd") is None


def test_two_callers_build_once(script, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    body = f'echo x >> {calls}; sleep 0.5; while [ "$1" != -o ]; do shift; done; echo program > "$2"'
    script(tmp_path / "bin", "go", body)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    callers = [threading.Thread(target=binaries.ensure, args=(("etcd",), QUIET)) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert calls.read_text().count("x") == 1
    assert binaries.cached_path("etcd").read_text() == "program\n"


def test_every_program_is_pinned_without_addresses() -> None:
    for program in binaries.PROGRAMS.values():
        module = (binaries.TOOLS / program.module / "go.mod").read_text()
        assert program.package == "." or program.package in module
    for file in binaries.TOOLS.glob("*/go.*"):
        assert not re.search(r"https?://", file.read_text()), file
