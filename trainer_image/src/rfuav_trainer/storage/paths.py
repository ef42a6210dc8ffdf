"""Where a URI of a job lies on this machine: file://, a mounted claim, or an object store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from rfuav_crds import contract, reasons
from rfuav_trainer.errors import InputError
from rfuav_trainer.storage import clients, inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rfuav_trainer.job import Job

MOUNT_ROOT = Path(contract.MOUNT_ROOT)


def check_mounted(job: Job, fields: Mapping[str, str | None]) -> None:
    """Check that the claims of these URIs (by field) are mounted; None and other schemes are passed over.

    Raises:
        InputError: one is not.
    """
    for where, uri in fields.items():
        if uri is not None and uri.startswith("pvc://"):
            local_path(job, uri, where)


def local_path(job: Job, uri: str, where: str) -> Path:
    """The local path of `uri`; `where` is the name of the field, for the message.

    Raises:
        InputError: its claim is not mounted, or the object store has no such thing.
        StorageError: the object store does not answer.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "file":
        return Path(unquote(rest))
    if scheme in clients.REMOTE:
        return inputs.path(uri, where)
    claim, _, inside = rest.partition("/")
    root = job.mounts.get(claim, MOUNT_ROOT / claim)
    creatable = where == "output.uri" and claim in job.mounts and not job.in_pod and not root.exists()
    if not root.is_dir() and not creatable:
        hint = (
            f"the pod should mount the claim at {root}"
            if job.in_pod
            else f"add --mount {claim}=FOLDER, the local folder to use for the claim"
        )
        raise InputError(f"{where}: claim {claim!r} of {uri} is not mounted: {hint}", reason=reasons.CLAIM_NOT_MOUNTED)
    return root / inside.strip("/")
