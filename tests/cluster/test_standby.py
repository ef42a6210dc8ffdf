"""A second replica is started; what becomes of it, `test_replicas` looks at in the end."""

from cluster import replicas
from cluster.running import Running


def test_a_second_replica_stands_by_and_is_ready(running: Running) -> None:
    before = replicas.leader(running.kube)
    replicas.scale(running.kube, 2)
    assert replicas.leader(running.kube) == before
    assert replicas.labelled(running.kube) == [before]
