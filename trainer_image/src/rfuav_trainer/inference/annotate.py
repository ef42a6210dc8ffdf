"""Each input with its prediction as text, for `annotate: all`: pictures for images, a video for each recording.

In: an image file, or the spectrogram that the network saw, and the prediction. Out, under output/annotated/: a JPEG for
each image, an MP4 for each recording with a picture for each frame.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import structlog

from rfuav_trainer.data.batches import LOOK_SECONDS
from rfuav_trainer.errors import UnreadableFileError, naming
from rfuav_trainer.inference.drawing import draw_image
from rfuav_trainer.inference.results import VIDEO
from rfuav_trainer.inference.video import Video
from rfuav_trainer.storage.files import fitting

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from rfuav_trainer.data.images import Room
    from rfuav_trainer.data.samples import Sample
    from rfuav_trainer.inference.results import ShardResults
    from rfuav_trainer.process.stop import StopSignal

log = structlog.get_logger()

FOLDER = "annotated"
WAITING = 4
"""Pictures for each thread that wait to be drawn."""
PATIENCE_SECONDS = 5
"""How long a stop waits for the pictures that are being drawn."""


class Annotations:
    """The pictures and videos of one shard. A restarted shard continues the current video.

    Images are read again in full size. They are drawn by threads beside the network: decoding, resizing and encoding
    release the GIL, and share the memory for decoding with the readers.

    Args:
        folder: for the pictures and videos.
        shard: the results of the shard, whose video part contains the current video.
        frame_seconds: length of a frame of a recording; None if the input is images.
        last: the last input that an earlier run completed, or None.
        room: memory for decoding.
        workers: threads that draw.
        stop: a stop waits for no thread that hangs in a read.
    """

    def __init__(
        self,
        folder: Path,
        shard: ShardResults,
        frame_seconds: float | None,
        last: Sample | None,
        *,
        room: Room,
        workers: int,
        stop: StopSignal,
    ) -> None:
        self._folder, self._shard, self._room, self._stop = folder, shard, room, stop
        self._video = Video(shard.stream(VIDEO), frame_seconds) if frame_seconds is not None else None
        self._recording = last.name if last is not None and shard.sizes[VIDEO] else None
        self._most = workers * WAITING
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="drawer")
        self._coming: deque[Future[bool]] = deque()
        self.failed = 0
        """Images that were classified and could not be drawn: removed since, or too large in full."""

    def turn_to(self, sample: Sample, done: int) -> None:
        """Save the current video if `sample` belongs to another recording; `done` inputs are complete."""
        if self._recording not in (None, sample.name):
            self.finish(done)

    def add(self, sample: Sample, picture: Tensor, text: str) -> None:
        """Draw one input.

        Args:
            sample: an image is drawn soon, by a thread; a frame is drawn from `picture`.
            picture: the input of the network: uint8, (1 or 3, size, size).
            text: one line, the prediction.
        """
        if self._video is not None:
            self._recording = sample.name
            self._video.add(picture, text)
        else:
            self._wait(self._most - 1)
            self._coming.append(self._pool.submit(self._draw, sample, text))

    def _draw(self, sample: Sample, text: str) -> bool:
        try:
            path = self._file(sample.name, ".jpg")
            naming(sample.name, lambda: draw_image(path, sample.path, text, self._room))
        except UnreadableFileError as error:
            log.warning("not drawing a picture", file=sample.name, problem=str(error))
            return False
        return True

    def _wait(self, most: int, patience: float = 0) -> bool:
        """Wait until at most `most` pictures are to be drawn; False if a stop came, and `patience` seconds are over."""
        end = None
        while len(self._coming) > most:
            wait([self._coming[0]], LOOK_SECONDS)
            if self._coming[0].done():
                self.failed += not self._coming.popleft().result()
            elif self._stop.requested:
                end = time.monotonic() + patience if end is None else end
                if time.monotonic() >= end:
                    return False
        return True

    def _file(self, name: str, ending: str) -> Path:
        *folders, last = name.split("/")
        return self._folder.joinpath(*folders, fitting(last, ending))

    def flush(self) -> bool:
        """Draw everything added, so that it can be committed; False if a stop cannot wait for it."""
        if self._video is not None:
            self._video.flush()
        return self._wait(0, PATIENCE_SECONDS)

    def finish(self, done: int) -> None:
        """Save the current video if there is one."""
        if self._video is not None and self._recording is not None:
            self._video.save(self._shard.part(VIDEO), self._file(self._recording, ".mp4"))
            self._shard.restart(VIDEO, done)
            self._recording = None

    def close(self) -> None:
        """Draw nothing more. Waits for what is being drawn, but not longer than a stop may."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait([future for future in self._coming if not future.cancelled()], PATIENCE_SECONDS)
