"""How the demo ends: zero only when every job succeeded, else the story of what did not, and no traceback."""

import os
import subprocess
import sys

import pytest

from demo import __main__ as command_line
from demo import run
from demo.errors import DemoError
from demo.rows import Row
from localcluster.errors import LocalClusterError

ROWS = [Row(name, kind, "Succeeded", reason="Completed") for kind, name in run._applied()]


class StandIn:
    """kubectl that knows logs of the pods and of the operator."""

    def __init__(self, *, pods_are_gone=False):
        self.pods_are_gone = pods_are_gone

    def kubectl(self, *arguments):
        if "deployment/rfuav-operator" in arguments:
            return "the operator's last line"
        if self.pods_are_gone:
            raise DemoError("`kubectl logs` failed: no pods found")
        assert arguments[:2] == ("logs", "-l")
        return f"[pod/x] the last line of {arguments[2]}"


def failed(**changes):
    values = {"phase": "Failed", "reason": "OutOfMemory", "message": "raise resources.memory"} | changes
    return [Row(ROWS[0].name, ROWS[0].kind, **values), *ROWS[1:]]


def test_the_demo_applies_ten_jobs():
    assert len(run._applied()) == 10


def test_all_succeeded_is_no_error():
    run._check(StandIn(), ROWS)


def test_a_failure_is_reported_with_reason_message_and_the_ends_of_the_logs():
    with pytest.raises(DemoError) as raised:
        run._check(StandIn(), failed())
    story = str(raised.value)
    name = ROWS[0].name
    assert story.startswith("1 of 10 jobs did not succeed")
    assert f"TrainingJob {name}: Failed OutOfMemory: raise resources.memory" in story
    assert f"the last line of rfuav.io/job={name},rfuav.io/kind=TrainingJob" in story
    assert story.endswith("the operator's last line")
    assert ROWS[1].name not in story


def test_a_job_that_never_ended_is_a_failure_too():
    with pytest.raises(DemoError, match="Queued WaitingForCapacity: 0 of 4 slots free"):
        run._check(StandIn(), failed(phase="Queued", reason="WaitingForCapacity", message="0 of 4 slots free"))


def test_a_job_that_is_gone_is_a_failure_too():
    with pytest.raises(DemoError, match=f"(?s)1 of 10.*InferenceJob {ROWS[-1].name}: no longer exists"):
        run._check(StandIn(), ROWS[:-1])
    with pytest.raises(DemoError, match="10 of 10"):
        run._check(StandIn(), [])


def test_the_story_does_not_fail_itself_where_there_are_no_logs():
    with pytest.raises(DemoError, match=r"(?s)OutOfMemory.*no pods found.*the operator's last line"):
        run._check(StandIn(pods_are_gone=True), failed())


def ended(monkeypatch, *arguments):
    """The exit code of the command line."""
    monkeypatch.setattr(sys, "argv", ["demo", *arguments])
    with pytest.raises(SystemExit) as end:
        command_line.main()
    return end.value.code


def raising(error):
    def raise_it():
        raise error

    return raise_it


@pytest.mark.parametrize("error", [DemoError, LocalClusterError])
def test_an_error_is_told_and_exits_with_one(error, monkeypatch, capfd):
    monkeypatch.setattr(run, "up", raising(error("job a: Failed\n[pod/a] [Errno 28] [/mnt] no room")))
    assert ended(monkeypatch, "up") == 1
    out, err = capfd.readouterr()
    assert err == "\nerror: job a: Failed\n[pod/a] [Errno 28] [/mnt] no room\n"
    assert out == ""


def test_success_exits_with_zero(monkeypatch, capfd):
    monkeypatch.setattr(run, "up", lambda: None)
    assert ended(monkeypatch, "up") == 0
    assert capfd.readouterr().err == ""


def test_an_interruption_says_how_to_go_on_and_exits_as_the_shell_expects(monkeypatch, capfd):
    monkeypatch.setattr(run, "up", raising(KeyboardInterrupt()))
    assert ended(monkeypatch, "up") == 130
    assert "`make demo` goes on with it" in capfd.readouterr().err


def test_a_mistyped_command_is_no_traceback(monkeypatch, capfd):
    assert ended(monkeypatch, "upp") == 2
    assert "No such command 'upp'" in capfd.readouterr().err


def test_the_process_itself_exits_with_one_and_shows_no_traceback(tmp_path):
    """As `make demo` runs it, where the cluster cannot be had."""
    environment = {**os.environ, "RFUAV_USE_KUBECONFIG": "1", "KUBECONFIG": str(tmp_path / "nowhere")}
    done = subprocess.run(
        [sys.executable, "-m", "demo", "up"],
        cwd=run.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "error: Asked to use the cluster of KUBECONFIG" in done.stderr
    assert "Traceback" not in done.stderr
