"""The files of one shard: predictions and errors as JSON Lines, with every input exactly once.

In: lines, and periodic commits. Out: predictions-<shard>.jsonl and errors-<shard>.jsonl, which appear when the shard is
complete.
Until then they are hidden `.part` files, like the current video. A small state file has the number of committed inputs
and the committed size of each part.
"""

from __future__ import annotations

import json
import os
import time
from typing import IO, TYPE_CHECKING, Any

import structlog

from rfuav_crds import InferenceJobSpec, reasons
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.evaluation import report
from rfuav_trainer.inference.pieces import Pieces
from rfuav_trainer.storage import marks, outputs
from rfuav_trainer.storage.files import sync_folder, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from rfuav_trainer.job import Job

log = structlog.get_logger()

OWNER = "job.json"
COMMIT_SECONDS = 5.0
REMOTE_COMMIT_SECONDS = 30.0
"""Less often, because in a store every commit creates objects."""
KINDS = ("predictions", "errors")
VIDEO = "video"
PARTS = (*KINDS, VIDEO)
RECORDINGS = "recordings.jsonl"
OF_THE_WHOLE = (marks.SUCCESS, RECORDINGS, *report.FILES)
"""Files of the whole job, written by the shard that finds all others finished."""


def claim_output(folder: Path, job: Job, *, overwrite: bool) -> None:
    """Claim the output folder for this job, once for all of its shards.

    Raises:
        InvalidConfigurationError: it contains results of another job and `overwrite` is false.
    """
    owner = folder / OWNER
    content = {"uid": job.uid, "name": job.name, "fingerprint": job.fingerprint()}
    found: dict[str, Any] | None = None
    try:
        outputs.create(owner, json.dumps(content).encode())
    except FileExistsError:
        found = _patiently(owner)
        if found is None:  # incomplete: its writer died, or the disk was full, before there was any result
            write_json(owner, content)
    if found is None:
        strangers = [*_of_shards(folder), *(path for name in OF_THE_WHOLE for path in outputs.found(folder, name))]
        if strangers and not overwrite:
            outputs.remove(owner)
            raise InvalidConfigurationError(
                f"output.uri: {outputs.shown(folder)} contains {strangers[0].name}: write another output.uri, or "
                "output.overwrite: true",
                reason=reasons.OUTPUT_IN_USE,
            )
    elif found.get("uid") != job.uid or found.get("fingerprint") != job.fingerprint():
        if not overwrite:
            raise InvalidConfigurationError(
                f"output.uri: {outputs.shown(folder)} contains results of {found.get('name', 'another job')}: write "
                "another output.uri, or output.overwrite: true",
                reason=reasons.OUTPUT_IN_USE,
            )
        write_json(owner, content)
    # In any case: this shard has no mark, so its existing files are from another job or incomplete.
    _remove_foreign(folder, job)


def _remove_foreign(folder: Path, job: Job) -> None:
    """Remove marks, predictions, errors and evaluation of another job, so that they do not count for this one.

    Each shard removes its own files and those of shard numbers that this job does not have. Other shards may be running
    or finished, and their files must stay. The files of the whole job are written only after this shard.
    """
    assert isinstance(job.spec, InferenceJobSpec)  # noqa: S101  (only an InferenceJob has shards)
    for name in OF_THE_WHOLE:
        outputs.remove(folder / name)
    for path, number in _of_shards(folder).items():
        if number == job.shard or number >= job.spec.shards:
            outputs.remove(path)


def _of_shards(folder: Path) -> dict[Path, int]:
    """The marks, predictions, errors and logs of shards of any job, with the shard number.

    Other names, such as predictions-merged.jsonl, belong to users.
    """
    found = {}
    for pattern in (f"{marks.SUCCESS}-*", *(f"{kind}-*.jsonl" for kind in (*KINDS, "log"))):
        for path in outputs.found(folder, pattern):
            number = path.name.removesuffix(".jsonl").rpartition("-")[2]
            if number.isdecimal() and path.name == pattern.replace("*", str(int(number))):
                found[path] = int(number)
    return found


def _patiently(owner: Path) -> dict[str, Any] | None:
    """The mark of the owner, None if it is incomplete. Waits, because another shard may be writing it."""
    for _ in range(20):
        found = marks.read_mark(owner)
        if found is not None:
            return found
        time.sleep(0.1)
    return None


class ShardResults:
    """Writes the lines of one shard.

    Args:
        folder: the job's output.
        job: the job of the shard.
        inputs: hash of the inputs and weights of the shard; if it changed, the lines of an earlier run are discarded.
    """

    def __init__(self, folder: Path, job: Job, inputs: str) -> None:
        self._folder, self._job, self._inputs = folder, job, inputs
        self._state_path = folder / f".state-{job.shard}.json"
        self._streams: dict[str, IO[bytes]] = {}
        self._pieces = Pieces({kind: self.part(kind) for kind in PARTS})
        self._committed = time.monotonic()
        self.resumed = False
        """Whether the lines of an earlier run are kept. There may be only errors of unreadable files so far."""
        self.done = 0
        """Inputs whose lines are committed."""
        self.sizes = dict.fromkeys(PARTS, 0)
        """Committed bytes of each part."""

    def part(self, kind: str) -> Path:
        """The hidden file for `kind` (one of PARTS)."""
        return self._folder / f".{kind}-{self._job.shard}.part"

    def stream(self, kind: str) -> IO[bytes]:
        """The part of `kind`, open for appending."""
        return self._streams[kind]

    def final(self, kind: str) -> Path:
        """The final file of `kind` (predictions or errors)."""
        return self._folder / f"{kind}-{self._job.shard}.jsonl"

    def __enter__(self) -> Self:
        state = marks.read_mark(self._state_path) or {}
        if state.get("uid") == self._job.uid and state.get("inputs") != self._inputs:
            log.warning("inputs, weights or precision changed since the last run; starting over")
        good = (
            state.get("uid") == self._job.uid
            and state.get("inputs") == self._inputs
            and {*state["sizes"]} == {*PARTS}
            and self._pieces.restore(state.get("pieces", {}))
            and all(self.part(k).is_file() and self.part(k).stat().st_size >= state["sizes"][k] for k in PARTS)
        )
        if good:
            self.resumed, self.done, self.sizes = True, state["done"], state["sizes"]
        else:
            self._pieces.clear()
        for kind in PARTS:
            stream = self.part(kind).open("r+b" if good else "wb")
            stream.truncate(self.sizes[kind])
            stream.seek(0, os.SEEK_END)
            self._streams[kind] = stream
        if self.resumed:
            log.info("resuming", done=self.done)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams.values():
            stream.close()

    def earlier(self, kind: str) -> Iterator[dict[str, Any]]:
        """The lines of `kind` from an earlier run."""
        if self.resumed:
            with self.part(kind).open("rb") as stream:
                yield from map(json.loads, stream)

    def write(self, kind: str, line: dict[str, Any]) -> None:
        """Append one line to the predictions or errors."""
        self._streams[kind].write(json.dumps(line).encode() + b"\n")

    @property
    def due(self) -> bool:
        """Whether it is time for a commit."""
        return time.monotonic() - self._committed >= (REMOTE_COMMIT_SECONDS if self._pieces.remote else COMMIT_SECONDS)

    def commit(self, done: int) -> None:
        """Make the results of the first `done` inputs durable, and record that in the state."""
        for stream in self._streams.values():
            stream.flush()
            os.fsync(stream.fileno())
        sizes = {kind: stream.tell() for kind, stream in self._streams.items()}
        gone = self._pieces.add(sizes)
        content = {"uid": self._job.uid, "inputs": self._inputs, "done": done, "sizes": sizes}
        if self._pieces.remote:
            content["pieces"] = self._pieces.names
        write_json(self._state_path, content)
        for piece in gone:
            outputs.remove(piece)
        self._committed = time.monotonic()
        self.done, self.sizes = done, sizes

    def restart(self, kind: str, done: int) -> None:
        """Empty the part of `kind`, after a commit that no longer refers to its contents."""
        if self.sizes[kind]:
            self._streams[kind].seek(0)  # the state records size 0 before the file is truncated
            self.commit(done)
        self._streams[kind].seek(0)
        self._streams[kind].truncate()

    def publish(self) -> None:
        """Rename the files to their final names. A second run replaces them, so no line appears twice."""
        for kind in KINDS:
            stream = self._streams[kind]
            stream.flush()
            os.fsync(stream.fileno())
            self.part(kind).replace(self.final(kind))
            outputs.written(self.final(kind))
        self.part(VIDEO).unlink(missing_ok=True)
        sync_folder(self._folder)
        outputs.remove(self._state_path)
        self._pieces.clear()
