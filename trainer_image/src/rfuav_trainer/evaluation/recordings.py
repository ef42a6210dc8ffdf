"""The prediction for each recording: its frames vote.

In: prediction lines, and which recording each input was cut from. Out: a line for each recording, and what metrics by
recording are computed from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rfuav_trainer.data.labels import first_folder, in_class, label_of
from rfuav_trainer.data.recordings import NO_CLASS, recognise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

LEAST = 1e-6
"""A lower score counts as this one, so that no frame alone excludes a class; also that of a class missing in `top`."""
TOP = 5

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
class Vote:
    """The vote of a recording.

    Attributes:
        recording: its name.
        logs: sums of the log scores of its frames, by class.
        won: frames by the class that they say.
        frames: those that vote.
        dead: those that hold nothing.
        labels: which labels its lines state.
        label: the true class of its last frame that votes, as `label_of` finds it.
        centers: centre frequencies of its frames, in Hz.
    """

    recording: str
    logs: Floats
    won: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    dead: int = 0
    labels: tuple[str, ...] = ()
    label: str = ""
    centers: set[float] = field(default_factory=set)

    def scores(self) -> Floats:
        """The softmax of the mean log scores of the frames; there must be one."""
        chances: Floats = np.exp((self.logs - self.logs.max()) / self.frames)
        chances /= chances.sum()
        return chances

    def line(self, classes: Sequence[str]) -> dict[str, Any]:
        """The line of the recording.

        `recording`, `class`, `score`, `top`, `frames` (that voted), `agree` (how many of them say the same class),
        `dead` (frames that hold nothing; class and score are null if all do), `label` where all frames have one, and
        `centersHz`, the centre frequencies of the frames, in Hz, where they are known.
        """
        line: dict[str, Any] = {"recording": self.recording}
        if len(self.labels) == 1:
            line |= {"label": self.labels[0]}
        if self.centers:
            line |= {"centersHz": sorted(self.centers)}
        line |= {"class": None, "score": None, "frames": self.frames, "agree": 0, "dead": self.dead, "top": []}
        if self.frames:
            scores = self.scores()
            order = np.argsort(-scores, kind="stable")[:TOP]
            top = [{"class": classes[i], "score": float(f"{scores[i]:.9g}")} for i in order]
            line |= {**top[0], "agree": self.won.get(top[0]["class"], 0), "top": top}
        return line


class Ballot:
    """Collects the votes of all frames. A picture that is its own recording is counted at once and forgotten.

    Args:
        classes: names in the order of the scores.
        recordings: the recording of each input, by its path; an input that is missing is its own.

    Attributes:
        listeners: called with each vote once it is complete: of a recording with several frames after the last line,
            in the order of the names.
        count: how many votes are complete.
    """

    def __init__(self, classes: Sequence[str], recordings: Mapping[str, str]) -> None:
        self._classes, self._recordings = list(classes), recordings
        self._index = {name: number for number, name in enumerate(classes)}
        self._votes: dict[str, Vote] = {}
        self._shared = _repeated(recordings.values())
        self.listeners: list[Callable[[Vote], object]] = []
        self.count = 0

    def recording(self, line: Mapping[str, Any]) -> str | None:
        """The recording of the input of a line; None if no other line is of it."""
        path: str = line["path"]
        name = self._recordings.get(path, path)
        return name if "frame" in line or name in self._shared else None

    def watching(self, lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass the lines through, and count their votes. Each frame counts alike, a dead one not at all."""
        for line in lines:
            name = self.recording(line)
            if name is None:
                votes = self._new(self._recordings.get(line["path"], line["path"]))
                self._count(votes, line)
                self._tell(votes)
            else:
                votes = self._votes.get(name) or self._votes.setdefault(name, self._new(name))
                self._count(votes, line)
            yield line
        for name in sorted(self._votes):
            self._tell(self._votes[name])

    def _new(self, name: str) -> Vote:
        return Vote(name, np.zeros(len(self._classes)))

    def _count(self, votes: Vote, line: Mapping[str, Any]) -> None:
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
            votes.label = label_of(line)

    def _tell(self, votes: Vote) -> None:
        self.count += 1
        for listener in self.listeners:
            listener(votes)

    def _scores(self, line: Mapping[str, Any]) -> Floats:
        if "scores" in line:
            return np.asarray(line["scores"], dtype=np.float64)
        found = np.zeros(len(self._classes))
        for entry in line["top"]:
            found[self._index[entry["class"]]] = entry["score"]
        return found


def _repeated(names: Iterable[str]) -> set[str]:
    """The names that occur more than once."""
    once, more = set[str](), set[str]()
    for name in names:
        (more if name in once else once).add(name)
    return more
