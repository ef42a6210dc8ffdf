"""The annotated video of a recording, as a stream that can be continued after a restart.

In: pictures with their predictions. Out: an MP4.
"""

from __future__ import annotations

from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from rfuav_trainer.inference.drawing import annotated
from rfuav_trainer.storage.files import atomic_writer

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

MOST_PICTURES = 30
"""Maximum frame rate of a video; slower recordings play in real time."""
ENCODER = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20"}  # no frame waits for a later one


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

        image = annotated(picture, text)
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
