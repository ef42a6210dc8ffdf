"""Classifies every image or frame of the input in batches; shards process disjoint parts in parallel.

In: an InferenceJob, weights, a folder of images or recordings. Out: predictions, errors, annotated pictures, a mark for
each shard; the shard that finds all marks present adds the evaluation and `_SUCCESS`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import structlog
import torch

from rfuav_crds import InferenceJobSpec
from rfuav_crds.inference import Annotate, Evaluation
from rfuav_trainer.data import inputs
from rfuav_trainer.data.batches import batches, cut, side_by_side
from rfuav_trainer.data.dataset import Unreadable
from rfuav_trainer.data.files import with_sidecars
from rfuav_trainer.data.images import Room
from rfuav_trainer.data.recordings import COLLECTION
from rfuav_trainer.data.samples import Reader
from rfuav_trainer.errors import InputError, StoppedError
from rfuav_trainer.evaluation import report
from rfuav_trainer.evaluation.evaluate import check_labels
from rfuav_trainer.evaluation.picks import Picks
from rfuav_trainer.inference import annotate, overview, results, source
from rfuav_trainer.inference.classifier import Classifier, open_classifier
from rfuav_trainer.inference.finish import check_unreadable, finish_job, outputs_of
from rfuav_trainer.networks import weights
from rfuav_trainer.process import resources, runtime
from rfuav_trainer.reporting.progress import Speed
from rfuav_trainer.signals import recording
from rfuav_trainer.storage import kept_log, marks, output_lock, outputs
from rfuav_trainer.storage.files import write_json
from rfuav_trainer.storage.paths import check_mounted, local_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rfuav_trainer.data.batches import Batch
    from rfuav_trainer.data.samples import Sample
    from rfuav_trainer.job import Job
    from rfuav_trainer.process.stop import StopSignal
    from rfuav_trainer.reporting.progress import Progress

log = structlog.get_logger()

AUTO_BATCH = {"cpu": 8, "cuda": 256}
"""Larger batches are hardly faster. A batch that does not fit into GPU memory is halved until it does."""
MOST_BATCHES = 8
"""Maximum number of parallel batches on a CPU; otherwise one for each core."""
MOST_READERS = 8
TOP = 5


def in_shard(name: str, shard: int, shards: int) -> bool:
    """Whether the file `name` (relative path) belongs to `shard`: a hash of the name decides, so it never moves."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) % shards == shard


def run(job: Job, progress: Progress, stop: StopSignal) -> dict[str, Any]:
    """Classify this shard's part of the input, or return at once if that is already done.

    Raises:
        JobError: any expected failure; StoppedError if SIGTERM arrived and the results so far are saved.
    """
    spec = job.spec
    assert isinstance(spec, InferenceJobSpec)  # noqa: S101  (the command line chose this function by the kind)
    with outputs.opened(job) as output:
        fields = {inputs.WHERE: spec.input.uri, source.WEIGHTS: spec.model.weights, source.CONFIG: spec.model.config}
        check_mounted(job, fields)
        path = output / f"{marks.SUCCESS}-{job.shard}"
        seen: overview.Seen | None = None
        done, found = marks.finished_before(path, job), None
        if done is not None and not job.unique:
            found = inputs.find(job, spec)
            if not marks.holds(path, done, made_from(job, spec, found), job):
                done = None
        if done is None:
            stop.check()
            work = Inference(job, spec, output, found or inputs.find(job, spec), progress=progress, stop=stop)
            outputs.prepare(output, "output.uri")
            with output_lock.held(output, job, stop):
                done = work.run()
            seen = work.seen
        else:
            log.info("already finished, nothing to do", output=outputs.shown(output), shard=job.shard)
        measured = finish_job(job, spec, output, done["classes"], seen)
    scores = [{"name": key, "value": f"{value:.4g}"} for key, value in measured.metrics.items()]
    progress.results(measured.results)
    progress.update({**done["trainerStatus"], "metrics": scores})
    return done


def made_from(job: Job, spec: InferenceJobSpec, found: inputs.Inputs) -> dict[str, Any]:
    """What the predictions of a shard are made from, besides the settings: its inputs, the weights and their config.

    Args:
        job: with the number of the shard.
        spec: its spec.
        found: the inputs of the whole job.

    Raises:
        InputError: the weights are missing.
    """
    chosen = {name: found.root / name for name in found.names if in_shard(name, job.shard, spec.shards)}
    files = marks.of_files({**found.listed_in, **with_sidecars(chosen)}, found.contents)
    if spec.model.weights is not None:
        weights.check_there(local_path(job, spec.model.weights, source.WEIGHTS))
    return {inputs.WHERE: files, **source.made_from_files(job, spec)}


def evaluate(job: Job, progress: Progress, stop: StopSignal) -> str:
    """The evaluation as text. Makes the predictions first if they are missing.

    Raises:
        JobError: any expected failure, for example other shards that have not finished.
    """
    assert isinstance(job.spec, InferenceJobSpec)  # noqa: S101  (the command line checked the kind)
    wanted = replace(job, spec=job.spec.model_copy(update={"evaluation": Evaluation()}))
    run(wanted, progress, stop)
    with outputs.opened(job) as output:
        shards = job.spec.shards
        for shard in set(range(shards)) - {job.shard} if not job.unique else ():
            path = output / f"{marks.SUCCESS}-{shard}"
            mark, own = marks.read_mark(path), replace(job, shard=shard)
            if mark is None:
                continue
            if not marks.holds(path, mark, made_from(own, job.spec, inputs.find(job, job.spec)), job):
                raise InputError(f"{outputs.shown(path)} is of other files: run shard {shard} again (infer --shard)")
        if marks.finished_before(output / marks.SUCCESS, job) is None:
            raise InputError(f"{job.spec.output.uri}: not all {shards} shards have finished")
        with outputs.reading(output / report.TABLE) as here:
            return here.read_text()


class Inference:
    """One run of one shard."""

    def __init__(
        self,
        job: Job,
        spec: InferenceJobSpec,
        output: Path,
        found: inputs.Inputs,
        *,
        progress: Progress,
        stop: StopSignal,
    ) -> None:
        self.job, self.spec, self.output, self.progress, self.stop = job, spec, output, progress, stop
        self.inputs = found
        own = [name for name in self.inputs.names if in_shard(name, job.shard, spec.shards)]
        self.device = runtime.choose_device(job)
        if self.device.type == "cpu":
            runtime.keep_memory()
        self._source: source.Source | None = source.read(job, spec, output)
        self.classifier: Classifier = open_classifier(
            job, spec, self.inputs.kind, self.device, self._source, usual_rate=self.inputs.usual_rate
        )
        if spec.evaluation is not None:
            labels = {name: self.inputs.label(name) for name in self.inputs.names}
            check_labels(labels, self.classifier.classes, self.inputs.root)
        self.listing = self.inputs.samples(own, self.classifier.preprocessing.spectrogram)
        self.unreadable = Unreadable()
        self.processed = 0
        self.failed = 0
        self.dead = 0
        self.total = len(self.listing.samples) + len(self.listing.unreadable)
        self._picks = Picks(self.total, labelled=spec.evaluation is not None)
        self.seen = overview.Seen(self._picks, self.inputs.root)
        self.undrawn = 0
        auto = AUTO_BATCH.get(self.device.type, AUTO_BATCH["cpu"])
        self.batch_size = spec.batch_size if isinstance(spec.batch_size, int) else auto
        self._speed = Speed()
        self._reported = 0.0

    def run(self) -> dict[str, Any]:
        """Classify all inputs of the shard, then write its mark."""
        with marks.Sources(lambda: made_from(self.job, self.spec, self.inputs), self.inputs.contents) as sources:
            return self._run(sources)

    def _run(self, sources: marks.Sources) -> dict[str, Any]:
        started = time.monotonic()
        if not self.job.unique:
            sources.begin()
        results.claim_output(self.output, self.job, overwrite=self.spec.output.overwrite)
        if self._source is not None:
            self._source.keep(self.output)
            self._source = None  # it may hold the weights once more
        with kept_log.kept(self.output, self.job):
            return self._classify_all(sources, started)

    def _classify_all(self, sources: marks.Sources, started: float) -> dict[str, Any]:
        log.info(
            "classifying",
            inputs=len(self.listing.samples),
            files=self.listing.files,
            classes=len(self.classifier.classes),
            device=str(self.device),
            precision=self.classifier.precision,
            batchSize=self.batch_size,
            shard=self.job.shard,
            shards=self.spec.shards,
        )
        with results.ShardResults(self.output, self.job, self._inputs_hash()) as shard:
            self._go_on(shard)
            self._classify(shard)
            shard.publish()
        if self.spec.shards == 1:  # one of several shards does not know the share of the whole job: `finish_job` does
            check_unreadable(self.spec, self.unreadable, files=self.listing.files, processed=self.processed)
        mark = marks.mark_of(
            self.job,
            madeFrom={} if self.job.unique else sources.found(),
            shard=self.job.shard,
            shards=self.spec.shards,
            classes=self.classifier.classes,
            digest=self.classifier.digest,
            files=self.listing.files,
            processed=self.processed,
            failed=self.failed,
            dead=self.dead,
            undrawn=self.undrawn,
            packs=dict(self.listing.packs),
            precision=self.classifier.precision,
            preprocessing=asdict(self.classifier.preprocessing),  # with the channel
            seconds=round(time.monotonic() - started, 1),
            trainerStatus=self._status(finished=True),
        )
        write_json(self.output / f"{marks.SUCCESS}-{self.job.shard}", mark)
        if self.dead:
            log.warning("inputs that hold nothing were not classified", dead=self.dead)
        if self.undrawn:
            log.warning("images that were classified could not be drawn", undrawn=self.undrawn)
        log.info("shard done", **{key: mark[key] for key in ("shard", "processed", "failed", "seconds")})
        return mark

    def _go_on(self, shard: results.ShardResults) -> None:
        """Count the results of an earlier run; a new run starts with the errors of the listing."""
        if shard.resumed:
            for line in shard.earlier("errors"):
                self.unreadable.add(line["path"], line.get("frame"), line["reason"])
                self.failed += 1
            for line in shard.earlier("predictions"):
                self.processed += 1
                self.dead += "dead" in line
                self._picks.add(line)
            return
        for name, reason in self.listing.unreadable.items():
            self._refuse(shard, name, reason, None)

    def _classify(self, shard: results.ShardResults) -> None:
        samples, done = self.listing.samples, shard.done
        spectrogram = self.classifier.preprocessing.spectrogram
        room = Room.share_of(resources.memory(self.job))
        cpus = resources.cpus(self.job)
        readers = min(MOST_READERS, cpus)
        annotations = None
        if self.spec.output.annotate == Annotate.ALL:
            annotations = annotate.Annotations(
                self.output / annotate.FOLDER,
                shard,
                None if spectrogram is None else spectrogram.frame_seconds,
                samples[done - 1] if done else None,
                room=room,
                workers=readers,
                stop=self.stop,
            )
        together = 1 if self.device.type == "cuda" else min(MOST_BATCHES, cpus)
        parts = cut(samples[done:], self.batch_size)
        reader = Reader(self.classifier.preprocessing, device=self.device, room=room)
        read = batches(parts, reader, readers if cpus > 1 else 0, stop=self.stop)
        scored = side_by_side(self._scores, read, together, cpus // together)
        with contextlib.closing(annotations) if annotations is not None else contextlib.nullcontext():
            for part, (batch, scores) in zip(parts, scored, strict=False):  # fewer after a stop request
                self._take(part, batch, scores, shard=shard, annotations=annotations, done=done)
                done += len(part)
                if self.stop.requested:
                    break
                if shard.due or done == len(samples):
                    _commit(shard, annotations, done)
            if self.stop.requested:
                _commit(shard, annotations, done)
                self._report(now=True)
                raise StoppedError(
                    f"stopped by {self.stop.cause} after {shard.done} of {len(samples)} inputs; their results are saved"
                )
            if annotations is not None:
                annotations.finish(done)
                self.undrawn = annotations.failed

    def _take(
        self,
        part: Sequence[Sample],
        batch: Batch,
        scores: torch.Tensor,
        *,
        shard: results.ShardResults,
        annotations: annotate.Annotations | None,
        done: int,
    ) -> None:
        """Write the lines of a batch, in order, so that exactly the first inputs are complete.

        Args:
            part: the samples of the batch.
            batch: those that can be read.
            scores: their scores.
            shard: takes the lines.
            annotations: draws the inputs, if they are drawn.
            done: how many inputs were complete before.
        """
        reasons, dead = dict(batch.unreadable), dict(batch.dead)
        row = 0
        for number, sample in enumerate(part, done):
            if sample in reasons:
                self._refuse(shard, sample.name, reasons[sample], sample.frame)
            elif sample in dead:
                self._pass_over(shard, sample, dead[sample])
            else:
                if annotations is not None:
                    annotations.turn_to(sample, number)  # may commit, so it comes before the line of this sample
                line = self._write(shard, sample, scores[row])
                if self._picks.add(line):
                    self.seen.keep((sample.path, sample.frame), batch.pictures[row])
                if annotations is not None:
                    annotations.add(sample, batch.pictures[row], _text(line))
                row += 1
        self._speed.add(row)
        self._report()

    def _scores(self, batch: Batch) -> torch.Tensor:
        """Scores of a batch; with batchSize auto, a batch too large for the GPU is halved until it fits."""
        pictures = batch.pictures
        if not batch.samples:
            return pictures
        try:
            return torch.cat([self.classifier.scores(part) for part in torch.split(pictures, self.batch_size)])
        except torch.OutOfMemoryError:
            if self.spec.batch_size != "auto" or self.batch_size == 1:
                raise
        self.batch_size = max(1, self.batch_size // 2)
        log.warning("the batch is too large for the GPU, halving it", batchSize=self.batch_size)
        torch.cuda.empty_cache()
        return self._scores(batch)

    def _place(self, sample: Sample) -> dict[str, Any]:
        """What the line of an input says besides its prediction: file, label, time and frequencies of a frame."""
        line: dict[str, Any] = {"path": sample.name, **self._stated(sample)}
        spectrogram = self.classifier.preprocessing.spectrogram
        if sample.frame is not None and sample.info is not None and spectrogram is not None:
            capture, begin = recording.first_sample(sample.info, sample.frame, spectrogram)
            line["frame"] = sample.frame
            line["startSeconds"] = round(begin / spectrogram.sample_rate, 9)
            line["endSeconds"] = round((begin + spectrogram.frame_samples) / spectrogram.sample_rate, 9)
            line["lowHz"], line["highHz"] = -spectrogram.sample_rate / 2, spectrogram.sample_rate / 2
            if capture.frequency_hz is not None:
                line["centerHz"] = capture.frequency_hz
        return line

    def _pass_over(self, shard: results.ShardResults, sample: Sample, reason: str) -> None:
        """Write the line of an input that holds nothing: no class."""
        shard.write("predictions", {**self._place(sample), "dead": reason, "class": None, "score": None, "top": []})
        self.processed += 1
        self.dead += 1

    def _write(self, shard: results.ShardResults, sample: Sample, scores: torch.Tensor) -> dict[str, Any]:
        """Write the prediction of one input; returns its line."""
        classes = self.classifier.classes
        best = scores.topk(min(TOP, len(classes)))
        top = [
            {"class": classes[index], "score": _number(score)}
            for index, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        line = self._place(sample)
        line |= {"class": top[0]["class"], "score": top[0]["score"], "top": top}
        if self.spec.evaluation is not None:
            line["scores"] = [_number(value) for value in scores.tolist()]
        shard.write("predictions", line)
        self.processed += 1
        return line

    def _stated(self, sample: Sample) -> dict[str, Any]:
        """What the manifest or a collection says of an input, for the evaluation and for readers of the line."""
        stream = {"recording": sample.group} if sample.recognised_by == COLLECTION else {}
        row = self.inputs.rows.get(sample.file)
        if row is None:
            return stream
        return {
            **({"label": row.label} if row.label else {}),
            **({} if row.snr is None else {"snr": row.snr}),
            **({"recording": row.recording} if row.recording else stream),
        }

    def _refuse(self, shard: results.ShardResults, name: str, reason: str, frame: int | None) -> None:
        shard.write("errors", {"path": name, **({} if frame is None else {"frame": frame}), "reason": reason})
        self.unreadable.add(name, frame, reason)
        self.failed += 1
        log.warning("skipping unreadable file", file=name, problem=reason)

    def _inputs_hash(self) -> str:
        """Hash of everything that affects the results: inputs, weights, precision, annotation."""
        made = f"{self.classifier.digest}\0{self.classifier.precision}\0{self.spec.output.annotate}\n"
        digest = hashlib.sha256(made.encode())
        for sample in self.listing.samples:
            digest.update(os.fsencode(f"{sample.name}\0{sample.frame}\0{self._stated(sample)}\n"))
        for name in self.listing.unreadable:  # their lines come first
            digest.update(os.fsencode(f"{name}\0unreadable\n"))
        return digest.hexdigest()

    def _report(self, *, now: bool = False) -> None:
        """Report the state, at most once per interval unless `now`."""
        moment = time.monotonic()
        if now or moment - self._reported >= self.progress.interval:
            self._reported = moment
            self.progress.update(self._status(finished=False))

    def _status(self, *, finished: bool) -> dict[str, Any]:
        """The progress in the format of the pod contract."""
        seen, speed = self.processed + self.failed, self._speed.value()
        own: dict[str, Any] = {
            "processed": self.processed,
            "failed": self.failed,
            "total": self.total,
            "samplesPerSecond": round(speed, 2),
            "gpuUUID": runtime.gpu_uuid(self.device),
            **runtime.gpu_use(self.device),
        }
        if finished:
            own["outputs"] = outputs_of(self.spec)
        status: dict[str, Any] = {
            "progressPercentage": 100 if finished else min(99, int(100 * seen / max(1, self.total))),
            "metrics": [],
            "rfuav": own,
        }
        if speed:
            status["estimatedRemainingSeconds"] = max(0, int((self.total - seen) / speed))
        return status


def _text(line: dict[str, Any]) -> str:
    """A prediction as text."""
    text = f"{line['class']}  {line['score']:.1%}"
    if "centerHz" in line:
        text = f"{line['centerHz'] / 1e6:.10g} MHz  {text}"
    return f"{line['startSeconds']:.3f} s  {text}" if "startSeconds" in line else text


def _number(score: float) -> float:
    """A float32 score with nine significant digits, which distinguish it from its neighbours."""
    return float(f"{score:.9g}")


def _commit(shard: results.ShardResults, annotations: annotate.Annotations | None, done: int) -> None:
    """Commit the results of the first `done` inputs, unless a stop cannot wait for their annotated pictures."""
    if annotations is None or annotations.flush():
        shard.commit(done)
