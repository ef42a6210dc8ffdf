"""GPUQuota: what a team, that is a namespace, may use."""

from typing import Annotated, Literal

from pydantic import Field

from rfuav_crds.common import Label, Model, Spec
from rfuav_crds.pool import ByKind
from rfuav_crds.rules import Rule, listed_by
from rfuav_crds.share import Limits
from rfuav_crds.status import Conditions, Count

QUOTA_NAME_RULE = Rule(
    cel="self.metadata.name == 'default'",
    message="a namespace has one GPUQuota: write metadata.name: default",
    field=".metadata.name",
)


class PoolQuota(Limits):
    """What the namespace may use of one pool."""

    name: Label = Field(description="Name of the GPUPool.")


class GPUQuotaSpec(Spec):
    """Shares of pools. Everything may change."""

    pools: Annotated[list[PoolQuota], Field(min_length=1, max_length=64), listed_by("name")] = Field(
        description="One entry a GPUPool; for other pools, their defaultQuota applies. Required."
    )
    weight: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="Share of the idle room among borrowers, 1 to 1000. Default: 1."
    )
    stop_policy: Literal["None", "Hold"] = Field(
        "None", description="Hold: admit nothing new of this namespace. Default: None."
    )


class PoolUsage(Model):
    """What the namespace uses of one pool."""

    name: Label = Field(description="Name of the GPUPool.")
    used: Count = Field(0, description="GPU slots held.")
    borrowed: Count = Field(0, description="Of these, beyond nominal.")
    reserved: Count = Field(
        0, description="GPU slots of nominal that it does not lend. They stay reserved while the spec cannot be read."
    )
    admitted: ByKind = Field(default_factory=ByKind, description="Jobs with an admitted pod.")
    pending: ByKind = Field(default_factory=ByKind, description="Queued jobs.")


class GPUQuotaStatus(Model):
    """What the operator last counted for the namespace."""

    observed_generation: Count = Field(0, description="Generation of the spec that this status describes.")
    pools: Annotated[list[PoolUsage], Field(max_length=64), listed_by("name")] = Field(
        default_factory=list, description="Use of each pool."
    )
    conditions: Conditions = Field(
        default_factory=list, description="Ready: whether the quota is honoured, and why not."
    )
