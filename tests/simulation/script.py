"""A history's script: the cluster it begins with, and what people, machines and the network do, each at its time.

All of it follows from the seed. It is plain JSON, so that a short one can be printed and kept as a test.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simulation import deeds
from simulation.server import Object

from rfuav_crds.unsupported import unsupported

HORIZON = 240.0  # virtual seconds in which things are done
UNLUCKY = 0.2  # share of jobs whose first pod's create goes wrong
SHAPES = ((2, 8, 24000), (1, 4, 12000), (1, 2, 8000), (2, 2, 80000), (0, 0, 0))  # GPUs, slots, MiB of one GPU
TIERS = (
    {"minMemory": "22Gi", "training": 1, "inference": 3},
    {"minMemory": "11Gi", "training": 1, "inference": 2},
    {"minMemory": 0, "training": 1, "inference": 1},
)
STRICT = not unsupported({"queueing": "StrictFIFO"}, "GPUPool")  # drawn as soon as it is built
QUEUEING = ("BestEffortFIFO", "BestEffortFIFO", "StrictFIFO" if STRICT else "BestEffortFIFO")


@dataclass(frozen=True)
class Action:
    """Something done at a time."""

    at: float
    do: str
    args: Mapping[str, Any]

    def __str__(self) -> str:
        words = ", ".join(f"{name}={value!r}" for name, value in self.args.items())
        return f"{self.at:8.3f}  {self.do}({words})"


@dataclass(frozen=True)
class Script:
    """One history, before it is played."""

    seed: int
    setup: Mapping[str, Any]
    actions: Sequence[Action]

    def only(self, actions: Sequence[Action]) -> "Script":
        """The same beginning, with these actions alone."""
        return replace(self, actions=tuple(actions))

    def with_setup(self, **changes: Any) -> "Script":
        """The same actions on another beginning."""
        return replace(self, setup={**self.setup, **changes})

    def to_json(self) -> str:
        """For keeping."""
        actions = ",\n  ".join(json.dumps([a.at, a.do, a.args]) for a in self.actions)
        return f'{{"seed": {self.seed},\n "setup": {json.dumps(self.setup)},\n "actions": [\n  {actions}]}}'

    @staticmethod
    def from_json(text: str) -> "Script":
        """As it was kept."""
        read = json.loads(text)
        return Script(read["seed"], read["setup"], tuple(Action(at, do, args) for at, do, args in read["actions"]))


def draw(seed: int) -> Script:
    """The script of a seed."""
    chance = random.Random(f"{seed}/script")
    count = chance.choice((1, 1, 2, 2, 3, 4))
    setup: dict[str, Any] = {
        "nodes": [[*chance.choice(SHAPES[:4] if i == 0 else SHAPES), chance.choice("ab")] for i in range(count)],
        "replicas": chance.choice((1, 1, 1, 1, 2)),
        "leaseSeconds": 15,
        "resyncSeconds": chance.choice((20, 60)),
        "lag": chance.choice((0.002, 0.02, 0.1, 0.5)),
        "urgent": chance.choice((0, 5000, 5000)),  # value of the PriorityClass; 0: there is none
        "page": chance.choice((2, 5, 500, 500)),
        "sidecars": chance.choice((0, 0, 0, 0.3)),  # share of jobs whose pods have one that never ends
        "retries": {
            "backoffBaseSeconds": chance.choice((1, 5, 10)),
            "backoffCapSeconds": chance.choice((10, 40)),
            "nodeAvoidSeconds": chance.choice((20, 60)),
            "uncountedLimit": chance.choice((3, 20)),
        },
        "pool": {
            "perGPU": [*TIERS],
            "perNodeCPU": {"training": chance.choice((1, 2)), "inference": chance.choice((2, 4))},
            "placement": chance.choice(("Pack", "Spread")),
            "queueing": chance.choice(QUEUEING),
            "scheduleTimeoutSeconds": chance.choice((20, 60)),
            "startTimeoutSeconds": chance.choice((30, 60)),
            "starvationSeconds": chance.choice((20, 1800)),
            "scaleUp": {"maxJobs": chance.choice((0, 0, 1, 2, 3)), "timeoutSeconds": chance.choice((20, 40, 60))},
            "preemption": {
                "withinPool": chance.choice(("Never", "LowerPriority")),
                "reclaimBorrowed": chance.choice(("Never", "LowerPriority", "Any")),
                "minRuntimeSeconds": chance.choice((5, 20)),
            },
        },
        "quotas": {name: draw_quota(chance) for name in ("team", "lab") if chance.random() < 0.4},
    }
    jobs = [f"j{i}" for i in range(chance.randrange(6, 16))]
    nodes = [f"n{i}" for i in range(count)] + ["s0", "s1"] * bool(setup["pool"]["scaleUp"]["maxJobs"])
    context = deeds.Context(chance=chance, jobs=jobs, nodes=nodes, setup=setup)
    actions = []
    for job in jobs:
        at = 0.0 if chance.random() < 0.4 else chance.uniform(0, HORIZON * 0.7)
        if chance.random() < UNLUCKY:
            actions.append(
                Action(round(at, 3), "unlucky_create", deeds.drawn("unlucky_create", context) | {"job": job})
            )
        actions.append(Action(round(at, 3), "create", deeds.drawn("create", context) | {"job": job}))
    names = [name for name, deed in deeds.TABLE.items() if deed.weight]
    weights = [deeds.TABLE[name].weight for name in names]
    for name in chance.choices(names, weights, k=chance.randrange(8, 34)):
        at = round(chance.uniform(0.05, HORIZON), 3)
        actions.append(Action(at, name, deeds.drawn(name, context)))
    return Script(seed, setup, tuple(sorted(actions, key=lambda action: action.at)))


def draw_quota(chance: random.Random) -> dict[str, Any]:
    """What one namespace may use of the pool."""
    return {
        "nominal": chance.choice((0, 1, 2, 4)),
        "borrowingLimit": chance.choice((None, None, 0, 1, 2)),
        "lendingLimit": chance.choice((None, None, 0, 1)),
        "maxTrainingJobs": chance.choice((None, None, 1, 2)),
        "maxInferenceJobs": chance.choice((None, None, 1, 2)),
    }


def nodes_of(setup: Mapping[str, Any]) -> list[Object]:
    """The Node objects of a setup."""
    return [node_of(f"n{i}", *shape) for i, shape in enumerate(setup["nodes"])]


def node_of(name: str, gpus: int, slots: int, memory: int, zone: str) -> Object:
    """A Node: physical GPUs, slots, MiB of one GPU, zone."""
    labels = {"zone": zone}
    if gpus:
        labels |= {
            "nvidia.com/gpu.count": str(gpus),
            "nvidia.com/gpu.memory": str(memory),
            "nvidia.com/gpu.replicas": str(slots // gpus),
        }
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {
            "capacity": {"nvidia.com/gpu": str(slots)},
            "allocatable": {"nvidia.com/gpu": str(slots), "cpu": "6", "memory": "12Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


# "urgent" is above what the chart installs: these namespaces may name it.
_URGENT = {
    "names": ["urgent"],
    "namespaceSelector": {
        "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team", "lab"]}]
    },
}


def pool(setup: Mapping[str, Any], name: str = "default", **changes: Any) -> Object:
    """A GPUPool of a setup."""
    return {
        "metadata": {"name": name},
        "spec": {"nodeSelector": {}, "stopPolicy": "None", "priorityClasses": [_URGENT], **setup["pool"], **changes},
    }


def quota(namespace: str, drawn: Mapping[str, Any], **spec: Any) -> Object:
    """A GPUQuota; what is None is left out."""
    gpus = {name: drawn[name] for name in ("nominal", "borrowingLimit", "lendingLimit") if drawn[name] is not None}
    jobs = {name: drawn[name] for name in ("maxTrainingJobs", "maxInferenceJobs") if drawn[name] is not None}
    entry = {"name": "default", "gpus": gpus, **jobs}
    return {"metadata": {"name": "default", "namespace": namespace}, "spec": {"pools": [entry], "weight": 1, **spec}}
