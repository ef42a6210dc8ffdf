"""The manifests of the end-to-end run: small jobs over the recordings that `data` lays into the claims, and ways to break them."""

from typing import Any

from cluster.kube import NAMESPACE

from rfuav_crds import contract

Object = dict[str, Any]
CAPTURES, MODELS, RESULTS = "captures", "models", "results"  # claims
TINY = "tiny"  # another, of 8 MiB
CPU_JOB = {"gpus": 0, "cpu": "100m", "memory": "1Gi", "sharedMemory": "64Mi"}
GPU_JOB = {**CPU_JOB, "gpus": 1}
APART = "rfuav.io/apart=yes"  # taint of the second node
TOLERATIONS = [{"key": "rfuav.io/apart", "operator": "Exists", "effect": "NoSchedule"}]
EPOCHS = 96
"""Of a training to which something happens while it runs: it must not have ended before, nor while the operator, which
would tell that its moment has come, is away for a lease's time."""
UNDISTURBED = "undisturbed"  # the one of these to which nothing happens; several tests compare with it
REGISTRY = "registry.of.this.cluster"  # in an image: its registry, known once it is up
PULLING = "pulling"  # a pod that brings the trainer's image to the second node


def merged(base: Object, changes: Object) -> Object:
    """`base` with `changes` laid over it, folder by folder; None takes a field out."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def training(name: str, **changes: Any) -> Object:
    """A TrainingJob of a few seconds over pictures of 64 pixels, on the CPU lane; `changes` go over its spec."""
    spec = {
        "model": {"architecture": "mobilenet_v3_small"},
        "dataset": {
            "train": {"uri": f"pvc://{CAPTURES}/pictures/train"},
            "validation": {"uri": f"pvc://{CAPTURES}/pictures/val"},
            "imageSize": 64,
        },
        "training": {"epochs": 2, "batchSize": 8, "seed": 7, "optimizer": {"learningRate": 0.001}},
        "output": {"uri": f"pvc://{MODELS}/{name}"},
        "resources": CPU_JOB,
        "terminationGracePeriodSeconds": 30,
        "backoffLimit": 1,
    }
    return _job("TrainingJob", name, merged(spec, changes))


def long_training(name: str) -> Object:
    """One of `EPOCHS` epochs on a GPU."""
    return training(name, training={"epochs": EPOCHS}, resources=GPU_JOB)


def inference(name: str, **changes: Any) -> Object:
    """An InferenceJob over the pictures of the validation split, on the CPU lane; `changes` go over its spec."""
    spec = {
        "model": {"weights": f"pvc://{MODELS}/base/best.safetensors"},
        "input": {"uri": f"pvc://{CAPTURES}/pictures/val"},
        "output": {"uri": f"pvc://{RESULTS}/{name}"},
        "resources": CPU_JOB,
        "terminationGracePeriodSeconds": 30,
        "backoffLimit": 1,
    }
    return _job("InferenceJob", name, merged(spec, changes))


def _job(kind: str, name: str, spec: Object) -> Object:
    return {
        "apiVersion": contract.API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def claim(name: str, size: str = "1Gi", **spec: Any) -> Object:
    """A PersistentVolumeClaim, of the default StorageClass unless `spec` says another."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}, **spec}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def restricted_pod(name: str, image: str, *command: str, gpus: int = 0, claims: tuple[str, ...] = ()) -> Object:
    """A pod of someone else that keeps to the restricted Pod Security; its claims are mounted under /mnt."""
    container: Object = {
        "name": "main",
        "image": image,
        "command": list(command),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {contract.GPU: str(gpus)} if gpus else {},
        },
        "volumeMounts": [{"name": c, "mountPath": f"/mnt/{c}"} for c in claims],
    }
    user = {"runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": user,
            "containers": [container],
            "volumes": [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims],
        },
    }


def on_the_second_node(pod: Object, node: str) -> Object:
    """The pod, sent to that node and suffering its taint."""
    return merged(pod, {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}, "tolerations": TOLERATIONS}})
