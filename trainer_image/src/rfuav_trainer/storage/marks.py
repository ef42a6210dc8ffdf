"""Marks of success: the file in the output that shows that a job or shard has finished.

In: a job. Out: `_SUCCESS`, so that a second start knows that there is nothing to do.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from rfuav_crds import InferenceJobSpec, reasons
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.process.clock import now
from rfuav_trainer.storage import outputs

if TYPE_CHECKING:
    from pathlib import Path

    from rfuav_trainer.job import Job

SUCCESS = "_SUCCESS"


def read_mark(path: Path) -> dict[str, Any] | None:
    """The mark of a finished job or shard, or None if there is no readable one."""
    with contextlib.suppress(OSError, ValueError), outputs.reading(path) as here:
        content = json.loads(here.read_bytes())
        if isinstance(content, dict):
            return content
    return None


def finished_before(path: Path, job: Job) -> dict[str, Any] | None:
    """The mark of this job at `path`, or None; None too if its settings differ and it may be overwritten.

    Raises:
        InvalidConfigurationError: the same job finished there with different settings (a job file edited on a laptop).
    """
    mark = read_mark(path)
    if mark is None or mark.get("uid") != job.uid:
        return None
    if mark.get("fingerprint") != job.fingerprint():
        if isinstance(job.spec, InferenceJobSpec) and job.spec.output.overwrite:
            return None
        raise InvalidConfigurationError(
            f"{outputs.shown(path)} shows that job {job.name!r} finished there with different settings: choose another "
            "name or output, remove that file, or, for an InferenceJob, write output.overwrite: true",
            reason=reasons.OUTPUT_IN_USE,
        )
    return mark


def mark_of(job: Job, **content: Any) -> dict[str, Any]:
    """The content of a mark of success."""
    return {
        "uid": job.uid,
        "name": job.name,
        "kind": job.kind,
        "fingerprint": job.fingerprint(),
        "finishedAt": now(),
        **content,
    }
