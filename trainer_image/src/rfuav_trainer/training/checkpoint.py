"""Crash-safe checkpoints: written to a temporary file, synced, renamed, and valid once their manifest exists.

In: the state of a training after a step. Out: files under output/checkpoints/<job UID>/, and the newest valid one when
the job starts again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

import structlog
import torch

from rfuav_crds import reasons
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.process.clock import now
from rfuav_trainer.storage import outputs
from rfuav_trainer.storage.files import atomic_writer, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

log = structlog.get_logger()

MOST_SHOWN = 8
"""How many differences an error names."""
LONGEST = 80
"""Characters of a value in it."""


class _HashingStream:
    """The methods of a binary file that torch.save needs. Hashes the data and remembers the first write error.

    torch's zip writer is C++ and turns an OSError into a RuntimeError, so the original is stored and raised instead.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is not None:
            return len(data)
        try:
            self._stream.write(data)
        except OSError as error:
            self.error = error
            return len(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self.error = error


@dataclass(frozen=True)
class Saved:
    """A checkpoint on disk: its file, the position of the training, and the time (RFC 3339, UTC)."""

    path: Path
    epoch: int
    step: int
    saved_at: str


class CheckpointStore:
    """The checkpoints of one job.

    Args:
        folder: output/checkpoints/<job UID>.
        keep: number of newest checkpoints to keep.
        signature: must be equal for a checkpoint to be resumed: architecture, classes, preprocessing, settings. JSON
            values.
    """

    def __init__(self, folder: Path, *, keep: int, signature: Mapping[str, Any]) -> None:
        self.folder = folder
        self.keep = max(1, keep)
        self.signature: dict[str, Any] = json.loads(json.dumps(signature))
        self._known: set[str] | None = None

    def save(self, state: Mapping[str, Any], *, epoch: int, step: int) -> Saved:
        """Write one checkpoint, then remove those beyond `keep`, and any with a later step.

        Such a checkpoint was skipped as damaged, or dates from a larger data set. It must not count as newer.

        Args:
            state: only tensors and plain values, so that it loads with `weights_only=True`.
            epoch: epochs completed.
            step: optimizer steps taken in all.

        Raises:
            OSError: the volume is full or missing; older checkpoints are unchanged.
            StorageError: the upload of the previous one failed.
        """
        outputs.settle()  # one upload at a time: the next checkpoint waits in memory, not on the disk
        names = self._names()
        data = self.folder / f"step-{step:09d}-epoch-{epoch:05d}.pt"
        saved_at = now()
        manifest = data.with_suffix(".json")
        with atomic_writer(data) as stream:
            hashing = _HashingStream(stream)
            try:
                torch.save(dict(state), cast("IO[bytes]", hashing))
            finally:
                if hashing.error is not None:
                    raise hashing.error
        write_json(
            manifest,
            {
                "file": data.name,
                "sha256": hashing.digest.hexdigest(),
                "size": hashing.size,
                "epoch": epoch,
                "step": step,
                "savedAt": saved_at,
                "signature": self.signature,
            },
        )
        names.update({data.name, manifest.name})
        self._keep(self.keep, newest=data.stem)
        return Saved(data, epoch, step, saved_at)

    def latest(self, *, device: torch.device | str = "cpu") -> tuple[dict[str, Any], Saved] | None:
        """The newest valid checkpoint and its state, or None. Skips damaged ones with a warning.

        Raises:
            InvalidConfigurationError: the newest valid checkpoint belongs to another configuration.
        """
        for manifest in sorted((n for n in self._names() if n.endswith(".json")), reverse=True):  # sorted by step
            found = self._load(self.folder / manifest, device)
            if found is not None:
                return found
        return None

    def _names(self) -> set[str]:
        """Names of the files. They are listed once, because only one process writes here."""
        if self._known is None:
            self._known = {path.name for path in outputs.found(self.folder, "step-*")}
        return self._known

    def _load(self, manifest_path: Path, device: torch.device | str) -> tuple[dict[str, Any], Saved] | None:
        try:
            with outputs.reading(manifest_path) as here:
                manifest: dict[str, Any] = json.loads(here.read_bytes())
            data = self.folder / manifest["file"]
            with outputs.reading(data) as here:
                with here.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                if digest == manifest["sha256"] and "signature" in manifest:
                    self._agree(manifest, manifest_path)
                    state = torch.load(here, map_location=device, weights_only=True)
                    return state, Saved(data, manifest["epoch"], manifest["step"], manifest["savedAt"])
            problem = "its checksum does not match"
        except (OSError, ValueError, KeyError) as error:
            problem = f"{type(error).__name__}: {error}"
        log.warning("skipping damaged checkpoint", checkpoint=outputs.shown(manifest_path), problem=problem)
        return None

    def _agree(self, manifest: Mapping[str, Any], path: Path) -> None:
        differing = list(_differences(manifest["signature"], self.signature))
        if differing:
            shown = "; ".join(differing[:MOST_SHOWN]) + "; ..." * (len(differing) > MOST_SHOWN)
            raise InvalidConfigurationError(
                f"the checkpoint {outputs.shown(path)} belongs to a different configuration ({shown}): undo the "
                "change to go on from it, or, to train from the beginning, write another output.uri or "
                "checkpoint.resume: false (at the command line: --set checkpoint.resume=false)",
                reason=reasons.CHECKPOINT_MISMATCH,
            )

    def prune(self) -> None:
        """Remove checkpoints beyond `keep`, and incomplete ones."""
        self._keep(self.keep)

    def _keep(self, count: int, newest: str | None = None) -> None:
        """Remove all but the last `count` up to `newest`, manifests first: a partial removal leaves no valid one."""
        names = self._names()
        whole = sorted((name.removesuffix(".json") for name in names if name.endswith(".json")), reverse=True)
        kept = [name for name in whole if newest is None or name <= newest][:count]
        for kind in (".json", ".pt"):
            for name in sorted(name for name in names if name.endswith(kind) and name.removesuffix(kind) not in kept):
                outputs.remove(self.folder / name)
                names.discard(name)

    def clear(self) -> None:
        """Remove all checkpoints of this job (checkpoint.resume: false)."""
        self._keep(0)
        outputs.settle()


def _differences(theirs: Any, ours: Any, path: str = "") -> Iterator[str]:
    """Each value that differs between two signatures, in words, with its dotted path."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            yield from _differences(theirs.get(key), ours.get(key), f"{path}.{key}".lstrip("."))
    elif theirs != ours:
        yield f"{path}: {_shortly(theirs)} in the checkpoint, {_shortly(ours)} now"


def _shortly(value: Any) -> str:
    text = "none" if value is None else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
