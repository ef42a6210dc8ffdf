"""The four kinds as whole objects, and reading a job from a file: the same check on a laptop as on the cluster."""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from rfuav_crds.common import JOB_NAME, JOB_NAME_RULE, Model
from rfuav_crds.inference import InferenceJobSpec
from rfuav_crds.pool import GPUPoolSpec, GPUPoolStatus
from rfuav_crds.quota import QUOTA_NAME_RULE, GPUQuotaSpec, GPUQuotaStatus
from rfuav_crds.rules import Rule, matches, unchanged
from rfuav_crds.running import POOL_RULES
from rfuav_crds.status import JobStatus
from rfuav_crds.training import TrainingJobSpec

_ApiVersion = Literal["rfuav.io/v1alpha1"]


class Metadata(Model):
    """The part of Kubernetes' object metadata that is read here; the rest is kept unchanged."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(max_length=253)] = Field(description="Name of the object.")
    namespace: Annotated[str, Field(max_length=63)] = Field("default", description="Namespace. Default: default.")


class JobMetadata(Metadata):
    """Metadata of a job, whose name is short."""

    name: Annotated[str, Field(max_length=253), matches(JOB_NAME, JOB_NAME_RULE.message)] = Field(
        description="Name of the job."
    )


class QuotaMetadata(Metadata):
    """Metadata of a GPUQuota, whose name is always the same."""

    name: Annotated[
        str,
        Field(max_length=253),
        Rule(cel=QUOTA_NAME_RULE.cel, message=QUOTA_NAME_RULE.message, check=lambda name: name == "default"),
    ] = Field(description="Always `default`.")


class Resource(Model):
    """An object as in a YAML file."""

    model_config = ConfigDict(extra="forbid")
    root_rules: ClassVar[tuple[Rule, ...]] = ()


class TrainingJob(Resource):
    """Trains a classifier of drone signals and writes its weights."""

    root_rules = (JOB_NAME_RULE, *POOL_RULES, unchanged(TrainingJobSpec))

    api_version: _ApiVersion
    kind: Literal["TrainingJob"]
    metadata: JobMetadata
    spec: TrainingJobSpec
    status: JobStatus | None = None


class InferenceJob(Resource):
    """Classifies recordings or pictures with trained weights and writes the predictions."""

    root_rules = (JOB_NAME_RULE, *POOL_RULES, unchanged(InferenceJobSpec))

    api_version: _ApiVersion
    kind: Literal["InferenceJob"]
    metadata: JobMetadata
    spec: InferenceJobSpec
    status: JobStatus | None = None


class GPUPool(Resource):
    """The nodes that jobs may use, and how many jobs may share one of their GPUs."""

    api_version: _ApiVersion
    kind: Literal["GPUPool"]
    metadata: Metadata
    spec: GPUPoolSpec
    status: GPUPoolStatus | None = None


class GPUQuota(Resource):
    """How much of the pools the jobs of a namespace may use. A namespace has at most one, named default."""

    root_rules = (QUOTA_NAME_RULE,)

    api_version: _ApiVersion
    kind: Literal["GPUQuota"]
    metadata: QuotaMetadata
    spec: GPUQuotaSpec
    status: GPUQuotaStatus | None = None


KINDS: dict[str, type[Resource]] = {
    "TrainingJob": TrainingJob,
    "InferenceJob": InferenceJob,
    "GPUPool": GPUPool,
    "GPUQuota": GPUQuota,
}
