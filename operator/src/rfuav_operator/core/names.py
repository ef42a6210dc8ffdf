"""Names and labels that follow from a job alone, so that a create tried twice finds its own pod."""

import re
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
LABEL_SCALE_UP = "rfuav.io/scale-up"  # of pods that wait for a node to come: their pool
CA_ANNOTATION = "rfuav.io/progress-ca"
TOKEN_AUDIENCE = "rfuav.io/progress"  # noqa: S105  an audience, not a secret


def service_name(job: Job) -> str:
    """Name of the job's headless Service, by which its pods find each other: a DNS-1035 label, whatever the job's name.

    Such a label begins with a letter; a job's name may begin with a digit.
    """
    return re.sub("[^a-z0-9-]", "-", _stem(job) if job.name[:1].isalpha() else f"job-{_stem(job)}")


def pod_name(job: Job, attempt: int, *, shard: int | None = None, rank: int | None = None) -> str:
    """`<job>-<5 characters of the UID's hash>-<attempt>[-<rank or shard>]`; a job of one pod carries no last part."""
    several = job.spec.nodes if shard is None else job.spec.shards
    suffix = f"-{rank or 0 if shard is None else shard}" if several > 1 else ""
    return f"{_stem(job)}-{attempt}{suffix}"


def _stem(job: Job) -> str:
    """`<job>-<5 characters of the UID's hash>`."""
    return f"{job.name[:_LONGEST_NAME]}-{sha256(job.uid.encode()).hexdigest()[:5]}"


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
