"""The evaluation for people: tables for a terminal, a page for a browser, the confusion matrix as a picture.

In: the result of `evaluate.evaluate`. Out: evaluation.json, evaluation.txt, evaluation.html (self-contained) and
confusion-matrix.png.
"""

from __future__ import annotations

import base64
import html
import io
import math
from typing import TYPE_CHECKING, Any

from rfuav_trainer.reporting import lettering
from rfuav_trainer.storage.files import atomic_writer, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

CONTENT, TABLE, PAGE, PICTURE = "evaluation.json", "evaluation.txt", "evaluation.html", "confusion-matrix.png"
FILES = (CONTENT, TABLE, PAGE, PICTURE)
MOST_INCHES = (
    30.0  # maximum side of the picture, at 100 dpi; with more classes, cells shrink and not every class is labelled
)
INCHES_EACH_LETTER = 0.08
LONGEST_NAME = 40
"""Characters of a class beside the confusion matrix; tables have all of them."""
MOST_NUMBERS = 20  # classes; with more, the cells of the picture have no counts
GROUP_COLUMNS = {
    "samples": "samples",
    "accuracy": "accuracy",
    "accuracyInterval": "95 %",
    "top3": "top3",
    "top5": "top5",
    "macroF1": "macro F1",
    "meanAveragePrecision": "mAP",
    "calibrationError": "calib. error",
}
CLASS_COLUMNS = {
    "samples": "samples",
    "precision": "precision",
    "recall": "recall",
    "recallInterval": "95 %",
    "f1": "F1",
    "averagePrecision": "avg. prec.",
}
STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}img{max-width:100%}h1{margin-bottom:0}"""

Table = tuple[list[str], list[list[str]]]


def write(folder: Path, evaluation: dict[str, Any], title: str, mistakes: bytes | None = None) -> None:
    """Write the four files, each atomically.

    Args:
        folder: for the files.
        evaluation: what `evaluate.evaluate` returns.
        title: the heading of the page.
        mistakes: the contact sheet of the most confident mistakes.
    """
    write_json(folder / CONTENT, evaluation)
    with atomic_writer(folder / TABLE) as stream:
        stream.write(as_text(evaluation).encode())
    matrix = _png(_matrix(evaluation["confusionMatrix"], evaluation["classes"]))
    with atomic_writer(folder / PICTURE) as stream:
        stream.write(matrix)
    with atomic_writer(folder / PAGE) as stream:
        stream.write(as_html(evaluation, title, matrix, mistakes).encode())


def tables(evaluation: dict[str, Any]) -> dict[str, Table]:
    """Headings and rows of all tables, by title; without empty tables."""
    groups = {"By SNR (dB)": ("snrDb", "bySnr"), "By colour map": ("colorMap", "byColorMap")}
    found = {
        title: _table("SNR (dB)" if key == "snrDb" else "colour map", GROUP_COLUMNS, key, evaluation[name])
        for title, (key, name) in groups.items()
        if evaluation[name]
    }
    classes = [{"class": name, **row} for name, row in evaluation["perClass"].items()]
    return {"Classes": _table("class", CLASS_COLUMNS, "class", classes), **found}


def _table(first: str, columns: dict[str, str], key: str, rows: list[dict[str, Any]]) -> Table:
    return [first, *columns.values()], [
        [_words(row[key]), *(_words(row.get(name)) for name in columns)] for row in rows
    ]


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if value == int(value) and abs(value) > 1 else f"{value:.4f}"
    if isinstance(value, list):
        return "{:.2f}-{:.2f}".format(*value)
    return "-" if value is None else str(value)


def as_text(evaluation: dict[str, Any]) -> str:
    """The evaluation as tables for a terminal."""
    own = evaluation["byRecording"]
    lines = [_counts(evaluation), "", *_metrics_as_text(evaluation)]
    if _differs(evaluation):
        lines += ["", "by recording, whose frames vote", "", *_metrics_as_text(own)]
    for headings, rows in tables(evaluation).values():
        widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]
        lines.append("")
        for row in [headings, *rows]:
            cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    lines += _matrix_as_text("confusion matrix", evaluation["confusionMatrix"], evaluation["classes"])
    if _differs(evaluation):
        lines += _matrix_as_text("confusion matrix of recordings", own["confusionMatrix"], evaluation["classes"])
    return "\n".join(lines) + "\n"


def _counts(evaluation: dict[str, Any]) -> str:
    """What was evaluated, and what macro averages are over."""
    dead = f", {evaluation['dead']} more hold nothing" if evaluation["dead"] else ""
    over = evaluation["macroOver"]
    without = f" (none of {', '.join(over['leftOut'])})" if over["leftOut"] else ""
    return (
        f"{evaluation['samples']} samples of {evaluation['byRecording']['samples']} recordings{dead}; macro averages "
        f"over {len(over['classes'])} of {len(evaluation['classes'])} classes{without}"
    )


def _differs(evaluation: dict[str, Any]) -> bool:
    """Whether a recording is more than one sample."""
    return bool(evaluation["byRecording"]["samples"] != evaluation["samples"])


def _metrics(part: dict[str, Any]) -> list[list[str]]:
    """Name, value and 95 % interval of each metric."""
    intervals = part["intervals"]
    return [
        [name, f"{value:.4f}", "{:.4f} to {:.4f}".format(*intervals[name]) if name in intervals else ""]
        for name, value in part["metrics"].items()
    ]


def _metrics_as_text(part: dict[str, Any]) -> list[str]:
    return [f"{name:<22}{value:>8}  {interval}".rstrip() for name, value, interval in _metrics(part)]


def _matrix_as_text(title: str, matrix: list[list[int]], classes: Sequence[str]) -> list[str]:
    width = max(len(name) for name in classes) + 5
    return [
        "",
        f"{title}: rows are true classes, columns predicted",
        "",
        " " * width + "".join(f"{number:>6}" for number in range(len(classes))),
        *(
            f"{number:>3} {name:<{width - 4}}" + "".join(f"{count:>6}" for count in row)
            for number, (name, row) in enumerate(zip(classes, matrix, strict=True))
        ),
    ]


def as_html(evaluation: dict[str, Any], title: str, matrix: bytes, mistakes: bytes | None = None) -> str:
    """A self-contained page with numbers, plots, tables and mistakes. `matrix` is the confusion matrix as PNG."""
    headings = ["metric", "value", "95 % interval"]
    parts = [
        f"<h1>{html.escape(title)}</h1><p>{html.escape(_counts(evaluation))}</p>",
        _html_table((headings, _metrics(evaluation))),
        "<h2>Confusion matrix</h2><p>Rows are true classes, columns predicted.</p>",
        image(matrix, "confusion matrix"),
        *(_recordings_as_html(evaluation, headings) if _differs(evaluation) else ()),
        "<h2>Calibration</h2><p>Where confidence exceeds accuracy, the network is overconfident.</p>",
        image(_png(_reliability(evaluation["calibration"])), "accuracy by confidence"),
    ]
    if evaluation["bySnr"]:
        parts += ["<h2>Accuracy by SNR</h2>", image(_png(_over_snr(evaluation["bySnr"])), "accuracy by SNR")]
    for name, table in tables(evaluation).items():
        parts += [f"<h2>{html.escape(name)}</h2>", _html_table(table)]
    if mistakes is not None:
        parts += ["<h2>The most confident mistakes</h2>", image(mistakes, "the most confident mistakes")]
    return page(title, parts)


def _recordings_as_html(evaluation: dict[str, Any], headings: list[str]) -> list[str]:
    own = evaluation["byRecording"]
    matrix = _png(_matrix(own["confusionMatrix"], evaluation["classes"]))
    return [
        "<h2>By recording</h2><p>The frames of a recording vote: their mean log scores decide its class.</p>",
        _html_table((headings, _metrics(own))),
        image(matrix, "confusion matrix of recordings"),
    ]


def _html_table(table: Table) -> str:
    headings, rows = table
    lines = ["<table>", "<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in headings) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</table>"])


def page(title: str, parts: Sequence[str]) -> str:
    """A self-contained page of `parts`, which are HTML."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def image(picture: bytes, words: str) -> str:
    """A picture, PNG or JPEG, as part of a page; `words` say what it shows."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f'<img alt="{html.escape(words)}" src="data:image/{kind};base64,{base64.b64encode(picture).decode()}">'


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415  (seconds to import)

    return Figure(figsize=(width, height), layout="constrained")


def _matrix(matrix: list[list[int]], classes: Sequence[str]) -> Figure:
    """The confusion matrix: colours are fractions of the true class, numbers are counts."""
    share = [[count / max(1, sum(row)) for count in row] for row in matrix]
    shown = max(len(_short(name)) for name in classes)
    side = min(MOST_INCHES, max(4.0, 0.45 * len(classes) + 2.0 + INCHES_EACH_LETTER * shown))
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    named = range(0, len(classes), math.ceil(len(classes) * 0.2 / side))  # names need 0.2 inches each
    names = [lettering.drawable(_short(classes[number])) for number in named]
    axes.set_xticks(named, names, rotation=90, **lettering.style())
    axes.set_yticks(named, names, **lettering.style())
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= MOST_NUMBERS:
        for row, values in enumerate(matrix):
            for column, count in enumerate(values):
                dark = share[row][column] > 0.5  # noqa: PLR2004  (half of the colour scale)
                axes.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    figure.colorbar(image, ax=axes, label="share of the true class")
    return figure


def _short(name: str) -> str:
    """A name that leaves room for the picture: its beginning and its end."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[-(LONGEST_NAME // 2 - 1) :]}"


def _reliability(calibration: list[dict[str, float]]) -> Figure:
    figure = _figure(5, 4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="calibrated")
    width = calibration[0]["to"] - calibration[0]["from"]
    axes.bar([row["from"] for row in calibration], [row["accuracy"] for row in calibration], width, align="edge")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    return figure


def _over_snr(rows: list[dict[str, float]]) -> Figure:
    figure = _figure(7, 4)
    axes = figure.subplots()
    for name, label in (("accuracy", "accuracy"), ("top3", "top 3"), ("macroF1", "macro F1")):
        axes.plot([row["snrDb"] for row in rows], [row[name] for row in rows], marker=".", label=label)
    axes.set(xlabel="SNR (dB)", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
