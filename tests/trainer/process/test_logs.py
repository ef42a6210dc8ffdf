"""What a person at a terminal sees, and what not."""

import sys

import structlog

from rfuav_trainer.process import logs


def test_a_traceback_at_a_terminal_shows_no_values(capsys):
    def crash(secret):
        raise RuntimeError(f"{len(secret)} letters")

    logs.configure(human=True)
    try:
        crash("hunter" + "2")
    except RuntimeError:
        structlog.get_logger().exception("crashed")
    finally:
        logs.configure(human=False)
    shown = capsys.readouterr().out
    assert "7 letters" in shown
    assert "Traceback" in shown
    assert "hunter2" not in shown


def test_a_line_is_written_at_once(monkeypatch):
    """The processes of a pod share one stdout: what is written in parts gets between the parts of another."""
    parts = []

    class Stdout:
        def write(self, text):
            parts.append(text)

        def flush(self):
            pass

    logs.configure(human=False)
    monkeypatch.setattr(sys, "stdout", Stdout())
    structlog.get_logger().info("said", number=1)
    assert len(parts) == 1
    assert parts[0].endswith("}\n")
