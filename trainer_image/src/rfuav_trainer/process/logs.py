"""Logs: one JSON object a line for machines, coloured lines for a person at a terminal.

In: structlog events of every module. Out: stdout; the lines for machines also go to who keeps them.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import sys
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_trainer.process import resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from structlog.typing import Processor

STDERR = 2  # as the descriptor: a crash writes to no object of Python
_early: deque[str] | None = None  # lines that nobody keeps yet; None: they are not to be kept
_keep: Callable[[str], None] | None = None
EARLY = 200
"""Lines that are remembered until there is somebody who keeps them."""


def configure(
    *, human: bool | None = None, quiet: bool = False, lines: Processor | None = None, keep: bool = False
) -> bool:
    """Set up logging for the process, and what a crash prints; returns whether a person reads it.

    Of several processes of a pod, only the first logs what is no warning: the others do the same.

    Args:
        human: whether a person reads it. Default: whether the stream is a terminal.
        lines: makes the line of an event for a person. Default: structlog's, with times and all details.
        quiet: only warnings and errors, on stderr: stdout is for results.
        keep: whether the lines for machines may be kept, by `kept_by`.
    """
    global _early  # noqa: PLW0603  a process has one log
    faulthandler.enable(STDERR)
    human = read_by_a_person(quiet=quiet) if human is None else human
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    renderer: Processor
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may not be valid text
    if human:
        shared[-1] = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)  # the key that ConsoleRenderer expects
        if lines is None:  # without locals in tracebacks: they may be secrets
            renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        else:
            shared.append(structlog.processors.format_exc_info)
            renderer = lines
    else:
        renderer = structlog.processors.JSONRenderer(default=str)
        shared.append(structlog.processors.format_exc_info)
    _early = deque(maxlen=EARLY) if keep and not human else None
    level = logging.WARNING if quiet or resources.local_rank() else logging.INFO
    structlog.configure(
        processors=[*shared, renderer, _also],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Writes whole lines: the processes of a pod share stdout.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr if quiet else None),
        cache_logger_on_first_use=False,
    )
    return human


def read_by_a_person(*, quiet: bool = False) -> bool:
    """Whether the stream of the logs is a terminal."""
    return (sys.stderr if quiet else sys.stdout).isatty()


def _also(_logger: Any, _method: str, line: Any) -> Any:
    """Pass the line on as it is, and give it to who keeps lines."""
    if _keep is not None:
        _keep(line)
    elif _early is not None:
        _early.append(line)
    return line


def keeping() -> bool:
    """Whether the lines of this process are to be kept."""
    return _early is not None


@contextmanager
def kept_by(keep: Callable[[str], None]) -> Iterator[None]:
    """Give `keep` every line, from any thread, first those that were logged before; it must neither block nor raise."""
    global _keep  # noqa: PLW0603  a process has one log
    while _early:
        keep(_early.popleft())
    _keep = keep
    try:
        yield
    finally:
        _keep = None
