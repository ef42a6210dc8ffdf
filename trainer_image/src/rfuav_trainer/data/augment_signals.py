"""Augmentation of recordings during training, on the complex samples of a frame.

In: a frame, the list of the job, and a random generator that depends on seed, epoch and frame only: the result does not
depend on which thread reads it, or when. Out: the changed frame. Each augmentation has a probability of one half.
"""

from __future__ import annotations

import math
import os
import zlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from rfuav_trainer.data.augment_pictures import PROBABILITY
from rfuav_trainer.data.samples import read_frame, read_recorded
from rfuav_trainer.errors import DeadInputError, InvalidConfigurationError
from rfuav_trainer.signals import dead
from rfuav_trainer.signals.spectrogram import SpectrogramParameters, picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from rfuav_trainer.data.samples import Reader, Sample

PATHS = 16  # sinusoids of a fading channel


def add_noise(samples: Tensor, random: np.random.Generator) -> Tensor:
    """White noise at 0 to 30 dB below the frame's own power (its signal and noise together)."""
    power = samples.abs().square().mean()
    deviation = (power * 10 ** (-random.uniform(0, 30) / 10) / 2).sqrt()
    noise = random.standard_normal((len(samples), 2), dtype=np.float32)
    return samples + deviation * torch.view_as_complex(torch.from_numpy(noise))


def fade(samples: Tensor, random: np.random.Generator) -> Tensor:
    """A flat Rician channel (K from 0 to 10), 0.5 to 8 periods of the largest Doppler shift a frame, mean power 1.

    The scattered part is a sum of 16 sinusoids of random directions and phases (Clarke 1968; Xiao et al. 2006).
    """
    doppler, k = random.uniform(0.5, 8), random.uniform(0, 10)
    rates = doppler * np.cos(random.uniform(0, 2 * math.pi, PATHS))
    phases = random.uniform(0, 2 * math.pi, PATHS)
    coarse = np.linspace(0, 1, 256)  # far above 8 periods; the rest is interpolated
    scattered = np.exp(1j * (2 * math.pi * np.outer(coarse, rates) + phases)).sum(axis=1) / math.sqrt(PATHS)
    gain = (math.sqrt(k) * np.exp(1j * random.uniform(0, 2 * math.pi)) + scattered) / math.sqrt(k + 1)
    fine = np.linspace(0, 1, len(samples))
    full = np.interp(fine, coarse, gain.real) + 1j * np.interp(fine, coarse, gain.imag)
    return samples * torch.from_numpy(full.astype(np.complex64))


def shift_frequency(samples: Tensor, random: np.random.Generator) -> Tensor:
    """Shift the band by up to 5 % of the sample rate; it wraps around at the edges."""
    cycles = random.uniform(-0.05, 0.05)
    turns = torch.arange(len(samples), dtype=torch.float64) * cycles
    return samples * torch.polar(torch.ones_like(turns), 2 * math.pi * (turns % 1)).to(samples.dtype)


def crop_time(samples: Tensor, random: np.random.Generator) -> Tensor:
    """Crop to 50 to 100 % of the frame. The picture keeps its size, so time is stretched."""
    length = max(1, int(len(samples) * random.uniform(0.5, 1)))
    start = int(random.integers(0, len(samples) - length + 1))
    return samples[start : start + length]


SIGNALS: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "TimeCrop": crop_time,
    "Fading": fade,
    "FrequencyShift": shift_frequency,
    "AddNoise": add_noise,
}


def check(names: Sequence[str], kind: str) -> None:
    """Raise InvalidConfigurationError if `names` has augmentations of recordings and the data is pictures."""
    misplaced = sorted(set(names) & set(SIGNALS))
    if misplaced and kind != "iq":
        raise InvalidConfigurationError(
            f"training.augment: {', '.join(misplaced)} work on raw recordings, but the data is pictures: leave them out"
        )


class ChangingReader:
    """Reads frames like `Reader`, with new augmentations in every epoch, so augmented frames cannot be cached."""

    def __init__(self, reader: Reader, names: Sequence[str], *, seed: int, epoch: int) -> None:
        self._reader, self._seed, self._epoch = reader, seed, epoch
        self._changes = [change for name, change in SIGNALS.items() if name in names]

    def holds(self, sample: Sample) -> bool:
        """Whether the picture is cached, so that the file is not needed."""
        return not self._changes and self._reader.holds(sample)

    def read(self, sample: Sample) -> Tensor:
        """The picture of one sample: uint8, (3, size, size) for images, (1 or 3, size, size) for recordings.

        Raises:
            UnreadableFileError: the file cannot be read.
            DeadInputError: it holds nothing (`dead`).
        """
        preprocessing = self._reader.preprocessing
        parameters = preprocessing.spectrogram
        if not self._changes or sample.frame is None or parameters is None:
            return self._reader.read(sample)
        random = np.random.default_rng([self._seed, self._epoch, zlib.crc32(os.fsencode(sample.name)), sample.frame])
        recorded = read_recorded(sample, parameters)
        problem = dead.samples(recorded)
        if problem is not None:
            raise DeadInputError(problem)
        samples = change(read_frame(sample, parameters, recorded), self._changes, random, parameters)
        return picture(samples.to(self._reader.device), parameters, preprocessing.image_size).cpu()


def change(
    samples: Tensor,
    changes: Sequence[Callable[[Tensor, np.random.Generator], Tensor]],
    random: np.random.Generator,
    parameters: SpectrogramParameters,
) -> Tensor:
    """Apply each change with its probability, unless the frame would become shorter than one Fourier transform."""
    for make in changes:
        if random.random() < PROBABILITY:
            changed = make(samples, random)
            samples = changed if len(changed) >= parameters.fft_size else samples
    return samples
