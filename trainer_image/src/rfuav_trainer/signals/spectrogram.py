"""From complex samples to the picture that a network sees; training and inference share this code.

In: frames of complex baseband samples, on any device. Out: their spectrograms in dB, scaled to 8 bits, in the colours
of a map. The parameters are stored in the metadata of the weights. A frame is processed in pieces that fit into the
cache of the processor: each is transformed, converted to levels, and added to the small picture, so the full
spectrogram never exists.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rfuav_trainer.signals import colormaps

WINDOWS = ("hamming", "hann", "blackman")
SILENCE = 1e-15
"""The smallest |Z| that is distinguished: -150 on the scale of 10 log10|Z|."""
FULL_SCALE = {torch.float32: 1.0, torch.int16: 32768.0, torch.int8: 128.0, torch.uint8: 128.0}
MIDDLE = {torch.uint8: 128.0}
"""What stands for zero in unsigned samples."""
PIECE = {"cpu": 2**15 - 1, "cuda": 2**22}
"""Points in one transform. On a GPU large, to keep it busy: about 100 MB for each reader. On a CPU a quarter of a
megabyte, which stays in the cache of a core and is just below the size that torch spreads over threads: threads pay off
between frames, not within one."""


@dataclass(frozen=True)
class SpectrogramParameters:
    """How a frame of samples becomes a picture.

    Attributes:
        sample_rate: samples a second, in Hz.
        frame_seconds: length of one frame, in seconds; a recording is cut into whole frames, a shorter tail is
            dropped.
        fft_size: points of one Fourier transform, also the window's length.
        hop_size: samples from one window to the next.
        window: one of `WINDOWS`, periodic.
        sample_format: type of each I and Q value in the recordings: float32, int16, int8, uint8, or auto, what the
            suffix of each file says.
        dynamic_range: height of the scale in units of 10 log10|Z|. The brightest point of the resized frame is 255,
            `dynamic_range` below it and less is 0, so the picture does not depend on the receiver's gain.
        channel: of recordings that have several. It is no part of how a picture looks, so weights do not have it.
        channels: how many are interleaved in recordings without metadata; no part of weights either.
        color_map: gray (one channel), or a map of `colormaps.table` (three channels).
    """

    sample_rate: float
    frame_seconds: float
    fft_size: int = 1024
    hop_size: int = 512
    window: str = "hamming"
    sample_format: str = "auto"
    dynamic_range: float = 40.0
    color_map: str = colormaps.GRAY
    channel: int = field(default=0, repr=False)
    channels: int = field(default=1, repr=False)

    @property
    def frame_samples(self) -> int:
        """Complex samples in one frame."""
        return round(self.sample_rate * self.frame_seconds)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the metadata of the weights."""
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
        columns are times. Only whole windows, no padding; divided by the window's sum, so a tone of amplitude 1 on a
        bin has |Z| = 1 (scipy.signal.stft's scaling="spectrum").
    """
    columns = 1 + (len(samples) - fft_size) // hop_size
    taps = _taps(window, fft_size, samples.device)
    found: Tensor = torch.fft.fftshift(_transform(samples[None], taps, hop_size, columns)[0], dim=1).T
    return found


def decibels(transform: Tensor) -> Tensor:
    """10 log10|Z| as in the RFUAV reference (arXiv 2503.09033), half of a power in dB; silence is -150."""
    if transform.device.type == "cpu":  # the same functions of NumPy are several times as fast
        levels = np.abs(transform.numpy())
        np.maximum(levels, np.float32(SILENCE), out=levels)
        np.log10(levels, out=levels)
        return torch.from_numpy(levels).mul_(10.0)
    return transform.abs().clamp_min_(SILENCE).log10_().mul_(10.0)


def pictures(frames: Tensor, parameters: SpectrogramParameters, size: int) -> tuple[Tensor, Tensor]:
    """The spectrogram pictures of frames.

    Args:
        frames: I and Q as they are recorded: float32, int16, int8 or uint8 (`FULL_SCALE` is 1), shape (n, samples, 2).
        parameters: transform and scale.
        size: height and width of the pictures, in pixels.

    Returns:
        uint8, shape (n, 1 or 3, size, size): high frequencies at the top, time to the right, resized as torch's
        antialiased bilinear interpolation does. And bool, shape (n,): False for a frame that holds NaN or infinite
        samples, whose picture means nothing.
    """
    count, samples, _ = frames.shape
    columns = 1 + (samples - parameters.fft_size) // parameters.hop_size
    piece = max(1, PIECE.get(frames.device.type, PIECE["cuda"]) // parameters.fft_size)
    together = max(1, piece // columns)
    grey = torch.empty((count, 1, size, size), dtype=torch.uint8, device=frames.device)
    good = torch.empty(count, dtype=torch.bool, device=frames.device)
    for first in range(0, count, together):
        some = slice(first, first + together)
        resized = _resized_levels(frames[some], parameters, size, piece)
        brightest = resized.amax(dim=(1, 2), keepdim=True)
        good[some] = torch.isfinite(brightest[:, 0, 0])
        scaled = resized.sub_(brightest - parameters.dynamic_range).mul_(255.0 / parameters.dynamic_range)
        grey[some, 0] = scaled.clamp_(0, 255).round_().to(torch.uint8)
    return colormaps.paint(grey, parameters.color_map), good


def _resized_levels(frames: Tensor, parameters: SpectrogramParameters, size: int, piece: int) -> Tensor:
    """Levels of frames (n, samples, 2), resized: float32, (n, size, size); `piece` columns at a time."""
    points, hop, device = parameters.fft_size, parameters.hop_size, frames.device
    columns = 1 + (frames.shape[1] - points) // hop
    taps = _taps(parameters.window, points, device) / FULL_SCALE[frames.dtype]
    over_time = _resizing_pieces(columns, size, piece, device)
    over_frequency = _resizing_rows(points, size, device)
    found = torch.zeros((len(frames), size, points), device=device)
    for start, weights in zip(range(0, columns, piece), over_time, strict=True):
        stop = min(columns, start + piece)
        part = frames[:, start * hop : (stop - 1) * hop + points].to(torch.float32).contiguous()
        if frames.dtype in MIDDLE:
            part = part - MIDDLE[frames.dtype]
        levels = decibels(_transform(torch.view_as_complex(part), taps, hop, stop - start))
        low, high = _reach(start, stop, columns, size)
        found[:, low:high] += _matmul(weights, levels)
    return _matmul(over_frequency, found.transpose(1, 2))


def picture(samples: Tensor, parameters: SpectrogramParameters, size: int) -> Tensor:
    """The picture of one frame of complex64 samples, shape (frame_samples,): uint8, (1 or 3, size, size)."""
    return pictures(torch.view_as_real(samples)[None], parameters, size)[0][0]


def _transform(samples: Tensor, taps: Tensor, hop: int, columns: int) -> Tensor:
    """Transforms of complex64 samples (n, samples): complex64, (n, columns, points), frequencies from zero upwards."""
    stride = samples.stride(0)
    windows = samples.as_strided((len(samples), columns, len(taps)), (stride, hop, 1), samples.storage_offset())
    found: Tensor = torch.fft.fft(windows * taps)
    return found


def _matmul(weights: Tensor, levels: Tensor) -> Tensor:
    """The product of one matrix with several; on the CPU by NumPy, which runs small products in one thread."""
    if levels.device.type != "cpu":
        return torch.matmul(weights, levels)
    with np.errstate(invalid="ignore"):  # NaN is checked once the frame is complete
        return torch.from_numpy(np.asarray(np.matmul(weights.numpy(), levels.numpy())))


@lru_cache(maxsize=16)
def _taps(window: str, points: int, device: torch.device) -> Tensor:
    taps = make_window(window, points)
    return (taps / taps.sum()).to(device)


@lru_cache(maxsize=16)
def _resizing_rows(points: int, size: int, device: torch.device) -> Tensor:
    """`_resizing` from a transform's frequencies, zero upwards, to a picture with the highest at the top."""
    rows = points - 1 - (torch.arange(points, device=device) + points // 2) % points
    return _resizing(points, size, device)[:, rows].contiguous()


@lru_cache(maxsize=16)
def _resizing_pieces(inputs: int, outputs: int, piece: int, device: torch.device) -> list[Tensor]:
    """`_resizing`, cut to what each piece of the inputs contributes to: rows `_reach`, columns of the piece.

    The whole matrix of a long frame takes gigabytes, nearly all of it zeros.
    """
    scale = inputs / outputs
    centres = (torch.arange(outputs, dtype=torch.float64) + 0.5) * scale
    reach = math.ceil(max(scale, 1.0)) + 1
    first = (centres - reach).floor().clamp_min(0)
    places = first[:, None] + torch.arange(2 * reach + 2, dtype=torch.float64) + 0.5
    weights = (1 - (places - centres[:, None]).abs() / max(scale, 1.0)).clamp_min(0)
    sums = torch.where(places < inputs, weights, 0.0).sum(dim=1)
    found = []
    for start in range(0, inputs, piece):
        stop = min(inputs, start + piece)
        low, high = _reach(start, stop, inputs, outputs)
        places = torch.arange(start, stop, dtype=torch.float64) + 0.5
        weights = (1 - (places - centres[low:high, None]).abs() / max(scale, 1.0)).clamp_min(0)
        found.append((weights / sums[low:high, None]).float().to(device))
    return found


@lru_cache(maxsize=16)
def _resizing(inputs: int, outputs: int, device: torch.device) -> Tensor:
    """The matrix (outputs, inputs) of antialiased bilinear interpolation: a triangle around each output's centre.

    The triangle is as wide as an output on either side, or as an input where there are fewer of them; this is what
    torch.nn.functional.interpolate(mode="bilinear", antialias=True) computes.
    """
    scale = inputs / outputs
    centres = (torch.arange(outputs, dtype=torch.float64) + 0.5)[:, None] * scale
    places = torch.arange(inputs, dtype=torch.float64) + 0.5
    weights = (1 - (places - centres).abs() / max(scale, 1.0)).clamp_min(0)
    return (weights / weights.sum(dim=1, keepdim=True)).float().to(device)


def _reach(start: int, stop: int, columns: int, size: int) -> tuple[int, int]:
    """The range of the outputs (end excluded) to which columns from `start` to `stop` contribute."""
    scale = columns / size
    width = max(scale, 1.0)
    return max(0, int((start - width) / scale - 0.5)), min(size, int((stop + width) / scale + 1.5))
