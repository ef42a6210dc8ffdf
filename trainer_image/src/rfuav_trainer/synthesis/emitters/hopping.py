"""Emitters that hop: control links that send a short packet on one channel, then move to the next.

In: a generator, a length and a sample rate. Out: an Emission. All are phase modulated: the instantaneous frequency is
built first, channel and modulation together, and summed up once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rfuav_trainer.synthesis.emitters.emission import Emission, Real, rotate, unit_power

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RISING, _PREAMBLE = 8, 10  # unshifted chirps at the start of a packet: eight rising, then two falling


class Modulation(Protocol):
    """How a packet is written onto its channel."""

    @property
    def occupied_hz(self) -> float:
        """Width in Hz that holds 99 % of the power."""

    def deviation(
        self, rng: np.random.Generator, packet: NDArray[np.int64], since_start: Real, sample_rate: float
    ) -> Real:
        """Return the deviation from the channel's centre, in Hz, for each sample.

        Args:
            rng: where the data comes from.
            packet: number of the packet each sample belongs to, rising from 0.
            since_start: seconds since that packet began.
            sample_rate: in Hz.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Gmsk:
    """Gaussian minimum shift keying: modulation index 0.5, filter BT 0.5."""

    bit_rate: float

    @property
    def occupied_hz(self) -> float:
        """1.04 times the bit rate: Murota and Hirade, IEEE Trans. Comm. 29(7), 1981, for BT 0.5."""
        return 1.04 * self.bit_rate

    def deviation(
        self, rng: np.random.Generator, packet: NDArray[np.int64], since_start: Real, sample_rate: float
    ) -> Real:
        """Random bits of +-bit_rate / 4 Hz through a Gaussian filter with its 3 dB point at half the bit rate.

        The filter is applied to the whole stretch as its transfer function, 2^(-(f / f_3dB)^2 / 2). Bits run on
        between packets, where nothing is sent.
        """
        del packet
        count = len(since_start)
        first = rng.uniform()
        bit = np.floor(first + np.arange(count) * (self.bit_rate / sample_rate)).astype(np.int64)
        square = (2.0 * rng.integers(0, 2, size=bit[-1] + 1) - 1)[bit]
        relative = np.fft.rfftfreq(count, 1 / sample_rate) / (0.5 * self.bit_rate)
        smooth = np.fft.irfft(np.fft.rfft(square) * np.exp2(-0.5 * relative**2), n=count)
        return np.asarray(smooth * self.bit_rate / 4, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chirp:
    """Chirp spread spectrum as in LoRa: a rising chirp starts at one of 2^spreading_factor frequencies.

    f(t) = width ((shift / 2^SF + t / T) mod 1 - 1/2), T = 2^SF / width (Vangelista, IEEE Signal Processing Letters
    24(12), 2017). A packet opens with eight unshifted rising chirps and two falling ones.
    """

    width_hz: float
    spreading_factor: int

    @property
    def occupied_hz(self) -> float:
        """A chirp sweeps its width evenly."""
        return 0.99 * self.width_hz

    def deviation(
        self, rng: np.random.Generator, packet: NDArray[np.int64], since_start: Real, sample_rate: float
    ) -> Real:
        """Preamble, two falling chirps, then random shifts."""
        del sample_rate
        shifts = 2**self.spreading_factor
        symbol, position = np.divmod(since_start * self.width_hz / shifts, 1.0)
        number = symbol.astype(np.int64)
        shift = rng.integers(0, shifts, size=(packet[-1] + 1, number.max() + 1))
        shift[:, :_PREAMBLE] = 0
        sweep = (shift[packet, number] / shifts + position) % 1 - 0.5
        falling = (number >= _RISING) & (number < _PREAMBLE)
        return np.asarray(self.width_hz * np.where(falling, -sweep, sweep), dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoppingLink:
    """One packet in each dwell, each on the next channel of a pattern.

    The pattern is a random order of all channels, drawn for each recording, because the patterns of two devices of
    one model differ by their binding.
    """

    name: str
    summary: str
    dwell_seconds: float
    burst_seconds: float
    raster_hz: float
    channels: int
    modulation: Modulation

    @property
    def occupied_hz(self) -> float:
        """Width of one packet."""
        return self.modulation.occupied_hz

    @property
    def span_hz(self) -> float:
        """From the lowest channel to the highest."""
        return self.raster_hz * (self.channels - 1) + self.modulation.occupied_hz

    def emit(self, rng: np.random.Generator, count: int, sample_rate: float) -> Emission:
        """Draw a hop pattern and start anywhere in it."""
        pattern = rng.permutation(self.channels)
        start = rng.uniform(0, self.dwell_seconds)
        time = start + np.arange(count) / sample_rate
        packet = np.floor(time / self.dwell_seconds).astype(np.int64)
        since_start = time - packet * self.dwell_seconds
        channel = (pattern[packet % self.channels] - (self.channels - 1) / 2) * self.raster_hz
        frequency = channel + self.modulation.deviation(rng, packet, since_start, sample_rate)
        samples = rotate(rng.uniform() + np.cumsum(frequency) / sample_rate)
        hops = pattern[: int(packet[-1]) + 1] if packet[-1] < self.channels else pattern
        drawn = {"startSeconds": start, "hopPattern": hops.tolist()}
        return unit_power(samples, since_start < self.burst_seconds, drawn)
