"""Evaluation of predictions: overall, for each class, by SNR, by colour map, by confidence.

In: prediction lines of labelled inputs, as a stream. Out: the content of `evaluation.json`, from which `report` makes
pages and pictures.
"""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import structlog
import torch

from rfuav_crds import reasons
from rfuav_trainer.data.labels import conditions, first_folder, in_class
from rfuav_trainer.data.samples import read_label_file
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.evaluation.metrics import CONFIDENCES, Tally
from rfuav_trainer.storage import marks, outputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

log = structlog.get_logger()

TOGETHER = 512  # lines
MOST_GROUPS = 64  # of SNR, and of colour map; each needs some megabytes
IN_GROUPS = ("top1", "top3", "top5", "macroF1", "meanAveragePrecision", "calibrationError")


def evaluate(lines: Iterable[dict[str, Any]], classes: Sequence[str], root: Path) -> dict[str, Any]:
    """Metrics over all predictions, for each SNR, and for each colour map.

    Args:
        lines: predictions. `label` is the true class; without it, the first folder of `path` is. Without `scores` (one
            for each class), `top` is used. Without `snr` (dB), the path or the label file of the input is used.
        classes: names in the order of the scores.
        root: the input folder, which may contain label files with SNR and colour map.

    Returns:
        samples, dead (inputs that hold nothing, which do not count), accuracy, metrics, perClass (samples, precision,
        recall, f1, averagePrecision), classes, confusionMatrix (rows true, columns predicted), calibration (samples,
        confidence, accuracy by confidence), bySnr (snrDb, samples, accuracy, ...; in rising order) and byColorMap
        (colorMap, ...), empty if unknown, MOST_GROUPS rows at most.
        Without all scores there are no average precisions.

    Raises:
        InputError: there are no predictions, or inputs without a label.
        InvalidConfigurationError: a label is not a class of the weights.
    """
    index = {name: position for position, name in enumerate(classes)}
    whole = True
    total, by_snr, by_map = Tally(len(classes)), dict[float, Tally](), dict[str, Tally]()
    left_out = set[float | str]()
    remaining, dead = iter(lines), 0
    while read := list(islice(remaining, TOGETHER)):
        part = [line for line in read if "dead" not in line]
        dead += len(read) - len(part)
        if not part:
            continue
        true = [_label(line) for line in part]
        check_labels(dict(zip((line["path"] for line in part), true, strict=True)), classes, root)
        scores = torch.tensor([_scores(line, index) for line in part], dtype=torch.float32)
        whole = whole and all("scores" in line or len(line["top"]) == len(classes) for line in part)
        labels = torch.tensor([index[label] for label in true])
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
        log.warning("too many different conditions; some have no row", most=MOST_GROUPS, leftOut=len(left_out))
    if not total.samples:
        raise InputError(
            "nothing to evaluate: every input is unreadable or holds nothing", reason=reasons.TOO_MANY_UNREADABLE
        )
    content = {
        "samples": total.samples,
        "dead": dead,
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
    """For each non-empty bin of the confidence: samples, mean confidence and accuracy."""
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
    """SNR in dB and colour map of each input. The frames of a recording are adjacent, so its file is read once."""
    last = ""
    found: tuple[float | None, str | None] = (None, None)
    for line in lines:
        if line["path"] != last:
            last = line["path"]
            found = conditions(in_class(_label(line), last), read_label_file(root / last))
            if "snr" in line:
                found = (float(round(line["snr"])), found[1])
        yield found


def _label(line: dict[str, Any]) -> str:
    """The true class of the input of a prediction; empty if unknown."""
    stated: str | None = line.get("label")
    return first_folder(line["path"]) if stated is None else stated


def check_labels(labels: Mapping[str, str], classes: Sequence[str], root: Path) -> None:
    """Raise unless every input has a label that is a class of the weights."""
    loose = next((name for name, label in labels.items() if not label), None)
    if loose is not None:
        raise InputError(
            f"evaluation needs a label for every input, by its folder or in the manifest: {root}/{loose} has none",
            reason=reasons.LABELS_MISSING,
        )
    unknown = sorted({*labels.values()} - set(classes))
    if unknown:
        raise InvalidConfigurationError(
            f"the labels {', '.join(unknown[:5])} of inputs in {root} are not classes of the weights "
            f"({', '.join(classes[:10])}{', ...' if classes[10:] else ''}): rename the folders, correct the "
            "manifest, or leave evaluation out",
            reason=reasons.CLASS_MISMATCH,
        )


def read_lines(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The JSON objects of the JSON Lines files of finished shards.

    Raises:
        InputError: a file was removed.
    """
    for path in paths:
        try:
            with outputs.reading(path) as here, here.open("rb") as stream:
                for line in stream:
                    yield json.loads(line)
        except FileNotFoundError as error:
            mark = f"{marks.SUCCESS}-{path.stem.rpartition('-')[2]}"
            raise InputError(
                f"{outputs.shown(path)} is missing, but {mark} says that the shard is done: restore the file, or "
                f"remove {mark} and run that shard again"
            ) from error
