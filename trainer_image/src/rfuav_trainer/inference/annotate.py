"""Annotated copies of the input, with the prediction as text: pictures for images, a video for each recording.

In: an image file, or the spectrogram that the network saw, and the prediction. Out, under output/annotated/: a PNG for
each image, an MP4 for each recording with a picture for each frame.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import structlog
from PIL import Image, ImageDraw, ImageFont

from rfuav_trainer.data.images import Room, decoded, in_colours, whole_machine
from rfuav_trainer.errors import UnreadableFileError
from rfuav_trainer.inference.results import VIDEO
from rfuav_trainer.reporting import lettering
from rfuav_trainer.storage.files import atomic_writer, fitting

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from rfuav_trainer.data.samples import Sample
    from rfuav_trainer.inference.results import ShardResults

log = structlog.get_logger()

COLOUR_MAP = "viridis"
SMALLEST = 384  # pixels; smaller pictures are enlarged so that the text is readable
LONGEST = 1600  # pixels; larger ones are shrunk
MOST_PICTURES = 30
"""Maximum frame rate of a video; slower recordings play in real time."""
ENCODER = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20"}  # no frame waits for a later one


class Annotations:
    """The pictures and videos of one shard. A restarted shard continues the current video.

    Args:
        folder: for the pictures and videos.
        shard: the results of the shard, whose video part contains the current video.
        frame_seconds: length of a frame of a recording; None if the input is images.
        last: the last input that an earlier run completed, or None.
        room: memory for decoding.
    """

    def __init__(
        self, folder: Path, shard: ShardResults, frame_seconds: float | None, last: Sample | None, room: Room
    ) -> None:
        self._folder, self._shard, self._room = folder, shard, room
        self._video = Video(shard.stream(VIDEO), frame_seconds) if frame_seconds is not None else None
        self._recording = last.name if last is not None and shard.sizes[VIDEO] else None

    def turn_to(self, sample: Sample, done: int) -> None:
        """Save the current video if `sample` belongs to another recording; `done` inputs are complete."""
        if self._recording not in (None, sample.name):
            self.finish(done)

    def add(self, sample: Sample, picture: Tensor, text: str) -> None:
        """Draw one input.

        Args:
            sample: an image is read again in full size; a frame is drawn from `picture`.
            picture: the input of the network: uint8, (1 or 3, size, size).
            text: one line, the prediction.
        """
        if self._video is None:
            try:
                draw_image(self._file(sample.name, ".png"), sample.path, text, self._room)
            except UnreadableFileError as error:  # removed since it was classified, or too large in full
                log.warning("not drawing a picture", file=sample.name, problem=str(error))
            return
        self._recording = sample.name
        self._video.add(picture, text)

    def _file(self, name: str, ending: str) -> Path:
        *folders, last = name.split("/")
        return self._folder.joinpath(*folders, fitting(last, ending))

    def flush(self) -> None:
        """Write everything added to the part of the shard, so that it can be committed."""
        if self._video is not None:
            self._video.flush()

    def finish(self, done: int) -> None:
        """Save the current video if there is one."""
        if self._video is not None and self._recording is not None:
            self._video.save(self._shard.part(VIDEO), self._file(self._recording, ".mp4"))
            self._shard.restart(VIDEO, done)
            self._recording = None


def draw_image(path: Path, source: Path, text: str, room: Room | None = None) -> None:
    """Write the image `source` to the PNG file `path`, with `text` (one line) in a bar above it."""
    with decoded(source, room or whole_machine(), size=LONGEST) as opened:
        image = in_colours(opened)
    longest = max(image.size)
    if longest > LONGEST:
        image = image.resize(_scaled(image, LONGEST / longest), Image.Resampling.BILINEAR)
    with atomic_writer(path) as stream:
        _with_bar(_enlarged(image), text).save(stream, format="PNG", compress_level=1)


class Video:
    """The video of one recording, as an encoded stream that can be truncated wherever it was flushed.

    Args:
        stream: destination of the encoded frames (H.264, Annex B), which are appended.
        frame_seconds: time between two frames in the recording.
    """

    def __init__(self, stream: IO[bytes], frame_seconds: float) -> None:
        self._stream = stream
        self._rate = Fraction(min(MOST_PICTURES, max(1.0, 1 / frame_seconds))).limit_denominator(1000)
        self._encoder: Any = None

    def add(self, picture: Tensor, text: str) -> None:
        """Append a picture, uint8 (1 or 3, size, size), with `text` above it. Grey pictures get a colour map."""
        import av  # noqa: PLC0415  (only annotated recordings need it)

        pixels = _colours()[picture[0].numpy()] if len(picture) == 1 else picture.permute(1, 2, 0).numpy()
        image = _with_bar(_enlarged(Image.fromarray(np.ascontiguousarray(pixels))), text)
        if self._encoder is None:
            self._encoder = av.CodecContext.create("libx264", "w")
            self._encoder.width, self._encoder.height = image.size
            self._encoder.pix_fmt = "yuv420p"
            self._encoder.framerate, self._encoder.time_base = self._rate, 1 / self._rate
            self._encoder.options = ENCODER
        frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
        self._put(self._encoder.encode(frame.reformat(format="yuv420p")))

    def flush(self) -> None:
        """Write everything added to the stream and restart the encoder, so that a cut here leaves a valid video."""
        if self._encoder is not None:
            self._put(self._encoder.encode(None))
            self._encoder = None
        self._stream.flush()

    def _put(self, packets: list[Any]) -> None:
        for packet in packets:
            self._stream.write(bytes(packet))

    def save(self, encoded: Path, path: Path) -> None:
        """Convert the stream, which is the file `encoded`, to the MP4 file `path`, atomically."""
        import av  # noqa: PLC0415

        self.flush()
        with (
            av.open(str(encoded), format="h264", options={"framerate": str(self._rate)}) as source,
            atomic_writer(path) as file,
            av.open(file, "w", format="mp4") as target,
        ):
            stream = target.add_stream_from_template(source.streams.video[0])
            stream.time_base = 1 / self._rate
            number = 0
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream, packet.time_base = stream, 1 / self._rate
                    packet.pts = packet.dts = number
                    packet.duration = 1
                    number += 1
                    target.mux(packet)


def _with_bar(image: Image.Image, text: str) -> Image.Image:
    """The image below a black bar with `text`; its sides are even, as H.264 requires."""
    bar = max(18, image.width // 16)
    width, height = (image.width + 1) // 2 * 2, (image.height + bar + 1) // 2 * 2
    canvas = Image.new("RGB", (width, height), "black")
    canvas.paste(image, (0, height - image.height))
    path, text = (None, text) if text.isascii() else lettering.in_one_font(text)
    font = _font(max(12, image.width // 24), path)
    ImageDraw.Draw(canvas).text((6, bar // 2), text, fill="white", font=font, anchor="lm")
    return canvas


def _enlarged(image: Image.Image) -> Image.Image:
    """The image; a small one is enlarged by an integer factor, up to LONGEST."""
    factor = min(-(-SMALLEST // min(image.size)), LONGEST // max(image.size))
    return image if factor <= 1 else image.resize(_scaled(image, factor), Image.Resampling.NEAREST)


def _scaled(image: Image.Image, factor: float) -> tuple[int, int]:
    return max(1, round(image.width * factor)), max(1, round(image.height * factor))


@functools.cache
def _font(size: int, path: str | None) -> Any:
    return ImageFont.load_default(size=size) if path is None else ImageFont.truetype(path, size)


@functools.cache
def _colours() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The colour map as a table: uint8, (256, 3)."""
    from matplotlib import colormaps  # noqa: PLC0415  (only annotated recordings need it)

    found: np.ndarray[Any, np.dtype[np.uint8]] = colormaps[COLOUR_MAP](np.arange(256), bytes=True)[:, :3]
    return found
