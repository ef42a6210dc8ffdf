from pathlib import Path

import pytest

from localcluster import selection
from localcluster.errors import LocalClusterError

DAEMON = 'case "$*" in info) exit {info};; "image inspect"*) exit {inspect};; pull*) exit {pull};; esac; exit 9'


@pytest.mark.parametrize(
    ("docker", "kind", "says"),
    [
        (None, "embedded", "no docker command"),
        ({"info": 1, "inspect": 0, "pull": 0}, "embedded", "daemon does not answer"),
        ({"info": 0, "inspect": 1, "pull": 1}, "embedded", "cannot be pulled"),
        ({"info": 0, "inspect": 0, "pull": 1}, "kind", "is there"),
        ({"info": 0, "inspect": 1, "pull": 0}, "kind", "is there"),
    ],
)
def test_the_full_profile_takes_kind_where_docker_can(
    *, script, docker, kind, says, tmp_path: Path, monkeypatch
) -> None:
    if docker:
        script(tmp_path, "docker", DAEMON.format(**docker))
    monkeypatch.setenv("PATH", str(tmp_path))
    choice = selection.choose("full", use_kubeconfig=False)
    assert choice.kind == kind
    assert says in choice.reason


def test_the_api_profile_needs_no_docker(script, tmp_path: Path, monkeypatch) -> None:
    script(tmp_path, "docker", f"touch {tmp_path / 'asked'}")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert selection.choose("api", use_kubeconfig=False).kind == "embedded"
    assert not (tmp_path / "asked").exists()


def test_a_given_cluster_is_used_only_when_asked(tmp_path: Path, monkeypatch) -> None:
    given = tmp_path / "config"
    given.write_text("")
    monkeypatch.setenv("KUBECONFIG", str(given))
    monkeypatch.delenv(selection.USE_KUBECONFIG, raising=False)
    assert selection.choose("api").kubeconfig is None
    assert selection.choose("api", use_kubeconfig=True).kubeconfig == given
    monkeypatch.setenv(selection.USE_KUBECONFIG, "1")
    assert selection.choose("full").kubeconfig == given
    assert selection.choose("api", use_kubeconfig=False).kubeconfig is None


@pytest.mark.parametrize("value", ["", "/nowhere/config"])
def test_a_missing_given_cluster_is_an_error(value: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", value)
    with pytest.raises(LocalClusterError, match="KUBECONFIG"):
        selection.choose("api", use_kubeconfig=True)
