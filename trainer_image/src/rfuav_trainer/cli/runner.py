"""Runs the work of a command and ends the process: the only way out of a command.

In: the work. Out: progress, termination message, exit code.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import structlog

from rfuav_crds import contract, reasons
from rfuav_trainer import errors
from rfuav_trainer.process import logs, termination
from rfuav_trainer.process.stop import CTRL_C, StopSignal
from rfuav_trainer.reporting.heartbeat import Heartbeat
from rfuav_trainer.reporting.progress import Progress, Server
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from rfuav_trainer.reporting.display import Display

log = structlog.get_logger()

TO_LEAVE = 5.0
"""Seconds of the grace period that are left for the end of the process after the last report."""


def finish(work: Callable[[Progress, StopSignal], str | None], *, quiet: bool = False) -> NoReturn:
    """Run `work`, report how it ended, and exit with its exit code.

    Args:
        work: the work. The text that it returns is printed for a person at a terminal.
        quiet: stdout is for the results, which another program may read: warnings, errors and the bar go to stderr.
    """
    display = _display(quiet=quiet) if logs.read_by_a_person(quiet=quiet) else None
    lines = display.render if display is not None else None
    logs.configure(human=display is not None, quiet=quiet, lines=lines, keep=not quiet)
    stop = StopSignal()
    stop.install()
    interval = display.interval if display is not None else None
    progress = Progress(Server.from_environment(), listener=display or Heartbeat(), interval=interval)
    failure: errors.Failure | None = None
    try:
        with display or contextlib.nullcontext():
            summary = work(progress, stop)
        if display is not None and summary:
            print(summary)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (the one place where exceptions become exit codes)
        failure = errors.describe(error)
        if failure.exit_code == contract.EXIT_STOPPED and stop.cause == CTRL_C:
            failure = errors.Failure(reasons.INTERRUPTED, failure.message, errors.EXIT_INTERRUPTED)
        unforeseen = not isinstance(error, errors.JobError) and failure.exit_code == contract.EXIT_FAILED
        level = log.info if failure.exit_code in {contract.EXIT_STOPPED, errors.EXIT_INTERRUPTED} else log.error
        level(
            failure.message, reason=failure.reason, exitCode=failure.exit_code, exc_info=error if unforeseen else None
        )
    progress.finish()
    termination.write(failure, progress.last)  # before the wait for an answer: whatever ends it, the message is there
    with contextlib.suppress(KeyboardInterrupt):
        progress.close(leave_by=lambda: stop.since + termination.grace_seconds() - TO_LEAVE)
    inputs.leave(failure.exit_code if failure else 0)


def _display(*, quiet: bool) -> Display:
    from rich.console import Console  # noqa: PLC0415  (pods have no terminal)

    from rfuav_trainer.reporting.display import Display  # noqa: PLC0415

    return Display(Console(stderr=quiet))
