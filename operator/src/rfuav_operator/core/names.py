"""Names and labels that follow from a job alone, so that a create tried twice finds its own pod."""

import re
from collections.abc import Mapping
from hashlib import sha256

from rfuav_crds import contract
from rfuav_operator.core.model import Job

_LONGEST_NAME = 40  # of a job, as the CRD has it


def service_name(job: Job) -> str:
    """Name of the job's headless Service, which lets its pods find each other: a DNS-1035 label for any job name.

    Such a label begins with a letter; a job's name may begin with a digit.
    """
    return re.sub(
        "[^a-z0-9-]", "-", stem(job.name, job.uid) if job.name[:1].isalpha() else f"job-{stem(job.name, job.uid)}"
    )


def stem(job: str, uid: str) -> str:
    """`<job>-<5 characters of the UID's hash>`: what the names of a job's pods begin with."""
    return f"{job[:_LONGEST_NAME]}-{sha256(uid.encode()).hexdigest()[:5]}"


def may_be_pod_of(pod: str, labels: Mapping[str, str], *, kind: str, job: str, uid: str) -> bool:
    """Whether a pod's name and labels are those of a job of this kind, name and UID."""
    index = labels.get(contract.LABEL_RANK) or labels.get(contract.LABEL_SHARD) or ""
    one = f"{stem(job, uid)}-{labels.get(contract.LABEL_ATTEMPT, '')}"
    return labels.get(contract.LABEL_KIND) == kind and pod in (one, f"{one}-{index}")


def pod_name(job: Job, attempt: int, *, shard: int | None = None, rank: int | None = None) -> str:
    """`<job>-<5 characters of the UID's hash>-<attempt>[-<rank or shard>]`; a job of one pod carries no last part."""
    several = job.spec.nodes if shard is None else job.spec.shards
    suffix = f"-{rank or 0 if shard is None else shard}" if several > 1 else ""
    return f"{stem(job.name, job.uid)}-{attempt}{suffix}"


def pod_labels(job: Job, attempt: int, *, shard: int | None = None, rank: int | None = None) -> dict[str, str]:
    """The labels that select the pods of a job."""
    index = {contract.LABEL_RANK: str(rank or 0)} if shard is None else {contract.LABEL_SHARD: str(shard)}
    return {
        contract.LABEL_JOB: job.name,
        contract.LABEL_KIND: job.kind.value,
        contract.LABEL_ATTEMPT: str(attempt),
        contract.LABEL_JOB_UID: job.uid,
        contract.LABEL_POOL: job.spec.pool,
        **index,
    }
