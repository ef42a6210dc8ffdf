"""Emitters that send OFDM: framed video downlinks and packets in the manner of a wireless LAN.

In: a generator, a length and a sample rate. Out: an Emission. The transform has sample_rate / spacing points, rounded,
so that the true spacing differs from the stated one by less than half a bin over the whole transform (0.5 % at 20 MS/s
and 312.5 kHz).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rfuav_trainer.synthesis.emitters.emission import Emission, Mask, Real, Samples, unit_power

_ZADOFF_CHU_ROOT = 25
_TRAINING_SECONDS = 16e-6  # short training field of IEEE 802.11, clause 17


def zadoff_chu(length: int, root: int = _ZADOFF_CHU_ROOT) -> Samples:
    """Return the Zadoff-Chu sequence of odd `length`: exp(-j pi root n (n+1) / length), 3GPP TS 36.211, 6.11.1.1."""
    n = np.arange(length)
    return np.asarray(np.exp(-1j * np.pi * root * n * (n + 1) / length), dtype=np.complex64)


def random_qam(rng: np.random.Generator, shape: tuple[int, int]) -> Samples:
    """Return unit-power symbols (TS 36.211, 7.1).

    Each row is QPSK, 16-QAM or 64-QAM, as link adaptation would have chosen.
    """
    side = rng.choice([2, 4, 8], size=(shape[0], 1))
    real, imaginary = (2 * rng.integers(0, side, size=shape) - side + 1 for _ in range(2))
    return np.asarray((real + 1j * imaginary) / np.sqrt(2 * (side**2 - 1) / 3), dtype=np.complex64)


def modulate(grid: Samples, points: int, prefix: int) -> Samples:
    """Turn a grid (symbols, subcarriers) into time samples (symbols, prefix + points), 0 Hz left empty.

    The first half of the columns lies below 0 Hz, the second above, as in TS 36.211, 6.12.
    """
    half = grid.shape[1] // 2
    spectrum = np.zeros((grid.shape[0], points), dtype=np.complex64)
    spectrum[:, 1 : half + 1] = grid[:, half:]
    spectrum[:, points - half :] = grid[:, :half]
    symbols = np.fft.ifft(spectrum, axis=1) * (points / np.sqrt(grid.shape[1]))
    return np.concatenate([symbols[:, points - prefix :], symbols], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLink:
    """A downlink of fixed frames: `D` is a symbol on the air, `-` one left to the other side.

    Each frame opens with one synchronisation symbol, a Zadoff-Chu sequence over all subcarriers. Two such symbols in
    each burst are known of DJI's DroneID, which uses 600 subcarriers of 15 kHz too (Schiller et al., NDSS 2023).
    """

    name: str
    summary: str
    spacing_hz: float
    subcarriers: int
    prefix_seconds: float
    frames: tuple[str, ...]

    @property
    def occupied_hz(self) -> float:
        """All subcarriers carry the same power, so 99 % of it lies in 99 % of them."""
        return 0.99 * self.spacing_hz * self.subcarriers

    @property
    def span_hz(self) -> float:
        """From the first to the last subcarrier."""
        return self.spacing_hz * (self.subcarriers + 1)

    def emit(self, rng: np.random.Generator, count: int, sample_rate: float) -> Emission:
        """Draw one of the frame formats, start anywhere in it, and fill it with random data."""
        points, prefix = round(sample_rate / self.spacing_hz), round(sample_rate * self.prefix_seconds)
        length = points + prefix
        chosen = int(rng.integers(len(self.frames)))
        frame = self.frames[chosen]
        start = int(rng.integers(length * len(frame)))
        first, skip = divmod(start, length)
        numbers = first + np.arange(-(-(count + skip) // length))
        in_frame = numbers % len(frame)
        grid = random_qam(rng, (len(numbers), self.subcarriers))
        sequence = zadoff_chu(self.subcarriers + 1)
        grid[in_frame == 0] = np.delete(sequence, self.subcarriers // 2)
        on_air = np.array([letter == "D" for letter in frame])[in_frame]
        samples = modulate(grid, points, prefix).ravel()[skip : skip + count]
        active = np.repeat(on_air, length)[skip : skip + count]
        return unit_power(samples, active, {"startSeconds": start / sample_rate, "frameFormat": chosen})


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketLink:
    """Packets of an IEEE 802.11 OFDM station (clause 17, 20 MHz) that has a video to send.

    Symbols of 4 us with 0.8 us prefix; each packet opens with 16 us in which only every fourth subcarrier is used
    (short training field). Between packets lie DIFS (34 us) and a back-off of 0..15 slots of 9 us; one time in four, a
    pause until the next picture is there.
    """

    name: str
    summary: str
    packet_seconds: tuple[float, float] = (0.2e-3, 1.4e-3)
    pause_seconds: float = 0.5e-3
    spacing_hz: float = 312.5e3
    subcarriers: int = 52

    @property
    def occupied_hz(self) -> float:
        """All subcarriers carry the same power."""
        return 0.99 * self.spacing_hz * self.subcarriers

    @property
    def span_hz(self) -> float:
        """From the first to the last subcarrier."""
        return self.spacing_hz * (self.subcarriers + 1)

    def emit(self, rng: np.random.Generator, count: int, sample_rate: float) -> Emission:
        """Draw packets and pauses until the stretch is filled; it begins anywhere in the first of them."""
        on_air, since_start = self._timetable(rng, count, sample_rate)
        return packets(rng, on_air, since_start, sample_rate, spacing_hz=self.spacing_hz, subcarriers=self.subcarriers)

    def _timetable(self, rng: np.random.Generator, count: int, sample_rate: float) -> tuple[Mask, Real]:
        """Return for every sample whether a packet is on the air, and the seconds since it (or the gap) began."""
        rounds = 2 + int(count / sample_rate / self.packet_seconds[0])
        gaps = 34e-6 + 9e-6 * rng.integers(0, 16, size=rounds)
        gaps += np.where(rng.integers(0, 4, size=rounds) == 0, rng.exponential(self.pause_seconds, size=rounds), 0)
        durations = np.stack([rng.uniform(*self.packet_seconds, size=rounds), gaps], axis=1).ravel()
        edges = np.concatenate([[0.0], np.cumsum(durations)])
        time = rng.uniform(0, durations[0] + durations[1]) + np.arange(count) / sample_rate
        interval = np.searchsorted(edges, time, side="right") - 1
        return interval % 2 == 0, time - edges[interval]


def packets(
    rng: np.random.Generator,
    on_air: Mask,
    since_start: Real,
    sample_rate: float,
    *,
    spacing_hz: float = 312.5e3,
    subcarriers: int = 52,
) -> Emission:
    """Fill a timetable of packets with 802.11 OFDM symbols.

    Args:
        rng: where the data comes from.
        on_air: shape (n,), true inside packets.
        since_start: shape (n,), seconds since the packet began; the first 16 us are its short training field.
        sample_rate: in Hz.
        spacing_hz: distance of subcarriers.
        subcarriers: how many carry data, an even number.
    """
    count = len(on_air)
    points, prefix = round(sample_rate / spacing_hz), round(sample_rate * 0.8e-6)
    skip = int(rng.integers(points + prefix))
    symbols = -(-(count + skip) // (points + prefix))
    data = modulate(random_qam(rng, (symbols, subcarriers)), points, prefix).ravel()[skip : skip + count]
    comb = np.where(np.arange(subcarriers) % 4 == 0, random_qam(rng, (1, subcarriers)) * 2, 0)
    training = np.tile(modulate(comb, points, 0).ravel(), -(-count // points))[:count]
    samples = np.where(since_start < _TRAINING_SECONDS, training, data)
    return unit_power(samples, on_air, {"onAirShare": float(on_air.mean())})
