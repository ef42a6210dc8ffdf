"""Clusters in which jobs run for a while already, so that one more has to wait or to stop others."""

from msgspec.structs import replace
from unit.core.builders import PREEMPTION, job, pool, whole
from unit.core.cluster import Cluster

from rfuav_operator.core.model import Resources


def gpus(count):
    return Resources(gpus=count, cpu="1", memory="1Gi")


def cluster(*running, nodes=None, policy=PREEMPTION, quotas=(), age=100, **rest):
    """A cluster in which these jobs run since `age` seconds."""
    made = Cluster(nodes or [whole(gpus=2)], [pool(preemption=policy, **rest)], quotas=quotas)
    for one in running:
        made.add(one)
        made.go().start_all()
    made.go(age)
    assert made.running() == {j.name for j in running}
    return made


def low(name, **rest):
    return job(name, priority_class_name="low", **rest)


def high(name="high", priority="high", **rest):
    return job(name, priority_class_name=priority, **rest)


def add(made, *jobs):
    for one in jobs:
        made.add(replace(one, created=made.now))
    return made.go()


def stopping(made):
    """Names of the jobs that are being stopped for others."""
    return {j.name for j in made.jobs.values() if any(a.stopping_for for a in j.status.assignments)}
