"""What the job leaves to us, decided once: precision and batch size.

Kept in the checkpoint, so that a training that goes on elsewhere takes the same steps.
In: the job, the network on its device. Out: `Resolved`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from rfuav_trainer.networks import memory_fit, precision
from rfuav_trainer.process import resources

if TYPE_CHECKING:
    import torch

    from rfuav_crds import TrainingJobSpec
    from rfuav_trainer.distributed.process_group import World
    from rfuav_trainer.job import Job


@dataclass(frozen=True)
class Resolved:
    """Every `auto` of a TrainingJob as it was decided.

    Attributes:
        precision: fp32, bf16 or fp16.
        batch_size: samples that pass together, over all processes.
    """

    precision: str
    batch_size: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def resolve(
    job: Job, spec: TrainingJobSpec, network: nn.Module, *, device: torch.device, world: World, samples: int
) -> Resolved:
    """Decide what the job calls auto; of several processes the one with the least room decides for all.

    Raises:
        InvalidConfigurationError: the device cannot do the precision.
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
    return Resolved(next(f for f in ("fp32", "fp16", "bf16") if f in formats), min(theirs for _, theirs in found))


def _depthwise(network: nn.Module) -> bool:
    """Whether the network convolves channels one by one (MobileNet): on CPUs bfloat16 trains slower."""
    return any(isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels for m in network.modules())


def resolve_workers(job: Job, spec: TrainingJobSpec) -> int:
    """Reader threads: as written, or for auto none beside a single CPU, up to 8 beside a GPU, else one.

    They do not change the result, so they are no part of what is kept.
    """
    if isinstance(spec.training.workers, int):
        return spec.training.workers
    if resources.cpus(job) == 1:
        return 0
    return min(8, resources.cpus(job)) if spec.resources.gpus else 1
