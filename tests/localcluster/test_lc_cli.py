import sys
from pathlib import Path

import pytest

from localcluster import api, binaries, cli, state
from localcluster.errors import LocalClusterError
from localcluster.state import Layout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["kubeconfig", "--name", "nobody"], "not up"),
        (["up", "--profile", "api", "--name", "Not_A_Name"], "lower-case"),
        (["logs", "etcd", "--name", "nobody"], "no log of 'etcd'"),
        (["build", "kubelett"], "No such program: kubelett"),
        (["image", "build", "-t", "x", "--name", "nobody"], "not up with the full profile"),
        (["image", "build", "-t", "x", "--build-arg", "WHEEL"], "--build-arg WHEEL=VALUE"),
    ],
)
def test_errors_are_one_message_without_a_traceback(arguments, says, own_state: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(sys, "argv", ["localcluster", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capfd.readouterr()
    assert ended.value.code == 1
    assert says in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""


def ended(monkeypatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["localcluster", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


@pytest.mark.parametrize(
    ("arguments", "built"),
    [
        (["--profile", "api"], binaries.API_PROFILE),
        ([], dict.fromkeys((*binaries.API_PROFILE, *binaries.FULL_PROFILE))),
        (["helm", "--profile", "api"], ("helm",)),
    ],
    ids=["api", "full", "named"],
)
def test_what_a_profile_needs_is_built_ahead(arguments, built, monkeypatch, capfd) -> None:
    monkeypatch.setattr(binaries, "ensure", lambda names, _: {name: name for name in names})
    assert ended(monkeypatch, "build", *arguments) == 0
    assert capfd.readouterr().out.split() == list(built)


def test_brackets_in_an_error_are_shown_as_they_are(own_state: Path, monkeypatch, capfd) -> None:
    def fail(_: str) -> None:
        raise LocalClusterError("the log ends: [/mnt] [red]E1101[dim]")

    monkeypatch.setattr(api, "get", fail)
    assert ended(monkeypatch, "kubeconfig", "--name", "a") == 1
    assert capfd.readouterr().err == "error: the log ends: [/mnt] [red]E1101[dim]\n"


@pytest.mark.parametrize("backend", ["embedded", "kind"])
def test_a_cluster_that_is_still_being_made_is_not_ready_and_no_traceback(
    backend, own_state: Path, own_cache: Path, monkeypatch, capfd
) -> None:
    """Its settings are there before its programs and certificates, which take minutes the first time."""
    state.choose(Layout.of("early"), "full", 1, [], backend)
    assert ended(monkeypatch, "status") == 0
    out, _ = capfd.readouterr()
    assert ["early", "full", "API", "server", "not", "ready", "0"] in [
        line.replace("│", " ").split() for line in out.splitlines()
    ]
    assert ended(monkeypatch, "kubeconfig", "--name", "early") == 1
    out, err = capfd.readouterr()
    assert "Cluster early is not up" in err
    assert out == ""


def test_a_broken_cluster_does_not_hide_the_others(own_state: Path, monkeypatch, capfd) -> None:
    for name in ("good", "broken"):
        state.choose(Layout.of(name), "api", 1, [])
    Layout.of("broken").settings_file.write_text("{")
    assert ended(monkeypatch, "status") == 0
    out = capfd.readouterr().out
    assert "good" in out
    assert "broken" in out
    assert ended(monkeypatch, "down", "--name", "broken") == 0
    assert state.all_names() == ["good"]


def test_down_of_what_never_was_is_fine_and_leaves_nothing(own_state: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["localcluster", "down", "--name", "nobody"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert list(own_state.rglob("*nobody*")) == []
