"""Plans what would become of a job, on a copy of the cluster, in a thread: one plan at a time.

A plan of a large cluster takes seconds. Requests are answered meanwhile; further previews wait for their turn.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from rfuav_gateway.cluster.whole import Whole
from rfuav_kube import clock
from rfuav_operator.core.guidance import previews
from rfuav_operator.core.guidance.previews import Preview
from rfuav_operator.core.model import Job, Kind
from rfuav_operator.shell.reading import ours

MOST_WAITING = 8
SECONDS = 30.0  # after which a preview is given up


class Busy(Exception):  # noqa: N818  an answer, not a fault
    """Too many previews wait, or the plan takes too long."""


class Planner:
    """Answers when jobs would start."""

    def __init__(self, whole: Whole) -> None:
        self._whole = whole
        self._free = asyncio.Lock()
        self._asked = 0

    async def preview(
        self, kind: Kind, body: Mapping[str, Any], training: Mapping[str, Any] | None, names: bool
    ) -> Preview:
        """What would become of a job.

        Args:
            kind: of the job.
            body: the job, as the API server would have it.
            training: the TrainingJob that it takes weights from; None: none, or there is none.
            names: whether other jobs of its namespace may be named.

        Raises:
            Busy: try again.
        """
        if self._asked >= MOST_WAITING:
            raise Busy
        self._asked += 1
        plan = asyncio.ensure_future(self._plan(kind, body, training, names))
        try:
            async with asyncio.timeout(SECONDS):
                return await asyncio.shield(plan)
        except TimeoutError as error:
            plan.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise Busy from error

    async def _plan(
        self, kind: Kind, body: Mapping[str, Any], training: Mapping[str, Any] | None, names: bool
    ) -> Preview:
        try:
            async with self._free:  # a thread that was given up still counts: it cannot be stopped
                job = _read(kind, body)
                snapshot, source = self._whole.copy(), None if training is None else _read(Kind.TRAINING, training)
                if source is not None:
                    snapshot.jobs[source.uid] = source  # type: ignore[index]  # the copy is ours
                return await asyncio.to_thread(previews.preview, snapshot, job, now=clock.now(), names=names)
        finally:
            self._asked -= 1


def _read(kind: Kind, body: Mapping[str, Any]) -> Job:
    metadata = {"uid": "preview", "resourceVersion": "0", **body["metadata"]}
    return ours.job(kind, {**body, "metadata": metadata})
