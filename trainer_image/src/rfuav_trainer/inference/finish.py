"""The end of an InferenceJob: which share could not be read, the evaluation, and the mark of the whole job.

In: the marks and lines of all shards. Out: evaluation files, pictures and `_SUCCESS`, written by the shard that finds
all others done.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from rfuav_crds import reasons
from rfuav_crds.inference import Annotate
from rfuav_trainer.data import inputs
from rfuav_trainer.data.dataset import Unreadable
from rfuav_trainer.data.images import Room
from rfuav_trainer.data.samples import Preprocessing, Reader
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.evaluation import evaluate as evaluation
from rfuav_trainer.evaluation import report, sheet
from rfuav_trainer.evaluation.picks import Picks, inputs_of
from rfuav_trainer.evaluation.recordings import Ballot, recordings_of
from rfuav_trainer.inference import annotate, overview
from rfuav_trainer.inference.results import RECORDINGS
from rfuav_trainer.process import resources
from rfuav_trainer.reporting import results
from rfuav_trainer.storage import marks, outputs
from rfuav_trainer.storage.files import atomic_writer, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rfuav_crds import InferenceJobSpec
    from rfuav_trainer.job import Job

log = structlog.get_logger()

MOST_SHOWN = 10
"""How many shards of each group an error names."""


class Measured(NamedTuple):
    """What the end of a job found out."""

    metrics: dict[str, float]
    results: dict[str, Any] | None
    """`results.summary` of the evaluation, if there is one."""


def finish_job(
    job: Job, spec: InferenceJobSpec, output: Path, classes: Sequence[str], seen: overview.Seen | None = None
) -> Measured:
    """Evaluate, draw the overview and mark the whole job once every shard has its mark. Idempotent.

    Args:
        job: the job.
        spec: its spec.
        output: its folder.
        classes: of the network.
        seen: pictures that need not be read again.

    Returns:
        The metrics of the evaluation, if there is one, the number of recordings and of inputs that hold nothing;
        nothing if other shards have not finished.

    Raises:
        InputError: more files of the whole job than errorThreshold are unreadable.
        InvalidConfigurationError: the weights were replaced between two shards.
    """
    read = [marks.read_mark(output / f"{marks.SUCCESS}-{shard}") for shard in range(spec.shards)]
    theirs = [mark for mark in read if mark is not None and mark.get("uid") == job.uid]
    own = [mark for mark in theirs if mark.get("fingerprint") == job.fingerprint()]
    if len(own) < spec.shards:
        log.info("waiting for other shards", done=len(own), shards=spec.shards)
        if len(own) < len(theirs):  # on a laptop the job file may be edited without changing its name
            earlier = [mark["shard"] for mark in theirs if mark not in own]
            log.warning("some shards finished with different settings: run them again", others=earlier[:MOST_SHOWN])
        return Measured({}, None)
    _check_network(own, output)
    totals = {key: sum(mark.get(key, 0) for mark in own) for key in ("files", "processed", "failed", "dead")}
    errors = evaluation.read_lines([output / f"errors-{shard}.jsonl" for shard in range(spec.shards)])
    unreadable = Unreadable()
    for line in errors:
        unreadable.add(line["path"], line.get("frame"), line["reason"])
    check_unreadable(spec, unreadable, files=totals["files"], processed=totals["processed"])
    found: dict[str, float] = {}
    paths = [output / f"predictions-{shard}.jsonl" for shard in range(spec.shards)]
    labelled = spec.evaluation is not None
    recordings = recordings_of(evaluation.read_lines(paths), labelled=labelled)
    picks = Picks(totals["processed"] + totals["failed"], labelled=labelled)
    ballot, lines = Ballot(classes, recordings), picks.watching(evaluation.read_lines(paths))
    root = inputs.root_of(job, spec)
    room = Room.share_of(resources.memory(job))
    preprocessing = Preprocessing.from_json(own[0]["preprocessing"])
    reader = Reader(preprocessing, homes=[] if seen is None else [seen], room=room)
    content: dict[str, Any] = {}
    with atomic_writer(output / RECORDINGS) as stream:
        ballot.listeners.append(lambda vote: stream.write(json.dumps(vote.line(classes)).encode() + b"\n"))
        if labelled:
            content = evaluation.evaluate(lines, classes, root, ballot)
        else:
            deque(ballot.watching(lines), maxlen=0)
    if labelled:
        worst = inputs_of(picks.mistakes, root, preprocessing.spectrogram)
        mistakes = sheet.of_samples({sample: pick.words for pick, sample in worst}, reader)
        report.write(output, content, f"{job.name}: evaluation", mistakes)
        found, own = dict(content["metrics"]), content["byRecording"]
        if own["samples"] != content["samples"]:
            found |= {"recordingAccuracy": own["accuracy"], "recordingMacroF1": own["metrics"]["macroF1"]}
    if spec.output.annotate != Annotate.NONE:
        overview.write(output / overview.FOLDER, picks, root, reader, room=room, workers=resources.cpus(job))
    mark = marks.mark_of(job, shards=spec.shards, outputs=outputs_of(spec), metrics=found, **totals)
    write_json(output / marks.SUCCESS, mark)
    log.info("done", output=outputs.shown(output), **totals, **found)
    return Measured(
        {**found, "recordings": ballot.count, "dead": totals["dead"]}, _summary(content) if labelled else None
    )


def _summary(content: Mapping[str, Any]) -> dict[str, Any]:
    """The results of an evaluation for the status."""
    by_snr = [(row["snrDb"], row["samples"], row["accuracy"]) for row in content["bySnr"]]
    return results.summary(classes=content["classes"], confusion=content["confusionMatrix"], by_snr=by_snr)


def _check_network(found: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Raise if the shards used different weights: predictions of two networks must not be combined."""
    shards: dict[str, list[int]] = {}
    for mark in found:
        shards.setdefault(mark["digest"], []).append(mark["shard"])
    if len(shards) == 1:
        return
    parts = [", ".join(map(str, some[:MOST_SHOWN])) + ", ..." * (len(some) > MOST_SHOWN) for some in shards.values()]
    raise InvalidConfigurationError(
        f"the shards in {outputs.shown(output)} used different weights ({'; '.join(parts)}): the file of "
        "model.weights was replaced while the job ran. Create the job again with another output.uri, or remove "
        f"{marks.SUCCESS}-<shard> of the shards with the old weights and run them again",
        reason=reasons.WEIGHTS_MISMATCH,
    )


def check_unreadable(spec: InferenceJobSpec, unreadable: Unreadable, *, files: int, processed: int) -> None:
    """Raise InputError if more files or frames than errorThreshold are unreadable, or all of them are."""
    threshold = spec.error_threshold if processed or not files else 0.0
    unreadable.check(threshold, files=files, frames=processed + len(unreadable.frames))


def outputs_of(spec: InferenceJobSpec) -> dict[str, str]:
    """The URIs of the job's results by name."""
    base = spec.output.uri.rstrip("/")
    uris = {"predictions": f"{base}/predictions-0.jsonl" if spec.shards == 1 else base}
    uris["recordings"] = f"{base}/{RECORDINGS}"
    if spec.output.annotate != Annotate.NONE:
        uris["overview"] = f"{base}/{overview.FOLDER}"
    if spec.output.annotate == Annotate.ALL:
        uris["annotated"] = f"{base}/{annotate.FOLDER}"
    if spec.evaluation is not None:
        uris["evaluation"] = f"{base}/{report.CONTENT}"
        uris["evaluationTable"] = f"{base}/{report.TABLE}"
        uris["evaluationReport"] = f"{base}/{report.PAGE}"
        uris["confusionMatrix"] = f"{base}/{report.PICTURE}"
    return uris
