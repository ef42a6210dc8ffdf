"""Results as text for a person: predictions as a table, and what a training has made.

In: the values of a command. Out: text, also without a terminal.
"""

from __future__ import annotations

import shlex
from collections import defaultdict, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfuav_trainer.reporting.display import duration
from rfuav_trainer.storage.paths import local_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rfuav_trainer.job import Job
    from rfuav_trainer.quick.dry_run import Plan


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows of cells as aligned columns; those in `right` are aligned on their right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def predictions(lines: Sequence[dict[str, Any]], *, frames: bool) -> str:
    """A table of predictions: a row for each file, or for each frame if `frames`."""
    of_files: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        of_files[line["path"]].append(line)
    votes = {} if frames else _votes(line for line in lines if "error" not in line)
    rows = [("file", "class", "score", "then", "")]
    for path, own in of_files.items():
        good = [line for line in own if "error" not in line]
        for line in good if frames else []:
            place = [f"{line['startSeconds']:.3f} s"] if "startSeconds" in line else []
            place += [f"{line['centerHz'] / 1e6:.10g} MHz"] if "centerHz" in line else []
            rows.append((path, *_cells(line["top"]), ", ".join(place)))
        if vote := votes.get(path):
            note = f"{vote['agree']} of {vote['frames']} frames" if "frame" in good[0] else ""
            rows.append((path, *_cells(vote["top"]), note))
        for line in own:
            if "error" in line:
                where = "" if "frame" not in line else f"frame {line['frame']}: "
                rows.append((path, "-", "", "", f"{where}{line['error']}"))
    return columns(rows, right=(2,))


def _cells(top: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    best, *others = top
    then = ", ".join(f"{one['class']} {one['score']:.0%}" for one in others[:2] if one["score"] >= 0.01)  # noqa: PLR2004
    return best["class"], f"{best['score']:.1%}", then


def _votes(lines: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The vote of the frames of each file, as in `recordings.jsonl`."""
    from rfuav_trainer.evaluation.recordings import Ballot, Vote  # noqa: PLC0415  (imports numpy)

    lines = list(lines)
    classes = sorted({top["class"] for line in lines for top in line["top"]})
    ballot, votes = Ballot(classes, {}), list[Vote]()
    ballot.listeners.append(votes.append)
    deque(ballot.watching(lines), maxlen=0)
    return {vote.recording: vote.line(classes) for vote in votes}


def trained(job: Job, mark: Mapping[str, Any], data: Path | None) -> str:
    """What a training has made, where it lies, and what to run next.

    Args:
        job: the TrainingJob.
        mark: its mark of success.
        data: the folder that was named instead of a job file, or None.
    """
    from rfuav_trainer.quick.folder import TEST  # noqa: PLC0415  (imports numpy)

    best = mark["metrics"].get("best") or {}
    lines = []
    if best:
        lines += [
            (
                f"best epoch {best['epoch']}: accuracy {best['valAccuracy']:.4f}, macro F1 {best['macroF1']:.4f}, "
                f"loss {best['valLoss']:.4f} (validation)"
            ),
            "",
        ]
    places = {name: _place(job, uri) for name, uri in mark["outputs"].items()}
    lines.append(columns(list(places.items())))
    test = next((data / name for name in TEST if (data / name).is_dir()), None) if data else None
    weights = shlex.quote(str(places["bestWeights"]))
    lines += ["", "next:", f"  rfuav-trainer predict FILE_OR_FOLDER --weights {weights}"]
    if test is not None:
        lines.append(f"  rfuav-trainer evaluate {shlex.quote(str(test))} --weights {weights}")
    return "\n".join(lines)


def plan(plan: Plan) -> str:
    """What a training would do."""
    rows: list[tuple[str, ...]] = [("class", "train", "recordings", "validation", "recordings")]
    rows += [
        (name, *(str(row[key]) for key in ("train", "trainRecordings", "validation", "validationRecordings")))
        for name, row in plan.classes.items()
    ]
    sums = [sum(int(row[column]) for row in rows[1:]) for column in range(1, 5)]
    rows.append(("all", *map(str, sums)))
    channels, height, width = plan.shape
    kind = "pictures" if plan.format == "image" else "frames of recordings"
    facts = [
        (
            "network",
            f"{plan.architecture}, {plan.parameters / 1e6:.1f} million parameters, {len(plan.classes)} classes",
        ),
        ("input", f"{kind} as {channels} x {height} x {width}"),
        ("runs on", f"{plan.device}, {plan.precision}, batches of {plan.batch_size}, {plan.steps} steps an epoch"),
        ("memory", f"{_size(plan.memory)} for a step, {_size(plan.memory_limit)} may be used"),
        ("disk", f"{_size(plan.disk)} in {plan.output} ({plan.state})"),
        (
            "time",
            f"about {duration(plan.seconds)} for {plan.epochs} epochs here, {plan.step_seconds:.2g} s a step",
        ),
    ]
    lines = [columns(rows, right=(1, 2, 3, 4)), "", columns(facts)]
    if plan.unreadable:
        name, reason = next(iter(plan.unreadable.items()))
        lines += ["", f"{len(plan.unreadable)} cannot be read, such as {name}: {reason}"]
    if plan.left_out:
        lines += ["", "annotations left out:", *(f"  {count}  {reason}" for reason, count in plan.left_out.items())]
    return "\n".join(lines)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"  # noqa: PLR2004


def _place(job: Job, uri: str) -> str:
    """The path of `uri` on this machine, relative to the current folder if it is below it."""
    if uri.startswith("s3://"):
        return uri
    path = local_path(job, uri, "output.uri")
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
