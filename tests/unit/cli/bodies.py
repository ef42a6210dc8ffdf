"""Objects as the API server shows them, for the command line."""

from datetime import UTC, datetime
from typing import Any

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
Body = dict[str, Any]


def job(
    name: str, kind: str = "TrainingJob", *, namespace: str = "team-a", spec: Body | None = None, **status: Any
) -> Body:
    return {
        "apiVersion": "rfuav.io/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T11:00:00Z",
        },
        "spec": {"model": {"architecture": "resnet18"}, "pool": "default", "resources": {"gpus": 1}, **(spec or {})},
        "status": status,
    }


def waiting(
    name: str, position: int | None, *, of: int = 3, starts: str | None = None, message: str = "", **more: Any
) -> Body:
    queue = {"position": position, "of": of} | ({"estimatedStart": starts} if starts else {})
    return job(
        name,
        phase="Queued",
        queuedAt="2026-01-01T11:30:00Z",
        reason="WaitingForCapacity",
        message=message or "needs 1 GPU; pool default has 0 of 2 training slots free on 1 node",
        **({} if position is None else {"queue": queue}),
        **more,
    )


def running(name: str, *, gpus: int = 1, node: str = "gpu-1", **more: Any) -> Body:
    return job(
        name,
        phase="Running",
        runningSince="2026-01-01T11:50:00Z",
        assignments=[{"pod": f"{name}-1", "node": node, "gpus": gpus}],
        progress={"percent": 40, "remainingSeconds": 900},
        **more,
    )


def pool(name: str = "default", **status: Any) -> Body:
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": "admits jobs on 1 of 1 nodes"}
    numbers = {
        "gpus": 2,
        "slots": 8,
        "slotsInUse": {"training": 2, "inference": 1},
        "running": {"training": 2, "inference": 1},
        "pending": {"total": 3},
    }
    return {"metadata": {"name": name}, "spec": {}, "status": {**numbers, "conditions": [ready], **status}}


def quota(namespace: str = "team-a", **used: Any) -> Body:
    entry = {
        "name": "default",
        "used": 2,
        "borrowed": 1,
        "admitted": {"training": 2},
        "pending": {"training": 1},
        **used,
    }
    gpus = {"nominal": 1, "borrowingLimit": 3}
    return {
        "metadata": {"name": "default", "namespace": namespace},
        "spec": {"pools": [{"name": "default", "gpus": gpus}]},
        "status": {"pools": [entry]},
    }
