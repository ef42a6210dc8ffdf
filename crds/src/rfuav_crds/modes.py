"""The choices that a pool and a quota offer: as their CRDs name them, and as the operator's rules ask for them."""

from enum import StrEnum


class StopPolicy(StrEnum):
    """Whether a pool admits jobs, and what becomes of those that run."""

    NONE = "None"
    HOLD = "Hold"
    HOLD_AND_DRAIN = "HoldAndDrain"


class Queueing(StrEnum):
    """Whether those behind a job that is blocked may start before it."""

    BEST_EFFORT_FIFO = "BestEffortFIFO"
    STRICT_FIFO = "StrictFIFO"


class Placement(StrEnum):
    """Which of the nodes that have room is taken."""

    PACK = "Pack"
    SPREAD = "Spread"


class PreemptWithin(StrEnum):
    """Which jobs of their pool those of higher priority stop."""

    NEVER = "Never"
    LOWER_PRIORITY = "LowerPriority"


class ReclaimBorrowed(StrEnum):
    """From which borrowers a namespace takes back its nominal share."""

    NEVER = "Never"
    LOWER_PRIORITY = "LowerPriority"
    ANY = "Any"
