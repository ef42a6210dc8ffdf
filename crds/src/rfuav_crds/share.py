"""What a namespace may use of a pool: an entry of a GPUQuota, and the default of a GPUPool."""

from typing import Annotated

from pydantic import Field

from rfuav_crds.common import Spec
from rfuav_crds.rules import Rule

Slots = Annotated[int, Field(ge=0, le=1_000_000)]


class GpuShare(Spec):
    """A namespace's share of a pool, in nvidia.com/gpu."""

    rules = (
        Rule(
            cel="!has(self.lendingLimit) || self.lendingLimit <= self.nominal",
            message="a namespace cannot lend more than its nominal share: write at most nominal",
            field=".lendingLimit",
            check=lambda g: g.lending_limit is None or g.lending_limit <= g.nominal,
        ),
    )

    nominal: Slots = Field(0, description="GPU slots that are the namespace's own. Default: 0.")
    borrowing_limit: Slots | None = Field(
        None, description="GPU slots it may use beyond nominal while they are idle. Default: no limit."
    )
    lending_limit: Slots | None = Field(
        None, description="GPU slots of its nominal share that others may borrow, at most nominal. Default: all."
    )


class Limits(Spec):
    """What one namespace may use of one pool."""

    gpus: GpuShare = Field(default_factory=GpuShare, description="Share of the pool's GPU slots (nvidia.com/gpu).")
    max_training_jobs: Slots | None = Field(
        None, description="TrainingJobs with an admitted pod at a time. Default: no limit."
    )
    max_inference_jobs: Slots | None = Field(
        None, description="InferenceJobs with an admitted pod at a time. Default: no limit."
    )
