"""What the API server keeps: objects with resourceVersions, and the log of changes that watches read.

Objects are plain dicts that nobody changes in place. Every write goes through here, is given the next version, and is
told to the observers (invariants, machines, open watches) at once.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

Object = dict[str, Any]
Key = tuple[str, str]  # namespace, name

JOBS = ("trainingjobs", "inferencejobs")
KINDS = {
    "trainingjobs": "TrainingJob",
    "inferencejobs": "InferenceJob",
    "gpupools": "GPUPool",
    "gpuquotas": "GPUQuota",
    "pods": "Pod",
    "nodes": "Node",
    "namespaces": "Namespace",
    "priorityclasses": "PriorityClass",
    "resourcequotas": "ResourceQuota",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "persistentvolumes": "PersistentVolume",
    "services": "Service",
    "leases": "Lease",
    "events": "Event",
}
_WITH_GENERATION = (*JOBS, "gpupools", "gpuquotas")


class Change(NamedTuple):
    """One write, as it was committed."""

    version: int
    at: float
    resource: str
    type: str  # ADDED | MODIFIED | DELETED
    key: Key
    old: Object | None
    new: Object  # for DELETED the last state, at the version of the deletion
    author: str  # a process of the operator, or who else


class Server:
    """The store.

    Args:
        time: virtual seconds.
        stamp: the present instant as Kubernetes writes it.
    """

    def __init__(self, time: Callable[[], float], stamp: Callable[[], str]) -> None:
        self._time = time
        self.stamp = stamp
        self.version = 100
        self.objects: dict[str, dict[Key, Object]] = {resource: {} for resource in KINDS}
        self.log: dict[str, list[Change]] = defaultdict(list)
        self.floor: dict[str, int] = defaultdict(int)  # versions up to here can no longer be watched from
        self.observers: list[Callable[[Change], None]] = []
        self._bytes: dict[int, bytes] = {}

    def get(self, resource: str, key: Key) -> Object | None:
        """One object."""
        return self.objects[resource].get(key)

    def all(self, resource: str) -> list[Object]:
        """All of a resource."""
        return list(self.objects[resource].values())

    def create(self, resource: str, body: Object, author: str) -> Object:
        """Store a new object; its name must be free."""
        given = body["metadata"]
        key = (given.get("namespace", ""), given["name"])
        meta = {
            **given,
            "uid": f"{key[1]}.{self.version + 1}",
            "creationTimestamp": self.stamp(),
            "generation": 1,
        }
        return self._commit(
            resource, "ADDED", key, None, {**body, "kind": KINDS[resource], "metadata": meta}, author=author
        )

    def write(self, resource: str, key: Key, changes: Object, author: str) -> Object:
        """Replace top-level parts of an object; unchanged content makes no new version."""
        old = self.objects[resource][key]
        if all(old.get(part) == value for part, value in changes.items()):
            return old
        new = {**old, **changes}
        if resource in _WITH_GENERATION and new.get("spec") != old.get("spec"):
            new["metadata"] = {**new["metadata"], "generation": old["metadata"]["generation"] + 1}
        return self._commit(resource, "MODIFIED", key, old, new, author=author)

    def meta(self, resource: str, key: Key, changes: Object, author: str) -> Object:
        """Change fields of the metadata."""
        old = self.objects[resource][key]
        return self.write(resource, key, {"metadata": {**old["metadata"], **changes}}, author)

    def remove(self, resource: str, key: Key, author: str) -> Object:
        """Delete an object for good."""
        old = self.objects[resource][key]
        return self._commit(resource, "DELETED", key, old, old, author=author)

    def _commit(self, resource: str, kind: str, key: Key, old: Object | None, new: Object, *, author: str) -> Object:
        self.version += 1
        new = {**new, "metadata": {**new["metadata"], "resourceVersion": str(self.version)}}
        if kind == "DELETED":
            del self.objects[resource][key]
        else:
            self.objects[resource][key] = new
        change = Change(self.version, self._time(), resource, kind, key, old, new, author=author)
        self.log[resource].append(change)
        for observer in self.observers:
            observer(change)
        return new

    # --- for watches and lists

    def position(self, resource: str, version: int) -> int:
        """Where in the log the changes after `version` begin."""
        return bisect_right(self.log[resource], version, key=lambda change: change.version)

    def compact(self, resource: str) -> None:
        """Watches from older versions than the present are answered with 410."""
        self.floor[resource] = self.version

    def bytes_of(self, obj: Object) -> bytes:
        """An object as it goes over the wire."""
        version = int(obj["metadata"]["resourceVersion"])
        if version not in self._bytes:
            self._bytes[version] = orjson.dumps(obj)
        return self._bytes[version]
