"""Long commands say what they do where nobody sees a spinner, and why they failed."""

import io

import pytest
from rich.console import Console

from localcluster import longrun
from localcluster.errors import LocalClusterError


def test_a_log_names_the_start_the_progress_and_the_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longrun, "_REMIND", 0.3)
    output = io.StringIO()
    longrun.watched(["sleep", "0.8"], "building x", Console(file=output))
    first, *between, last = output.getvalue().splitlines()
    assert first == "building x ..."
    assert between
    assert all(line.startswith("building x: still running after") for line in between)
    assert last == "building x: 1 s"


def test_a_failure_quotes_the_end_of_the_output() -> None:
    with pytest.raises(LocalClusterError, match=r"(?s)^building x failed:\n62\n.*\nno such thing\n$"):
        longrun.watched(
            ["sh", "-c", "seq 100; echo no such thing >&2; exit 3"], "building x", Console(file=io.StringIO())
        )
