"""Evaluation of predictions: overall, for each class, by SNR, by colour map, by confidence.

In: prediction lines of labelled inputs, as a stream. Out: the content of `evaluation.json`, from which `report` makes
pages and pictures.
"""

from __future__ import annotations

import json
from itertools import compress, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
import torch

from rfuav_crds import reasons
from rfuav_trainer.data.labels import conditions, in_class, label_of
from rfuav_trainer.data.samples import read_label_file
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.evaluation.intervals import Clusters
from rfuav_trainer.evaluation.metrics import CONFIDENCES, TOP, Tally
from rfuav_trainer.evaluation.recordings import Ballot, Vote
from rfuav_trainer.signals.sidecar import Packs
from rfuav_trainer.storage import marks, outputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

log = structlog.get_logger()

TOGETHER = 512  # lines
MOST_GROUPS = 64  # of SNR, and of colour map; each needs some megabytes
IN_GROUPS = ("top1", "top3", "top5", "macroF1", "meanAveragePrecision", "calibrationError")


def evaluate(
    lines: Iterable[dict[str, Any]], classes: Sequence[str], root: Path, ballot: Ballot | None = None
) -> dict[str, Any]:
    """Metrics over all predictions, over all recordings, for each SNR, and for each colour map.

    Args:
        lines: predictions. `label` is the true class; without it, the first folder of `path` is. Without `scores` (one
            for each class), `top` is used. Without `snr` (dB), the path, the label file or the sidecar of the
            input is used.
        classes: names in the order of the scores.
        root: the input folder, which may contain label files with SNR and colour map.
        ballot: takes the votes of the lines, and knows their recordings. Default: each file is a recording.

    Returns:
        samples, dead (inputs that hold nothing, which do not count), accuracy, metrics, perClass (samples, precision,
        recall, f1, averagePrecision), classes, confusionMatrix (rows true, columns predicted), calibration (samples,
        confidence, accuracy by confidence), bySnr (snrDb, samples, accuracy, ...; in rising order) and byColorMap
        (colorMap, ...), empty if unknown, MOST_GROUPS rows at most. macroOver: the classes that macro averages are
        over, and those that occur neither in labels nor in predictions. byRecording: samples, accuracy, metrics,
        perClass and confusionMatrix of the recordings, whose frames vote (`recordings.Ballot`).
        Accuracies have a 95 % interval (accuracyInterval, recallInterval of a class, intervals of top 1, 3 and 5) if
        there are two recordings. Without all scores there are no average precisions.

    Raises:
        InputError: there are no predictions, or inputs without a label.
        InvalidConfigurationError: a label is not a class of the weights.
    """
    index = {name: position for position, name in enumerate(classes)}
    whole = True
    total, by_snr, by_map = _Group(len(classes)), dict[float, _Group](), dict[str, _Group]()
    left_out = set[float | str]()
    packs = Packs()
    ballot = Ballot(classes, {}) if ballot is None else ballot
    voted = list[Vote]()
    ballot.listeners.append(voted.append)
    recordings = _Recordings(classes)
    of_class = [Clusters() for _ in classes]
    remaining, dead = ballot.watching(lines), 0
    while read := list(islice(remaining, TOGETHER)):
        part = [line for line in read if "dead" not in line]
        dead += len(read) - len(part)
        if not part:
            continue
        true = [label_of(line) for line in part]
        check_labels(dict(zip((line["path"] for line in part), true, strict=True)), classes, root)
        scores = torch.tensor([_scores(line, index) for line in part], dtype=torch.float32)
        whole = whole and all("scores" in line or len(line["top"]) == len(classes) for line in part)
        labels = torch.tensor([index[label] for label in true])
        names = [ballot.recording(line) for line in part]
        recordings.add(voted)
        voted.clear()
        total.add(scores, labels, names)
        for name, label, right in zip(names, labels.tolist(), total.right, strict=True):
            of_class[label].add([name], [right])
        snr, colours = zip(*_conditions(part, root, packs), strict=True)
        for groups, values in ((by_snr, snr), (by_map, colours)):
            for value in {*values} - {None}:
                rows = torch.tensor([other == value for other in values])
                if value not in groups:
                    if len(groups) == MOST_GROUPS:
                        left_out.add(value)
                        continue
                    groups[value] = _Group(len(classes))
                groups[value].add(scores[rows], labels[rows], list(compress(names, rows.tolist())))
    recordings.add(voted)
    if left_out:
        log.warning("too many different conditions; some have no row", most=MOST_GROUPS, leftOut=len(left_out))
    if not total.tally.samples:
        raise InputError(
            "nothing to evaluate: every input is unreadable or holds nothing", reason=reasons.TOO_MANY_UNREADABLE
        )
    tally, intervals = total.tally, _found(**total.intervals())
    content = {
        "samples": tally.samples,
        "dead": dead,
        "accuracy": tally.metrics()["top1"],
        **_found(accuracyInterval=intervals.get("top1")),
        "metrics": tally.metrics(),
        "intervals": intervals,
        "macroOver": _macro_over(tally, classes),
        "perClass": _per_class(tally, of_class, classes),
        "classes": list(classes),
        "confusionMatrix": tally.confusion.tolist(),
        "byRecording": recordings.content(),
        "calibration": _calibration(tally),
        "bySnr": [{"snrDb": value, **by_snr[value].row()} for value in sorted(by_snr)],
        "byColorMap": [{"colorMap": value, **by_map[value].row()} for value in sorted(by_map)],
    }
    if not whole:
        own = content["byRecording"]
        each = (*content["perClass"].values(), *own["perClass"].values())
        for row in (content["metrics"], own["metrics"], *content["bySnr"], *content["byColorMap"], *each):
            row.pop("meanAveragePrecision", None)
            row.pop("averagePrecision", None)
    return content


class _Group:
    """The predictions of a group: their metrics, and which recordings are right."""

    def __init__(self, classes: int) -> None:
        self.tally = Tally(classes)
        self.right: list[bool] = []
        """Of the predictions added last, whether the first guess is right."""
        self._clusters = {k: Clusters() for k in TOP if k == 1 or k < classes}

    def add(self, scores: Tensor, labels: Tensor, recordings: Sequence[str | None]) -> None:
        self.tally.add(scores, labels)
        found = scores.topk(min(max(self._clusters), scores.shape[1]), dim=1).indices == labels[:, None]
        for k, clusters in self._clusters.items():
            right = found[:, :k].any(dim=1).tolist()
            clusters.add(recordings, right)
            if k == 1:
                self.right = right

    def intervals(self) -> dict[str, list[float] | None]:
        return {f"top{k}": clusters.interval() for k, clusters in self._clusters.items()}

    def row(self) -> dict[str, Any]:
        found = self.tally.metrics()
        interval = _found(accuracyInterval=self._clusters[1].interval())
        rest = {name: found[name] for name in IN_GROUPS[1:]}
        return {"samples": self.tally.samples, "accuracy": found["top1"], **interval, **rest}


def _found(**intervals: list[float] | None) -> dict[str, list[float]]:
    """The intervals that are known."""
    return {name: value for name, value in intervals.items() if value is not None}


def _macro_over(tally: Tally, classes: Sequence[str]) -> dict[str, list[str]]:
    occurring = {*tally.occurring()}
    return {
        "classes": [name for label, name in enumerate(classes) if label in occurring],
        "leftOut": [name for label, name in enumerate(classes) if label not in occurring],
    }


class _Recordings:
    """The votes of the recordings, each of which counts once."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._index = {name: position for position, name in enumerate(classes)}
        self._group = _Group(len(classes))
        self._of_class = [Clusters() for _ in classes]

    def add(self, votes: Iterable[Vote]) -> None:
        votes = [vote for vote in votes if vote.frames]
        if not votes:
            return
        labels = [self._index[vote.label] for vote in votes]
        scores = torch.from_numpy(np.stack([vote.scores() for vote in votes])).float()
        self._group.add(scores, torch.tensor(labels, dtype=torch.int64), [None] * len(votes))
        for label, right in zip(labels, self._group.right, strict=True):
            self._of_class[label].add([None], [right])

    def content(self) -> dict[str, Any]:
        tally, intervals = self._group.tally, _found(**self._group.intervals())
        return {
            "samples": tally.samples,
            "accuracy": tally.metrics()["top1"],
            **_found(accuracyInterval=intervals.get("top1")),
            "metrics": tally.metrics(),
            "intervals": intervals,
            "macroOver": _macro_over(tally, self._classes),
            "perClass": _per_class(tally, self._of_class, self._classes),
            "confusionMatrix": tally.confusion.tolist(),
        }


def _per_class(tally: Tally, of_class: Sequence[Clusters], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each class its metrics, and the interval of its recall."""
    return {
        name: {**row, **_found(recallInterval=clusters.interval())}
        for name, row, clusters in zip(classes, tally.per_class(), of_class, strict=True)
    }


def _scores(line: dict[str, Any], index: dict[str, int]) -> list[float]:
    given: list[float] | None = line.get("scores")
    if given is None:
        given = [0.0] * len(index)
        for entry in line["top"]:
            given[index[entry["class"]]] = entry["score"]
    return given


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


def _conditions(lines: Iterable[dict[str, Any]], root: Path, packs: Packs) -> Iterator[tuple[float | None, str | None]]:
    """SNR in dB and colour map of each input. The frames of a recording are adjacent, so its file is read once."""
    last = ""
    found: tuple[float | None, str | None] = (None, None)
    for line in lines:
        if line["path"] != last:
            last = line["path"]
            otherwise = packs.stated(root / last).snr if "frame" in line else None
            found = conditions(in_class(label_of(line), last), read_label_file(root / last), otherwise)
            if "snr" in line:
                found = (float(round(line["snr"])), found[1])
        yield found


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
