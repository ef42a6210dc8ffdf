"""Trains, evaluates and runs drone-signal classifiers, on a laptop as in a pod.

In: a job, from a file or from RFUAV_JOB, and its data. Out: weights, predictions, reports, progress and an exit code.
It must not know the operator or the cluster: they meet in `rfuav_crds.contract` alone.
`rfuav_trainer.train`, `predict`, `evaluate`, `init` and `check` do in Python what the commands of these names do.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rfuav_trainer.quick.api import Trained, check, evaluate, init, predict, train

__all__ = ["Trained", "check", "evaluate", "init", "predict", "train"]


def __getattr__(name: str) -> Any:
    """Import the API only when it is used: it takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rfuav_trainer.quick import api  # noqa: PLC0415

    return getattr(api, name)
