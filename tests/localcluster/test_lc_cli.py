import sys
from pathlib import Path

import pytest

from localcluster import cli


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["kubeconfig", "--name", "nobody"], "not up"),
        (["up", "--profile", "api", "--name", "Not_A_Name"], "lower-case"),
        (["logs", "etcd", "--name", "nobody"], "no log of 'etcd'"),
        (["build", "kubelett"], "No such program: kubelett"),
        (["image", "build", "-t", "x", "--name", "nobody"], "not up with the full profile"),
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


def test_down_of_what_never_was_is_fine_and_leaves_nothing(own_state: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["localcluster", "down", "--name", "nobody"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert list(own_state.rglob("*nobody*")) == []
