"""Jobs and pods as the API server shows them."""

from hashlib import sha256
from typing import Any

from rfuav_crds import contract


def job_body(
    name: str = "a", *, version: int = 1, uid: str = "u1", kind: str = "TrainingJob", **more: Any
) -> dict[str, Any]:
    """A job as the API server shows it."""
    return {
        "apiVersion": contract.API_VERSION,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": uid,
            "resourceVersion": str(version),
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"model": {"architecture": "resnet18"}, **more.pop("spec", {})},
        **more,
    }


A1, A2, A3 = (f"a-{sha256(b'u1').hexdigest()[:5]}-{attempt}" for attempt in (1, 2, 3))  # pods of job_body()


def pod_body(
    name: str = A1,
    *,
    version: int = 1,
    uid: str = "p1",
    owner: str | None = "u1",
    phase: str = "Pending",
    **more: Any,
) -> dict[str, Any]:
    """A pod as the API server shows it; `owner`: the UID of its job, a TrainingJob called a."""
    meta: dict[str, Any] = {
        "name": name,
        "namespace": "ns",
        "uid": uid,
        "resourceVersion": str(version),
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    if owner:
        meta["ownerReferences"] = [
            {"apiVersion": contract.API_VERSION, "kind": "TrainingJob", "name": "a", "uid": owner, "controller": True}
        ]
        attempt = name.rpartition("-")[2]
        meta["labels"] = {contract.LABEL_KIND: "TrainingJob", contract.LABEL_JOB: "a", contract.LABEL_ATTEMPT: attempt}
    given = more.pop("metadata", {})
    labels = {**meta.get("labels", {}), **(given.get("labels") or {})}
    meta.update({**given, "labels": labels})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [{}], **more.pop("spec", {})},
        "status": {"phase": phase, **more.pop("status", {})},
    }
