"""The learning rate schedule: a function of the step alone, so that a resumed training needs no state.

In: the schedule of the job and a position in steps. Out: a factor for the learning rate, above 0 and at most 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rfuav_crds.training import Schedule

STAGES = 3
"""Equal parts of the training for `step`; each has a tenth of the previous rate, as in torchvision's recipes."""


def factor(schedule: Schedule, step: int, *, steps: int, epochs: int) -> float:
    """The factor of the learning rate at `step` (from 0, over all epochs).

    Args:
        schedule: constant; cosine, half a period from 1 towards 0 (Loshchilov & Hutter 2017, arXiv 1608.03983, without
            restarts); step, a tenth after each third. All start after the linear warm-up, which ends at 1.
        step: optimizer steps taken before this one.
        steps: of an epoch.
        epochs: of the whole training.
    """
    warm = schedule.warmup_epochs * steps
    if step < warm:
        return (step + 1) / (warm + 1)
    share = (step - warm) / (epochs * steps - warm)
    if schedule.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    if schedule.name == "step":
        return float(10.0 ** -int(share * STAGES))
    return 1.0
