"""Metrics by recording in the validation: the samples of a recording vote, as the frames of an evaluation do.

In: scores and samples, batch by batch. Out: accuracy and macro F1 over recordings.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import torch

from rfuav_trainer.evaluation.metrics import Tally
from rfuav_trainer.evaluation.recordings import LEAST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from rfuav_trainer.data.samples import Sample
    from rfuav_trainer.evaluation.metrics import Counts, Floats


class RecordingVotes:
    """The votes of all recordings. A sample that is its own recording is counted at once.

    Of a recording with several classes, as its annotations may say, the samples of each class vote for themselves.

    Args:
        samples: the validation samples of all processes.
        classes: number of classes.
    """

    def __init__(self, samples: Sequence[Sample], classes: int) -> None:
        sizes = Counter((sample.group, sample.label) for sample in samples)
        voters = [voter for voter, size in sizes.items() if size > 1]
        self._rows = {voter: row for row, voter in enumerate(voters)}
        self._labels = torch.tensor([label for _, label in voters], dtype=torch.int64)
        self._logs = np.zeros((len(voters), classes))
        self._frames = np.zeros(len(voters))
        self._alone = Tally(classes)

    @property
    def counts(self) -> tuple[Floats | Counts, ...]:
        """All counts. Their sums over several processes are the counts of all samples."""
        voted = (self._logs, self._frames) if self._rows else ()
        return *voted, *self._alone.counts

    def add(self, samples: Sequence[Sample], scores: Tensor) -> None:
        """Count samples; `scores` are their probabilities, float64, (n, classes)."""
        logs = scores.clamp(min=LEAST).log().numpy()
        alone = [number for number, sample in enumerate(samples) if (sample.group, sample.label) not in self._rows]
        self._alone.add(scores[alone], torch.tensor([samples[number].label for number in alone], dtype=torch.int64))
        for number, sample in enumerate(samples):
            row = self._rows.get((sample.group, sample.label))
            if row is not None:
                self._logs[row] += logs[number]
                self._frames[row] += 1

    def metrics(self) -> dict[str, float]:
        """`recordingAccuracy` and `recordingMacroF1`; empty if every sample is its own recording. To be called once."""
        voted = torch.from_numpy(self._frames > 0)
        if not voted.any():
            return {}
        means = torch.from_numpy(self._logs)[voted] / torch.from_numpy(self._frames)[voted, None]
        self._alone.add(means.softmax(dim=1), self._labels[voted])
        return {"recordingAccuracy": self._alone.accuracy, "recordingMacroF1": self._alone.metrics()["macroF1"]}
