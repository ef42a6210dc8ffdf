"""Resolves once what a job leaves open: precision, batch size, version of the transform.

The checkpoint stores them, so that a training resumed on other hardware takes the same steps.
In: the job, the network on its device. Out: `Resolved`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from rfuav_trainer.data.images import TRANSFORM
from rfuav_trainer.networks import memory_fit, precision
from rfuav_trainer.process import resources

if TYPE_CHECKING:
    import torch

    from rfuav_crds import TrainingJobSpec
    from rfuav_trainer.distributed.process_group import World
    from rfuav_trainer.job import Job


@dataclass(frozen=True)
class Resolved:
    """What a TrainingJob leaves open, resolved.

    Attributes:
        precision: fp32, bf16 or fp16.
        batch_size: samples in a batch, over all processes.
        transform: version of the way from a file to a picture; 1 in a checkpoint that does not say.
    """

    precision: str
    batch_size: int
    transform: int = 1

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def resolve(
    job: Job, spec: TrainingJobSpec, network: nn.Module, *, device: torch.device, world: World, samples: int
) -> Resolved:
    """Resolve the `auto` settings. Of several processes, the one with the least memory decides.

    Raises:
        InvalidConfigurationError: the device does not support the precision.
    """
    number_format = precision.resolve(spec.training.precision, device)
    if spec.training.precision == "auto" and device.type == "cpu" and _depthwise(network):
        number_format = "fp32"
    size = spec.training.batch_size
    if not isinstance(size, int):
        fitting_here = memory_fit.batch_size(
            network, spec.dataset.image_size, device, number_format, resources.memory(job)
        )
        size = max(1, min(fitting_here * world.size, samples))
    found = world.gather((number_format, size))
    formats = {theirs for theirs, _ in found}
    chosen = next(f for f in ("fp32", "fp16", "bf16") if f in formats)
    return Resolved(chosen, min(theirs for _, theirs in found), TRANSFORM)


def _depthwise(network: nn.Module) -> bool:
    """Whether the network has depthwise convolutions (MobileNet): on CPUs they train slower in bfloat16."""
    return any(isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels for m in network.modules())


def resolve_workers(job: Job, spec: TrainingJobSpec) -> int:
    """Number of reader threads; for auto 0 with a single core, up to 8 with a GPU, else 1.

    It does not affect the result, so the checkpoint does not store it.
    """
    if isinstance(spec.training.workers, int):
        return spec.training.workers
    if resources.cpus(job) == 1:
        return 0
    return min(8, resources.cpus(job)) if spec.resources.gpus else 1
