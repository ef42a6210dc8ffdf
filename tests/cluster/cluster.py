"""The installed operator on a real cluster, as one value that every test takes."""

import os
from dataclasses import dataclass
from typing import Any

from cluster.kube import Kube
from cluster.observer import Observer

Object = dict[str, Any]


@dataclass(frozen=True)
class Running:
    """A cluster with the operator in it, and the eyes on it."""

    kube: Kube
    observer: Observer
    registry: str
    trainer_image: str
    node: str


def keep() -> bool:
    """Whether a developer wants the cluster left as it is (RFUAV_KEEP_CLUSTER=1)."""
    return os.environ.get("RFUAV_KEEP_CLUSTER") == "1"
