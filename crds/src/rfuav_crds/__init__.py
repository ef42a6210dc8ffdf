"""The rfuav.io API: pydantic models, defaults, rules, and the generator of the CRD manifests.

The models are the single source: `python -m rfuav_crds` writes the CRDs, the chart's copies and docs/api.md from them,
and `load_job` checks a job file with the same rules away from any cluster.

In: manifests, as text or as values. Out: checked models, schemas, and the contract between operator and trainer.
It must not know who uses it: no operator, no trainer, no cluster.
"""

from rfuav_crds.common import Architecture
from rfuav_crds.contract import API_VERSION, GROUP, VERSION
from rfuav_crds.inference import InferenceJobSpec
from rfuav_crds.iq import Iq
from rfuav_crds.jobs import KINDS, GPUPool, GPUQuota, InferenceJob, TrainingJob
from rfuav_crds.load import JobError, changed, load_job, load_object, read_job
from rfuav_crds.pool import GPUPoolSpec
from rfuav_crds.quantity import parse_quantity
from rfuav_crds.quota import GPUQuotaSpec
from rfuav_crds.status import METRICS, JobStatus
from rfuav_crds.training import TrainingJobSpec
from rfuav_crds.unsupported import unsupported

__all__ = [
    "API_VERSION",
    "GROUP",
    "KINDS",
    "METRICS",
    "VERSION",
    "Architecture",
    "GPUPool",
    "GPUPoolSpec",
    "GPUQuota",
    "GPUQuotaSpec",
    "InferenceJob",
    "InferenceJobSpec",
    "Iq",
    "JobError",
    "JobStatus",
    "TrainingJob",
    "TrainingJobSpec",
    "changed",
    "load_job",
    "load_object",
    "parse_quantity",
    "read_job",
    "unsupported",
]
