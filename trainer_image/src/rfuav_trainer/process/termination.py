"""How a command ends: what happened becomes an exit code and a termination message. The only way out of a command.

In: the work of a command. Out: its progress told, the message that the kubelet keeps, the exit code.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_trainer import errors
from rfuav_trainer.process import logs, runtime
from rfuav_trainer.reporting.progress import Progress, Server
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from rfuav_trainer.reporting.display import Display

log = structlog.get_logger()

TERMINATION_LOG = Path("/dev/termination-log")
TERMINATION_BYTES = 4096  # what the kubelet keeps


def finish(work: Callable[[Progress, runtime.StopSignal], Any]) -> NoReturn:
    """Run `work`, report its end, and leave with its exit code."""
    human = logs.configure()
    stop = runtime.StopSignal()
    stop.install()
    display = _display() if human else None
    progress = Progress(Server.from_environment(), listener=display)
    failure: errors.Failure | None = None
    try:
        with display or contextlib.nullcontext():
            work(progress, stop)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (the one place where exceptions become exit codes)
        failure = errors.describe(error)
        unforeseen = not isinstance(error, errors.JobError) and failure.exit_code == errors.EXIT_FAILED
        level = log.info if failure.exit_code == errors.EXIT_STOPPED else log.error
        level(
            failure.message, reason=failure.reason, exitCode=failure.exit_code, exc_info=error if unforeseen else None
        )
    if display is not None and failure is None:
        display.summary(progress.last)
    progress.close()
    _write_termination_message(failure, progress.last)
    inputs.leave(failure.exit_code if failure else 0)


def abandon(failure: errors.Failure) -> NoReturn:
    """Leave at once for a reason that another thread found, whatever the work is waiting for."""
    log.error(failure.message, reason=failure.reason, exitCode=failure.exit_code)
    _write_termination_message(failure, {})
    sys.stdout.flush()
    os._exit(failure.exit_code)


def _display() -> Display:
    from rfuav_trainer.reporting.display import Display  # noqa: PLC0415  (pods have no terminal)

    return Display()


def _write_termination_message(failure: errors.Failure | None, status: dict[str, Any]) -> None:
    """Leave reason, message and the last progress where the kubelet looks for them, in at most 4096 bytes."""
    path = Path(os.environ.get("RFUAV_TERMINATION_LOG") or TERMINATION_LOG)
    if path == TERMINATION_LOG and not path.exists():
        return  # not in a pod
    content: dict[str, Any] = {
        "reason": failure.reason if failure else "Completed",
        "message": failure.message if failure else "",
        "exitCode": failure.exit_code if failure else 0,
        "trainerStatus": status,
    }
    try:
        path.write_bytes(_fit(content))
    except OSError as error:
        log.warning("termination message not written", file=str(path), problem=str(error))


def _fit(content: dict[str, Any]) -> bytes:
    """`content` as JSON of at most 4096 bytes: the message is shortened first, metrics are left out next."""
    text = json.dumps(content).encode()
    if len(text) > TERMINATION_BYTES:
        message = content["message"]
        content = {**content, "message": message[:1000]}
        text = json.dumps(content).encode()
    if len(text) > TERMINATION_BYTES:
        status = dict(content["trainerStatus"])
        status["metrics"] = []
        text = json.dumps({**content, "trainerStatus": status}).encode()
    if len(text) > TERMINATION_BYTES:
        text = json.dumps({**content, "message": content["message"][:200], "trainerStatus": {}}).encode()
    return text
