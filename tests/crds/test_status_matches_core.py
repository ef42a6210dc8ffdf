"""The operator's core writes exactly the status fields that the CRDs hold, and reads spec fields that exist."""

from typing import Any

import msgspec
import pytest

from rfuav_crds import GPUPoolSpec, InferenceJobSpec, TrainingJobSpec, pod, pool, quota, running, share, status
from rfuav_crds.quota import GPUQuotaSpec
from rfuav_operator.core import model as core


def on_the_wire(struct: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


def aliases(model: Any) -> set[str]:
    return {field.alias for field in model.model_fields.values()}


@pytest.mark.parametrize(
    ("struct", "model"),
    [
        (core.JobStatus, status.JobStatus),
        (core.Condition, status.KubeCondition),
        (core.Assignment, status.Assignment),
        (core.Queue, status.Queue),
        (core.Progress, status.Progress),
        (core.Checkpoint, status.Checkpoint),
        (core.Failure, status.Failure),
        (core.ShardCounts, status.ShardCounts),
        (core.Source, status.Source),
        (core.CustomMetric, status.CustomMetric),
        (core.GpuTier, pool.GpuTier),
        (core.PerNodeCpu, pool.PerNodeCpu),
        (core.Resources, running.Resources),
        (core.Preemption, pool.Preemption),
        (core.ScaleUp, pool.ScaleUp),
        (core.GpuSharing, pool.GpuSharing),
        (core.GpuShare, share.GpuShare),
        (core.PoolQuota, quota.PoolQuota),
        (core.LabelRequirement, pool.LabelRequirement),
        (core.NamespaceSelector, pool.NamespaceSelector),
        (core.PriorityAccess, pool.PriorityAccess),
        (core.QuotaSpec, GPUQuotaSpec),
    ],
    ids=lambda part: part.__name__,
)
def test_the_same_fields_on_both_sides(struct, model):
    passing_through = {"results"} if model is status.JobStatus else set()  # large: written as reported, never read
    assert on_the_wire(struct) == aliases(model) - passing_through


@pytest.mark.parametrize(
    ("struct", "model"),
    [(core.PoolSpec, GPUPoolSpec), (core.PodTemplate, pod.PodTemplate)],
    ids=lambda part: part.__name__,
)
def test_what_the_core_reads_exists(struct, model):
    assert on_the_wire(struct) <= aliases(model)


def test_the_core_reads_fields_of_either_kind_of_job():
    assert on_the_wire(core.JobSpec) <= aliases(TrainingJobSpec) | aliases(InferenceJobSpec)


def test_the_phases_are_the_same():
    phases = status.JobStatus.model_json_schema()["properties"]["phase"]["anyOf"][0]["enum"]
    assert phases == [phase.value for phase in core.Phase]
