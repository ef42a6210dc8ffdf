"""The STFT against SciPy's, and what becomes of it on the way to a picture."""

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rfuav_trainer.spectrogram import WINDOWS, SpectrogramParameters, decibels, picture, stft


def noise(n, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=n) + 1j * rng.normal(size=n)).astype(np.complex64)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("fft_size", "hop"), [(64, 32), (1024, 512), (2048, 500), (128, 128)])
def test_the_same_as_scipy(window, fft_size, hop):
    samples = noise(10 * fft_size + 17)
    ours = stft(torch.from_numpy(samples), fft_size=fft_size, hop_size=hop, window=window).numpy()
    _, _, theirs = scipy.signal.stft(
        samples, window=window, nperseg=fft_size, noverlap=fft_size - hop, return_onesided=False, boundary=None, padded=False,
        scaling="spectrum",
    )  # fmt: skip
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, np.fft.fftshift(theirs, axes=0), atol=2e-6)


@given(cycles=st.integers(-31, 31), amplitude=st.floats(0.01, 10))
@settings(deadline=None, max_examples=30)
def test_a_tone_stands_in_its_row_with_its_amplitude(cycles, amplitude):
    tone = amplitude * np.exp(2j * np.pi * cycles / 64 * np.arange(640))
    found = stft(torch.from_numpy(tone.astype(np.complex64)), fft_size=64, hop_size=32, window="hamming").abs()
    assert (found.argmax(dim=0) == 32 + cycles).all()
    assert found.max().item() == pytest.approx(amplitude, rel=1e-3)


def test_decibels_are_the_references():
    assert decibels(torch.tensor([1.0, 10.0, 0.1, 0.0]).to(torch.complex64)).tolist() == pytest.approx(
        [0, 10, -10, -150]
    )


@given(gain=st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=20)
def test_the_picture_does_not_depend_on_the_gain(gain):
    parameters = SpectrogramParameters(1e6, 0.004, 64, 32)
    samples = torch.from_numpy(noise(4000))
    one, other = picture(samples, parameters, 32), picture(samples * gain, parameters, 32)
    assert (one.int() - other.int()).abs().max() <= 1


def test_high_frequencies_are_at_the_top_and_time_runs_to_the_right():
    n = 6400
    tone = np.where(np.arange(n) > n // 2, np.exp(2j * np.pi * 0.4 * np.arange(n)), 0) + 1e-3 * noise(n)
    found = picture(torch.from_numpy(tone.astype(np.complex64)), SpectrogramParameters(1e6, 0.0064, 64, 32), 32)[0]
    row, column = divmod(int(found.argmax()), 32)
    assert row < 8
    assert column >= 16


@pytest.mark.parametrize("samples", [np.zeros(4000), np.ones(4000), noise(4000) * 1e20])
def test_extreme_frames_give_a_picture(samples):
    found = picture(torch.from_numpy(samples.astype(np.complex64)), SpectrogramParameters(1e6, 0.004, 64, 32), 32)
    assert found.shape == (1, 32, 32)
    assert found.dtype == torch.uint8
    assert found.max() == 255
