"""The interface of emitters: samples, the time on the air, and random parameters.

In: a number of samples and a sample rate. Out: an Emission.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

Samples = NDArray[np.complex64]
Real = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Emission:
    """One stretch of an emitter's complex baseband, centred on 0 Hz.

    Attributes:
        samples: shape (n,), mean power 1 where `active`, exactly 0 elsewhere.
        active: shape (n,), true while the emitter transmits.
        drawn: random parameters, for the parameter file; times in seconds, frequencies in Hz.
    """

    samples: Samples
    active: Mask
    drawn: Mapping[str, object] = field(default_factory=dict)


class Emitter(Protocol):
    """A class of transmitter."""

    @property
    def name(self) -> str:
        """The class name: lower case, fit for a folder."""

    @property
    def summary(self) -> str:
        """One line: what it is and where its numbers come from."""

    @property
    def occupied_hz(self) -> float:
        """Width in Hz that holds 99 % of the power of one burst; 0 for silence."""

    @property
    def span_hz(self) -> float:
        """Width in Hz of all that it ever uses; more than `occupied_hz` for a hopping link."""

    def emit(self, rng: np.random.Generator, count: int, sample_rate: float) -> Emission:
        """Draw `count` samples at `sample_rate` Hz, starting anywhere in its cycle."""


def unit_power(samples: Samples, active: Mask, drawn: Mapping[str, object]) -> Emission:
    """Silence `samples` outside `active` and scale them to mean power 1 inside."""
    gated = samples.astype(np.complex64) * active
    power = mean_power(gated, active)
    return Emission(gated / np.float32(np.sqrt(power)) if power else gated, active, drawn)


def mean_power(samples: Samples, active: Mask) -> float:
    """Return the mean of |samples|^2 over `active`, outside of which they are 0; 0 when nothing is active."""
    on_air = np.count_nonzero(active)
    return float(np.vdot(samples, samples).real) / on_air if on_air else 0.0


def rotate(cycles: Real) -> Samples:
    """Return exp(j 2 pi cycles). Whole turns go first: single precision is enough for the rest."""
    angle = (2 * np.pi * (cycles - np.rint(cycles))).astype(np.float32)
    turned = np.empty(cycles.shape, dtype=np.complex64)
    turned.real, turned.imag = np.cos(angle), np.sin(angle)
    return turned
