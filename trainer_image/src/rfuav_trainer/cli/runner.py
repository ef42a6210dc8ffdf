"""Runs the work of a command and ends the process: the only way out of a command.

In: the work. Out: progress, termination message, exit code.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_crds import contract
from rfuav_trainer import errors
from rfuav_trainer.process import logs, termination
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.reporting.progress import Progress, Server
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from rfuav_trainer.reporting.display import Display

log = structlog.get_logger()


def finish(work: Callable[[Progress, StopSignal], Any]) -> NoReturn:
    """Run `work`, report how it ended, and exit with its exit code."""
    human = logs.configure()
    stop = StopSignal()
    stop.install()
    display = _display() if human else None
    progress = Progress(Server.from_environment(), listener=display)
    failure: errors.Failure | None = None
    try:
        with display or contextlib.nullcontext():
            work(progress, stop)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (the one place where exceptions become exit codes)
        failure = errors.describe(error)
        unforeseen = not isinstance(error, errors.JobError) and failure.exit_code == contract.EXIT_FAILED
        level = log.info if failure.exit_code == contract.EXIT_STOPPED else log.error
        level(
            failure.message, reason=failure.reason, exitCode=failure.exit_code, exc_info=error if unforeseen else None
        )
    if display is not None and failure is None:
        display.summary(progress.last)
    progress.close()
    termination.write(failure, progress.last)
    inputs.leave(failure.exit_code if failure else 0)


def _display() -> Display:
    from rfuav_trainer.reporting.display import Display  # noqa: PLC0415  (pods have no terminal)

    return Display()
