"""The channel from transmitter to receiver: echoes, frequency offset, interference, noise, and gain.

In: an Emission. Out: a Recording (complex64) and its random parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rfuav_trainer.synthesis.emitters.emission import mean_power, rotate
from rfuav_trainer.synthesis.emitters.ofdm import packets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rfuav_trainer.synthesis.emitters.emission import Emission, Samples

RECEIVER_SHARE = 0.92  # fraction of the sample rate that a signal may use: receivers roll off at the edges
_MAX_OFFSET_HZ = 4e6
_PASSER_BY_HZ = 16.6e6  # of a wireless LAN packet
_RECEIVER_RMS = 0.05  # of full scale 1.0: twenty times below clipping, as gain control leaves it
_GAIN_DB = 8.0


@dataclass(frozen=True, slots=True)
class Recording:
    """The recording of the receiver.

    Attributes:
        samples: shape (n,), complex64, full scale 1.0.
        drawn: offset, taps, interference and gain, for the parameter file.
    """

    samples: NDArray[np.complex64]
    drawn: dict[str, object]


def receive(
    rng: np.random.Generator,
    emission: Emission,
    *,
    sample_rate: float,
    span_hz: float,
    snr_db: float,
    interference: float,
) -> Recording:
    """Pass one emission through a channel drawn from `rng`.

    The SNR is the mean power of the signal while it is on the air, after the echoes, over the power of the noise in the
    whole sampled band. Without a signal there is only noise. Echoes are constant during the recording: at 2.4 GHz and
    15 m/s the coherence time is about 8 ms.

    Args:
        rng: source of all random numbers.
        emission: the signal, centred on 0 Hz.
        sample_rate: in Hz.
        span_hz: bandwidth of the emitter; the offset keeps it inside the receiver's band.
        snr_db: as defined above.
        interference: probability of foreign short packets in the recording, the same for every class.
    """
    offset = float(rng.uniform(-1, 1) * offset_room(sample_rate, span_hz))
    delays, gains = draw_taps(rng)
    faded = fade(emission.samples, delays, gains, sample_rate)
    on_air = bool(emission.active.any())
    power = mean_power(faded * emission.active, emission.active)
    total = rng.standard_normal(2 * len(faded), dtype=np.float32).view(np.complex64) * np.float32(np.sqrt(0.5))
    if on_air:
        total += faded * np.float32(np.sqrt(10 ** (snr_db / 10) / power)) * carrier(len(faded), offset, sample_rate)
    other_drawn = add_passer_by(rng, total, sample_rate, interference)
    gain_db = float(rng.uniform(-_GAIN_DB, _GAIN_DB))
    total *= np.float32(
        _RECEIVER_RMS * 10 ** (gain_db / 20) / np.sqrt(mean_power(total, np.ones(len(total), np.bool_)))
    )
    drawn: dict[str, object] = {
        "centerOffsetHz": offset if on_air else 0.0,
        "fadingTaps": [
            {"delaySeconds": float(d), "gain": float(abs(g)), "phaseRadians": float(np.angle(g))}
            for d, g in zip(delays, gains, strict=True)
        ]
        if on_air
        else [],
        "interference": other_drawn,
        "receiverGainDb": gain_db,
    }
    return Recording(total, drawn)


def offset_room(sample_rate: float, span_hz: float) -> float:
    """Return the maximum offset in Hz at which a signal is still inside the band; negative if it never is."""
    return min(_MAX_OFFSET_HZ, (RECEIVER_SHARE * sample_rate - span_hz) / 2)


def draw_taps(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.complex128]]:
    """Draw delays in seconds and complex gains of one channel.

    A first path with Rician fading (K 0 to 12 dB) and up to four Rayleigh echoes whose mean power decays exponentially
    with delay (constant 50 to 300 ns, 3GPP TR 38.901 has about 93 ns for urban macro cells in line of sight at 6 GHz).
    """
    constant = rng.uniform(50e-9, 300e-9)
    echoes = int(rng.integers(0, 5))
    delays = np.concatenate([[0.0], np.sort(rng.uniform(0, 4 * constant, size=echoes))])
    rician = 10 ** (rng.uniform(0, 12) / 10)
    steady = np.zeros(len(delays))
    steady[0] = rician
    scattered = np.exp(-delays / constant)
    gaussian = rng.standard_normal(len(delays)) + 1j * rng.standard_normal(len(delays))
    gains = np.sqrt(steady) * np.exp(2j * np.pi * rng.uniform()) + np.sqrt(scattered / 2) * gaussian
    return delays, np.asarray(gains / np.sqrt(rician + scattered.sum()), dtype=np.complex128)


def fade(samples: Samples, delays: NDArray[np.float64], gains: NDArray[np.complex128], sample_rate: float) -> Samples:
    """Sum the echoes, each delayed to the nearest sample."""
    faded = np.zeros_like(samples)
    for delay, gain in zip(np.rint(delays * sample_rate).astype(int), gains, strict=True):
        faded[delay:] += np.complex64(gain) * samples[: len(samples) - delay]
    return faded


def carrier(count: int, frequency: float, sample_rate: float) -> Samples:
    """Return exp(j 2 pi frequency t) for `count` samples."""
    return rotate(np.arange(count, dtype=np.float64) * (frequency / sample_rate))


def add_passer_by(
    rng: np.random.Generator, total: Samples, sample_rate: float, chance: float
) -> list[dict[str, float]]:
    """Add a few short packets of a foreign wireless LAN to `total`, in place, and return their parameters.

    Such as beacons: 60 to 250 us, 0 to 12 dB above noise of power 1. All numbers are drawn even without interference,
    so that a recording is otherwise the same at any `chance`.
    """
    comes = rng.random() < chance
    how_many = int(rng.integers(1, 4))
    starts = rng.uniform(0, len(total) / sample_rate, size=how_many)
    lengths = rng.uniform(60e-6, 250e-6, size=how_many)
    snr_db, offset = rng.uniform(0, 12), rng.uniform(-1, 1) * offset_room(sample_rate, _PASSER_BY_HZ)
    seeds = rng.integers(2**63, size=how_many)
    drawn: list[dict[str, float]] = []
    if not comes:
        return drawn
    for start, seconds, seed in zip(starts, lengths, seeds, strict=True):
        part = total[round(start * sample_rate) : round((start + seconds) * sample_rate)]
        since = np.arange(len(part)) / sample_rate
        sent = packets(np.random.default_rng(int(seed)), np.ones(len(part), np.bool_), since, sample_rate)
        part += sent.samples * np.float32(10 ** (snr_db / 20)) * carrier(len(part), offset, sample_rate)
        drawn.append(
            {
                "startSeconds": float(start),
                "seconds": len(part) / sample_rate,
                "snrDb": float(snr_db),
                "centerOffsetHz": float(offset),
            }
        )
    return drawn
