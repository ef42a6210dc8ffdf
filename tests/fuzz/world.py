"""A small cluster whose teams go about their work, into which inputs are fed by the doors that they come in by.

The operator's own shell decodes them (reflectors, ingest, the progress intake), its loop decides, and what it hands to
the writer is kept. Nothing waits and nothing is sent.
"""

import json
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import orjson
import structlog
from fuzz.garbage import Input, pod_name
from openapi import faults, schema_of

from rfuav_crds import contract
from rfuav_kube import paths
from rfuav_kube.reflector import Reflector
from rfuav_operator.core.model import (
    Action,
    CreatePod,
    Defaults,
    DeleteJob,
    DeletePod,
    Kind,
    PatchLimitsStatus,
    PatchStatus,
    Pool,
    Quota,
    RecordEvent,
)
from rfuav_operator.shell import kinds
from rfuav_operator.shell.loop import Loop
from rfuav_operator.shell.reading import ingest
from rfuav_operator.shell.reading.state import ClusterState
from rfuav_operator.shell.reading.watched import Watched, watched
from rfuav_operator.shell.serving.intake import Intake
from rfuav_operator.shell.serving.tokens import Sender

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
TURNS = (10, 400, 3_500_000)  # seconds after the start: at once, past the time-outs, forty days later
T = "2026-01-01T12:00:00Z"
TRASH = "trash"
WATCHED = {
    "pod": paths.PODS,
    "node": paths.NODES,
    "resource_quota": paths.RESOURCE_QUOTAS,
    "priority_class": paths.PRIORITY_CLASSES,
    "namespace": paths.NAMESPACES,
    "claim": paths.CLAIMS,
    "volume": paths.VOLUMES,
}
_STATUS = {kind: schema_of(f"{kind.value.lower()}s", "status") for kind in Kind}
_LIMITS = {Pool: schema_of("gpupools", "status"), Quota: schema_of("gpuquotas", "status")}

errors: list[str] = []
"""What was logged as an error."""


def _collect(_logger: Any, method: str, event: dict[str, Any]) -> Any:
    if method in ("error", "exception", "critical"):
        trace = str(event.pop("exception", "")).strip().splitlines()
        errors.append("\n".join([str(event), *trace[-5:]]))
    raise structlog.DropEvent


def listen() -> None:
    """From now on the log goes to `errors`."""
    structlog.configure(processors=[structlog.processors.ExceptionRenderer(), _collect])


class World:
    """The cluster, fresh."""

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.state = ClusterState(Defaults(image="trainer:1", progress_url="https://x", progress_ca="PEM"))
        self.intake = Intake(
            self.state,
            SimpleNamespace(sender=_sender),  # type: ignore[arg-type]
            leading=lambda: True,
            on_report=lambda: None,
            per_second=1000,
        )
        writer: Any = SimpleNamespace(submit=self.actions.extend)
        self.loop = Loop(self.state, writer, self.intake.take)
        rows = {row.path: row for row in watched(self.state)}
        self._doors: dict[str, Callable[[Any], bool]] = {
            "report": self._report,
            "termination_message": self._termination_message,
            **{name: self._reflected(rows[path]) for name, path in WATCHED.items()},
            "gpu_pool": self._pool,
            "gpu_quota": self._quota,
            "training_job": lambda body: self._job(Kind.TRAINING, body),
            "inference_job": lambda body: self._job(Kind.INFERENCE, body),
        }
        for intake, body in _base():
            assert self._doors[intake](body), (intake, body)
        self.state.touch_all()

    def feed(self, given: Input) -> bool:
        """Let an input in; whether it was read whole."""
        return self._doors[given.intake](given.document)

    def run(self) -> list[Any]:
        """What is decided in some turns, that for the teams alone; all of it can be written."""
        decided: list[Any] = []
        for seconds in TURNS:
            if seconds > TURNS[0]:  # a pod ends, and others have its room
                ended = _pod("a1", "team-a", "m1", phase="Succeeded", state={"terminated": {"exitCode": 0}})
                ended["metadata"]["resourceVersion"] = "11"
                self._doors["pod"](ended)
            self.loop.turn(START + timedelta(seconds=seconds))
            for action in self.actions:
                _check(action)
                if (said := _of_teams(action)) is not None:
                    decided.append((seconds, *said))
            self.actions.clear()
        return decided

    # --- the doors

    def _reflected(self, row: Watched) -> Callable[[Any], bool]:
        reflector: Any = Reflector(None, "", row.cache, read=row.read, key=row.key, value=row.value)  # type: ignore[arg-type]

        def door(body: Any) -> bool:
            # The API server sends no lone surrogates.
            event = json.dumps({"type": "MODIFIED", "object": body}, ensure_ascii=False)
            reflector._take(event.encode(errors="replace"))
            try:
                meta = body["metadata"]
                held = row.cache.get((meta.get("namespace", ""), meta["name"])) or row.cache.get(meta["name"])
            except (LookupError, TypeError, AttributeError):
                return False
            return held is not None and not held.unreadable

        return door

    def _report(self, document: Any) -> bool:
        path = f"{kinds.OURS}/namespaces/{TRASH}/trainingjobs/{TRASH}/status"
        body = json.dumps(document).encode()

        async def read() -> bytes:
            return body

        where = {"namespace": TRASH, "plural": "trainingjobs", "name": TRASH}
        request: Any = SimpleNamespace(
            headers={"Authorization": f"Bearer {pod_name(TRASH)}"}, match_info=where, read=read, path=path
        )
        answer = _run(self.intake._post(request))
        assert answer.status in (200, 409, 422), answer.status
        return bool(answer.status == 200)

    def _termination_message(self, text: str) -> bool:
        ended = {
            "exitCode": 1,
            "reason": "Error",
            "finishedAt": T,
            "startedAt": T,
            "message": text.encode(errors="replace").decode(),
        }
        body = _pod("ended", TRASH, TRASH, phase="Failed", state={"terminated": ended})
        body["metadata"]["resourceVersion"] = "1000"
        return self._doors["pod"](body)

    def _job(self, kind: Kind, body: Any) -> bool:
        read = ingest.job(self.state, kind, body)
        return read is not None and not read.set_aside and not any("cannot be read" in p for p in read.problems)

    def _pool(self, body: Any) -> bool:
        ingest.pool(self.state, body)
        held = self.state.pools.get(body["metadata"]["name"])
        return held is not None and not held.unreadable

    def _quota(self, body: Any) -> bool:
        ingest.quota(self.state, body)
        held = self.state.quotas.get(body["metadata"]["namespace"])
        return held is not None and not held.unreadable


async def _sender(token: str) -> Sender:
    return Sender(TRASH, token, f"uid-{token}")


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


# --- what is decided


def _check(action: Action) -> None:
    """Whatever is decided can be written."""
    if isinstance(action, PatchStatus):
        plain = orjson.loads(msgspec.json.encode(action.status))
        assert not (found := list(faults(plain, _STATUS[action.job.kind]))), found
        orjson.dumps(msgspec.to_builtins(action.status))
    elif isinstance(action, PatchLimitsStatus):
        assert not (found := list(faults(action.status, _LIMITS[type(action.target)]))), found
        orjson.dumps(action.status)
    elif isinstance(action, CreatePod):
        orjson.dumps(action.manifest)
    elif isinstance(action, RecordEvent):
        orjson.dumps(action.note)


def _of_teams(action: Action) -> tuple[str, str, Any] | None:
    """What an action says, if it is not about the trash."""
    kind = type(action).__name__
    match action:
        case PatchStatus(job=job, status=status):
            return None if job.namespace == TRASH else (kind, job.name, status)
        case CreatePod(namespace=namespace, name=name, manifest=manifest):
            return None if namespace == TRASH else (kind, name, manifest)
        case DeletePod(namespace=namespace, name=name):
            return None if namespace == TRASH else (kind, name, "")
        case RecordEvent(job=job, note=note):
            return None if job.namespace == TRASH else (kind, job.name, note)
        case DeleteJob(job=job):
            return None if job.namespace == TRASH else (kind, job.name, "")
        case PatchLimitsStatus(target=target, status=status):
            name = target.name if isinstance(target, Pool) else target.namespace
            return None if name == TRASH else (kind, name, dict(status))


# --- what is there before anything comes


def _meta(name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{name}",
        "resourceVersion": "10",
        "generation": 1,
        "creationTimestamp": T,
        **more,
    }


def _pod(
    job: str, namespace: str, on: str, *, shard: str = "", phase: str = "Running", state: Any = None
) -> dict[str, Any]:
    kind = "InferenceJob" if shard else "TrainingJob"
    labels = {contract.LABEL_KIND: kind, contract.LABEL_JOB: job, contract.LABEL_ATTEMPT: "1"} | (
        {contract.LABEL_SHARD: shard} if shard else {}
    )
    reference = {"apiVersion": contract.API_VERSION, "kind": kind, "name": job, "uid": f"uid-{job}", "controller": True}
    asked = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {contract.GPU: "1"}}
    status = {"name": "trainer", "state": state or {"running": {"startedAt": T}}}
    return {
        "metadata": _meta(pod_name(job, shard), namespace, ownerReferences=[reference], labels=labels),
        "spec": {"nodeName": on, "containers": [{"name": "trainer", "resources": asked}]},
        "status": {"phase": phase, "containerStatuses": [status]},
    }


def _node(name: str, pool: str) -> dict[str, Any]:
    labels = {
        "nvidia.com/gpu.count": "1",
        "nvidia.com/gpu.memory": "24000",
        "nvidia.com/gpu.replicas": "4",
        "pool": pool,
    }
    room = {contract.GPU: "4", "cpu": "32", "memory": "128Gi", "pods": "110"}
    return {
        "metadata": _meta(name, labels=labels),
        "spec": {},
        "status": {"allocatable": room, "capacity": room, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def _job(name: str, namespace: str, pool: str, pod: str = "", node: str = "", **spec: Any) -> dict[str, Any]:
    status: dict[str, Any] = {}
    if pod:
        held = {"pod": pod, "node": node, "gpus": 1, "startedAt": T} | ({"shard": 0} if "shards" in spec else {})
        status = {
            "phase": "Running",
            "attempt": 1,
            "assignments": [held],
            "queuedAt": T,
            "admittedAt": T,
            "startedAt": T,
            "runningSince": T,
            "progress": {"percent": 10, "remainingSeconds": 600, "updatedAt": T},
        }
        if "shards" in spec:
            status["shards"] = {"total": spec["shards"], "attempts": {"0": 1}}
    return {
        "metadata": _meta(name, namespace),
        "spec": {
            "output": {"uri": "pvc://models/x"},
            "resources": {"gpus": 1, "cpu": "1", "memory": "1Gi"},
            "pool": pool,
            **spec,
        },
        "status": status,
    }


def _base() -> Iterator[tuple[str, Any]]:
    for name, pool in (("m1", "main"), ("m2", "main"), (TRASH, TRASH)):
        yield "node", _node(name, pool)
    preemption = {"withinPool": "LowerPriority", "reclaimBorrowed": "Any", "minRuntimeSeconds": 60}
    for pool in ("main", TRASH):
        tiers = [{"minMemory": "22Gi", "training": 1, "inference": 2}, {"minMemory": 0, "training": 1, "inference": 1}]
        spec = {
            "nodeSelector": {"pool": pool},
            "perGPU": tiers,
            "preemption": preemption,
            "priorityClasses": [{"names": ["urgent"], "namespaceSelector": {"matchLabels": {"kind": "team"}}}],
        }
        yield "gpu_pool", {"metadata": _meta(pool), "spec": spec}
    for team in ("team-a", "team-b"):
        entry = {"name": "main", "gpus": {"nominal": 2, "lendingLimit": 1}}
        yield "gpu_quota", {"metadata": _meta("default", team, uid=f"quota-{team}"), "spec": {"pools": [entry]}}
        yield "namespace", {"metadata": _meta(team, labels={"kind": "team"})}
    yield "priority_class", {"metadata": _meta("urgent"), "value": 5000}
    yield (
        "resource_quota",
        {"metadata": _meta("rq", "team-b"), "status": {"hard": {"pods": "50"}, "used": {"pods": "2"}}},
    )
    for namespace in ("team-a", "team-b", TRASH):
        yield "volume", {"metadata": _meta(f"pv-{namespace}"), "spec": {}}
        for name in ("models", "captures", "results"):
            yield (
                "claim",
                {
                    "metadata": _meta(name, namespace),
                    "spec": {"accessModes": ["ReadWriteMany"], "volumeName": f"pv-{namespace}"},
                    "status": {"phase": "Bound", "accessModes": ["ReadWriteMany"]},
                },
            )
    yield "training_job", _job("a1", "team-a", "main", pod_name("a1"), "m1")
    yield "inference_job", _job("i1", "team-b", "main", pod_name("i1", "0"), "m2", shards=3, parallelism=2)
    for i in range(4):
        yield "training_job", _job(f"w{i}", ("team-a", "team-b")[i % 2], "main")
    yield "training_job", _job("urgent", "team-b", "main", priorityClassName="urgent")
    yield "training_job", _job("gang", "team-a", "main", nodes=2)
    yield "training_job", _job(TRASH, TRASH, TRASH, pod_name(TRASH), TRASH)
    yield "training_job", _job("ended", TRASH, TRASH, pod_name("ended"), TRASH)
    yield "pod", _pod("a1", "team-a", "m1")
    yield "pod", _pod("i1", "team-b", "m2", shard="0")
    yield "pod", _pod(TRASH, TRASH, TRASH)
    yield "pod", _pod("ended", TRASH, TRASH)
