"""Answers claims of the default StorageClass: a folder on this machine for each, which all nodes see.

In: PersistentVolumeClaims of the class `standard`. Out: PersistentVolumes bound to them; both go when the claim is
deleted.
Run as `python -m localcluster.provisioner KUBECONFIG FOLDER`.
"""

import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from localcluster.addons import PROVISIONER, STORAGE_CLASS

IN_NODE = "/var/lib/localcluster/volumes"  # where node-init.sh shows the folder to the kubelet
_EVERY = 0.5  # seconds


def volume_for(claim: dict[str, Any]) -> dict[str, Any]:
    """The volume that answers a claim; its name follows from the claim's UID, so trying twice makes one."""
    metadata, spec = claim["metadata"], claim["spec"]
    name = f"pvc-{metadata['uid']}"
    reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"} | {
        key: metadata[key] for key in ("namespace", "name", "uid")
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
            "claimRef": reference,
            "hostPath": {"path": f"{IN_NODE}/{name}", "type": "Directory"},
        },
    }


def is_waiting(claim: dict[str, Any]) -> bool:
    """Whether the claim wants a volume of ours and has none."""
    spec = claim["spec"]
    ours = spec.get("storageClassName") == STORAGE_CLASS
    return ours and "volumeName" not in spec and "deletionTimestamp" not in claim["metadata"]


def is_released(volume: dict[str, Any]) -> bool:
    """Whether the volume is ours and its claim is gone."""
    return volume["spec"].get("storageClassName") == STORAGE_CLASS and volume["status"]["phase"] in {
        "Released",
        "Failed",
    }


def provision_all(core: client.CoreV1Api, folder: Path) -> None:
    """Create missing volumes and remove released ones."""
    plain = core.api_client.sanitize_for_serialization
    for claim in filter(is_waiting, plain(core.list_persistent_volume_claim_for_all_namespaces())["items"]):
        volume: Any = volume_for(claim)
        path = folder / volume["metadata"]["name"]
        path.mkdir(exist_ok=True)
        path.chmod(0o777)  # pods run as any user, and a host path knows no fsGroup
        _tolerating(HTTPStatus.CONFLICT, partial(core.create_persistent_volume, volume))
    for volume in filter(is_released, plain(core.list_persistent_volume())["items"]):
        name = volume["metadata"]["name"]
        shutil.rmtree(folder / name, ignore_errors=True)
        _tolerating(HTTPStatus.NOT_FOUND, partial(core.delete_persistent_volume, name))


def _tolerating(status: int, call: Callable[[], object]) -> None:
    try:
        call()
    except ApiException as error:
        if error.status != status:
            raise


def run(kubeconfig: Path, folder: Path) -> None:
    """Look again and again; an API server that is away is waited for."""
    api_client = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
    core = client.CoreV1Api(api_client)
    while True:
        try:
            provision_all(core, folder)
        except (ApiException, HTTPError, OSError) as error:
            print(f"trying again: {error}", flush=True)
        time.sleep(_EVERY)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
