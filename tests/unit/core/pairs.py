"""TrainingJobs of several nodes in a cluster of two, and what is asked of them again and again."""

from unit.core.builders import job, whole
from unit.core.cluster import Cluster

PAIR = [whole("a", gpus=1), whole("b", gpus=1)]


def cluster(*jobs, nodes=PAIR, **rest):
    made = Cluster(nodes, **rest)
    for one in jobs:
        made.add(one)
    return made.go()


def gang(name="gang", nodes=2, **rest):
    return job(name, nodes=nodes, **rest)


def pods(made, name="gang"):
    """Live pods that nobody told to stop."""
    return [p.name for p in made.pods_of(name) if p.live and not p.deleting]
