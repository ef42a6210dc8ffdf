"""From complex samples to the picture a network sees; training and inference share this one path.

In: one frame of complex baseband samples. Out: its spectrogram in dB, scaled to 8 bits. The parameters travel in the
weights' metadata.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

WINDOWS = ("hamming", "hann", "blackman")


@dataclass(frozen=True)
class SpectrogramParameters:
    """How a frame of samples becomes a picture.

    Attributes:
        sample_rate: samples a second, in Hz.
        frame_seconds: length of one frame, in seconds; a recording is cut into whole frames, a shorter tail is left
            out.
        fft_size: points of one Fourier transform, also the window's length.
        hop_size: samples from one window to the next.
        window: one of `WINDOWS`, periodic.
        sample_format: type of each I and Q value in the recordings: float32, int16 or int8.
        dynamic_range: height of the scale in units of 10 log10|Z|. The brightest point of the resized frame is 255,
            `dynamic_range`
            below it and less is 0, so the picture does not depend on the receiver's gain.
    """

    sample_rate: float
    frame_seconds: float
    fft_size: int = 1024
    hop_size: int = 512
    window: str = "hamming"
    sample_format: str = "float32"
    dynamic_range: float = 40.0

    @property
    def frame_samples(self) -> int:
        """Complex samples in one frame."""
        return round(self.sample_rate * self.frame_seconds)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the weights' metadata."""
        return asdict(self)


def make_window(name: str, size: int) -> Tensor:
    """The periodic window `name` of `size` points, float32."""
    match name:
        case "hamming":
            return torch.hamming_window(size)
        case "hann":
            return torch.hann_window(size)
        case "blackman":
            return torch.blackman_window(size)
    raise ValueError(f"window {name!r} is not one of {', '.join(WINDOWS)}")


def stft(samples: Tensor, *, fft_size: int, hop_size: int, window: str) -> Tensor:
    """Short-time Fourier transform of complex samples, two-sided, zero frequency in the middle.

    Args:
        samples: complex64, shape (n,) with n >= fft_size.
        fft_size: points of one transform.
        hop_size: samples between the starts of two transforms.
        window: one of `WINDOWS`.

    Returns:
        complex64, shape (fft_size, 1 + (n - fft_size) // hop_size); rows are frequencies from -sampleRate/2 upwards,
        columns are
        times. Only whole windows, no padding; divided by the window's sum, so a tone of amplitude 1 on a bin has |Z| =
        1
        (scipy.signal.stft's scaling="spectrum").
    """
    taps = make_window(window, fft_size)
    transform = torch.stft(
        samples,
        n_fft=fft_size,
        hop_length=hop_size,
        window=taps,
        center=False,
        onesided=False,
        return_complex=True,
    )
    shifted: Tensor = torch.fft.fftshift(transform, dim=0) / taps.sum()
    return shifted


def decibels(transform: Tensor) -> Tensor:
    """10 log10|Z| as in the RFUAV reference (arXiv 2503.09033), half of a power in dB; silence is -150."""
    return 10.0 * torch.log10(transform.abs().clamp_min(1e-15))


def picture(samples: Tensor, parameters: SpectrogramParameters, size: int) -> Tensor:
    """The spectrogram picture of one frame.

    Args:
        samples: complex64, shape (frame_samples,).
        parameters: transform and scale.
        size: height and width of the picture, in pixels.

    Returns:
        uint8, shape (1, size, size): high frequencies at the top, time to the right.
    """
    levels = decibels(
        stft(samples, fft_size=parameters.fft_size, hop_size=parameters.hop_size, window=parameters.window),
    )
    resized = functional.interpolate(
        levels.flip(0)[None, None],
        size=(size, size),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )[0]
    floor = resized.max() - parameters.dynamic_range
    return ((resized - floor) * (255.0 / parameters.dynamic_range)).clamp(0, 255).round().to(torch.uint8)
