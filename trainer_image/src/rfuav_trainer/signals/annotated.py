"""What an annotation describes of a frame: a stretch of time and a band of frequencies.

In: a frame, and the box of the annotation in it. Out: a frame of the same length and rate that has nothing else than
what is in the box.

The box stays where it is, at the scale that an inference sees, so pictures of annotations and of whole frames are
alike. What lies outside becomes noise at the floor of the frame: silence would be a black frame around the box, which
no inference ever sees, and whose size alone would tell the classes apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from rfuav_trainer.signals.spectrogram import SpectrogramParameters

QUIET = 0.1
"""Share of the points of a spectrogram that are taken as noise. In white noise, so many are below -ln(1 - QUIET) of the
mean power."""


@dataclass(frozen=True)
class Box:
    """The part of a frame that an annotation describes.

    Attributes:
        begin, end: its samples in the frame.
        low_hz, high_hz: its band, relative to the centre frequency; None: all frequencies.
    """

    begin: int
    end: int
    low_hz: float | None = None
    high_hz: float | None = None


def only(box: Box, samples: Tensor, parameters: SpectrogramParameters, seed: int) -> Tensor:
    """The frame with noise in place of everything outside the box.

    Args:
        box: what is kept.
        samples: complex64, shape (n,).
        parameters: sample rate, and the transform, of which a bin is as wide as each edge of the band.
        seed: of the noise.

    Returns:
        complex64, shape (n,).
    """
    count = len(samples)
    drawn = np.random.default_rng(seed).standard_normal((count, 2), dtype=np.float32)
    noise = torch.view_as_complex(torch.from_numpy(drawn)) * math.sqrt(floor(samples, parameters.fft_size) / 2)
    if box.low_hz is None or box.high_hz is None:
        inside = samples - noise
    else:
        places = torch.fft.fftfreq(count, 1 / parameters.sample_rate)
        width = parameters.sample_rate / parameters.fft_size
        gain = torch.minimum(places - box.low_hz, box.high_hz - places).div_(width).add_(0.5).clamp_(0, 1)
        inside = torch.fft.ifft(torch.fft.fft(samples - noise).mul_(gain))
    found = noise.clone()
    found[box.begin : box.end] += inside[box.begin : box.end]
    return found


def floor(samples: Tensor, points: int) -> float:
    """Power of the noise of a frame of complex64 samples: what its quietest times and frequencies have.

    Transforms of `points` samples in a Blackman window, which keeps strong signals out of the frequencies around them.
    """
    taps = torch.blackman_window(points)
    parts = samples[: len(samples) // points * points].view(-1, points) * taps
    powers = torch.fft.fft(parts).abs().square_().flatten().numpy()
    place = int(QUIET * len(powers))
    return float(np.partition(powers, place)[place]) / -math.log1p(-QUIET) / float(taps.square().sum())
