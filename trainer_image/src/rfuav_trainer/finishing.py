"""The end of an InferenceJob: which share could not be read, the evaluation, and the mark of the whole job.

In: the marks and lines of all shards. Out: evaluation files and `_SUCCESS`, written by the shard that finds all others
done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from rfuav_trainer import evaluate as evaluation
from rfuav_trainer import runtime
from rfuav_trainer.checkpoint import write_json
from rfuav_trainer.dataset import check_share
from rfuav_trainer.errors import InputError, InvalidConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rfuav_crds import InferenceJobSpec
    from rfuav_trainer.config import Job

log = structlog.get_logger()


def finish_job(job: Job, spec: InferenceJobSpec, output: Path, classes: Sequence[str]) -> dict[str, float]:
    """Evaluate and mark the whole job when every shard has left its mark. Doing it twice changes nothing.

    Returns:
        The metrics of the evaluation; empty when there is none or other shards still work.

    Raises:
        InputError: more of the whole job's files than errorThreshold cannot be read.
    """
    marks = [runtime.read_mark(output / f"{runtime.SUCCESS}-{shard}") for shard in range(spec.shards)]
    own = [mark for mark in marks if mark is not None and mark.get("uid") == job.uid]
    if len(own) < spec.shards:
        log.info("other shards still work", done=len(own), shards=spec.shards)
        return {}
    totals = {key: sum(mark[key] for mark in own) for key in ("files", "processed", "failed")}
    errors = evaluation.read_lines([output / f"errors-{shard}.jsonl" for shard in range(spec.shards)])
    unreadable = {line["path"]: line["reason"] for line in errors}
    check_unreadable(spec, unreadable, files=totals["files"], processed=totals["processed"])
    found: dict[str, float] = {}
    if spec.evaluation is not None:
        paths = [output / f"predictions-{shard}.jsonl" for shard in range(spec.shards)]
        root = job.path(spec.input.uri, "input.uri")
        lines = list(evaluation.read_lines(paths))
        check_labels([line["path"] for line in lines], classes, root)
        content = evaluation.evaluate(lines, classes, root)
        evaluation.write(output, content)
        found = content["metrics"]
    mark = runtime.mark_of(job, shards=spec.shards, outputs=outputs_of(spec), metrics=found, **totals)
    write_json(output / runtime.SUCCESS, mark)
    log.info("done", output=str(output), **totals, **found)
    return found


def check_unreadable(spec: InferenceJobSpec, unreadable: Mapping[str, str], *, files: int, processed: int) -> None:
    """Raise InputError when more files than errorThreshold cannot be read, or when there are files and none can."""
    check_share(unreadable, files, spec.error_threshold if processed or not files else 0.0)


def outputs_of(spec: InferenceJobSpec) -> dict[str, str]:
    """The URIs of the job's results by name."""
    base = spec.output.uri.rstrip("/")
    outputs = {"predictions": f"{base}/predictions-0.jsonl" if spec.shards == 1 else base}
    if spec.output.annotate:
        outputs["annotated"] = f"{base}/annotated"
    if spec.evaluation is not None:
        outputs["evaluation"] = f"{base}/{evaluation.CONTENT}"
        outputs["evaluationTable"] = f"{base}/{evaluation.TABLE}"
        outputs["confusionMatrix"] = f"{base}/{evaluation.PICTURE}"
    return outputs


def check_labels(names: Sequence[str], classes: Sequence[str], root: Path) -> None:
    """Raise when the inputs of an evaluation are not in folders that are named after the weights' classes."""
    loose = [name for name in names if "/" not in name]
    if loose:
        raise InputError(
            f"evaluation needs every input in a folder named after its class: {root}/{loose[0]} is in none",
            reason="LabelsMissing",
        )
    unknown = sorted({name.partition("/")[0] for name in names} - set(classes))
    if unknown:
        raise InvalidConfigurationError(
            f"the folders {', '.join(unknown[:5])} in {root} are no classes of the weights ({', '.join(classes[:10])}"
            f"{', ...' if classes[10:] else ''}): rename them, or leave evaluation out",
            reason="ClassMismatch",
        )
