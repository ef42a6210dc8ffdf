"""What comes in from outside, made odd: whole objects of each kind with one to three of their values put in disorder.

An input is an intake's name and a JSON document, drawn from a number: the same number gives the same input. Whatever
belongs to an input is in namespace `trash` and pool `trash`, so that it has no right to change what others get.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

from odd import BROKEN_INSTANTS, INSTANTS, QUANTITIES, Odd
from openapi import schema_of

from rfuav_crds import contract
from rfuav_crds.bounds import fit_to
from rfuav_operator.core import names


class Input(NamedTuple):
    """One input."""

    intake: str
    document: Any


MAKERS: dict[str, Callable[[Odd], Any]] = {}
STATUS = {kind: schema_of(f"{kind.lower()}s", "status") for kind in ("TrainingJob", "InferenceJob")}
SPEC = {kind: schema_of(f"{kind.lower()}s", "spec") for kind in ("TrainingJob", "InferenceJob", "GPUPool", "GPUQuota")}
T = "2026-01-01T12:00:00Z"


def draw(number: int) -> Input:
    """The input of this number."""
    odd = Odd(number)
    intake = list(MAKERS)[number % len(MAKERS)]
    return Input(intake, MAKERS[intake](odd))


def maker(make: Callable[[Odd], Any]) -> Callable[[Odd], Any]:
    """A kind of input, named like its function."""
    MAKERS[make.__name__] = make
    return make


def put_in_disorder(odd: Odd, value: Any, times: int, keep: tuple[str, ...] = ()) -> Any:
    """A copy with some of its values replaced, taken out or doubled; those at the paths in `keep` stay."""
    value = deepcopy(value)
    for _ in range(times):
        places = [
            (holder, key) for path, holder, key in _places(value, "") if not any(path.startswith(kept) for kept in keep)
        ]
        if not places:
            return value
        holder, key = odd.choice(places)
        holder[key] = _another(odd, holder[key])
        if odd.often(0.1) and isinstance(holder, dict):
            del holder[key]
    return value


def _places(value: Any, path: str) -> Any:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(entries):
        here = f"{path}.{key}"
        yield here, value, key
        yield from _places(inner, here)


def _another(odd: Odd, value: Any) -> Any:
    """Another value instead of this one: mostly of the same type."""
    if odd.often(0.15):
        return odd.anything()
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        found = odd.number(finite=True)
        return found if isinstance(found, int) else int(min(found, 1e18))
    if isinstance(value, float):
        return odd.number(finite=True)
    if isinstance(value, str):
        if value[:2] == "20" and value[-1:] == "Z":
            return odd.choice(INSTANTS if odd.often(0.8) else BROKEN_INSTANTS)
        if value[:1].isdecimal():
            return odd.choice(QUANTITIES)
        return odd.text(253)
    if isinstance(value, list):
        return value * odd.choice([0, 2, 300]) if odd.often(0.8) else []
    if isinstance(value, dict):
        return {**value, odd.text(): odd.text()} if odd.often(0.7) else {f"k{i}": odd.text() for i in range(300)}
    return odd.anything()


def metadata(odd: Odd, name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "trash",
        "uid": f"uid-{name}",
        "resourceVersion": str(odd.randint(10**6, 10**9)),
        "generation": 1,
        "creationTimestamp": T,
        "labels": {"app": "x"},
        **more,
    }


KEPT = (".metadata.name", ".metadata.namespace", ".metadata.uid", ".metadata.resourceVersion")


def pod_name(job: str, index: str = "") -> str:
    """The name of the first attempt's pod of a job whose UID is `uid-` and its name."""
    return f"{names.stem(job, f'uid-{job}')}-1{index and '-'}{index}"


def _times(odd: Odd) -> int:
    return odd.choice([1, 1, 2, 3])


# --- what pods say


@maker
def report(odd: Odd) -> Any:
    body = {
        "trainerStatus": {
            "progressPercentage": 45,
            "estimatedRemainingSeconds": odd.choice([300, 3e11]),
            "metrics": [{"name": "valLoss", "value": "0.25"}, {"name": "own", "value": 3}],
            "rfuav": {
                "sequence": odd.randint(1, 10**6),
                "epoch": 3,
                "totalEpochs": 10,
                "step": 5,
                "samplesPerSecond": 12.5,
                "gpuMemoryBytes": 2**33,
                "gpuUtilization": 50,
                "checkpoint": {"uri": "pvc://models/c", "epoch": 3, "savedAt": T},
                "outputs": {"bestWeights": "pvc://models/b"},
                "gpuUUID": "GPU-1",
                "final": False,
                "results": {
                    "history": {"epochs": [1, 3], "valLoss": [0.5, 0.25]},
                    "classes": ["noise", "video"],
                    "confusion": [[0, 0, 12], [1, 0, 3]],
                    "bySNR": [[-10, 15, 0.8]],
                    "truncated": False,
                },
            },
        }
    }
    return put_in_disorder(odd, body, _times(odd))


@maker
def termination_message(odd: Odd) -> Any:
    if odd.often(0.3):
        return odd.text() * odd.choice([1, 1, 50])
    text = json.dumps(
        odd.choice([report(odd), {"error": odd.text()}, {"message": odd.text(4096), "x": odd.anything()}])
    )
    return text[: odd.choice([len(text), len(text), len(text), 4096, 20])]


# --- what Kubernetes shows


def _container(odd: Odd) -> dict[str, Any]:
    return {
        "name": "trainer",
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {contract.GPU: "1"}},
    }


def _state(odd: Odd) -> dict[str, Any]:
    return odd.choice(
        [
            {"waiting": {"reason": "ImagePullBackOff", "message": "back-off"}},
            {"running": {"startedAt": T}},
            {"terminated": {"exitCode": 1, "reason": "Error", "message": "died", "startedAt": T, "finishedAt": T}},
        ]
    )


@maker
def pod(odd: Odd) -> Any:
    """Of others, or of the trash job: bound to the trash node."""
    ours = odd.often(0.5)
    owner = {
        "apiVersion": contract.API_VERSION,
        "kind": "TrainingJob",
        "name": "trash",
        "uid": "uid-trash",
        "controller": True,
    }
    name = pod_name("trash") if ours else "foreign"
    body = {
        "metadata": metadata(odd, name, **({"ownerReferences": [owner]} if ours else {})),
        "spec": {
            "nodeName": "trash",
            "containers": [_container(odd), {"name": "mesh", "resources": {}}],
            "initContainers": [{"name": "setup", "resources": {"requests": {"cpu": "1"}}, "restartPolicy": "Always"}],
            "overhead": {"cpu": "250m"},
            "nodeSelector": {"zone": "x"},
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["trash"]}]}]}}},
        },
        "status": {
            "phase": odd.choice(["Pending", "Running", "Failed", "Succeeded", "Unknown"]),
            "reason": odd.choice(["", "Evicted"]),
            "message": "words",
            "conditions": [{"type": "PodScheduled", "status": odd.choice(["True", "False"]), "lastTransitionTime": T, "message": "0/3 nodes"}],
            "containerStatuses": [{"name": "mesh", "state": _state(odd)}, {"name": "trainer", "state": _state(odd), "lastState": {}}],
            "initContainerStatuses": [{"name": "setup", "state": _state(odd), "started": True}],
        },
    }  # fmt: skip
    body["metadata"]["labels"] |= {
        contract.LABEL_KIND: "TrainingJob",
        contract.LABEL_JOB: "trash",
        contract.LABEL_ATTEMPT: "1",
        contract.LABEL_RANK: "0",
    }
    return put_in_disorder(odd, body, _times(odd), (*KEPT, ".spec.nodeName", ".metadata.ownerReferences"))


@maker
def node(odd: Odd) -> Any:
    gpus = {contract.GPU: "4", "cpu": "32", "memory": "128Gi", "pods": "110"}
    labels = {
        "nvidia.com/gpu.count": "2",
        "nvidia.com/gpu.memory": "24000",
        "nvidia.com/gpu.replicas": "2",
        "pool": "trash",
    }
    body = {
        "metadata": metadata(odd, "trash", labels=labels),
        "spec": {"unschedulable": False, "taints": [{"key": "k", "effect": "PreferNoSchedule", "value": "v"}]},
        "status": {
            "allocatable": gpus,
            "capacity": dict(gpus),
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": T, "message": "ready"}],
        },
    }
    return put_in_disorder(odd, body, _times(odd), KEPT)


@maker
def resource_quota(odd: Odd) -> Any:
    hard = {
        "requests.cpu": "10",
        "requests.memory": "64Gi",
        "requests.nvidia.com/gpu": "4",
        "pods": "20",
        "count/secrets": "5",
    }
    body = {
        "metadata": metadata(odd, "rq"),
        "spec": {"hard": hard} | odd.choice([{}, {"scopes": ["BestEffort"]}]),
        "status": {"hard": dict(hard), "used": {"requests.cpu": "1", "pods": "3"}},
    }
    return put_in_disorder(odd, body, _times(odd), KEPT)


@maker
def priority_class(odd: Odd) -> Any:
    body = {"metadata": metadata(odd, "trash-class"), "value": 1000, "globalDefault": False, "description": "x"}
    return put_in_disorder(odd, body, _times(odd), KEPT)


@maker
def namespace(odd: Odd) -> Any:
    body = {
        "metadata": metadata(odd, "trash", labels={"kind": "team", "tier": "gold"}),
        "spec": {"finalizers": ["kubernetes"]},
    }
    return put_in_disorder(odd, body, _times(odd), KEPT)


@maker
def claim(odd: Odd) -> Any:
    body = {
        "metadata": metadata(odd, "models"),
        "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "pv-trash"},
        "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"]},
    }
    return put_in_disorder(odd, body, _times(odd), KEPT)


@maker
def volume(odd: Odd) -> Any:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["trash"]}]}
    body = {
        "metadata": metadata(odd, "pv-trash", labels={"topology.kubernetes.io/zone": "a__b"}),
        "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}},
    }
    return put_in_disorder(odd, body, _times(odd), KEPT)


# --- our own kinds, as other tools or versions write them


def _of_schema(odd: Odd, schema: dict[str, Any], plain: dict[str, Any]) -> Any:
    """The plain object, with some fields drawn from the whole schema."""
    if odd.often(0.5):
        return plain
    drawn = odd.of(schema)
    if odd.often(0.5):
        drawn = fit_to(schema)(drawn)
    return {**plain, **{key: value for key, value in drawn.items() if odd.often(0.15)}}


@maker
def gpu_pool(odd: Odd) -> Any:
    plain = {
        "nodeSelector": {"pool": "trash"},
        "perGPU": [
            {"minMemory": "22Gi", "training": 1, "inference": 3},
            {"minMemory": 0, "training": 1, "inference": 1},
        ],
        "perNodeCPU": {"training": 2, "inference": 4},
        "preemption": {"withinPool": "LowerPriority", "reclaimBorrowed": "Any", "minRuntimeSeconds": 60},
        "scaleUp": {"maxJobs": 1, "timeoutSeconds": 900},
        "defaultQuota": {"gpus": {"nominal": 1}, "maxTrainingJobs": 2},
        "priorityClasses": [
            {
                "names": ["urgent"],
                "ceiling": 1000,
                "namespaceSelector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["gold"]}]},
            }
        ],
    }
    body = {
        "metadata": metadata(odd, "trash"),
        "spec": put_in_disorder(
            odd, _of_schema(odd, SPEC["GPUPool"], plain), odd.choice([0, 1, 1, 2]), (".nodeSelector",)
        ),
        "status": odd.choice([{}, {"conditions": odd.anything()}, odd.anything()]),
    }
    body["spec"]["nodeSelector"] = {"pool": "trash"}
    return body


@maker
def gpu_quota(odd: Odd) -> Any:
    entry = {"name": "trash", "gpus": {"nominal": 4, "borrowingLimit": 2, "lendingLimit": 1}, "maxTrainingJobs": 3}
    spec = put_in_disorder(odd, {"pools": [entry], "weight": 2, "stopPolicy": "None"}, _times(odd))
    return {
        "metadata": metadata(odd, "default"),
        "spec": spec,
        "status": odd.choice([{}, {"conditions": odd.anything()}, 5]),
    }


def _job(odd: Odd, kind: str, plain: dict[str, Any]) -> Any:
    spec = put_in_disorder(odd, _of_schema(odd, SPEC[kind], plain), odd.choice([0, 1, 1, 2]))
    if isinstance(spec, dict):
        spec["pool"] = "trash"
    status = odd.choice([{}, odd.of(STATUS[kind]), odd.of(STATUS[kind]), put_in_disorder(odd, odd.of(STATUS[kind]), 1)])
    body = {"kind": kind, "metadata": metadata(odd, "odd", uid="uid-odd"), "spec": spec, "status": status}
    if isinstance(status, dict) and odd.often(0.5):
        status["assignments"] = [
            {"pod": pod_name("odd"), "node": "trash", "gpus": 1, "startedAt": odd.choice(INSTANTS)}
        ]
    return put_in_disorder(odd, body, odd.choice([0, 0, 1]), (*KEPT, ".spec", ".status", ".kind"))


@maker
def training_job(odd: Odd) -> Any:
    return _job(
        odd,
        "TrainingJob",
        {
            "model": {"architecture": "resnet18"},
            "output": {"uri": "pvc://models/x"},
            "resources": {"gpus": 1, "cpu": "1", "memory": "1Gi"},
        },
    )


@maker
def inference_job(odd: Odd) -> Any:
    return _job(
        odd,
        "InferenceJob",
        {
            "model": odd.choice([{"weights": "pvc://models/w"}, {"fromTrainingJob": "trash"}]),
            "input": {"uri": "pvc://captures/x"},
            "output": {"uri": "pvc://results/x"},
            "resources": {"gpus": 1, "cpu": "1", "memory": "1Gi"},
            "shards": 3,
            "parallelism": 2,
        },
    )
