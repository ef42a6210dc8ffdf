"""The cluster from lists that were read once, for a caller that plans and goes.

In: objects as the API server lists them, by kind of ours and by path of Kubernetes' own. Out: a snapshot for the core,
through the same readers as the operator's.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rfuav_kube import objects
from rfuav_operator.core.model import Defaults, Kind, Snapshot
from rfuav_operator.shell.kinds import POOL, QUOTA
from rfuav_operator.shell.reading import ingest
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.reading.watched import watched

Bodies = Iterable[Mapping[str, Any]]


def snapshot(ours: Mapping[str, Bodies], others: Mapping[str, Bodies], defaults: Defaults) -> Snapshot:
    """The cluster as these objects show it. What cannot be read of one is its own, as for the operator.

    Args:
        ours: objects of our kinds, by kind.
        others: those of Kubernetes itself, by the path of their list (`rfuav_kube.paths`).
        defaults: the settings that the rules read.
    """
    state = ClusterState(defaults, on_dirt=lambda: None)
    for row in watched(state):
        for body in others.get(row.path, ()):
            read, why = objects.converted(body, row.read)
            row.cache.put(row.key(read), objects.version(read.metadata), row.value(read, why))
    for kind in Kind:
        for body in ours.get(kind, ()):
            ingest.job(state, kind, body)
    for body in ours.get(POOL, ()):
        ingest.pool(state, body)
    for body in ours.get(QUOTA, ()):
        ingest.quota(state, body)
    return state.snapshot()
