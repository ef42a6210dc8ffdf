"""How good the predictions are: over all, for each class, by signal-to-noise ratio, by colour map, by confidence.

In: prediction lines of inputs that lie in folders named after their class, a few at a time. Out: what `evaluation.json`
holds; `evaluation_report` makes pages and pictures of it.
"""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import structlog
import torch

from rfuav_trainer import data
from rfuav_trainer.conditions import conditions
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.metrics import CONFIDENCES, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

log = structlog.get_logger()

TOGETHER = 512  # lines
MOST_GROUPS = 64  # of SNR, and of colour map; each takes some megabytes
IN_GROUPS = ("top1", "top3", "top5", "macroF1", "meanAveragePrecision", "calibrationError")


def evaluate(lines: Iterable[dict[str, Any]], classes: Sequence[str], root: Path) -> dict[str, Any]:
    """Metrics over all predictions, for each SNR, and for each colour map.

    Args:
        lines: predictions; their `path` begins with the name of the true class. `scores` (one for each class) may be
            missing, then `top` stands in for them.
        classes: names in the order of the scores.
        root: the input folder, where a file beside an input may tell its SNR and colour map.

    Returns:
        samples, accuracy, metrics, perClass (samples, precision, recall, f1, averagePrecision), classes,
        confusionMatrix (rows true, columns predicted), calibration (samples, confidence, accuracy by confidence), bySnr
        (snrDb, samples, accuracy, ...; in rising order) and byColorMap (colorMap, ...), empty when nothing states them,
        MOST_GROUPS rows at most.
        Without all scores the average precisions are left out: they cannot be known.

    Raises:
        InputError: there are no predictions, or inputs that lie in no folder.
        InvalidConfigurationError: a folder is no class of the weights.
    """
    index = {name: position for position, name in enumerate(classes)}
    whole = True
    total, by_snr, by_map = Tally(len(classes)), dict[float, Tally](), dict[str, Tally]()
    left_out = set[float | str]()
    remaining = iter(lines)
    while part := list(islice(remaining, TOGETHER)):
        check_labels([line["path"] for line in part], classes, root)
        scores = torch.tensor([_scores(line, index) for line in part], dtype=torch.float32)
        whole = whole and all("scores" in line or len(line["top"]) == len(classes) for line in part)
        labels = torch.tensor([index[line["path"].partition("/")[0]] for line in part])
        total.add(scores, labels)
        snr, colours = zip(*_conditions(part, root), strict=True)
        for groups, values in ((by_snr, snr), (by_map, colours)):
            for value in {*values} - {None}:
                rows = torch.tensor([other == value for other in values])
                if value not in groups:
                    if len(groups) == MOST_GROUPS:
                        left_out.add(value)
                        continue
                    groups[value] = Tally(len(classes))
                groups[value].add(scores[rows], labels[rows])
    if left_out:
        log.warning("more conditions than an evaluation has rows for", most=MOST_GROUPS, leftOut=len(left_out))
    if not total.samples:
        raise InputError("there is nothing to evaluate: no input could be read", reason="TooManyUnreadable")
    content = {
        "samples": total.samples,
        "accuracy": total.metrics()["top1"],
        "metrics": total.metrics(),
        "perClass": dict(zip(classes, total.per_class(), strict=True)),
        "classes": list(classes),
        "confusionMatrix": total.confusion.tolist(),
        "calibration": _calibration(total),
        "bySnr": [{"snrDb": value, **_row(by_snr[value])} for value in sorted(by_snr)],
        "byColorMap": [{"colorMap": value, **_row(by_map[value])} for value in sorted(by_map)],
    }
    if not whole:
        for row in (content["metrics"], *content["perClass"].values(), *content["bySnr"], *content["byColorMap"]):
            row.pop("meanAveragePrecision", None)
            row.pop("averagePrecision", None)
    return content


def _scores(line: dict[str, Any], index: dict[str, int]) -> list[float]:
    given: list[float] | None = line.get("scores")
    if given is None:
        given = [0.0] * len(index)
        for entry in line["top"]:
            given[index[entry["class"]]] = entry["score"]
    return given


def _row(tally: Tally) -> dict[str, float]:
    found = tally.metrics()
    return {"samples": tally.samples, "accuracy": found["top1"], **{name: found[name] for name in IN_GROUPS[1:]}}


def _calibration(tally: Tally) -> list[dict[str, float]]:
    """For each part of the confidence that occurs: samples, their mean confidence and their accuracy."""
    return [
        {
            "from": round(part / CONFIDENCES, 4),
            "to": round((part + 1) / CONFIDENCES, 4),
            "samples": int(count),
            "confidence": round(confidence / count, 6),
            "accuracy": round(right / count, 6),
        }
        for part, (count, confidence, right) in enumerate(tally.calibration.T.tolist())
        if count
    ]


def _conditions(lines: Iterable[dict[str, Any]], root: Path) -> Iterator[tuple[float | None, str | None]]:
    """SNR in dB and colour map of each input; frames of one recording follow each other, so its file is read once."""
    last = ""
    found: tuple[float | None, str | None] = (None, None)
    for line in lines:
        if line["path"] != last:
            last = line["path"]
            found = conditions(last, data.read_label_file(root / last))
        yield found


def check_labels(names: Sequence[str], classes: Sequence[str], root: Path) -> None:
    """Raise when the inputs of an evaluation are not in folders that are named after the weights' classes."""
    loose = [name for name in names if "/" not in name]
    if loose:
        raise InputError(
            f"evaluation needs every input in a folder named after its class: {root}/{loose[0]} is in none",
            reason="LabelsMissing",
        )
    unknown = sorted({name.partition("/")[0] for name in names} - set(classes))
    if unknown:
        raise InvalidConfigurationError(
            f"the folders {', '.join(unknown[:5])} in {root} are no classes of the weights ({', '.join(classes[:10])}"
            f"{', ...' if classes[10:] else ''}): rename them, or leave evaluation out",
            reason="ClassMismatch",
        )


def read_lines(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The JSON objects of several JSON Lines files, one after the other."""
    for path in paths:
        with path.open("rb") as stream:
            for line in stream:
                yield json.loads(line)
