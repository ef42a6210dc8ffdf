"""Output for a person at a terminal: a progress bar while the job runs, a table when it is done.

In: the same values that are reported to the operator. Out: the terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

SHOWN = {"trainLoss": "loss", "valLoss": "val loss", "valAccuracy": "val accuracy"}


class Display:
    """A progress bar, used as a context around the work; calling it with a `trainerStatus` moves the bar."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
        self._bar = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console, transient=True
        )
        self._task = self._bar.add_task("starting", total=100)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, status: Mapping[str, Any]) -> None:
        """Show the progress of a `trainerStatus`."""
        self._bar.update(self._task, completed=status.get("progressPercentage", 0), description=_words(status))

    def summary(self, status: Mapping[str, Any]) -> None:
        """Print metrics and outputs of a finished job as a table."""
        table = Table(show_header=False)
        for metric in status.get("metrics", []):
            table.add_row(metric["name"], metric["value"])
        for name, uri in status.get("rfuav", {}).get("outputs", {}).items():
            table.add_row(name, uri)
        if table.row_count:
            self._console.print(table)


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


def _words(status: Mapping[str, Any]) -> str:
    own = status.get("rfuav", {})
    if "totalEpochs" not in own:
        return f"{own.get('processed', 0)} of {own.get('total', 0)}, {own.get('failed', 0)} unreadable"
    found = {metric["name"]: metric["value"] for metric in status.get("metrics", [])}
    parts = [f"epoch {own['epoch']}/{own['totalEpochs']}", f"step {own['step']}/{own['totalSteps']}"]
    return "  ".join(parts + [f"{label} {found[name]}" for name, label in SHOWN.items() if name in found])
