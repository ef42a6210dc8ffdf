"""Manifests for the tests of the API: good ones, and the table of bad ones that the API server and the models refuse."""

import copy
from enum import Enum
from typing import Any, NamedTuple

from rfuav_crds import contract

API_VERSION = contract.API_VERSION


class Removed(Enum):
    """A field that a manifest lacks. Its name is the same in every process, as names of tests have to be."""

    FIELD = "removed"


REMOVED = Removed.FIELD

GOOD: dict[str, dict[str, Any]] = {
    "TrainingJob": {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "metadata": {"name": "drones"},
        "spec": {
            "model": {"architecture": "resnet18"},
            "dataset": {"train": {"uri": "pvc://captures/train"}},
            "output": {"uri": "pvc://models/drones"},
        },
    },
    "InferenceJob": {
        "apiVersion": API_VERSION,
        "kind": "InferenceJob",
        "metadata": {"name": "flight7"},
        "spec": {
            "model": {"fromTrainingJob": "drones"},
            "input": {"uri": "pvc://captures/flight7"},
            "output": {"uri": "pvc://results/flight7"},
        },
    },
    "GPUPool": {
        "apiVersion": API_VERSION,
        "kind": "GPUPool",
        "metadata": {"name": "lab"},
        "spec": {"placement": "Pack"},
    },
    "GPUQuota": {
        "apiVersion": API_VERSION,
        "kind": "GPUQuota",
        "metadata": {"name": "default"},
        "spec": {"pools": [{"name": "default", "gpus": {"nominal": 8}}]},
    },
}


def changed(kind: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The good manifest of `kind` with the values at the dotted paths replaced, added or REMOVED."""
    manifest = copy.deepcopy(GOOD[kind])
    for path, value in changes.items():
        *parents, last = path.split(".")
        target = manifest
        for step in parents:
            target = target.setdefault(step, {})
        if value is REMOVED:
            del target[last]
        else:
            target[last] = value
    return manifest


class Bad(NamedTuple):
    """A change that makes a manifest bad, and what the rejection says: the field, and what to write instead."""

    kind: str
    changes: dict[str, Any]
    field: str
    remedy: str


def _bad(kind: str, *rows: tuple[dict[str, Any] | str, Any, str] | tuple[dict[str, Any], str, str]) -> list[Bad]:
    """Rows are (path below spec, value, remedy) or ({path: value, ...}, field, remedy)."""
    out = []
    for what, second, remedy in rows:
        if isinstance(what, str):
            out.append(Bad(kind, {f"spec.{what}": second}, f"spec.{what}", remedy))
        else:
            out.append(Bad(kind, what, second, remedy))
    return out


_MEMORY = "write memory with a binary suffix, as in 16Gi"
_AT_LEAST = "should be greater than or equal to"
_AT_MOST = "should be less than or equal to"
_TEMPLATE = "spec.podTemplate"

BAD: list[Bad] = [
    *_bad(
        "TrainingJob",
        # names
        ({"metadata.name": "d" * 41}, "metadata.name", "at most 40 characters"),
        ({"metadata.name": "drones.v2"}, "metadata.name", "lower-case letters, digits and '-'"),
        # model
        ("model", REMOVED, "Required value"),
        ("model.architecture", REMOVED, "Required value"),
        ("model.architecture", "resnet19", 'supported values: "resnet18"'),
        ("model.architecture", "ResNet18", 'supported values: "resnet18"'),
        ("model.weights", "imagenet", "write none, pretrained, or the URI"),
        ("model.weights", "/models/best.pt", "write none, pretrained, or the URI"),
        ("model.weights", "pretrained", "write weightsCache.uri, or weights: none"),
        ("model.numClasses", 1, f"{_AT_LEAST} 2"),
        ("model.numClasses", "37", "must be of type integer"),
        # data
        ("dataset", REMOVED, "Required value"),
        ("dataset.train", REMOVED, "Required value"),
        ("dataset.train.uri", REMOVED, "Required value"),
        ("dataset.train.uri", "", "write pvc://CLAIM/path"),
        ("dataset.train.uri", "/data/train", "write pvc://CLAIM/path"),
        ("dataset.train.uri", "http://host/train", "write pvc://CLAIM/path"),
        ("dataset.train.uri", "pvc:captures/train", "write pvc://CLAIM/path"),
        ("dataset.train.uri", "pvc://Captures/train", "the claim's name in lower case"),
        ("dataset.train.uri", "pvc://my_claim/train", "the claim's name in lower case"),
        ("dataset.train.uri", "pvc:///train", "write pvc://CLAIM/path"),
        ("dataset.train.uri", "pvc://captures//train", "write pvc://CLAIM/path"),
        ("dataset.train.uri", "pvc://captures/../secrets", "without '.' and '..' steps"),
        ("dataset.train.uri", "pvc://captures/train\n", "write pvc://CLAIM/path"),
        ("dataset.train.uri", "s3://B/train", "s3://bucket/prefix"),
        ("dataset.train.uri", "hf://drones", "hf://datasets/owner/name"),
        ("dataset.train.uri", "file://train", "file:///path"),
        ("dataset.train.uri", "pvc://captures/" + "a" * 600, "may not be more than 512"),
        ("dataset.train.uri", ["pvc://captures/train"], "must be of type string"),
        ("dataset.validation", {}, "write exactly one of uri and fraction"),
        ("dataset.validation", {"uri": "pvc://c/v", "fraction": 0.2}, "write exactly one of uri and fraction"),
        ("dataset.validation.fraction", 1, "should be less than 1"),
        ("dataset.validation.fraction", 0, "should be greater than 0"),
        ("dataset.validation.fraction", "20%", "must be of type number"),
        ("dataset.imageSize", 8, f"{_AT_LEAST} 16"),
        ("dataset.imageSize", [224, 224], "must be of type integer"),
        (
            {"spec.model.architecture": "vit_b_16", "spec.dataset.imageSize": 100},
            "spec.dataset.imageSize",
            "write a multiple of 16",
        ),
        (
            {"spec.model.architecture": "vit_h_14", "spec.dataset.imageSize": 256},
            "spec.dataset.imageSize",
            "write a multiple of 14",
        ),
        ("dataset.recordingPattern", "flight[0-9]+", "with a group named recording"),
        ("dataset.recordingPattern", "(?P<recording>a" * 20, "may not be more than 200"),
        ("dataset.format", "IQ", 'supported values: "image", "iq", "auto"'),
        ("dataset.iq.sampleRate", "100MHz", "write a rate in samples per second, as in 100M"),
        ("dataset.iq.sampleRate", 0, "write a rate in samples per second, as in 100M"),
        ("dataset.iq.frameSeconds", 0, "should be greater than 0"),
        ("dataset.iq.frameSeconds", 0.000001, "raise frameSeconds or lower fftSize"),
        ("dataset.iq.hopSize", 4096, "write half of fftSize"),
        ("dataset.iq.fftSize", 0, f"{_AT_LEAST} 16"),
        ("dataset.iq.window", "kaiser", 'supported values: "hamming"'),
        ("dataset.iq.sampleFormat", "complex64", 'supported values: "auto"'),
        # training
        ("training.epochs", 0, f"{_AT_LEAST} 1"),
        ("training.epochs", 1.5, "must be of type integer"),
        ("training.epochs", "100", "must be of type integer"),
        ({"spec.training.epoch": 5}, "spec.training.epoch", "unknown field"),
        ("training.batchSize", 0, "write auto or a whole number from 1 to 65536"),
        ("training.batchSize", "8", "write auto or a whole number from 1 to 65536"),
        ("training.gradientAccumulation", 0, f"{_AT_LEAST} 1"),
        ("training.clipNorm", 0, "should be greater than 0"),
        ("training.labelSmoothing", 1, "should be less than 1"),
        ("training.classWeights", "equal", 'supported values: "none", "balanced"'),
        ("training.mixup", -1, f"{_AT_LEAST} 0"),
        ("training.emaDecay", 1, "should be less than 1"),
        (
            {"spec.training.optimizer": {"momentum": 0.9}},
            "spec.training.optimizer.momentum",
            "only sgd has momentum",
        ),
        (
            {"spec.training.optimizer": {"name": "sgd", "momentum": 1}},
            "spec.training.optimizer.momentum",
            "should be less than 1",
        ),
        (
            {"spec.model.architecture": "custom"},
            "spec.model.custom",
            "architecture custom and custom: module:function go together",
        ),
        ({"spec.model.custom": "a:b"}, "spec.model.custom", "go together"),
        ({"spec.model": {"architecture": "custom", "custom": "a.b"}}, "spec.model.custom", "write module:function"),
        ("training.optimizer", "adam", "must be of type object"),
        ("training.optimizer.name", "Adam", 'supported values: "adam", "adamw", "sgd"'),
        ("training.optimizer.learningRate", 0, "should be greater than 0"),
        ("training.optimizer.learningRate", -0.1, "should be greater than 0"),
        ("training.optimizer.learningRate", 10, f"{_AT_MOST} 1"),
        ("training.optimizer.learningRate", "1e-4", "must be of type number"),
        ("training.optimizer.weightDecay", -1, f"{_AT_LEAST} 0"),
        ("training.schedule.name", "linear", 'supported values: "constant", "cosine", "step"'),
        ("training.schedule.warmupEpochs", 100, "write fewer warmupEpochs than epochs"),
        ("training.precision", "fp8", 'supported values: "auto", "fp32", "bf16", "fp16"'),
        ("training.earlyStopping.patience", 0, f"{_AT_LEAST} 1"),
        ("training.earlyStopping.metric", "val_loss", 'supported values: "valLoss"'),
        ("training.augment", ["flip"], 'supported values: "AdvancedBlur"'),
        ("training.augment", ["CLAHE", "CLAHE"], "Duplicate value"),
        ("training.seed", -1, f"{_AT_LEAST} 0"),
        ("training.workers", "many", "write auto or a whole number from 0 to 64"),
        ("training.workers", 65, "write auto or a whole number from 0 to 64"),
        ("training.workers", "4", "write auto or a whole number from 0 to 64"),
        # output and checkpoints
        ("output", REMOVED, "Required value"),
        ("output.uri", "hf://datasets/owner/name", "hf:// cannot be written to"),
        ("output.uri", "models/drones", "write pvc://CLAIM/path"),
        ("checkpoint.everyEpochs", 0, f"{_AT_LEAST} 1"),
        ("checkpoint.keep", 0, f"{_AT_LEAST} 1"),
        ("checkpoint.resume", "yes", "must be of type boolean"),
        ("weightsCache.uri", "https://download.pytorch.org/models", "write pvc://CLAIM/path"),
        # resources
        ("resources.gpus", -1, f"{_AT_LEAST} 0"),
        ("resources.gpus", "1", "must be of type integer"),
        ("resources.gpus", 65, f"{_AT_MOST} 64"),
        ("resources.memory", "16GB", _MEMORY),
        ("resources.memory", 16, _MEMORY),
        ("resources.memory", "512m", _MEMORY),
        ("resources.memory", "-1Gi", _MEMORY),
        ("resources.memory", "", _MEMORY),
        ("resources.gpuMemory", "12 Gi", _MEMORY),
        (
            {"spec.resources.gpus": 0, "spec.resources.gpuMemory": "12Gi"},
            "spec.resources.gpuMemory",
            "remove it, or write gpus: 1",
        ),
        ("resources.cpu", "four", "write cpu in cores"),
        ("resources.cpu", 4000, "or in thousandths, as in 500m"),
        ("resources.cpu", 0, "write cpu in cores"),
        ("resources.cpu", 0.5, "must be of type integer,string"),
        ("resources.cpuLimit", "1", "cpuLimit is the most that cpu may become"),
        ("resources.cpuLimit", 0, "write cpu in cores"),
        ("resources.sharedMemory", "17Gi", "sharedMemory is part of memory"),
        ({"spec.resources.limits": {"cpu": 1}}, "spec.resources.limits", "unknown field"),
        # scheduling and running
        ("nodes", 0, f"{_AT_LEAST} 1"),
        ("pool", "", "write lower-case letters, digits and '-'"),
        ("pool", "Lab GPUs", "write lower-case letters, digits and '-'"),
        ("priorityClassName", "High", "or leave it empty"),
        ("priorityClassName", 5, "must be of type string"),
        ("suspend", "true", "must be of type boolean"),
        ("backoffLimit", -1, f"{_AT_LEAST} 0"),
        ("backoffLimit", 101, f"{_AT_MOST} 100"),
        ("activeDeadlineSeconds", 0, f"{_AT_LEAST} 1"),
        ("activeDeadlineSeconds", "24h", "must be of type integer"),
        ("ttlSecondsAfterFinished", -1, f"{_AT_LEAST} 0"),
        ("terminationGracePeriodSeconds", 0, f"{_AT_LEAST} 1"),
        ("image", "https://host/trainer:1", "write an image as registry/name:tag"),
        ("image", "Trainer:1", "in lower case"),
        ("image", "trainer: 1", "write an image as registry/name:tag"),
        # pods
        ({f"{_TEMPLATE}.hostNetwork": True}, f"{_TEMPLATE}.hostNetwork", "unknown field"),
        ({f"{_TEMPLATE}.spec": {}}, f"{_TEMPLATE}.spec", "unknown field"),
        ("podTemplate.metadata.labels", {contract.LABEL_JOB: "x"}, "set by the operator: use another prefix"),
        ("podTemplate.metadata.labels", {"team": "a b"}, "at most 63 characters"),
        ("podTemplate.metadata.annotations", {"a/b/c": "x"}, "write keys as name or prefix/name"),
        ("podTemplate.nodeSelector", {"_zone": "a"}, "write keys as name or prefix/name"),
        ("podTemplate.nodeSelector", ["zone"], "must be of type object"),
        ("podTemplate.env", [{"name": "A", "value": 1}], "must be of type string"),
        ("podTemplate.env", [{"name": "A"}], "write exactly one of value and valueFrom"),
        ("podTemplate.env", [{"name": "2A", "value": "x"}], "not starting with a digit"),
        ("podTemplate.env", [{"name": contract.JOB, "value": "x"}], "variables are set by the operator"),
        (
            "podTemplate.env",
            [{"name": contract.VISIBLE_DEVICES, "value": "all"}],
            "the device plugin: use another name",
        ),
        ("podTemplate.env", [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}], "Duplicate value"),
        ("podTemplate.env", [{"name": "A", "valueFrom": {}}], "write exactly one of secretKeyRef and configMapKeyRef"),
        ("podTemplate.envFrom", [{"prefix": "A_"}], "write exactly one of secretRef and configMapRef"),
        ("podTemplate.tolerations", [{"key": "a", "operator": "In"}], 'supported values: "Equal", "Exists"'),
        ("podTemplate.tolerations", [{"key": "a", "operator": "Exists", "value": "b"}], "remove value"),
        ("podTemplate.tolerations", [{"effect": "NoSchedule"}], "write operator: Exists"),
        ("podTemplate.securityContext.runAsUser", 0, f"{_AT_LEAST} 1"),
        ({f"{_TEMPLATE}.securityContext.privileged": True}, f"{_TEMPLATE}.securityContext.privileged", "unknown field"),
        ("podTemplate.volumes", [{"name": "d"}], "write exactly one of persistentVolumeClaim"),
        (
            {f"{_TEMPLATE}.volumes": [{"name": "d", "hostPath": {"path": "/"}}]},
            f"{_TEMPLATE}.volumes[0].hostPath",
            "unknown field",
        ),
        ("podTemplate.volumes", [{"name": "d", "emptyDir": {}, "secret": {"secretName": "s"}}], "write exactly one of"),
        ("podTemplate.volumes", [{"name": "rfuav-tmp", "emptyDir": {}}], "use another name"),
        ("podTemplate.volumes", [{"name": "d", "emptyDir": {"sizeLimit": "2GB"}}], "not 2GB"),
        ("podTemplate.volumeMounts", [{"name": "d", "mountPath": "/d"}], "add the volume, or correct the name"),
        (
            {
                f"{_TEMPLATE}.volumes": [{"name": "d", "emptyDir": {}}],
                f"{_TEMPLATE}.volumeMounts": [{"name": "d", "mountPath": "d"}],
            },
            f"{_TEMPLATE}.volumeMounts[0].mountPath",
            "write an absolute path",
        ),
        (
            {
                f"{_TEMPLATE}.volumes": [{"name": "d", "emptyDir": {}}],
                f"{_TEMPLATE}.volumeMounts": [{"name": "d", "mountPath": "/dev/shm"}],
            },
            f"{_TEMPLATE}.volumeMounts[0].mountPath",
            "mount it elsewhere, such as /data",
        ),
        ("podTemplate.tolerations", [{"key": "a", "tolerationSeconds": 5}], "write that effect, or remove it"),
        ({"spec.status": {}}, "spec.status", "unknown field"),
    ),
    *_bad(
        "InferenceJob",
        ("model", REMOVED, "Required value"),
        ("model", {}, "write exactly one of fromTrainingJob"),
        (
            {"spec.model.weights": "pvc://models/best.safetensors"},
            "spec.model",
            "write exactly one of fromTrainingJob",
        ),
        ("model.fromTrainingJob", "team-b/drones", "write the name of a TrainingJob"),
        ({"spec.model.architecture": "resnet18"}, "spec.model.fromTrainingJob", "remove both"),
        ({"spec.model.config": "pvc://models/cfg.yaml"}, "spec.model.config", "write its URI as weights"),
        ("model", {"weights": "pvc://m/b", "config": "cfg.yaml"}, "write pvc://CLAIM/path"),
        ("model", {"weights": "best.safetensors"}, "write the URI of a weights file"),
        ("model", {"weights": "pretrained"}, "write the URI of a weights file"),
        ("model", {"weights": "pvc://m/b", "classes": ["a", "a"]}, "Duplicate value"),
        ("model", {"weights": "pvc://m/b", "classes": [""]}, "at least 1 chars long"),
        (
            {"spec.model": {"weights": "pvc://m/b", "architecture": "custom"}},
            "spec.model.custom",
            "write both, or leave architecture out",
        ),
        (
            {"spec.model": {"weights": "pvc://m/b", "architecture": "resnet18", "custom": "a:b"}},
            "spec.model.custom",
            "write both, or leave architecture out",
        ),
        ("input", REMOVED, "Required value"),
        ("input.uri", "captures/flight7", "write pvc://CLAIM/path"),
        ("input.pattern", "/abs/*.iq", "write a pattern relative to uri"),
        ("input.pattern", "../*.iq", "write a pattern relative to uri"),
        ("input.pattern", "", "at least 1 chars long"),
        (
            {"spec.input": {"uri": "pvc://captures/all.JSONL", "pattern": "*.iq"}},
            "spec.input.pattern",
            "a manifest lists its files itself",
        ),
        ("input.format", "video", 'supported values: "image", "iq", "auto"'),
        ("iq.sampleRate", "fast", "write a rate in samples per second"),
        ("output", REMOVED, "Required value"),
        ("output.annotate", "video", 'supported values: "default", "all", "none"'),
        ("evaluation", True, "must be of type object"),
        ({"spec.evaluation": {"topk": 3}}, "spec.evaluation.topk", "unknown field"),
        ("batchSize", 0, "write auto or a whole number from 1"),
        ("batchSize", "big", "write auto or a whole number from 1"),
        ("shards", 0, f"{_AT_LEAST} 1"),
        ("shards", 1001, f"{_AT_MOST} 1000"),
        ("parallelism", 4, "or raise shards"),
        ("errorThreshold", 1.5, f"{_AT_MOST} 1"),
        ("errorThreshold", "5%", "must be of type number"),
        ({"spec.training": {"epochs": 1}}, "spec.training", "unknown field"),
    ),
    *_bad(
        "GPUPool",
        ("perGPU", [], "should have at least 1 items"),
        ("perGPU", [{"minMemory": 0}, {"minMemory": "22Gi"}], "from the largest minMemory to the smallest"),
        ("perGPU", [{"minMemory": "22GB"}], "write memory with a binary suffix"),
        ("perGPU", [{"training": -1}], f"{_AT_LEAST} 0"),
        ("gpuSharing", {"replicas": 4}, "Required value"),
        ("gpuSharing", {"replicas": 0, "memory": "24Gi"}, f"{_AT_LEAST} 1"),
        ("gpuSharing", {"replicas": 4, "memory": "24GB"}, "write memory with a binary suffix"),
        ("priorityClasses", [{}], "write names, ceiling, or both"),
        ("priorityClasses", [{"names": ["High"]}], "write lower-case letters"),
        (
            "priorityClasses",
            [{"ceiling": 1, "namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In"}]}}],
            "write values with operator In or NotIn",
        ),
        (
            "priorityClasses",
            [{"ceiling": 1, "namespaceSelector": {"matchExpressions": [{"key": "a b", "operator": "Exists"}]}}],
            "write the key of a label",
        ),
        ("defaultQuota", {"gpus": {"nominal": 1, "lendingLimit": 2}}, "cannot lend more than its nominal share"),
        ("queueing", "FIFO", 'supported values: "BestEffortFIFO", "StrictFIFO"'),
        ("placement", "pack", 'supported values: "Pack", "Spread"'),
        ("preemption.withinPool", True, 'supported values: "Never", "LowerPriority"'),
        ("scheduleTimeoutSeconds", 0, f"{_AT_LEAST} 1"),
        ("startTimeoutSeconds", "30m", "must be of type integer"),
        ("scaleUp.maxJobs", -1, f"{_AT_LEAST} 0"),
        ("stopPolicy", "Drain", 'supported values: "None", "Hold", "HoldAndDrain"'),
        ("nodeSelector", {"gpu": "a b"}, "at most 63 characters"),
    ),
    *_bad(
        "GPUQuota",
        ({"metadata.name": "team-a"}, "metadata.name", "write metadata.name: default"),
        ("pools", REMOVED, "Required value"),
        ("pools", [], "should have at least 1 items"),
        ("pools", [{"gpus": {"nominal": 1}}], "Required value"),
        ("pools", [{"name": "a"}, {"name": "a"}], "Duplicate value"),
        ("pools", [{"name": "a", "gpus": {"nominal": -1}}], f"{_AT_LEAST} 0"),
        (
            "pools",
            [{"name": "a", "gpus": {"nominal": 1, "lendingLimit": 2}}],
            "cannot lend more than its nominal share",
        ),
        ("weight", 0, f"{_AT_LEAST} 1"),
        ("stopPolicy", "HoldAndDrain", 'supported values: "None", "Hold"'),
    ),
]
