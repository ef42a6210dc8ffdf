"""The API server's answers to requests: optimistic locks, preconditions, AlreadyExists, graceful deletion, pages."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
from simulation.server import JOBS, Key, Object, Server

from rfuav_kube.connection import Answer

_PATH = re.compile(
    r"^/(?:api|apis/[^/]+)/v1(?:alpha1)?(?:/namespaces/(?P<ns>[^/]+))?/(?P<resource>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>status))?$"
)
_TERMINAL = ("Succeeded", "Failed")
SIDECAR: Object = {"name": "istio-proxy", "resources": {}}
INIT: Object = {"name": "fetch-ca", "resources": {}}  # a container that must end before the trainer starts


class Target(NamedTuple):
    """What a path names."""

    resource: str
    namespace: str
    name: str
    sub: str

    @property
    def key(self) -> Key:
        """The key of the object."""
        return self.namespace, self.name


@lru_cache(maxsize=1024)
def parse(path: str) -> Target:
    """The target of a request."""
    found = _PATH.match(path)
    assert found is not None, f"the model has no {path}"
    return Target(found["resource"], found["ns"] or "", found["name"] or "", found["sub"] or "")


def refusal(status: int, reason: str, message: str, retry_after: float | None = None) -> Answer:
    """An answer that says no."""
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": status}
    return Answer(status, body, retry_after)


class Api:
    """Requests in, answers out."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pod_quota: int | None = None  # a ResourceQuota: pods that have not ended
        self.injects: Callable[[Object], Object] = lambda _pod: {}  # what webhooks put first: containers, by field
        self.admits: Callable[[Object], str] = lambda _pod: ""  # why the quotas of its namespace refuse a pod
        self.terminating: set[str] = set()  # namespaces in deletion
        self._pages: dict[str, list[Object]] = {}

    def handle(self, method: str, target: Target, body: Any, author: str) -> Answer:
        """Carry out one request that is not a list."""
        if method == "POST":
            return self._create(target, body, author)
        found = self.server.get(target.resource, target.key)
        if found is None:
            return refusal(404, "NotFound", f'{target.resource} "{target.name}" not found')
        if method == "GET":
            return Answer(200, orjson.loads(orjson.dumps(found)) if target.resource == "leases" else found)
        if method == "PATCH":
            return self._patch(target, found, body, author)
        if method == "PUT":
            if body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
                return _conflict(target)
            return Answer(200, self.server.write(target.resource, target.key, {"spec": body["spec"]}, author))
        return self._delete(target, found, body or {}, author)

    def _create(self, target: Target, body: Object, author: str) -> Answer:
        name = body["metadata"]["name"]
        if target.namespace in self.terminating:
            words = f"unable to create new content in namespace {target.namespace} because it is being terminated"
            return refusal(403, "Forbidden", f'{target.resource} "{name}" is forbidden: {words}')
        if target.resource == "pods" and self._quota_is_full():  # admission comes before the store
            return refusal(403, "Forbidden", f'pods "{name}" is forbidden: exceeded quota: team')
        if target.resource == "pods" and (words := self.admits(body)):
            return refusal(403, "Forbidden", f'pods "{name}" is forbidden: {words}')
        if self.server.get(target.resource, (target.namespace, name)) is not None:
            return refusal(409, "AlreadyExists", f'{target.resource} "{name}" already exists')
        if target.resource == "pods":
            spec = body["spec"]
            added = {part: [*first, *(spec.get(part) or ())] for part, first in self.injects(body).items()}
            body = {**body, "spec": {**spec, **added}, "status": {"phase": "Pending"}}
        return Answer(201, self.server.create(target.resource, body, author))

    def _quota_is_full(self) -> bool:
        live = sum(pod["status"]["phase"] not in _TERMINAL for pod in self.server.all("pods"))
        return self.pod_quota is not None and live >= self.pod_quota

    def _patch(self, target: Target, found: Object, body: Object, author: str) -> Answer:
        expected = body.get("metadata", {}).get("resourceVersion")
        if expected is not None and expected != found["metadata"]["resourceVersion"]:
            return _conflict(target)
        parts = ("status",) if target.sub else tuple(part for part in body if part != "metadata")
        changes = {part: merged(found.get(part), body[part]) for part in parts if part in body}
        return Answer(200, self.server.write(target.resource, target.key, changes, author))

    def _delete(self, target: Target, found: Object, body: Object, author: str) -> Answer:
        wanted = body.get("preconditions") or {}
        if any(wanted[part] != found["metadata"][part] for part in wanted):
            return _conflict(target)
        if target.resource in JOBS and found["metadata"].get("finalizers"):
            marks = {"deletionTimestamp": found["metadata"].get("deletionTimestamp") or self.server.stamp()}
            return Answer(200, self.server.meta(target.resource, target.key, marks, author))
        if target.resource in JOBS:
            self.server.remove(target.resource, target.key, author)
            return Answer(200, {"kind": "Status", "status": "Success"})
        return Answer(200, self.delete_pod(found, author, grace=body.get("gracePeriodSeconds")))

    def delete_pod(self, pod: Object, author: str, *, grace: int | None = None) -> Object:
        """As the pod's strategy does it: at once when it is not bound or has ended, else marked for the kubelet."""
        meta, spec = pod["metadata"], pod["spec"]
        key = (meta["namespace"], meta["name"])
        bound, ended = spec.get("nodeName"), pod["status"]["phase"] in _TERMINAL
        if grace == 0 or not bound or ended:
            return self.server.remove("pods", key, author)
        if meta.get("deletionTimestamp"):
            return pod
        seconds = spec.get("terminationGracePeriodSeconds", 30) if grace is None else grace
        marks = {"deletionTimestamp": self.server.stamp(), "deletionGracePeriodSeconds": seconds}
        return self.server.meta("pods", key, marks, author)

    # --- lists

    def page(self, resource: str, params: Mapping[str, str], *, bare: bool) -> tuple[int, bytes, int]:
        """Status, body and version of one page of a list; 410 when its snapshot has expired."""
        limit, after = int(params.get("limit", "500")), params.get("continue", "")
        if not after:
            version, start, items = self.server.version, 0, self.server.all(resource)
            self._pages[f"{resource}/{version}"] = items
        else:
            version, start = (int(part) for part in after.split("-"))
            found = self._pages.get(f"{resource}/{version}")
            if found is None or version < self.server.floor[resource]:
                return 410, b'{"kind":"Status","code":410}', version
            items = found
        shown = items[start : start + limit]
        rest = f"{version}-{start + limit}" if start + limit < len(items) else ""
        meta = orjson.dumps({"resourceVersion": str(version), "continue": rest})
        if bare:
            parts = [orjson.dumps({"metadata": item["metadata"]}) for item in shown]
        else:
            parts = [self.server.bytes_of(item) for item in shown]
        items_json = b"[" + b",".join(parts) + b"]" if parts else b"null"
        return 200, b'{"metadata":' + meta + b',"items":' + items_json + b"}", version


def _conflict(target: Target) -> Answer:
    return refusal(409, "Conflict", f'operation cannot be fulfilled on {target.resource} "{target.name}"')


def merged(old: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result
