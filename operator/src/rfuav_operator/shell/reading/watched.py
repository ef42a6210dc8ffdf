"""What Kubernetes itself has and the core reads: one row for each resource, from its path to its cache."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rfuav_kube import paths
from rfuav_kube.cache import Cache
from rfuav_kube.connection import Connection
from rfuav_kube.objects import Bare
from rfuav_kube.pods import PodObject
from rfuav_kube.reflector import Reflector
from rfuav_operator.shell.reading import nodes, pods, policies, storage
from rfuav_operator.shell.reading.state import ClusterState


class Watched(NamedTuple):
    """One resource."""

    path: str
    cache: Cache[Any, Any]
    read: type[Any]  # as much of an object as is read
    value: Callable[[Any, str], Any]  # of it, and of why something of it was left out
    key: Callable[[Any], Any]


def watched(state: ClusterState) -> list[Watched]:
    """All of them, with the caches of `state`."""
    return [
        Watched(paths.NODES, state.nodes, nodes.NodeObject, nodes.node, _name),
        Watched(
            paths.RESOURCE_QUOTAS,
            state.resource_quotas,
            policies.ResourceQuotaObject,
            policies.resource_quota,
            _namespace_and_name,
        ),
        Watched(paths.NAMESPACES, state.namespaces, Bare, policies.namespace, _name),
        Watched(
            paths.PRIORITY_CLASSES,
            state.priority_classes,
            policies.PriorityClassObject,
            policies.priority_class,
            _name,
        ),
        Watched(paths.VOLUMES, state.volumes, storage.VolumeObject, storage.volume, _name),
        Watched(paths.CLAIMS, state.claims, storage.ClaimObject, storage.claim, _namespace_and_name),
        Watched(paths.PODS, state.pods, PodObject, pods.pod, _namespace_and_name),
    ]


def reflectors(state: ClusterState, connection: Connection) -> list[Reflector[Any, Any, Any]]:
    """One for each of them, not running yet."""
    return [
        Reflector(connection, row.path, row.cache, read=row.read, key=row.key, value=row.value)
        for row in watched(state)
    ]


def _name(read: Any) -> str:
    return str(read.metadata.name)


def _namespace_and_name(read: Any) -> tuple[str, str]:
    return read.metadata.namespace, read.metadata.name
