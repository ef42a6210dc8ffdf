"""Output for a person at a terminal: a progress bar while the job runs, and a line for each thing worth reading.

In: the log events of all modules, and the values that are reported to the operator. Out: the terminal.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from typing import Self

SILENT = frozenset({"checkpoint", "done", "recordings", "shard done", "caching decoded pictures"})
"""Events that the bar or the summary already show."""
HEADINGS = f"{'epoch':>9} {'loss':>8} {'val loss':>9} {'accuracy':>9} {'macro F1':>9} {'lr':>8} {'time':>7}"
LONGEST = 300
"""Characters of the details of a line."""
HIDDEN = frozenset({"event", "level", "time", "timestamp", "job", "attempt", "reason", "exitCode", "exception"})
STYLES = {"warning": "yellow", "error": "bold red", "critical": "bold red"}


class Display:
    """A progress bar, used as a context around the work; calling it with a `trainerStatus` moves the bar."""

    interval = 0.25
    """Seconds between two calls: on a GPU each waits for the steps under way."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        columns = (BarColumn(bar_width=24), TaskProgressColumn(), TextColumn("{task.description}"))
        self._bar = Progress(
            *columns, TimeElapsedColumn(), console=self._console, transient=True, refresh_per_second=1 / self.interval
        )
        self._task = self._bar.add_task("starting", total=100)
        self._headings = False

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, status: Mapping[str, Any]) -> None:
        """Show the progress of a `trainerStatus`; its `live` has values for the bar alone."""
        self._bar.update(self._task, completed=status.get("progressPercentage", 0), description=_words(status))

    def render(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
        """A log event as coloured text, for structlog. Drops events that show nothing new."""
        name, level = str(event["event"]), str(event["level"])
        if level in STYLES:
            text = Text().append(f"{level}: ", STYLES[level]).append(f"{name}{_details(event)}")
        elif name in SILENT:
            raise structlog.DropEvent
        elif name == "epoch":
            text = self._epoch(event)
        else:
            text = Text(LINES[name](event) if name in LINES else f"{name}{_details(event)}")
        if "exception" in event:
            text.append(f"\n{event['exception']}", "dim")
        if name == "training":
            self._bar.update(self._task, description=f"epoch {event['epoch'] + 1}/{event['epochs']}")
        return self._coloured(text)

    def _epoch(self, event: Mapping[str, Any]) -> Text:
        text = Text() if self._headings else Text().append(f"{HEADINGS}\n", "dim")
        self._headings = True
        row = [
            f"{event['epoch']}/{event['epochs']}".rjust(9),
            _number(event, "trainLoss", 8, ".4f"),
            _number(event, "valLoss", 9, ".4f"),
            _number(event, "valAccuracy", 9, ".4f"),
            _number(event, "macroF1", 9, ".4f"),
            _number(event, "learningRate", 8, ".1e"),
            duration(event["seconds"]).rjust(7),
        ]
        text.append(" ".join(row))
        return text.append("  best", "green") if event.get("best") else text

    def _coloured(self, text: Text) -> str:
        """With the terminal's codes for colours, wrapped by the terminal itself."""
        stream = io.StringIO()
        plain = Console(
            file=stream,
            force_terminal=self._console.is_terminal,
            color_system="standard" if self._console.color_system else None,
            width=10_000,
        )
        plain.print(text, end="", soft_wrap=True, highlight=False)
        return stream.getvalue()


def listed(content: Mapping[str, Any], indent: str = "") -> str:
    """Nested values as indented lines, one for each name."""
    lines: list[str] = []
    for name, value in content.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", listed(value, indent + "  ")] if value else []
        else:
            words = ", ".join(str(part) for part in value) if isinstance(value, list | tuple) else value
            lines.append(f"{indent}{name}: {words}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """A duration in words: 0.4s, 12s, 3m05s, 2h07m."""
    if seconds < 10:  # noqa: PLR2004  (tenths matter for short ones)
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02}m"  # noqa: PLR2004


def _training(event: Mapping[str, Any]) -> str:
    return (
        f"training {event['architecture']} on {event['train']} samples of {event['classes']} classes, validating on "
        f"{event['validation']}; {event['device']}, {event['precision']}, batches of {event['batch_size']}"
    )


def _classifying(event: Mapping[str, Any]) -> str:
    part = f", shard {event['shard']} of {event['shards']}" if event["shards"] > 1 else ""
    return (
        f"classifying {event['inputs']} inputs in {event['files']} files with {event['classes']} classes{part}; "
        f"{event['device']}, {event['precision']}, batches of {event['batchSize']}"
    )


LINES: dict[str, Callable[[Mapping[str, Any]], str]] = {"training": _training, "classifying": _classifying}
"""Events with a sentence of their own."""


def _details(event: Mapping[str, Any]) -> str:
    parts = [f"{name} {value}" for name, value in event.items() if name not in HIDDEN]
    text = ", ".join(parts)
    return f" ({text[:LONGEST]}{'...' * (len(text) > LONGEST)})" if parts else ""


def _number(event: Mapping[str, Any], name: str, width: int, form: str) -> str:
    return f"{event[name]:{form}}".rjust(width) if name in event else "-".rjust(width)


def _words(status: Mapping[str, Any]) -> str:
    own, live = status.get("rfuav", {}), status.get("live", {})
    parts = (
        _training_words(own, live) if "totalEpochs" in own else [f"{own.get('processed', 0)} of {own.get('total', 0)}"]
    )
    if own.get("failed"):
        parts.append(f"{own['failed']} unreadable")
    if own.get("samplesPerSecond"):
        parts.append(f"{own['samplesPerSecond']:.0f}/s")
    if status.get("estimatedRemainingSeconds"):
        parts.append(f"{duration(status['estimatedRemainingSeconds'])} left")
    return "  ".join(parts)


def _training_words(own: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    epoch = f"epoch {min(own['epoch'] + 1, own['totalEpochs'])}/{own['totalEpochs']}"
    doing = f"validating {live['validated']}" if "validated" in live else f"step {own['step']}/{own['totalSteps']}"
    return [epoch, doing, *([f"loss {live['loss']:.3f}"] if "loss" in live else [])]
