"""Names and labels that follow from a job alone, so that a create tried twice finds its own pod."""

import re
from collections.abc import Mapping
from hashlib import sha256

from rfuav_operator.core.model import Job, Kind

API_VERSION = "rfuav.io/v1alpha1"
PLURAL = {Kind.TRAINING: "trainingjobs", Kind.INFERENCE: "inferencejobs"}
GPU = "nvidia.com/gpu"
_LONGEST_NAME = 40  # of a job, as the CRD has it

LABEL_JOB = "rfuav.io/job"
LABEL_KIND = "rfuav.io/kind"
LABEL_ATTEMPT = "rfuav.io/attempt"
LABEL_RANK = "rfuav.io/rank"
LABEL_SHARD = "rfuav.io/shard"
LABEL_JOB_UID = "rfuav.io/job-uid"
LABEL_POOL = "rfuav.io/pool"
LABEL_NODE = "rfuav.io/node"  # of pods that were made for a node: its name
LABEL_SCALE_UP = "rfuav.io/scale-up"  # of pods that wait for a node to come: their pool
CA_ANNOTATION = "rfuav.io/progress-ca"
OUTPUT_ANNOTATION = "rfuav.io/output"  # where the pod writes to
TOKEN_AUDIENCE = "rfuav.io/progress"  # noqa: S105  an audience, not a secret


def service_name(job: Job) -> str:
    """Name of the job's headless Service, by which its pods find each other: a DNS-1035 label, whatever the job's name.

    Such a label begins with a letter; a job's name may begin with a digit.
    """
    return re.sub(
        "[^a-z0-9-]", "-", stem(job.name, job.uid) if job.name[:1].isalpha() else f"job-{stem(job.name, job.uid)}"
    )


def stem(job: str, uid: str) -> str:
    """`<job>-<5 characters of the UID's hash>`: what the names of a job's pods begin with."""
    return f"{job[:_LONGEST_NAME]}-{sha256(uid.encode()).hexdigest()[:5]}"


def may_be_pod_of(pod: str, labels: Mapping[str, str], *, kind: str, job: str, uid: str) -> bool:
    """Whether a pod's name and labels are those that a job of this kind, name and UID gives to its pods."""
    attempt, index = labels.get(LABEL_ATTEMPT, ""), labels.get(LABEL_RANK) or labels.get(LABEL_SHARD) or ""
    one = f"{stem(job, uid)}-{attempt}"
    return labels.get(LABEL_KIND) == kind and pod in (one, f"{one}-{index}")


def pod_name(job: Job, attempt: int, *, shard: int | None = None, rank: int | None = None) -> str:
    """`<job>-<5 characters of the UID's hash>-<attempt>[-<rank or shard>]`; a job of one pod carries no last part."""
    several = job.spec.nodes if shard is None else job.spec.shards
    suffix = f"-{rank or 0 if shard is None else shard}" if several > 1 else ""
    return f"{stem(job.name, job.uid)}-{attempt}{suffix}"


def pod_labels(job: Job, attempt: int, *, shard: int | None = None, rank: int | None = None) -> dict[str, str]:
    """The labels by which the operator and people find the pods of a job."""
    index = {LABEL_RANK: str(rank or 0)} if shard is None else {LABEL_SHARD: str(shard)}
    return {
        LABEL_JOB: job.name,
        LABEL_KIND: job.kind.value,
        LABEL_ATTEMPT: str(attempt),
        LABEL_JOB_UID: job.uid,
        LABEL_POOL: job.spec.pool,
        **index,
    }
