"""The STFT against SciPy's, and what becomes of it on the way to a picture."""

import resource

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer.trainer_kit import in_child

from rfuav_trainer.signals import colormaps, spectrogram
from rfuav_trainer.signals.spectrogram import WINDOWS, SpectrogramParameters, decibels, picture, pictures, stft

CPU = torch.device("cpu")


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


@given(inputs=st.integers(1, 3000), outputs=st.integers(1, 300))
@settings(deadline=None, max_examples=60)
def test_resizing_is_torchs_antialiased_interpolation(inputs, outputs):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 1, inputs)).astype(np.float32))
    theirs = torch.nn.functional.interpolate(values, (1, outputs), mode="bilinear", antialias=True)[0, 0, 0]
    ours = spectrogram._resizing(inputs, outputs, torch.device("cpu")) @ values[0, 0, 0]
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-4)


@given(piece=st.integers(1, 300), count=st.integers(1, 3), size=st.sampled_from([16, 33, 100]), hop=st.integers(5, 64))
@settings(deadline=None, max_examples=40)
def test_the_pieces_do_not_show(piece, count, size, hop):
    parameters = SpectrogramParameters(1e6, 0.004, 64, hop)
    frames = torch.view_as_real(torch.from_numpy(noise(4000 * count))).reshape(count, 4000, 2)
    whole = [spectrogram._resized_levels(frame[None], parameters, size, 10**6) for frame in frames]
    found = spectrogram._resized_levels(frames, parameters, size, piece)
    np.testing.assert_allclose(found.numpy(), torch.cat(whole).numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["autumn", "bone", "hot", "hsv", "jet", "viridis", "winter"])
def test_colours_are_matplotlibs(name):
    import matplotlib as mpl

    parameters = SpectrogramParameters(1e6, 0.004, 64, 32)
    frames = torch.view_as_real(torch.from_numpy(noise(4000)))[None]
    grey = pictures(frames, parameters, 32)[0][0, 0].numpy()
    found = pictures(frames, SpectrogramParameters(1e6, 0.004, 64, 32, color_map=name), 32)[0]
    assert found.shape == (1, 3, 32, 32)
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found[0].permute(1, 2, 0).numpy(), mpl.colormaps[name](grey, bytes=True)[..., :3])


def test_parula_runs_from_blue_through_green_to_yellow():
    table = colormaps.table("parula").float() / 255
    assert table.shape == (256, 3)
    np.testing.assert_allclose(
        table[[0, 255]].numpy(), [[0.2081, 0.1663, 0.5292], [0.9763, 0.9831, 0.0538]], atol=0.003
    )
    brightness = table @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert (brightness.diff() > -0.003).all()


def test_every_colour_map_of_the_api_is_there():
    from typing import get_args

    from rfuav_crds import Iq

    for name in get_args(Iq.model_fields["color_map"].annotation):
        assert name == "gray" or colormaps.table(name).shape == (256, 3)


@pytest.mark.parametrize("reach", [10.0, 40.0, 80.0])
def test_the_floor_lies_the_dynamic_range_below_the_brightest_point(reach):
    time = np.arange(4000)
    faint = 10 ** (-reach / 2 / 10)  # |Z| half way down the scale
    tones = np.exp(2j * np.pi * 0.25 * time) + faint * np.exp(-2j * np.pi * 0.25 * time)
    parameters = SpectrogramParameters(1e6, 0.004, 64, 32, window="blackman", dynamic_range=reach)
    found = picture(torch.from_numpy(tones.astype(np.complex64)), parameters, 64)[0]
    assert found[15:17].max() == 255
    assert found[47:49].max().item() == pytest.approx(127.5, abs=2)


@pytest.mark.parametrize("kind", [torch.int16, torch.int8])
def test_full_scale_has_the_same_level_in_every_format(kind):
    """A tone of a quarter of full scale stands at 10 log10 0.25, whatever it was recorded as."""
    tone = 0.25 * np.exp(2j * np.pi * 0.25 * np.arange(4000)).astype(np.complex64)
    frames = torch.view_as_real(torch.from_numpy(tone))[None]
    parameters = SpectrogramParameters(1e6, 0.004, 64, 32)
    recorded = (frames * spectrogram.FULL_SCALE[kind]).round().to(kind)
    expected = spectrogram._resized_levels(frames, parameters, 64, 100).max().item()
    assert expected == pytest.approx(10 * np.log10(0.25), abs=0.01)
    assert spectrogram._resized_levels(recorded, parameters, 64, 100).max().item() == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("outputs", [16, 224])
@pytest.mark.parametrize("inputs", [1, 7, 224, 1000, 19530])
@pytest.mark.parametrize("piece", [1, 31, 4096])
def test_the_pieces_of_the_resizing_have_the_bits_of_the_whole(inputs, outputs, piece):
    """So weights see what they were trained on."""
    if piece == 1 and inputs > 1000:
        pytest.skip("takes long and says nothing new")
    whole = spectrogram._resizing(inputs, outputs, CPU)
    pieces = spectrogram._resizing_pieces(inputs, outputs, piece, CPU)
    for start, found in zip(range(0, inputs, piece), pieces, strict=True):
        stop = min(inputs, start + piece)
        low, high = spectrogram._reach(start, stop, inputs, outputs)
        assert torch.equal(found, whole[low:high, start:stop])
        assert not whole[:low, start:stop].any()
        assert not whole[high:, start:stop].any()


def resizes_a_long_frame(columns, most):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spectrogram._resizing_pieces(columns, 224, 31, CPU)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < most


def test_a_frame_of_three_seconds_takes_little_memory():
    """3 s at 100 MS/s, hop 512; the whole matrix took 2.5 GB."""
    assert in_child(resizes_a_long_frame, 300_000_000 // 512, 150 * 2**20) == 0
