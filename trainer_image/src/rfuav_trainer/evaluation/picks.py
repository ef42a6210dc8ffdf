"""Which predictions people look at first: some of all, the most confident mistakes, the least certain.

In: prediction lines, as a stream. Out: a bounded number of picks, the same ones whenever the lines are.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_trainer.data.labels import label_of
from rfuav_trainer.data.samples import named
from rfuav_trainer.errors import UnreadableFileError
from rfuav_trainer.evaluation.sheet import MOST_MISTAKES, mistake

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from rfuav_trainer.data.samples import Sample
    from rfuav_trainer.signals.spectrogram import SpectrogramParameters

log = structlog.get_logger()

MOST_SHOWN = 60
MOST_UNCERTAIN = 20
MOST_PICKS = MOST_SHOWN + MOST_MISTAKES + MOST_UNCERTAIN


@dataclass(frozen=True)
class Pick:
    """A prediction: the input, the class that it was taken for, the score of that class, the true class if known."""

    name: str
    frame: int | None
    predicted: str
    score: float
    label: str

    @property
    def wrong(self) -> bool:
        """Whether it is known to be a mistake."""
        return self.label not in {"", self.predicted}

    @property
    def words(self) -> list[str]:
        """What stands below its picture."""
        return mistake(self.predicted, self.score, self.label) if self.wrong else [f"{self.predicted} {self.score:.1%}"]


def inputs_of(
    picks: Iterable[Pick], root: Path, spectrogram: SpectrogramParameters | None
) -> Iterator[tuple[Pick, Sample]]:
    """The picks with their inputs, which can be read again; without recordings that are gone.

    Args:
        picks: in order.
        root: the folder of the inputs.
        spectrogram: how recordings become pictures.
    """
    for pick in picks:
        try:
            sample = named(root, pick.name, pick.frame, spectrogram)
        except UnreadableFileError as error:
            log.warning("not drawing a picture", file=pick.name, problem=str(error))
            continue
        yield pick, sample


class _Highest:
    """The picks with the highest scores, or those with the lowest."""

    def __init__(self, most: int, sign: int) -> None:
        self._most, self._sign = most, sign
        self._heap: list[tuple[float, str, int, Pick]] = []

    def add(self, pick: Pick) -> bool:
        """Whether it is one of them."""
        entry = (self._sign * pick.score, pick.name, pick.frame or 0, pick)
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
            return True
        return heapq.heappushpop(self._heap, entry) is not entry

    def picks(self) -> list[Pick]:
        return [entry[-1] for entry in sorted(self._heap, key=lambda entry: (-entry[0], *entry[1:3]))]


class Picks:
    """Chooses from prediction lines.

    Args:
        total: number of inputs; of more than MOST_SHOWN, some at equal distances are shown.
        labelled: whether the first folder of a path is its class, where the line has no label.
    """

    def __init__(self, total: int, *, labelled: bool) -> None:
        self._step = max(1, -(-total // MOST_SHOWN))
        self._labelled = labelled
        self._seen = 0
        self._mistakes, self._uncertain = _Highest(MOST_MISTAKES, 1), _Highest(MOST_UNCERTAIN, -1)
        self.shown: list[Pick] = []
        """Some of all, in their order."""

    @property
    def mistakes(self) -> list[Pick]:
        """The most confident mistakes, the most confident one first."""
        return self._mistakes.picks()

    @property
    def uncertain(self) -> list[Pick]:
        """The predictions with the lowest scores, the lowest first."""
        return self._uncertain.picks()

    def add(self, line: Mapping[str, Any]) -> bool:
        """Look at the next line; whether it is a pick now. Inputs that hold nothing are none."""
        if "dead" in line:
            return False
        label = label_of(line) if self._labelled else line.get("label", "")
        pick = Pick(line["path"], line.get("frame"), line["class"], line["score"], label)
        shown = self._seen % self._step == 0
        if shown:
            self.shown.append(pick)
        self._seen += 1
        mistaken = pick.wrong and self._mistakes.add(pick)
        return self._uncertain.add(pick) or mistaken or shown

    def watching(self, lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass the lines through, and look at each."""
        for line in lines:
            self.add(line)
            yield line

    def all(self) -> set[tuple[str, int | None]]:
        """Name and frame of all picks."""
        return {(pick.name, pick.frame) for pick in [*self.shown, *self.mistakes, *self.uncertain]}
