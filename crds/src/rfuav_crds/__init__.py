"""The rfuav.io API: pydantic models, defaults, rules, and the generator of the CRD manifests.

The models are the single source: `python -m rfuav_crds` writes the CRDs, the chart's copies and docs/api.md from them,
and `load_job` checks a job file with the same rules away from any cluster.

In: manifests, as text or as values. Out: checked models, schemas, and the contract between operator and trainer.
It must not know who uses it: no operator, no trainer, no cluster.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
]

_HOMES = {
    "common": ("Architecture",),
    "contract": ("API_VERSION", "GROUP", "VERSION"),
    "inference": ("InferenceJobSpec",),
    "iq": ("Iq",),
    "jobs": ("KINDS", "GPUPool", "GPUQuota", "InferenceJob", "TrainingJob"),
    "load": ("JobError", "changed", "load_job", "load_object", "read_job"),
    "pool": ("GPUPoolSpec",),
    "quantity": ("parse_quantity",),
    "quota": ("GPUQuotaSpec",),
    "status": ("METRICS", "JobStatus"),
    "training": ("TrainingJobSpec",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """The models are imported when one is used: that takes half a second, and most programs want only the contract."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value
