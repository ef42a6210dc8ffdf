"""Emitters without packets: analog video on a frequency-modulated carrier, and silence.

In: a generator, a length and a sample rate. Out: an Emission.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rfuav_trainer.synthesis.emitters.emission import Emission, Real, rotate, unit_power

_LINE_SECONDS = 64e-6
_LINES = 625
_BLANK_LINES = 25  # at the top of each field, without a picture
_FIELD_SYNC_LINES, _FIELD_SYNC_SECONDS = 2.5, 27.3e-6  # two broad pulses a line
_LINE_SYNC_SECONDS = 4.7e-6
_GREY_VOLTS = 0.3  # where the carrier rests
_SEEN_FROM, _SEEN_SECONDS = 10.5e-6, 52e-6
_COLOUR_HZ = 4.43361875e6
_COLOUR_BURST = (5.6e-6, 7.85e-6)  # of each line, the colour reference


@dataclass(frozen=True, slots=True, kw_only=True)
class FmVideo:
    """A PAL picture and one sound subcarrier on a frequency-modulated carrier.

    ITU-R BT.470: 625 lines of 64 us, sync 0.3 V, white 0.7 V, colour at 4.43 MHz. Levels are volts; `deviation_hz` is
    what one volt moves the carrier. Every recording has a different random picture with broad areas, edges and
    texture, because flat grey would be recognisable by its lines alone. Pre-emphasis is left out.
    """

    name: str
    summary: str
    deviation_hz: float = 8e6
    sound_hz: float = 6.5e6
    sound_volts: float = 0.1

    @property
    def occupied_hz(self) -> float:
        """Measured: the picture decides, 9 to 12 MHz."""
        return 10.5e6

    @property
    def span_hz(self) -> float:
        """Measured width of 99.9 % of the power; nearly nothing lies outside."""
        return 17.5e6

    def emit(self, rng: np.random.Generator, count: int, sample_rate: float) -> Emission:
        """Draw a picture and start anywhere in it."""
        start = rng.uniform(0, _LINES * _LINE_SECONDS)
        time = start + np.arange(count) / sample_rate
        sound = self.sound_volts * np.sin(
            2 * np.pi * self.sound_hz * time + np.sin(2 * np.pi * rng.uniform(2e2, 2e3) * time)
        )
        volts = composite_picture(rng, time) + sound
        samples = rotate(np.cumsum(volts - _GREY_VOLTS) * (self.deviation_hz / sample_rate))
        return unit_power(samples, np.ones(count, dtype=np.bool_), {"startSeconds": start})


def composite_picture(rng: np.random.Generator, time: Real) -> Real:
    """Return the composite signal in volts (sync -0.3, black 0, white 0.7), `time` seconds since the picture began."""
    line, position = np.divmod(time / _LINE_SECONDS, 1.0)
    line %= _LINES
    position *= _LINE_SECONDS
    across = (position - _SEEN_FROM) / _SEEN_SECONDS  # 0 at the left edge of what is seen, 1 at the right
    in_field = line % 312.5
    down = in_field / 312.5
    picture = np.full_like(time, rng.uniform(0.2, 0.5))
    for periods, edges in ((2, False), (8, True), (60, False)):  # broad areas, things, texture
        wave = np.cos(2 * np.pi * (rng.uniform(0, periods) * across + rng.uniform(0, periods) * down + rng.uniform()))
        picture += rng.uniform(0.03, 0.15) * (np.sign(wave) if edges else wave)
    colour = rng.uniform(0.02, 0.12) * np.cos(2 * np.pi * (_COLOUR_HZ * time + rng.uniform(0, 3) * across))
    volts = np.where((across >= 0) & (across <= 1), np.clip(picture, 0, 0.7) + colour, 0.0)
    burst = (position >= _COLOUR_BURST[0]) & (position < _COLOUR_BURST[1])
    volts = np.where(burst, 0.15 * np.cos(2 * np.pi * _COLOUR_HZ * time), volts)
    volts = np.where(in_field < _BLANK_LINES, 0.0, volts)
    field_sync = position % (_LINE_SECONDS / 2) < _FIELD_SYNC_SECONDS
    sync = np.where(in_field < _FIELD_SYNC_LINES, field_sync, position < _LINE_SYNC_SECONDS)
    return np.asarray(np.where(sync, -0.3, volts), dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Nothing: the recording contains only noise and interference."""

    name: str
    summary: str

    @property
    def occupied_hz(self) -> float:
        """No power at all."""
        return 0.0

    @property
    def span_hz(self) -> float:
        """No power at all."""
        return 0.0

    def emit(self, rng: np.random.Generator, count: int, sample_rate: float) -> Emission:
        """Return silence."""
        del rng, sample_rate
        return unit_power(np.zeros(count, dtype=np.complex64), np.zeros(count, dtype=np.bool_), {})
