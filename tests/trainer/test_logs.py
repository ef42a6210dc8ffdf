"""What a person at a terminal sees, and what not."""

import structlog

from rfuav_trainer import logs


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
