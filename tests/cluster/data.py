"""What the jobs of the end-to-end run read: recordings and pictures made by `rfuav-trainer synthesize`, and spoiled ones.

`prepare` runs inside a pod with the trainer's image, the claims mounted under /mnt; once a session.
"""

import json

from cluster.jobs import CAPTURES, MODELS, RESULTS, TINY, claim, restricted_pod
from cluster.kube import NAMESPACE, Kube

POD = "inspector"
CLAIMS = (CAPTURES, MODELS, RESULTS)
CLASSES = ("fhss-gmsk-slow", "idle", "ofdm-10mhz-tdd")
PICTURES = {"train": 12, "val": 8}  # of each class
RECORDINGS = {"train": 8, "test": 3}  # of each class
SECONDS = 0.002  # of a recording: one frame
IQ = {"sampleRate": "30720k", "frameSeconds": SECONDS}
FLIGHT = 24  # pictures of a flight, without labels

_SYNTHESIS = """
kind: Synthesis
spec: {{output: /mnt/captures/{folder}, splits: {splits}, classes: {classes}, snrDb: [20], seconds: {seconds}, format: {format}, seed: 1}}
"""

# Spoiled data. Runs with the trainer image's Python.
_SPOIL = """
from pathlib import Path

root = Path("/mnt/captures")
pictures = sorted((root / "pictures/val").rglob("*.png"))

def flight(name, files, spoil):
    folder = root / name
    folder.mkdir()
    for i, file in enumerate(files):
        content = file.read_bytes()
        (folder / f"{i:02d}{file.suffix}").write_bytes(spoil(content) if i in spoil.which else content)

def torn(*which):
    def spoil(content):
        return content[: len(content) // 2 - 3]
    spoil.which = which
    return spoil

flight("one-torn", pictures, torn(5))
flight("many-torn", pictures, torn(*range(0, 24, 2)))
"""

# Prints what tells two weights files apart: every tensor, none of the description.
_DIGESTS = """
import hashlib, json, sys
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        body = file.read()
    header.pop("__metadata__", None)
    digest = hashlib.sha256()
    for name, tensor in sorted(header.items()):
        start, end = tensor["data_offsets"]
        digest.update(f"{name} {tensor['dtype']} {tensor['shape']}".encode() + body[start:end])
    print(len(header), digest.hexdigest())
"""


def prepare(kube: Kube, trainer_image: str) -> None:
    """Start the pod that looks into the claims, and fill them."""
    pod = restricted_pod(POD, trainer_image, "sleep", "infinity", claims=CLAIMS)
    pod["spec"]["volumes"].append({"name": TINY, "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}})
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": TINY, "mountPath": f"/mnt/{TINY}"})
    kube.apply(pod)
    kube.kubectl(
        "wait", "--for=condition=Ready", f"pod/{POD}", "--timeout=600s", timeout=610
    )  # pulls the image, gigabytes
    _offer_tiny_volume(kube)
    for folder, splits, form in (("pictures", PICTURES, "image"), ("recordings", RECORDINGS, "iq")):
        text = _SYNTHESIS.format(
            folder=folder, splits=json.dumps(splits), classes=json.dumps(CLASSES), seconds=SECONDS, format=form
        )
        command = "cat > /tmp/synthesis.yaml && exec rfuav-trainer synthesize -f /tmp/synthesis.yaml"
        kube.kubectl("exec", "-i", POD, "--", "sh", "-c", command, stdin=text)
    kube.kubectl("exec", "-i", POD, "--", "python", "-", stdin=_SPOIL)


def _offer_tiny_volume(kube: Kube) -> None:
    """A claim of 8 MiB that really ends there: the inspector's own volume in memory, seen as the folder of the node that it is."""
    uid = kube.core.read_namespaced_pod(POD, NAMESPACE).metadata.uid
    folder = f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/{TINY}"
    spec = {"capacity": {"storage": "8Mi"}, "accessModes": ["ReadWriteMany"], "persistentVolumeReclaimPolicy": "Retain"}
    reference = {"namespace": NAMESPACE, "name": TINY}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": TINY},
        "spec": {
            **spec,
            "storageClassName": "",
            "claimRef": reference,
            "hostPath": {"path": folder, "type": "Directory"},
        },
    }
    kube.kubectl("delete", "pv", TINY, "--ignore-not-found")  # of a cluster that was kept
    kube.apply(volume, claim(TINY, size="8Mi", storageClassName="", volumeName=TINY))


def read(kube: Kube, uri: str) -> str:
    """The text of a file in a claim, by its pvc:// URI."""
    return kube.exec(POD, "cat", path(uri))


def files(kube: Kube, uri: str) -> list[str]:
    """The files below a folder of a claim, relative to it."""
    found = kube.exec(POD, "find", path(uri), "-type", "f", "-printf", "%P\\n")
    return sorted(found.splitlines())


def digest(kube: Kube, uri: str) -> str:
    """What is the same for two weights files only if every bit of every tensor is."""
    printed = kube.kubectl("exec", "-i", POD, "--", "python", "-", path(uri), stdin=_DIGESTS).strip()
    assert int(printed.split()[0]) > 100, f"{uri} holds hardly any tensors: {printed}"
    return printed


def path(uri: str) -> str:
    """Where the inspector sees what a pvc:// URI names."""
    assert uri.startswith("pvc://"), uri
    return "/mnt/" + uri.removeprefix("pvc://")
