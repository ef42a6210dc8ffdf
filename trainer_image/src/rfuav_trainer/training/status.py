"""The status of a running training: percent, metrics, speed, time left.

In: its position after a step. Out: the status for the operator (docs/trainer.md, contract with the operator).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rfuav_trainer.process import runtime
from rfuav_trainer.reporting.progress import Progress, Speed

if TYPE_CHECKING:
    import torch

    from rfuav_crds import TrainingJobSpec
    from rfuav_trainer.job import Job
    from rfuav_trainer.training.checkpoint import Saved
    from rfuav_trainer.training.position import Position

SMOOTHING = 0.6
"""Weight of the earlier loss in the moving one that the bar shows."""


class Reporter:
    """Passes the state of a training to `progress`, at most once per interval.

    Args:
        job: the job.
        spec: its specification.
        progress: where reports go.
        samples: in the training data.
        steps: in an epoch.
        device: where it runs.
    """

    def __init__(
        self, job: Job, spec: TrainingJobSpec, progress: Progress, *, samples: int, steps: int, device: torch.device
    ) -> None:
        self.speed = Speed()
        self._progress, self._epochs, self._samples, self._steps = progress, spec.training.epochs, samples, steps
        self._base, self._uid = spec.output.uri.rstrip("/"), job.uid
        self._device, self._gpu = device, runtime.gpu_uuid(device)
        self._reported = 0.0
        self._loss: float | None = None
        self._seen = (0.0, 0.0)  # summed loss and samples of the epoch at the last report

    def outputs(self) -> dict[str, str]:
        """URIs of the results by name."""
        return {
            "bestWeights": f"{self._base}/best.safetensors",
            "lastWeights": f"{self._base}/last.safetensors",
            "report": f"{self._base}/report.json",
            "page": f"{self._base}/report.html",
            "history": f"{self._base}/history.jsonl",
            "learningCurves": f"{self._base}/learning-curves.png",
        }

    def report(
        self,
        position: Position,
        *,
        saved: Saved | None,
        failed: int,
        now: bool = False,
        outputs: dict[str, str] | None = None,
    ) -> None:
        """Report, unless it is too early and `now` is false. `outputs` is set when the training is done."""
        moment = time.monotonic()
        if not now and moment - self._reported < self._progress.interval:
            return
        self._reported = moment
        self._live(position)
        share = 1.0 if outputs is not None else (position.epoch + position.step / self._steps) / self._epochs
        speed = self.speed.value()
        row = position.history[-1] if position.history else {}
        own: dict[str, Any] = {
            "epoch": position.epoch,
            "totalEpochs": self._epochs,
            "step": position.step,
            "totalSteps": self._steps,
            "samplesPerSecond": round(speed, 2),
            "failed": failed,
            "gpuUUID": self._gpu,
            **runtime.gpu_use(self._device),
        }
        if saved is not None:
            uri = f"{self._base}/checkpoints/{self._uid}/{saved.path.name}"
            own["checkpoint"] = {"uri": uri, "epoch": saved.epoch, "step": saved.step, "savedAt": saved.saved_at}
        if outputs is not None:
            own["outputs"] = outputs
        status: dict[str, Any] = {
            "progressPercentage": min(100, int(share * 100)),
            "metrics": [{"name": k, "value": f"{v:.4g}"} for k, v in row.items() if k != "epoch"],
            "rfuav": own,
        }
        if speed:
            status["estimatedRemainingSeconds"] = int((1 - share) * self._epochs * self._samples / speed)
        self._progress.update(status)

    def _live(self, position: Position) -> None:
        """Note the loss of the steps since the last report, for the bar. On a GPU this waits for those steps."""
        summed, _, count = position.totals.tolist()
        before, counted = self._seen if count >= self._seen[1] else (0.0, 0.0)  # a new epoch counts from zero
        if count > counted:
            recent = (summed - before) / (count - counted)
            last = recent if self._loss is None else self._loss
            self._loss = SMOOTHING * last + (1 - SMOOTHING) * recent
            self._progress.live = {"loss": round(self._loss, 6)}
        self._seen = (summed, count)
