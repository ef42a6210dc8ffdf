"""The network in training: one step of the optimizer, and the state for a checkpoint.

In: batches of pictures. Out: their loss; the trained weights. The step is the same whether its samples come in one
batch, in several (gradient accumulation), or on several processes.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
import torch
from torch import func

from rfuav_trainer.data import augment_pictures
from rfuav_trainer.distributed import batch_norm
from rfuav_trainer.distributed.gradients import Gradients
from rfuav_trainer.networks import custom, precision
from rfuav_trainer.training import loss, schedule
from rfuav_trainer.training.ema import Average

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from rfuav_crds.training import Optimizer, TrainingLoop
    from rfuav_trainer.data.batches import Batch
    from rfuav_trainer.data.samples import Preprocessing
    from rfuav_trainer.distributed.process_group import World

log = structlog.get_logger()

MOMENTUM = 0.9
"""Default of sgd."""
SMALLEST_SCALE = 1
"""Of the losses in fp16. It begins at 65536, and is halved at every step whose gradients are not finite. Below 1 the
gradients themselves are beyond fp16: after seventeen such steps, if a training has diverged."""


@dataclass(frozen=True)
class Moment:
    """A step of a training: `epoch` completed epochs, `step` steps in the current one, `steps` in an epoch."""

    epoch: int
    step: int
    steps: int

    @property
    def taken(self) -> int:
        """Steps taken in all."""
        return self.epoch * self.steps + self.step


def make_optimizer(network: nn.Module, optimizer: Optimizer) -> torch.optim.Optimizer:
    """The optimizer of the job, with PyTorch's defaults for everything else."""
    # Fused: one pass over all weights instead of one for each operation.
    shared: dict[str, Any] = {"lr": optimizer.learning_rate, "weight_decay": optimizer.weight_decay, "fused": True}
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if optimizer.name == "adamw":
        return torch.optim.AdamW(parameters, **shared)
    if optimizer.name == "sgd":
        momentum = MOMENTUM if optimizer.momentum is None else optimizer.momentum
        made = torch.optim.SGD(parameters, momentum=momentum, **shared)
        if momentum:
            # Zeroed: torch leaves it uninitialised until the first step, which fp16's scaler may skip.
            for parameter in parameters:
                made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return made
    return torch.optim.Adam(parameters, **shared)


class Learner:
    """A network in training.

    Args:
        training: the recipe of the job.
        network: on its device.
        device: of the network.
        number_format: the resolved precision: fp32, bf16 or fp16.
        preprocessing: from 8-bit pictures to the network's input.
        world: the other processes.
        weights: of the classes in the loss, or None.
    """

    def __init__(
        self,
        training: TrainingLoop,
        network: nn.Module,
        *,
        device: torch.device,
        number_format: str,
        preprocessing: Preprocessing,
        world: World,
        weights: Tensor | None,
    ) -> None:
        self.training, self.network, self.device = training, network, device
        self.number_format, self.preprocessing, self.world = number_format, preprocessing, world
        self.weights = weights.to(device) if weights is not None else None
        custom.channels_last(network)
        self._together = world.size > 1 and batch_norm.has_batch_norm(network)
        if self._together:
            self.network = batch_norm.synchronised(network, device)
        self.gradients = Gradients(network) if world.size > 1 else None
        self.optimizer = make_optimizer(network, training.optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=number_format == "fp16")
        self.average = Average(network, training.ema_decay) if training.ema_decay else None

    def share(self) -> None:
        """Give all processes the running statistics of the first: each saw other samples."""
        self.world.share(self.network.buffers())
        if self.average is not None:
            self.world.share(self.average.state.values())

    def release(self) -> None:
        """Give up gradients and the optimizer's state: the training is over, their memory is wanted."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.gradients is not None:
            self.gradients.release()
        self.optimizer.state.clear()

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, group: Sequence[Batch], moment: Moment) -> Tensor:
        """One step of the optimizer over the batches of `group`. This process has its part of each.

        Returns:
            Summed loss, correct predictions and samples of all processes: float64, shape (3,).
        """
        if self.gradients is None:
            self.optimizer.zero_grad(set_to_none=True)
        else:
            self.gradients.begin()
            # Each has its own dropout, reproducible after a resume: a checkpoint stores the state of rank 0 only.
            torch.manual_seed(self._seed(moment))
        seen = torch.zeros(3, dtype=torch.float64, device=self.device)
        sizes = self._sizes(group)
        for number, batch in enumerate(group):
            if batch.samples or (self._together and sizes[number]):
                random = np.random.default_rng([self.training.seed, moment.epoch, moment.step, number, self.world.rank])
                with self._sending(last=number == len(group) - 1):
                    seen += self._pass(batch, sum(sizes), random)
        if self.gradients is not None:
            self.gradients.finish()
        self.world.sum(seen)
        if sum(sizes):
            self._update(moment)
        return seen

    def _sizes(self, group: Sequence[Batch]) -> list[float]:
        """How many samples the batches have in all processes.

        The loss of each process is divided by their sum, so that the gradients of all add up to those of one process
        with the whole batch, also if a batch does not divide evenly or a file is unreadable.
        """
        sizes = [float(len(batch.samples)) for batch in group]
        if self.world.size == 1:
            return sizes
        found: list[float] = self.world.sum(torch.tensor(sizes, device=self.device)).tolist()
        return found

    def _sending(self, *, last: bool) -> AbstractContextManager[None]:
        """Whether gradients are sent during the backward pass: in the last one of a step, where they are complete."""
        return self.gradients.last_pass() if self.gradients is not None and last else nullcontext()

    def spoilt(self) -> str | None:
        """What has become infinite or NaN, in words; None if nothing has. Waits for the device.

        With fp16, the scaler skips a step whose gradients are not finite: they are seen in its scale, not in a weight.
        """
        weights = dict(self.network.named_parameters())
        norm = torch.nn.utils.get_total_norm([weight.detach() for weight in weights.values()])
        if not norm.isfinite():
            name = next((name for name, weight in weights.items() if not weight.isfinite().all()), "")
            return f"the weights {name} became infinite or NaN"
        if self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_SCALE:
            return "the gradients became infinite or NaN in every step"
        return None

    def _seed(self, moment: Moment) -> int:
        """The seed of this step in this process."""
        drawn = np.random.SeedSequence([self.training.seed, moment.epoch, moment.step, self.world.rank])
        return int(drawn.generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _pass(self, batch: Batch, total: float, random: np.random.Generator) -> Tensor:
        """Add the gradients of one batch, weighted by its part of `total` samples."""
        labels = batch.labels.to(self.device, non_blocking=True)
        if batch.samples:
            pictures = augment_pictures.apply(self._on_device(batch.pictures), self.training.augment, random)
        else:  # the others have some, and wait for this process in every batch norm
            size = self.preprocessing.image_size
            pictures = torch.empty((0, 3, size, size), dtype=torch.uint8, device=self.device)
        pictures = self.preprocessing.normalise(pictures)
        mixed = loss.mix(pictures, labels, self.training.mixup, random) if self.training.mixup else None
        with precision.passing(self.number_format, self.device):
            scores = self._forward(pictures if mixed is None else mixed.pictures).float()
        summed = loss.cross_entropy(
            scores, labels, weights=self.weights, smoothing=self.training.label_smoothing, mixed=mixed
        )
        self.scaler.scale(summed / total).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            count = torch.tensor(float(len(batch.samples)), dtype=torch.float64, device=self.device)
            return torch.stack([summed.detach().double(), loss.correct(scores, labels, mixed), count])

    def _forward(self, pictures: Tensor) -> Tensor:
        """The scores of a batch in training.

        Some batch norms cannot train on a single picture, which is what an unreadable file or the end of an epoch
        leaves. The network then sees that picture as it will be used, with its running statistics.
        """
        if len(pictures) > 1:
            found: Tensor = self.network(pictures)
            return found
        before = [buffer.clone() for buffer in self.network.buffers()]
        try:
            found = self.network(pictures)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
        else:
            return found
        with torch.no_grad():
            for buffer, value in zip(self.network.buffers(), before, strict=True):
                buffer.copy_(value)
        log.info("training on a batch of one picture with the running statistics of batch norm")
        self.network.eval()
        try:
            found = self.network(pictures)
        finally:
            self.network.train()
        return found

    def _update(self, moment: Moment) -> None:
        training = self.training
        rate = schedule.factor(training.schedule, moment.taken, steps=moment.steps, epochs=training.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = training.optimizer.learning_rate * rate
        if training.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), training.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.network, moment.taken)

    @torch.no_grad()
    def scores(self, pictures: Tensor) -> Tensor:
        """Scores of 8-bit pictures, float32 (n, classes), with the weights that would be saved. Requires eval()."""
        inputs = self.preprocessing.normalise(self._on_device(pictures))
        with precision.passing(self.number_format, self.device):
            # The average contains tied weights under each of their names, so they need no tying.
            state = {} if self.average is None else self.average.state
            scores: Tensor = func.functional_call(self.network, state, (inputs,), tie_weights=False)
        return scores.float()

    def _on_device(self, pictures: Tensor) -> Tensor:
        return pictures.to(self.device, non_blocking=True)

    def trained(self) -> dict[str, Tensor]:
        """The state dict to save: of the average if there is one."""
        return self.network.state_dict() if self.average is None else self.average.state

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state if self.average is not None else None,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load(state["average"])
