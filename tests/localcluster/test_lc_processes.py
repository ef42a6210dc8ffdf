import os
import signal
import time
from pathlib import Path

import pytest

from localcluster import processes
from localcluster.state import Layout


def until(condition, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.02)


@pytest.fixture
def layout(own_state: Path):
    made = Layout.of("procs")
    made.root.mkdir(parents=True)
    yield made
    processes.kill_all(made)


def test_a_daemon_is_found_again_and_started_once(layout: Layout) -> None:
    for _ in range(2):
        processes.start(layout, "sleeper", ["sleep", "1000"])
        until(lambda: processes.is_running(layout, "sleeper"))
    assert len(processes.running(layout)) == 1
    assert not processes.is_running(layout, "other")
    assert processes.running(Layout("procs", layout.root.parent / "elsewhere")) == []


def test_all_descendants_are_killed_also_orphans(layout: Layout) -> None:
    processes.start(layout, "parent", ["sh", "-c", "sleep 1001 & setsid sleep 1002 & wait"])
    until(lambda: len(processes.running(layout)) == 3)
    parent = min(p.pid for p in processes.running(layout))
    os.kill(parent, signal.SIGKILL)
    until(lambda: len(processes.running(layout)) == 2)
    assert processes.kill_all(layout) == 2
    assert processes.running(layout) == []
    assert processes.kill_all(layout) == 0


def test_output_goes_to_the_log_and_the_callers_environment_does_not_leak(layout: Layout, monkeypatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somewhere")
    processes.start(
        layout,
        "talker",
        ["sh", "-c", "echo out; echo err >&2; echo ${KUBECONFIG:-unset} $MORE"],
        extra_environment={"MORE": "yes"},
    )
    until(lambda: "yes" in processes.tail(layout, "talker"))
    assert processes.tail(layout, "talker") == "out\nerr\nunset yes"
    assert processes.tail(layout, "never") == "(no log)"
