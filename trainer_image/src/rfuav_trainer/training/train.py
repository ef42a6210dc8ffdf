"""Trains a classifier: epochs of steps, validation, checkpoints, the best and last weights.

In: a TrainingJob and its data. Out: under the output, best.safetensors, last.safetensors, checkpoints, history, curves,
report, _SUCCESS.
Interrupted after any step and started again, it resumes at the next one; on the CPU the result is bit-identical to
that of an uninterrupted training.
"""

from __future__ import annotations

import itertools
import math
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog
import torch
from torch.nn import functional

from rfuav_crds import TrainingJobSpec, reasons
from rfuav_trainer.data import augment_signals
from rfuav_trainer.data.batches import Batch, batches, cut
from rfuav_trainer.data.dataset import Dataset, Unreadable, open_dataset
from rfuav_trainer.data.images import Room
from rfuav_trainer.data.samples import Reader
from rfuav_trainer.distributed import batch_norm
from rfuav_trainer.distributed.gpu_workers import crew
from rfuav_trainer.distributed.process_group import World, join
from rfuav_trainer.errors import GpuOutOfMemoryError, InputError, InvalidConfigurationError, JobError, StoppedError
from rfuav_trainer.evaluation import metrics
from rfuav_trainer.networks import architectures, memory_fit, weights
from rfuav_trainer.process import resources, runtime
from rfuav_trainer.reporting import results
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.storage import kept_log, marks, output_lock, outputs
from rfuav_trainer.storage.files import write_json
from rfuav_trainer.storage.paths import check_mounted
from rfuav_trainer.training import artifacts, kept_pictures, pictures
from rfuav_trainer.training.auto_settings import resolve_workers
from rfuav_trainer.training.by_snr import BySnr
from rfuav_trainer.training.checkpoint import CheckpointStore, Saved
from rfuav_trainer.training.learner import Moment
from rfuav_trainer.training.position import Position, epoch_order
from rfuav_trainer.training.recording_votes import RecordingVotes
from rfuav_trainer.training.setup import (
    check_unseen,
    made,
    made_from,
    make_learner,
    names_hash,
    recordings_hashes,
    signature,
)
from rfuav_trainer.training.status import Reporter
from rfuav_trainer.training.tensorboard import Board

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from rfuav_trainer.job import Job
    from rfuav_trainer.process.stop import StopSignal

log = structlog.get_logger()

FEW = 8
"""Pictures of a batch for each process; with fewer, several processes are hardly faster than one."""
LOOK_EVERY = 10
"""Steps between two looks for NaN: each waits for the device, and reads all weights once."""


def run(job: Job, progress: Progress, stop: StopSignal) -> dict[str, Any]:
    """Train, or return at once if this job has already finished.

    Returns:
        The mark of success: outputs (name to URI) and the last metrics.

    Raises:
        JobError: any expected failure; StoppedError if SIGTERM arrived and a checkpoint was saved.
    """
    spec = job.spec
    assert isinstance(spec, TrainingJobSpec)  # noqa: S101  (the command line chose this function by the kind)
    with outputs.opened(job) as output:
        check_mounted(
            job,
            {
                "dataset.train.uri": spec.dataset.train.uri,
                "dataset.validation.uri": spec.dataset.validation.uri,
                "model.weights": spec.model.weights,
            },
        )
        done = marks.finished_before(output / marks.SUCCESS, job)
        if done is not None and job.unique:
            return _finished(done, output, progress)
        stop.check()
        architectures.check(spec.model.architecture, spec.dataset.image_size)
        with crew(job, run):
            return _train(job, spec, output, progress, stop)


def _finished(mark: dict[str, Any], output: Path, progress: Progress) -> dict[str, Any]:
    log.info("already finished, nothing to do", output=outputs.shown(output))
    progress.results(mark.get("results"))
    progress.update(mark.get("trainerStatus", {"progressPercentage": 100}))
    return mark


def _train(job: Job, spec: TrainingJobSpec, output: Path, progress: Progress, stop: StopSignal) -> dict[str, Any]:
    """The work of one process."""
    path = output / marks.SUCCESS
    before = marks.finished_before(path, job)
    dataset = open_dataset(job, spec)
    if before is not None and marks.holds(path, before, {**made_from(job, spec, dataset), **made(output)}, job):
        return _finished(before, output, progress)
    augment_signals.check(spec.training.augment, dataset.preprocessing.format)
    device = runtime.choose_device(job)
    outputs.prepare(output, "output.uri")
    world = join(device, stop)
    try:
        if world.size > 1:
            _check_same(dataset, world)
        with (
            output_lock.held(output, job, stop),
            kept_log.kept(output, job) if world.first else nullcontext(),
            kept_pictures.homes(job, dataset, world) as homes,
        ):
            room = Room.share_of(resources.memory(job))
            reader = Reader(dataset.preprocessing, homes=homes, device=device, room=room)
            return Training(
                job,
                spec,
                output=output,
                dataset=dataset,
                reader=reader,
                device=device,
                progress=progress,
                stop=stop,
                world=world,
                afresh=_mine(path, job),
            ).run()
    finally:
        world.leave()


def _mine(path: Path, job: Job) -> bool:
    """Whether this job finished there before, with settings or files that were others."""
    return (marks.read_mark(path) or {}).get("uid") == job.uid


def _check_same(dataset: Dataset, world: World) -> None:
    """Raise InputError if the processes found different samples: each lists them itself, and they share the indices."""
    if len({*world.gather(names_hash([*dataset.train, *dataset.validation]))}) > 1:
        raise InputError(
            "dataset: the processes of the training found different files: do not change them while a job starts, and "
            "use a volume or store with the same contents on all nodes",
            reason=reasons.DATA_DIFFERS,
        )


class Training:
    """One attempt at a training job."""

    def __init__(
        self,
        job: Job,
        spec: TrainingJobSpec,
        *,
        output: Path,
        dataset: Dataset,
        reader: Reader,
        device: torch.device,
        progress: Progress,
        stop: StopSignal,
        world: World,
        afresh: bool = False,
    ) -> None:
        self.job, self.spec, self.output, self.device = job, spec, output, device
        self.dataset, self.reader = dataset, reader
        self.progress, self.stop, self.world = progress if world.first else Progress(None), stop, world
        self.position = Position()
        self.saved: Saved | None = None
        self.going: Saved | None = None
        self.workers = resolve_workers(job, spec)
        self.store = CheckpointStore(
            output / "checkpoints" / job.uid,
            keep=spec.checkpoint.keep,
            signature=signature(spec, dataset),
        )
        split = spec.dataset.validation.uri is None
        self._recordings = recordings_hashes(dataset.train) if split and world.first else []
        self._started = self._epoch_began = time.monotonic()
        self._mistakes: list[pictures.Mistake] = []
        self._best_mistakes: list[pictures.Mistake] = []
        self._validated: dict[str, Any] = {}  # confusion matrix and accuracy by SNR, of the newest epoch
        self._sources = marks.Sources(lambda: made_from(job, spec, dataset), dataset.contents)
        state = self._checkpoint(afresh=afresh)
        self._check_same_checkpoint()
        self.learner, self.resolved = make_learner(job, spec, dataset, world=world, device=device, state=state)
        dataset.preprocessing = replace(dataset.preprocessing, transform=self.resolved.transform)
        reader.preprocessing = dataset.preprocessing
        self.steps = math.ceil(len(dataset.train) / (self.resolved.batch_size * spec.training.gradient_accumulation))
        self.reporter = Reporter(job, spec, self.progress, samples=len(dataset.train), steps=self.steps, device=device)
        if state is not None:
            self._resume(state)
        if self.world.first:
            self.board = Board(output / "tensorboard", self.position.history)

    def run(self) -> dict[str, Any]:
        """Run the remaining epochs, then write the results."""
        with self._sources:
            return self._run()

    def _run(self) -> dict[str, Any]:
        self._clear_foreign_mark()
        if self.world.first:
            self.store.prune()
        epochs = self.spec.training.epochs
        log.info(
            "training",
            architecture=self.spec.model.architecture,
            classes=len(self.dataset.classes),
            train=len(self.dataset.train),
            validation=len(self.dataset.validation),
            device=str(self.device),
            **self.resolved.to_json(),
            epoch=self.position.epoch,
            epochs=epochs,
        )
        each = self.resolved.batch_size / self.world.size
        if self.world.size > 1 and each < FEW and self.world.first:
            log.warning(
                "few pictures for each process: they wait for each other more than they compute; raise batchSize",
                each=each,
                batchSize=FEW * self.world.size,
            )
        self._epoch_began = time.monotonic()
        while self.position.epoch < epochs and not self._exhausted():
            trained = self._train_epoch()
            self._end_epoch({**trained, **self._validate()})
        return self._finish()

    # --- an epoch

    def _train_epoch(self) -> dict[str, float]:
        """Take the remaining steps of the current epoch; returns its loss and accuracy."""
        position, training = self.position, self.spec.training
        size = self.resolved.batch_size
        order = epoch_order(len(self.dataset.train), training.seed, position.epoch)
        samples = [self.dataset.train[index] for index in order]
        steps = cut(samples, size * training.gradient_accumulation)[position.step :]
        groups = [[self.world.part(batch) for batch in cut(step, size)] for step in steps]
        reader = augment_signals.ChangingReader(self.reader, training.augment, seed=training.seed, epoch=position.epoch)
        position.totals = position.totals.to(self.device)
        self.learner.network.train()
        read = batches([part for group in groups for part in group], reader, self.workers, stop=self._alone())
        for parts in groups:
            group = list(itertools.islice(read, len(parts)))
            if len(group) < len(parts):  # a stop was requested before they were read
                self._stop_here()
            for batch in group:
                self.dataset.pass_over(batch)
            seen = self._step(group)
            position.totals += seen
            position.step += 1
            if self.world.first and not self.job.unique:
                self._sources.begin()  # after the first step: it would keep the data of that from being read
            mine = sum(len(batch.samples) for batch in group)
            self.reporter.speed.add(self.world.all_together(mine, seen[2]))
            if position.step % LOOK_EVERY == 0:
                self._check_numbers()
            self._report()
            self._stop_here()
        summed, correct, count = position.totals.tolist()
        if count == 0:
            raise InputError(
                "none of the training files can be read and hold anything",
                reason=reasons.TOO_MANY_UNREADABLE,
            )
        self._check_numbers()
        return {"trainLoss": summed / count, "trainAccuracy": correct / count}

    def _check_finite(self, loss: float) -> None:
        """Raise InvalidConfigurationError if a loss of the current epoch is not finite."""
        if not math.isfinite(loss):
            raise InvalidConfigurationError(
                f"the loss became {loss} in epoch {self.position.epoch + 1}: lower optimizer.learningRate "
                f"(now {self.spec.training.optimizer.learning_rate:g})",
                reason=reasons.DIVERGED,
            )

    def _check_numbers(self) -> None:
        """Raise InvalidConfigurationError if a loss of this epoch, or a weight, is not finite. Waits for the device."""
        self._check_finite(float(self.position.totals[0]))
        spoilt = self.learner.spoilt()
        if spoilt is not None:
            raise InvalidConfigurationError(
                f"{spoilt} in epoch {self.position.epoch + 1}, step {self.position.step}: lower optimizer.learningRate "
                f"(now {self.spec.training.optimizer.learning_rate:g}), or set training.clipNorm",
                reason=reasons.DIVERGED,
            )

    def _step(self, group: list[Batch]) -> Tensor:
        """One step of the optimizer: summed loss, correct predictions and samples."""
        try:
            return self.learner.step(group, Moment(self.position.epoch, self.position.step, self.steps))
        except torch.OutOfMemoryError as error:
            problem = str(error)
        # Outside the handler: the error keeps the frames of the step alive, and with them the memory for the trial.
        raise self._out_of_memory(problem)

    def _out_of_memory(self, problem: str) -> GpuOutOfMemoryError:
        """The error with the batch size that fits, found by trial."""
        learner, size, world = self.learner, self.resolved.batch_size, self.world.size
        learner.release()
        network = batch_norm.alone(learner.network)  # the others do not take part in the trial
        fitting_here = memory_fit.largest(
            lambda n: memory_fit.step_fits(
                network, n, self.spec.dataset.image_size, self.device, self.resolved.precision
            ),
            (size - 1) // world,
        )
        accumulation = self.spec.training.gradient_accumulation
        return GpuOutOfMemoryError.advising(
            size=size,
            fitting=fitting_here * world,
            image_size=self.spec.dataset.image_size,
            accumulation=accumulation,
            precision=self.resolved.precision,
            problem=problem,
        )

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Metrics over the validation samples."""
        self.learner.share()
        self.learner.network.eval()
        tally, loss = metrics.Tally(len(self.dataset.classes)), torch.zeros((), dtype=torch.float64)
        votes = RecordingVotes(self.dataset.validation, len(self.dataset.classes))
        by_snr = BySnr(self.dataset.validation)
        mine = self.world.part(self.dataset.validation)
        validated, self._mistakes = 0, []
        parts = cut(mine, max(1, self.resolved.batch_size // self.world.size))
        for batch in batches(parts, self.reader, self.workers, stop=self._alone()):
            # Named as in `open_dataset`: both folders may contain a file of the same name.
            self.dataset.pass_over(batch, "validation/" if self.spec.dataset.validation.uri else "")
            if batch.samples:
                scores = self.learner.scores(batch.pictures).cpu().double()
                if scores.isfinite().all():
                    loss += functional.cross_entropy(scores, batch.labels, reduction="sum")
                    chances = scores.softmax(dim=1)
                    tally.add(chances, batch.labels)
                    votes.add(batch.samples, chances)
                    by_snr.add(batch.samples, (chances.argmax(dim=1) == batch.labels).tolist())
                    self._mistakes = pictures.worst(self._mistakes, batch.samples, chances, batch.labels)
                else:
                    loss += math.nan
            validated += len(batch.samples)
            self.progress.show(validated=f"{validated}/{len(mine)}")
            if self.world.size == 1:
                self._stop_here()
        self._of_all(loss, *map(torch.from_numpy, (*tally.counts, *votes.counts, *by_snr.counts)))
        for unreadable in self.world.gather(self.dataset.unreadable):
            self.dataset.unreadable.merge(unreadable)
        self.dataset.check()
        self._stop_here()
        self._check_finite(loss.item())
        if not tally.samples:
            raise InputError(
                "none of the validation files can be read and hold anything",
                reason=reasons.TOO_MANY_UNREADABLE,
            )
        self._validated = {"confusion": tally.confusion.tolist(), "by_snr": by_snr.rows()}
        own = {"valLoss": loss.item() / tally.samples, "valAccuracy": tally.accuracy}
        return {**tally.metrics(), **own, **votes.metrics()}

    def _of_all(self, *counts: Tensor) -> None:
        """Sum the counts of all processes, in place."""
        if self.world.size > 1:
            for count in counts:
                count.copy_(self.world.sum(count.to(self.device)))

    def _end_epoch(self, row: dict[str, float]) -> None:
        position = self.position
        row["learningRate"] = self.learner.learning_rate
        best, better = position.best, False
        if best is None or (row["valAccuracy"], -row["valLoss"]) > (best["valAccuracy"], -best["valLoss"]):
            position.best = best = {"epoch": position.epoch + 1, **metrics.finite(row)}
            best["valAccuracy"], best["valLoss"] = row["valAccuracy"], row["valLoss"]
            self._save_weights("best", best)
            better, self._best_mistakes = True, self._mistakes
        row["bestValAccuracy"] = best["valAccuracy"]
        self._watch(row)
        position.epoch, position.step, position.totals = position.epoch + 1, 0, torch.zeros_like(position.totals)
        position.history.append({"epoch": position.epoch, **metrics.finite(row)})
        began, self._epoch_began = self._epoch_began, time.monotonic()
        if self.world.first:
            artifacts.write_history(self.output / "history.jsonl", position.history)
            self.board.add(position.history[-1])
            log.info(
                "epoch",
                **position.history[-1],
                epochs=self.spec.training.epochs,
                seconds=round(self._epoch_began - began, 1),
                best=better,
            )
        if position.epoch % self.spec.checkpoint.every_epochs == 0:
            self._save_checkpoint()
        self.progress.results(
            results.summary(history=position.history, classes=self.dataset.classes, **self._validated)
        )
        self._report(now=True)

    def _watch(self, row: dict[str, float]) -> None:
        """Count the epochs since the last improvement of the watched metric."""
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

    def _checkpoint(self, *, afresh: bool) -> dict[str, Any] | None:
        """The state to resume from, or None. `afresh`: the checkpoints led to results that are to be replaced."""
        if afresh or not self.spec.checkpoint.resume:
            self.store.clear()
            return None
        found = self.store.latest(device="cpu")
        if found is None:
            return None
        state, self.saved = found
        return state

    def _check_same_checkpoint(self) -> None:
        """Raise JobError if the processes would resume from different checkpoints: each lists them itself."""
        found = self.world.gather(None if self.saved is None else f"{self.saved.path.name} of {self.saved.saved_at}")
        if len({*found}) > 1:
            raise JobError(
                f"the processes of the training see different checkpoints ({', '.join(str(name) for name in found)}): "
                "use an output volume with the same contents on all nodes",
                reason=reasons.CHECKPOINT_DIFFERS,
            )

    def _resume(self, state: dict[str, Any]) -> None:
        assert self.saved is not None  # noqa: S101  (set together with the state; mypy cannot see it)
        self.position = Position(**state["position"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["randomCuda"] is not None:
            torch.cuda.set_rng_state(state["randomCuda"], self.device)
        if state["samples"] != names_hash(self.dataset.train):
            check_unseen(state.get("recordings", ()), self.dataset.validation, outputs.shown(self.saved.path))
            log.warning("the training data changed since the checkpoint; continuing with the current data")
            self.position.step = min(self.position.step, self.steps)
        self.dataset.unreadable.merge(
            Unreadable(state["unreadable"], state.get("unreadableFrames", {}), state.get("dead", {}))
        )
        self.dataset.check()
        self._forget_missing_best()
        log.info("resumed", checkpoint=self.saved.path.name, epoch=self.position.epoch, step=self.position.step)

    def _forget_missing_best(self) -> None:
        """Forget the best epoch if its weights file is missing or belongs to another job or epoch."""
        best, path = self.position.best, self.output / "best.safetensors"
        if best is None:
            return
        if not outputs.found(self.output, path.name):
            problem = "missing"
        else:
            try:
                with outputs.reading(path) as here:
                    card = weights.read_card(here)
                if card is not None and (card.job, card.epoch) == (self.job.uid, best["epoch"]):
                    return
                problem = "from another job or epoch"
            except InputError as error:
                problem = str(error)
        log.warning("the best weights are lost; the next epoch replaces them", file=path.name, problem=problem)
        self.position.best = None

    def _alone(self) -> StopSignal | None:
        """The stop signal, or None if other processes must take the same steps."""
        return self.stop if self.world.size == 1 else None

    def _stop_here(self) -> None:
        """Save and raise StoppedError if SIGTERM has arrived at any process: all stop at the same step."""
        wanted = torch.tensor(float(self.stop.requested), device=self.device)
        if not (self.stop.requested if self.world.size == 1 else self.world.sum(wanted).item()):
            return
        self._check_numbers()
        self._save_checkpoint()
        outputs.settle()
        self._report(now=True)
        raise StoppedError(
            f"stopped by {self.stop.cause}; checkpoint at epoch {self.position.epoch}, step {self.position.step} of "
            f"{self.steps}",
        )

    def _save_checkpoint(self) -> None:
        if not self.world.first:
            return
        position = self.position
        began = time.monotonic()
        seconds = position.seconds + began - self._started
        state = {
            "learner": self.learner.state(),
            "position": {**position.__dict__, "totals": position.totals.cpu(), "seconds": seconds},
            "random": torch.get_rng_state(),
            "randomCuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "samples": names_hash(self.dataset.train),
            "recordings": self._recordings,
            "unreadable": self.dataset.unreadable.files,
            "unreadableFrames": self.dataset.unreadable.frames,
            "dead": self.dataset.unreadable.dead,
            "resolved": self.resolved.to_json(),
        }
        self.going = self.store.save(state, epoch=position.epoch, step=position.epoch * self.steps + position.step)
        log.info("checkpoint", file=self.going.path.name, seconds=round(time.monotonic() - began, 3))

    def _clear_foreign_mark(self) -> None:
        """Remove the mark of success of another job, before there are unfinished results of this one."""
        path = self.output / marks.SUCCESS
        mark = marks.read_mark(path)
        if mark is not None and mark.get("uid") != self.job.uid:
            log.warning("replacing the results of another job", job=mark.get("name"), uid=mark.get("uid"))
        if self.world.first:
            outputs.remove(path)

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
        weights.save(self.output / f"{name}.safetensors", self.learner.trained(), card)

    def _finish(self) -> dict[str, Any]:
        position, history = self.position, self.position.history
        if not self.world.first:
            self.world.wait()  # rank 0 writes the results before any process ends
            return {"outputs": self.reporter.outputs()}
        self._save_weights("last", history[-1])
        title = f"{self.job.name}: {self.spec.model.architecture}"
        curves = artifacts.write_curves(self.output / "learning-curves.png", history, title)
        artifacts.write_page(
            self.output / "report.html",
            title,
            position.best,
            {
                "Learning curves": curves,
                "What the network sees": pictures.of_training(self.dataset, self.reader, self.spec.training),
                "The most confident mistakes of the best epoch": pictures.of_mistakes(
                    self._best_mistakes, self.dataset, self.reader
                ),
            },
        )
        seconds = round(position.seconds + time.monotonic() - self._started, 1)
        artifacts.write_report(
            self.output / "report.json",
            job={"name": self.job.name, "uid": self.job.uid, "kind": self.job.kind},
            architecture=self.spec.model.architecture,
            classes=self.dataset.classes,
            preprocessing=self.dataset.preprocessing.to_json(),
            samples={"train": len(self.dataset.train), "validation": len(self.dataset.validation)},
            recordings=self.dataset.recordings,
            files=self.dataset.files,
            unreadable=self.dataset.unreadable.all(),
            dead=self.dataset.unreadable.dead,
            packs=dict(self.dataset.packs),
            leftOut=dict(self.dataset.left_out),
            epochs=position.epoch,
            stoppedEarly=position.epoch < self.spec.training.epochs,
            seconds=seconds,
            best=position.best,
            last=history[-1],
            resolved=self.resolved.to_json(),
        )
        outputs.settle()
        self._report(now=True, uris=self.reporter.outputs())
        mark = marks.mark_of(
            self.job,
            madeFrom={} if self.job.unique else {**self._sources.found(), **made(self.output)},
            outputs=self.reporter.outputs(),
            metrics={**history[-1], "best": position.best},
            results=self.progress.summary,
            trainerStatus={k: v for k, v in self.progress.last.items() if k != "lastUpdatedTime"},
        )
        write_json(self.output / marks.SUCCESS, mark)
        self.world.wait()
        log.info("done", output=outputs.shown(self.output), epochs=position.epoch, seconds=seconds, best=position.best)
        return mark

    # --- progress

    def _report(self, *, now: bool = False, uris: dict[str, str] | None = None) -> None:
        failed = len(self.dataset.unreadable)
        if outputs.settled():  # a checkpoint counts once it is uploaded
            self.saved = self.going or self.saved
        self.reporter.report(self.position, saved=self.saved, failed=failed, now=now, outputs=uris)
