"""How the demo looks: the live table, plain lines where there is no terminal, and the tables at the end.

In: rows, phases, an evaluation. Out: rich tables and lines of text.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from demo.rows import History, Row

_COLOURS = {"Running": "cyan", "Admitted": "cyan", "Succeeded": "green", "Failed": "red", "Cancelled": "red"}
_SHORT = {"TrainingJob": "train", "InferenceJob": "infer"}


def live(rows: Iterable[Row], elapsed: float) -> Table:
    """What runs, what waits, and why."""
    table = Table(
        "job",
        "state",
        "done",
        "loss",
        "accuracy",
        "node",
        "time",
        "why it waits",
        title=f"{elapsed:.0f} s",
        expand=True,
    )
    for one in rows:
        colour = _COLOURS.get(one.phase, "yellow")
        table.add_row(
            f"{_SHORT[one.kind]} {one.name}",
            f"[{colour}]{one.phase}",
            progress(one),
            number(one.loss, 3),
            number(one.accuracy, 3),
            one.node,
            seconds(one.ran if one.ran is not None else one.waited),
            escape(one.why),  # a message may quote [brackets], which are not to be taken for colours
        )
    return table


def line(one: Row, elapsed: float) -> str:
    """One change as a line of text, for logs."""
    parts = [f"{elapsed:5.0f} s", f"{_SHORT[one.kind]} {one.name:<23}", f"{one.phase:<9}"]
    parts += [
        f"{name} {value}"
        for name, value in (
            ("done", progress(one)),
            ("loss", number(one.loss, 3)),
            ("accuracy", number(one.accuracy, 3)),
        )
        if value
    ]
    return "  ".join([*parts, one.why]).rstrip()


def progress(one: Row) -> str:
    """Percent and count, as in `41% 3/8`."""
    percent = "" if one.percent is None else f"{one.percent}%"
    return f"{percent} {one.done}".strip()


def summary(rows: Iterable[Row], history: History) -> Table:
    """How long each job waited, for what, and ran."""
    table = Table("job", "state", "waited", "ran", "accuracy", "waited for", title="Jobs")
    for one in rows:
        table.add_row(
            f"{_SHORT[one.kind]} {one.name}",
            one.phase,
            seconds(one.waited),
            seconds(one.ran),
            number(one.accuracy, 3),
            history.waited_for(one),
        )
    return table


def phases(durations: Sequence[tuple[str, float]]) -> Table:
    """Where the time went."""
    table = Table("phase", "time", title="Where the time went")
    for name, duration in durations:
        table.add_row(name, seconds(duration))
    table.add_row("[bold]all", f"[bold]{seconds(sum(d for _, d in durations))}")
    return table


def confusion(evaluation: Mapping[str, Any]) -> Table:
    """The confusion matrix: a row for each true class, a column for each predicted one."""
    classes = evaluation["classes"]
    title = f"Confusion matrix ({evaluation['samples']} recordings, accuracy {evaluation['accuracy']:.3f})"
    table = Table("true class", *(str(i + 1) for i in range(len(classes))), "recall", title=title)
    for index, (name, counts) in enumerate(zip(classes, evaluation["confusionMatrix"], strict=True)):
        cells = [f"[bold]{n}" if i == index else str(n) if n else "[dim]." for i, n in enumerate(counts)]
        recall = counts[index] / sum(counts) if sum(counts) else 0.0
        table.add_row(f"{index + 1} {name}", *cells, f"{recall:.2f}")
    return table


def by_snr(evaluation: Mapping[str, Any]) -> Table:
    """Accuracy at each signal-to-noise ratio."""
    table = Table("SNR (dB)", "recordings", "accuracy", title="Accuracy by SNR")
    for level in evaluation["bySnr"]:
        table.add_row(f"{level['snrDb']:g}", str(level["samples"]), f"{level['accuracy']:.3f}")
    return table


def predictions(lines: Iterable[Mapping[str, Any]]) -> Table:
    """A few predictions, each with the two classes it found likeliest."""
    table = Table("recording", "prediction", "score", "next", "score", title="Predictions")
    for one in lines:
        first, second = [*one["top"], {"class": "", "score": 0.0}][:2]
        table.add_row(
            escape(one["path"]), first["class"], f"{first['score']:.3f}", second["class"], f"{second['score']:.3f}"
        )
    return table


def seconds(value: float | None) -> str:
    """Seconds up to two minutes, then minutes and seconds."""
    if value is None:
        return ""
    whole = round(value)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02d} s"  # noqa: PLR2004  two minutes


def number(value: float | None, digits: int) -> str:
    """A number with that many digits after the point; nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"
