"""Trains a classifier: epochs of steps, validation, checkpoints, the best and last weights.

In: a TrainingJob and its data. Out: under the output, best.safetensors, last.safetensors, checkpoints, history, curves,
report, _SUCCESS.
Interrupted after any step and started again, it goes on at the next one; on the CPU it ends with the same bits as if
nothing had happened.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
import torch
from torch.nn import functional

from rfuav_crds import TrainingJobSpec
from rfuav_trainer import metrics, models, report, runtime, schedule, weights
from rfuav_trainer.checkpoint import CheckpointStore, Saved, write_json
from rfuav_trainer.data import Reader
from rfuav_trainer.dataset import Dataset, open_dataset
from rfuav_trainer.errors import InputError, InvalidConfigurationError, StoppedError
from rfuav_trainer.loading import Batch, batches, cut
from rfuav_trainer.progress import Progress, Speed
from rfuav_trainer.world import World, join

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from rfuav_trainer.config import Job
    from rfuav_trainer.data import Sample

log = structlog.get_logger()

CACHE_SHARE = 0.25
"""Share of the job's memory that may hold decoded pictures between epochs."""


@dataclass
class Position:
    """Where a training stands: all of it goes into the checkpoint, beside weights, optimizer and random state.

    Attributes:
        epoch: epochs completed.
        step: steps taken in the epoch at hand.
        totals: float64 (summed loss, correct guesses, samples) of the epoch at hand.
        history: metrics of each completed epoch.
        best: the epoch with the best validation accuracy (on a tie, the lower loss).
        watched: best value so far of the metric that early stopping watches; higher is better.
        stale: epochs since it got better.
        seconds: running time of all attempts up to here.
    """

    epoch: int = 0
    step: int = 0
    totals: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] | None = None
    watched: float | None = None
    stale: int = 0
    seconds: float = 0.0


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of the samples in an epoch: a permutation that depends on seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator).tolist()


def run(job: Job, progress: Progress, stop: runtime.StopSignal) -> dict[str, Any]:
    """Train, or say at once that this job has finished before.

    Returns:
        The mark of success: outputs (name to URI) and the last metrics.

    Raises:
        JobError: anything foreseen; StoppedError when SIGTERM arrived and a checkpoint was saved.
    """
    spec = job.spec
    assert isinstance(spec, TrainingJobSpec)  # noqa: S101  (the command line chose this function by the kind)
    output = job.path(spec.output.uri, "output.uri")
    done = runtime.finished_before(output / runtime.SUCCESS, job)
    if done is not None:
        log.info("finished before, nothing to do", output=str(output))
        progress.update(done.get("trainerStatus", {"progressPercentage": 100}))
        return done
    stop.check()
    models.check(spec.model.architecture, spec.dataset.image_size)
    dataset = open_dataset(job, spec)
    device = runtime.choose_device(job)
    runtime.prepare_output(output, "output.uri")
    world = join(device, stop)
    try:
        return Training(
            job, spec, output=output, dataset=dataset, device=device, progress=progress, stop=stop, world=world
        ).run()
    finally:
        world.leave()


class Training:
    """One attempt at a training job."""

    def __init__(
        self,
        job: Job,
        spec: TrainingJobSpec,
        *,
        output: Path,
        dataset: Dataset,
        device: torch.device,
        progress: Progress,
        stop: runtime.StopSignal,
        world: World,
    ) -> None:
        self.job, self.spec, self.output, self.dataset, self.device = job, spec, output, dataset, device
        self.progress, self.stop, self.world = progress if world.first else Progress(None), stop, world
        self.position = Position()
        self.saved: Saved | None = None
        self.steps = math.ceil(len(dataset.train) / spec.training.batch_size)
        self.workers = _resolve_workers(job, spec)
        self.reader = Reader(dataset.preprocessing, cache_bytes=int(job.memory * CACHE_SHARE))
        if device.type == "cpu":
            torch.use_deterministic_algorithms(True)
        torch.manual_seed(spec.training.seed)
        self.network: nn.Module = models.build(spec.model.architecture, len(dataset.classes), spec.dataset.image_size)
        self.network.to(device)
        optimizer = spec.training.optimizer
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=optimizer.learning_rate,
            weight_decay=optimizer.weight_decay,
        )
        self.store = CheckpointStore(
            output / "checkpoints" / job.uid,
            keep=spec.checkpoint.keep,
            signature=self._signature(),
        )
        self._started = time.monotonic()
        self._reported = 0.0
        self._speed = Speed()

    def run(self) -> dict[str, Any]:
        """All epochs from where the newest checkpoint stands, then the results."""
        if not self._resume():
            self._start_weights()
        self._clear_foreign_mark()
        epochs = self.spec.training.epochs
        log.info(
            "training",
            architecture=self.spec.model.architecture,
            classes=len(self.dataset.classes),
            train=len(self.dataset.train),
            validation=len(self.dataset.validation),
            device=str(self.device),
            epoch=self.position.epoch,
            epochs=epochs,
        )
        while self.position.epoch < epochs and not self._exhausted():
            self._train_epoch()
            self._end_epoch(self._validate())
        return self._finish()

    # --- an epoch

    def _train_epoch(self) -> None:
        """The steps of the epoch at hand that are still to be taken."""
        position, size = self.position, self.spec.training.batch_size
        order = epoch_order(len(self.dataset.train), self.spec.training.seed, position.epoch)
        samples = [self.dataset.train[index] for index in order]
        steps = [self.world.part(samples[step * size : (step + 1) * size]) for step in range(position.step, self.steps)]
        position.totals = position.totals.to(self.device)
        self.network.train()
        for batch in batches(steps, self.reader, self.workers):
            self._pass_over(batch.unreadable)
            seen = self._step(batch)
            position.totals += seen
            position.step += 1
            self._speed.add(self.world.all_together(len(batch.samples), seen[2]))
            self._report()
            self._stop_here()

    def _step(self, batch: Batch) -> Tensor:
        """One step of the optimizer over a batch, of which this process has its part.

        Returns:
            Summed loss, correct guesses and samples of the whole batch: float64, shape (3,).
        """
        self.optimizer.zero_grad(set_to_none=True)
        seen = torch.zeros(3, dtype=torch.float64, device=self.device)
        if batch.samples:
            loss, guesses, labels = self._forward(batch.pictures, batch.labels)
            self.world.weighed(loss, len(batch.samples)).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                count = torch.tensor(len(batch.samples), device=self.device)
                correct = (guesses.argmax(dim=1) == labels).sum()
                seen = torch.stack([loss.detach() * count, correct, count]).double()
        self.world.sum(seen)
        if self.world.all_together(len(batch.samples), seen[2]):
            self.world.average_gradients(self.network, seen[2])
            self._set_learning_rate()
            self.optimizer.step()
        return seen

    def _set_learning_rate(self) -> None:
        training, position = self.spec.training, self.position
        step = position.epoch * self.steps + position.step
        share = schedule.factor(training.schedule, step, steps=self.steps, epochs=training.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = training.optimizer.learning_rate * share

    def _forward(self, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (mean cross entropy), scores (n, classes) and labels on the device."""
        labels = labels.to(self.device)
        scores = self.network(self.dataset.preprocessing.normalise(pictures.to(self.device)))
        return functional.cross_entropy(scores, labels), scores, labels

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Metrics over the validation samples."""
        self.world.share_buffers(self.network)
        self.network.eval()
        scores: list[Tensor] = []
        labels: list[Tensor] = []
        mine = self.world.part(self.dataset.validation)
        for batch in batches(cut(mine, self.spec.training.batch_size), self.reader, self.workers):
            self._pass_over(batch.unreadable)
            if batch.samples:
                _, guesses, _ = self._forward(batch.pictures, batch.labels)
                scores.append(guesses.float().cpu())
                labels.append(batch.labels)
            if self.world.size == 1:
                self._stop_here()
        everyone = self.world.gather((scores, labels, self.dataset.unreadable))
        scores = [part for theirs, _, _ in everyone for part in theirs]
        labels = [part for _, theirs, _ in everyone for part in theirs]
        for _, _, unreadable in everyone:
            self.dataset.pass_over(unreadable)
        self._stop_here()
        if not scores:
            raise InputError("none of the validation files can be read", reason="TooManyUnreadable")
        all_scores, all_labels = torch.cat(scores), torch.cat(labels)
        found = metrics.compute(all_scores, all_labels, len(self.dataset.classes))
        loss = functional.cross_entropy(all_scores, all_labels).item()
        return {
            **found,
            "valLoss": loss,
            "valAccuracy": (all_scores.argmax(dim=1) == all_labels).double().mean().item(),
        }

    def _end_epoch(self, validation: dict[str, float]) -> None:
        position = self.position
        summed, correct, count = position.totals.tolist()
        if count == 0:
            raise InputError("none of the training files can be read", reason="TooManyUnreadable")
        row = {"trainLoss": summed / count, "trainAccuracy": correct / count, **validation}
        if not math.isfinite(row["trainLoss"]) or not math.isfinite(row["valLoss"]):
            raise InvalidConfigurationError(
                f"the loss became {row['trainLoss']} in epoch {position.epoch + 1}: lower optimizer.learningRate "
                f"(now {self.spec.training.optimizer.learning_rate:g})",
                reason="Diverged",
            )
        row["learningRate"] = self.optimizer.param_groups[0]["lr"]
        best = position.best
        if best is None or (row["valAccuracy"], -row["valLoss"]) > (best["valAccuracy"], -best["valLoss"]):
            position.best = best = {"epoch": position.epoch + 1, **metrics.finite(row)}
            best["valAccuracy"], best["valLoss"] = row["valAccuracy"], row["valLoss"]
            self._save_weights("best", best)
        row["bestValAccuracy"] = best["valAccuracy"]
        self._watch(row)
        position.epoch, position.step, position.totals = position.epoch + 1, 0, torch.zeros_like(position.totals)
        position.history.append({"epoch": position.epoch, **metrics.finite(row)})
        if self.world.first:
            report.write_history(self.output / "history.jsonl", position.history)
        log.info("epoch", **position.history[-1], epochs=self.spec.training.epochs)
        if position.epoch % self.spec.checkpoint.every_epochs == 0:
            self._save_checkpoint()
        self._report(now=True)

    def _watch(self, row: dict[str, float]) -> None:
        """Count the epochs since the watched metric got better."""
        stopping = self.spec.training.early_stopping
        if stopping is None:
            return
        value = -row["valLoss"] if stopping.metric == "valLoss" else row[stopping.metric]
        if self.position.watched is None or value > self.position.watched:
            self.position.watched, self.position.stale = value, 0
        else:
            self.position.stale += 1

    def _exhausted(self) -> bool:
        stopping = self.spec.training.early_stopping
        if stopping is None or self.position.stale < stopping.patience:
            return False
        log.info("early stopping", metric=stopping.metric, patience=stopping.patience, epoch=self.position.epoch)
        return True

    # --- starting, stopping, resuming

    def _start_weights(self) -> None:
        spec = self.spec
        if spec.model.weights == "none":
            return
        if spec.model.weights == "pretrained":
            cache = self.job.path(spec.weights_cache.uri, "weightsCache.uri") if spec.weights_cache else None
            models.load_pretrained(self.network, spec.model.architecture, cache)
            return
        path = self.job.path(spec.model.weights, "model.weights")
        card = weights.read_card(path) if path.suffix == ".safetensors" else None
        if card is not None:
            if card.architecture != spec.model.architecture:
                raise InvalidConfigurationError(
                    f"model.weights {path} holds a {card.architecture}, the job says {spec.model.architecture}",
                    reason="WeightsMismatch",
                )
            weights.check_classes(card, self.dataset.classes, path)
        weights.load(path, self.network, architecture=spec.model.architecture)

    def _resume(self) -> bool:
        if not self.spec.checkpoint.resume:
            self.store.clear()
            return False
        found = self.store.latest(device="cpu")
        if found is None:
            return False
        state, self.saved = found
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.position = Position(**state["position"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["randomCuda"] is not None:
            torch.cuda.set_rng_state(state["randomCuda"], self.device)
        if state["samples"] != _names_hash(self.dataset.train):
            log.warning("the training data changed since the checkpoint; going on with what is there now")
            self.position.step = min(self.position.step, self.steps)
        self.dataset.pass_over(state["unreadable"])
        self._forget_missing_best()
        log.info("resumed", checkpoint=str(self.saved.path), epoch=self.position.epoch, step=self.position.step)
        return True

    def _forget_missing_best(self) -> None:
        """Without the best weights' file the next epoch is the best there is."""
        path = self.output / "best.safetensors"
        if self.position.best is not None and not path.is_file():
            log.warning("the best weights are gone; the next epoch's take their place", file=str(path))
            self.position.best = None

    def _stop_here(self) -> None:
        """Save and raise StoppedError when SIGTERM has arrived, at whichever process: all stop at the same step."""
        wanted = torch.tensor(float(self.stop.requested), device=self.device)
        if not (self.stop.requested if self.world.size == 1 else self.world.sum(wanted).item()):
            return
        self._save_checkpoint()
        self._report(now=True)
        raise StoppedError(
            f"stopped by SIGTERM; checkpoint at epoch {self.position.epoch}, step {self.position.step} of {self.steps}",
        )

    def _save_checkpoint(self) -> None:
        if not self.world.first:
            return
        position = self.position
        began = time.monotonic()
        seconds = position.seconds + began - self._started
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": {**position.__dict__, "totals": position.totals.cpu(), "seconds": seconds},
            "random": torch.get_rng_state(),
            "randomCuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "samples": _names_hash(self.dataset.train),
            "unreadable": self.dataset.unreadable,
            "resolved": {"precision": "fp32", "workers": self.workers},
        }
        self.saved = self.store.save(state, epoch=position.epoch, step=position.epoch * self.steps + position.step)
        log.info("checkpoint", file=str(self.saved.path), seconds=round(time.monotonic() - began, 3))

    def _clear_foreign_mark(self) -> None:
        """An older job's mark of success must not stand beside this job's half-finished results."""
        path = self.output / runtime.SUCCESS
        mark = runtime.read_mark(path)
        if mark is not None:
            log.warning("replacing the results of another job", job=mark.get("name"), uid=mark.get("uid"))
        if self.world.first:
            path.unlink(missing_ok=True)

    def _signature(self) -> dict[str, Any]:
        """What a checkpoint must agree on to be resumed."""
        training = self.spec.training.model_dump(mode="json", by_alias=True, exclude={"workers"})
        return {
            "architecture": self.spec.model.architecture,
            "classes": self.dataset.classes,
            "preprocessing": self.dataset.preprocessing.to_json(),
            "training": training,
        }

    # --- results

    def _save_weights(self, name: str, row: dict[str, float]) -> None:
        if not self.world.first:
            return
        card = weights.Card(
            architecture=self.spec.model.architecture,
            classes=self.dataset.classes,
            preprocessing=self.dataset.preprocessing,
            metrics={key: value for key, value in row.items() if key != "epoch"},
            job=self.job.uid,
            epoch=int(row["epoch"]),
        )
        weights.save(self.output / f"{name}.safetensors", self.network, card)

    def _finish(self) -> dict[str, Any]:
        position, history = self.position, self.position.history
        if not self.world.first:
            self.world.wait()  # the first says that it is done before anybody ends
            return {"outputs": self._outputs()}
        self._save_weights("last", history[-1])
        title = f"{self.job.name}: {self.spec.model.architecture}"
        report.write_curves(self.output / "learning-curves.png", history, title)
        seconds = round(position.seconds + time.monotonic() - self._started, 1)
        report.write_report(
            self.output / "report.json",
            job={"name": self.job.name, "uid": self.job.uid, "kind": self.job.kind},
            architecture=self.spec.model.architecture,
            classes=self.dataset.classes,
            preprocessing=self.dataset.preprocessing.to_json(),
            samples={"train": len(self.dataset.train), "validation": len(self.dataset.validation)},
            files=self.dataset.files,
            unreadable=self.dataset.unreadable,
            epochs=position.epoch,
            stoppedEarly=position.epoch < self.spec.training.epochs,
            seconds=seconds,
            best=position.best,
            last=history[-1],
        )
        self._report(now=True, outputs=self._outputs())
        mark = runtime.mark_of(
            self.job,
            outputs=self._outputs(),
            metrics={**history[-1], "best": position.best},
            trainerStatus={k: v for k, v in self.progress.last.items() if k != "lastUpdatedTime"},
        )
        write_json(self.output / runtime.SUCCESS, mark)
        self.world.wait()
        log.info("done", output=str(self.output), epochs=position.epoch, seconds=seconds, best=position.best)
        return mark

    def _outputs(self) -> dict[str, str]:
        base = self.spec.output.uri.rstrip("/")
        return {
            "bestWeights": f"{base}/best.safetensors",
            "lastWeights": f"{base}/last.safetensors",
            "report": f"{base}/report.json",
            "history": f"{base}/history.jsonl",
            "learningCurves": f"{base}/learning-curves.png",
        }

    # --- progress

    def _report(self, *, now: bool = False, outputs: dict[str, str] | None = None) -> None:
        """Hand the state to the reporter, at most once in its interval unless `now`."""
        moment = time.monotonic()
        if not now and moment - self._reported < self.progress.interval:
            return
        self._reported = moment
        position, epochs = self.position, self.spec.training.epochs
        share = 1.0 if outputs is not None else (position.epoch + position.step / self.steps) / epochs
        speed = self._speed.value()
        left = (1 - share) * epochs * len(self.dataset.train) / speed if speed else None
        row = position.history[-1] if position.history else {}
        base = self.spec.output.uri.rstrip("/")
        saved = self.saved
        own: dict[str, Any] = {
            "epoch": position.epoch,
            "totalEpochs": epochs,
            "step": position.step,
            "totalSteps": self.steps,
            "samplesPerSecond": round(speed, 2),
            "failed": len(self.dataset.unreadable),
            "gpuUUID": runtime.gpu_uuid(self.device),
        }
        if saved is not None:
            uri = f"{base}/checkpoints/{self.job.uid}/{saved.path.name}"
            own["checkpoint"] = {"uri": uri, "epoch": saved.epoch, "savedAt": saved.saved_at}
        if outputs is not None:
            own["outputs"] = outputs
        status: dict[str, Any] = {
            "progressPercentage": min(100, int(share * 100)),
            "metrics": [{"name": k, "value": f"{v:.4g}"} for k, v in row.items() if k != "epoch"],
            "rfuav": own,
        }
        if left is not None:
            status["estimatedRemainingSeconds"] = int(left)
        self.progress.update(status)

    def _pass_over(self, unreadable: list[tuple[Sample, str]]) -> None:
        self.dataset.pass_over({sample.name: reason for sample, reason in unreadable})


def _resolve_workers(job: Job, spec: TrainingJobSpec) -> int:
    """Reader threads: as written, or for auto none beside a single CPU, up to 8 beside a GPU, else one."""
    if isinstance(spec.training.workers, int):
        return spec.training.workers
    if job.cpus == 1:
        return 0
    return min(8, job.cpus) if spec.resources.gpus else 1


def _names_hash(samples: list[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.name}\0{sample.frame}\0{sample.label}\n".encode())
    return digest.hexdigest()
