"""Resampling: against SciPy's, in pieces, at the borders of blocks, and what lies above the new Nyquist frequency."""

from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from rfuav_trainer.signals.resampling import MOST_TERM, RatioError, Resampler, count, design, ratio

RATIOS = [(2, 5), (5, 2), (1, 2), (3, 1), (147, 160), (125, 192), (999, 1000), (1, 100), (7, 3)]


def noise(length, seed=0):
    return np.random.default_rng(seed).normal(size=(length, 2)).astype(np.float32)


def reading(samples):
    """Reads from an array, as from a file; what lies outside is an error."""

    def read(low, high):
        assert 0 <= low < high <= len(samples)
        return samples[low:high]

    return read


def counted(resampler, samples):
    return count(samples, Fraction(resampler.up, resampler.down))


def whole(resampler, samples):
    return resampler.resample(reading(samples), len(samples), 0, counted(resampler, len(samples)))


def tone(frequency, length):
    """A tone of amplitude 1; the frequency is in cycles per sample."""
    turns = 2 * np.pi * frequency * np.arange(length)
    return np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)


@pytest.mark.parametrize(("up", "down"), RATIOS)
def test_the_result_is_that_of_scipy(up, down):
    """With the same taps, to within 2e-6 of the largest value: the sums are in another order, in 32 bits."""
    samples = noise(20_000)
    found = whole(Resampler(up, down), samples)
    expected = scipy.signal.resample_poly(samples.astype(np.float64), up, down, window=design(up, down) / up)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize(("up", "down"), [(2, 5), (147, 160), (1, 1000)])
def test_the_filter_is_that_of_scipy(up, down):
    taps = design(up, down)
    half = len(taps) // 2
    expected = scipy.signal.firwin(2 * half + 1, 0.9 / max(up, down), window=("kaiser", 0.1102 * (90 - 8.7)))
    assert np.abs(taps / up - expected).max() <= 1e-12 * np.abs(expected).max()


@cache
def prepared(up, down):
    samples = noise(40_007)
    return Resampler(up, down), samples, whole(Resampler(up, down), samples)


@pytest.mark.parametrize(("up", "down"), RATIOS)
@given(data=st.data())
@settings(deadline=None, max_examples=10)
def test_any_stretch_has_the_bits_of_the_whole(up, down, data):
    """In any order and of any length: borders of blocks leave no trace."""
    resampler, samples, expected = prepared(up, down)
    begin = data.draw(st.integers(0, len(expected) - 1))
    length = data.draw(st.integers(1, len(expected) - begin))
    found = resampler.resample(reading(samples), len(samples), begin, length)
    assert found.tobytes() == expected[begin : begin + length].tobytes()


@pytest.mark.parametrize(("up", "down"), RATIOS)
def test_a_stretch_depends_on_its_own_samples_and_the_margin_alone(up, down):
    resampler = Resampler(up, down)
    samples = noise(60_000)
    begin = counted(resampler, 30_000)
    length = min(500, counted(resampler, 5_000))
    first, last = begin * down // up, -(-(begin + length - 1) * down // up)
    other = noise(len(samples), seed=1)
    low, high = first - resampler.lead, last + resampler.lead + 1
    other[low:high] = samples[low:high]
    one = resampler.resample(reading(samples), len(samples), begin, length)
    same = resampler.resample(reading(other), len(other), begin, length)
    assert one.tobytes() == same.tobytes()
    assert resampler.lead <= 29 * max(1, down / up)


@pytest.mark.parametrize(
    ("up", "down", "place"),
    [(2, 5, 0.501), (2, 5, 0.55), (2, 5, 1.1), (147, 160, 0.501), (147, 160, 0.54), (1, 4, 0.501), (1, 4, 0.9)],
)
def test_a_tone_above_the_new_nyquist_frequency_is_attenuated(up, down, place):
    """By at least 80 dB; it would be an alias inside the band. `place` is a share of the new rate."""
    frequency = place * up / down
    assert frequency < 0.5
    found = whole(Resampler(up, down), tone(frequency, 50_000))[500:-500]
    assert 20 * np.log10(np.abs(found).max()) <= -80


@pytest.mark.parametrize(("up", "down"), RATIOS)
@pytest.mark.parametrize("place", [-0.39, 0.0, 0.25])
def test_a_tone_in_the_band_is_the_same_tone_at_the_new_rate(up, down, place):
    """Up to 80 % of the narrower Nyquist frequency, in level and phase; no image appears beside it."""
    narrower = min(1.0, up / down)
    frequency = place * narrower
    samples = tone(frequency, 10_000 + 200 * down // up)
    resampler = Resampler(up, down)
    found = whole(resampler, samples)
    edge = counted(resampler, 60 * max(1, down // up))
    expected = tone(frequency * down / up, len(found))
    assert np.abs(found - expected)[edge:-edge].max() <= 1e-4


def test_memory_is_bounded_by_the_result_and_a_block():
    """No more than a block is read at once."""
    sizes = []

    def read(low, high):
        sizes.append(high - low)
        return np.zeros((high - low, 2), np.float32)

    found = Resampler(2, 5).resample(read, 100_000_000, 10_000_000, 1_000_000)
    assert found.shape == (1_000_000, 2)
    assert max(sizes) <= 20_000
    assert sum(sizes) <= 1.1 * 2_500_000


@pytest.mark.parametrize(
    ("recorded", "wanted", "expected"),
    [
        (100e6, 40e6, Fraction(2, 5)),
        (61.44e6, 40e6, Fraction(125, 192)),
        (100e6, 100e6 * (1 + 5e-7), Fraction(1)),
        (44_100, 48_000, Fraction(160, 147)),
        (99_999_990.0, 50e6, Fraction(1, 2)),
        (1e6, 1e9, Fraction(MOST_TERM)),
    ],
)
def test_the_ratio_is_in_lowest_terms(recorded, wanted, expected):
    assert ratio(recorded, wanted) == expected


@pytest.mark.parametrize(
    ("recorded", "wanted"),
    [(100e6, 99_901_234), (1e6, 1_000_500_000), (1e9, 999e3), (1.0, 1e12), (1e12, 1.0), (1e300, 1.0), (1e-300, 1.0)],
)
def test_ratios_with_large_terms_are_refused(recorded, wanted):
    with pytest.raises(
        RatioError, match=r"cannot be resampled to .*: their ratio is not one of whole numbers up to 1000"
    ):
        ratio(recorded, wanted)
