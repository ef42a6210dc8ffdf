"""The prediction for each recording: its frames vote.

In: prediction lines, and which recording each input was cut from. Out: a line for each recording, and what metrics by
recording are computed from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rfuav_trainer.data.labels import first_folder, in_class
from rfuav_trainer.data.recordings import recognise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

LEAST = 1e-6
"""A lower score counts as this one, so that no frame alone excludes a class; also that of a class missing in `top`."""
TOP = 5

NO_CLASS = "-"
"""Stands for the class in the names of inputs without one."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


def recordings_of(lines: Iterable[Mapping[str, Any]], *, labelled: bool) -> dict[str, str]:
    """The recording of each input, by its path: as its line states it, else as a data set's split recognises it.

    Args:
        lines: of the predictions.
        labelled: whether the first folder of a path is its class, where the line has no label.
    """
    found: dict[str, str] = {}
    below: dict[str, str] = {}
    classes: dict[str, set[str]] = {}
    kind = "image"
    for line in lines:
        path = line["path"]
        label = line.get("label") or (first_folder(path) if labelled else "")
        kind = "iq" if "frame" in line else kind
        if "recording" in line:
            stated = line["recording"]
            found[path] = f"{label}/{stated}" if label and not stated.startswith(f"{label}/") else stated
        elif path not in below:
            below[path] = in_class(label, path) if label else f"{NO_CLASS}/{path}"
            classes.setdefault(path.rpartition("/")[0], set()).add(label)
    # A folder with several classes is no recording.
    loose = {name for path, name in below.items() if len(classes[path.rpartition("/")[0]]) > 1}
    recognised = recognise(below.values(), kind, loose=loose)
    for path, name in below.items():
        own = recognised[name].name
        found[path] = own if own.partition("/")[0] != NO_CLASS else own.partition("/")[2] or path
    return found


@dataclass(slots=True)
class _Votes:
    """Of one recording: sums of log scores by class, frames won by class, frames, dead frames, labels of its frames.

    `centers` has their centre frequencies, in Hz.
    """

    logs: Floats
    won: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    dead: int = 0
    labels: tuple[str, ...] = ()
    centers: set[float] = field(default_factory=set)

    def scores(self) -> Floats:
        """The softmax of the mean log scores of the frames; there must be one."""
        chances: Floats = np.exp((self.logs - self.logs.max()) / self.frames)
        chances /= chances.sum()
        return chances


class Ballot:
    """Collects the votes of all frames.

    Args:
        classes: names in the order of the scores.
        recordings: the recording of each input, by its path; an input that is missing is its own.
    """

    def __init__(self, classes: Sequence[str], recordings: Mapping[str, str]) -> None:
        self._classes, self._recordings = list(classes), recordings
        self._index = {name: number for number, name in enumerate(classes)}
        self._votes: dict[str, _Votes] = {}

    def recording(self, line: Mapping[str, Any]) -> str:
        """The recording of the input of a line."""
        path: str = line["path"]
        return self._recordings.get(path, path)

    def watching(self, lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass the lines through, and count their votes. Each frame counts alike, a dead one not at all."""
        for line in lines:
            name = self.recording(line)
            votes = self._votes.get(name)
            if votes is None:
                votes = self._votes[name] = _Votes(np.zeros(len(self._classes)))
            if "label" in line and line["label"] not in votes.labels:
                votes.labels += (line["label"],)
            if "centerHz" in line:
                votes.centers.add(line["centerHz"])
            if "dead" in line:
                votes.dead += 1
            else:
                votes.logs += np.log(np.maximum(self._scores(line), LEAST))
                votes.won[line["class"]] = votes.won.get(line["class"], 0) + 1
                votes.frames += 1
            yield line

    def _scores(self, line: Mapping[str, Any]) -> Floats:
        if "scores" in line:
            return np.asarray(line["scores"], dtype=np.float64)
        found = np.zeros(len(self._classes))
        for entry in line["top"]:
            found[self._index[entry["class"]]] = entry["score"]
        return found

    def scores(self) -> Iterator[tuple[str, Floats]]:
        """Name and scores of each recording with a living frame."""
        return ((name, votes.scores()) for name, votes in self._votes.items() if votes.frames)

    def lines(self) -> Iterator[dict[str, Any]]:
        """A line for each recording, in the order of their names.

        `recording`, `class`, `score`, `top`, `frames` (that voted), `agree` (how many of them say the same class),
        `dead` (frames that hold nothing; class and score are null if all do), `label` where all frames have one, and
        `centersHz`, the centre frequencies of the frames, in Hz, where they are known.
        """
        for name in sorted(self._votes):
            votes = self._votes[name]
            line: dict[str, Any] = {"recording": name}
            if len(votes.labels) == 1:
                line |= {"label": votes.labels[0]}
            if votes.centers:
                line |= {"centersHz": sorted(votes.centers)}
            line |= {"class": None, "score": None, "frames": votes.frames, "agree": 0, "dead": votes.dead, "top": []}
            if votes.frames:
                scores = votes.scores()
                order = np.argsort(-scores, kind="stable")[:TOP]
                top = [{"class": self._classes[i], "score": float(f"{scores[i]:.9g}")} for i in order]
                line |= {**top[0], "agree": votes.won.get(top[0]["class"], 0), "top": top}
            yield line
