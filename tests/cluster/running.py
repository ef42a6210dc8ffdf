"""The installed operator on a real cluster, as one value that every test takes."""

from dataclasses import dataclass

from cluster.kube import Kube
from cluster.observer import Observer


@dataclass(frozen=True)
class Running:
    """A cluster with the operator in it, and the eyes on it."""

    kube: Kube
    observer: Observer
    registry: str
    trainer_image: str
    node: str  # where all pods run
    second_node: str  # where only those run that tolerate its taint
