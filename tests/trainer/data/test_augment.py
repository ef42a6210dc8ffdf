"""Augmentations: against torchvision and plain loops, in their ranges, and the same for the same random state."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from rfuav_trainer.data import augment_pictures, augment_signals, picture_cache
from rfuav_trainer.data.samples import SPECTROGRAM, Preprocessing, Reader, Sample
from rfuav_trainer.signals.recording import described
from rfuav_trainer.signals.spectrogram import SpectrogramParameters

PICTURES = tuple(augment_pictures.PICTURES)


def rng(seed=0):
    return np.random.default_rng(seed)


def pictures(count=4, channels=3, height=48, width=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.rand(count, channels, height // 8, width // 8, generator=generator)
    return (torch.nn.functional.interpolate(smooth, (height, width), mode="bilinear") * 255).to(torch.uint8)


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(augment_pictures, "PROBABILITY", 1.0)
    monkeypatch.setattr(augment_signals, "PROBABILITY", 1.0)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 48, 48), (1, 48, 48), (3, 42, 58)])
def test_shape_range_and_the_same_for_the_same_numbers(name, channels, height, width):
    given = pictures(8, channels, height, width)
    before = given.clone()
    one, again, other = (augment_pictures.apply(given, [name], rng(seed)) for seed in (1, 1, 2))
    expected = 3 if channels == 3 or name in augment_pictures.COLOURED else 1
    assert one.shape == (8, expected, height, width)
    assert 0 <= one.min() <= one.max() <= 255
    assert torch.isfinite(one).all()
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(given, before)
    changed = (one - given.float()).abs().amax(dim=(1, 2, 3)) > 0.5
    assert 0 < changed.sum() < 8  # some of them, each by the toss of a coin


def test_nothing_to_do_leaves_the_pictures_alone():
    given = pictures()
    assert augment_pictures.apply(given, [], rng()) is given
    assert augment_pictures.apply(given, ["AddNoise"], rng()) is given


def test_every_name_of_the_api_is_about_pictures_or_recordings():
    from typing import get_args

    from rfuav_crds.training import Augmentation

    assert {*augment_pictures.PICTURES, *augment_signals.SIGNALS} == set(get_args(Augmentation))


class Fixed:
    """A generator that draws what it is told to."""

    def __init__(self, *values):
        self.values = list(values)

    def uniform(self, low, high, count):
        value = self.values.pop(0)
        assert low <= value <= high
        return np.full(count, value)


@pytest.mark.parametrize("factors", [(0.8, 1, 1), (1.2, 1, 1), (1, 0.8, 1), (1, 1.2, 1), (1, 1, 0.8), (1, 1, 1.2)])
def test_brightness_contrast_and_saturation_are_torchvisions(factors):
    given = pictures().float() / 255
    ours = augment_pictures.colour_jitter(given, Fixed(*factors, 0.0))
    theirs = v2.functional.adjust_brightness(given, factors[0])
    theirs = v2.functional.adjust_contrast(theirs, factors[1])
    theirs = v2.functional.adjust_saturation(theirs, factors[2])
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # torchvision's luma weights have four digits


def test_a_turned_hue_keeps_brightness_and_greys():
    colours = torch.rand(5, 3, 4, 4)
    grey = torch.rand(5, 1, 4, 4).expand(-1, 3, -1, -1)
    turns = torch.linspace(-0.5, 0.5, 5)
    torch.testing.assert_close(augment_pictures.turn_hue(grey, turns), grey, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        augment_pictures.luma(augment_pictures.turn_hue(colours, turns)),
        augment_pictures.luma(colours),
        atol=1e-4,
        rtol=0,
    )
    torch.testing.assert_close(
        augment_pictures.turn_hue(augment_pictures.turn_hue(colours, turns), -turns), colours, atol=1e-4, rtol=0
    )
    assert (augment_pictures.turn_hue(colours, turns)[0] - colours[0]).abs().max() > 0.1


def test_sharpen_is_its_filter():
    from scipy.ndimage import convolve

    given = pictures(2).float() / 255
    ours = augment_pictures.sharpen(given, Fixed(0.3, 0.7))
    kernel = np.full((3, 3), -1.0)
    kernel[1, 1] = 8.7
    for picture, result in zip(given, ours, strict=True):
        for channel, found in zip(picture.numpy(), result.numpy(), strict=True):
            expected = 0.7 * channel + 0.3 * convolve(channel, kernel, mode="mirror")
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_blur_smooths_and_keeps_flat_areas():
    noise = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    blurred = augment_pictures.blur(noise, rng())
    assert (blurred.var(dim=(1, 2, 3)) <= noise.var(dim=(1, 2, 3)) * 1.001).all()
    assert blurred.var() < 0.9 * noise.var()
    flat = torch.full((4, 3, 16, 16), 0.4)
    torch.testing.assert_close(augment_pictures.blur(flat, rng()), flat)
    assert not torch.allclose(blurred[0] / noise[0], blurred[1] / noise[1])  # each with a kernel of its own


def test_noise_has_the_stated_deviation():
    flat = torch.full((400, 1, 16, 16), 0.5)
    deviations = (augment_pictures.gauss_noise(flat, rng()) - flat).std(dim=(1, 2, 3))
    assert 0.008 < deviations.min() < 0.02
    assert 0.09 < deviations.max() < 0.12
    dark, bright = torch.full((200, 3, 16, 16), 0.02), torch.full((200, 3, 16, 16), 0.9)
    assert (augment_pictures.iso_noise(bright, rng()) - bright).std() > 1.5 * (
        augment_pictures.iso_noise(dark, rng()) - dark
    ).std()


def plain_clahe(grey, limit, tiles=8):
    """CLAHE by loops over tiles and pixels."""
    height, width = grey.shape
    padded = np.pad(grey, ((0, -height % tiles), (0, -width % tiles)), mode="reflect")
    tall, wide = padded.shape[0] // tiles, padded.shape[1] // tiles
    tables = np.zeros((tiles, tiles, 256))
    for row in range(tiles):
        for column in range(tiles):
            tile = padded[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
            histogram = np.array([(tile == value).sum() for value in range(256)], dtype=float)
            top = max(1.0, limit * tile.size / 256)
            cut = np.maximum(histogram - top, 0).sum()
            tables[row, column] = np.cumsum(np.minimum(histogram, top) + cut / 256) * 255 / tile.size
    out = np.zeros(grey.shape)
    for y in range(height):
        for x in range(width):
            fy, fx = y / tall - 0.5, x / wide - 0.5
            y0, x0 = int(np.floor(fy)), int(np.floor(fx))
            for row, share in ((y0, 1 - (fy - y0)), (y0 + 1, fy - y0)):
                for column, part in ((x0, 1 - (fx - x0)), (x0 + 1, fx - x0)):
                    table = tables[min(max(row, 0), tiles - 1), min(max(column, 0), tiles - 1)]
                    out[y, x] += share * part * table[grey[y, x]]
    return out


@pytest.mark.parametrize(("height", "width"), [(48, 48), (42, 58)])
def test_clahe_is_what_loops_find(height, width):
    given = pictures(3, 1, height, width)
    limits = torch.tensor([1.0, 2.5, 4.0])
    ours = augment_pictures.equalise(given, limits)
    for picture, limit, found in zip(given[:, 0].numpy(), limits.tolist(), ours[:, 0].numpy(), strict=True):
        expected = plain_clahe(picture, limit)
        assert np.abs(found - expected).max() <= 0.51
        assert np.abs(found.astype(int) - picture).max() > 5


@pytest.mark.parametrize(("name", "axis"), [("FrequencyMask", 2), ("TimeMask", 3)])
def test_a_mask_hides_one_band_of_at_most_15_percent(always, name, axis):
    given = pictures(50, 1, 100, 100, seed=3)
    out = augment_pictures.apply(given, [name], rng())
    mean = given.float().mean(dim=(1, 2, 3))
    for picture, value in zip(out, mean, strict=True):
        hidden = ((picture[0] - value).abs() < 1e-2).all(dim=3 - axis)
        places = hidden.nonzero().flatten()
        assert 1 <= len(places) <= 15
        assert places[-1] - places[0] == len(places) - 1


# --- recordings

PARAMETERS = SpectrogramParameters(1e6, 0.008192, 128, 64, "hann")


def tone(cycles=0.1, count=8192):
    return torch.from_numpy(np.exp(2j * np.pi * cycles * np.arange(count)).astype(np.complex64))


def power(samples):
    return samples.abs().square().mean().item()


def test_noise_is_added_to_an_snr():
    for seed in range(20):
        changed = augment_signals.add_noise(tone(), rng(seed))
        wanted = rng(seed).uniform(0, 30)
        assert 10 * np.log10(1 / power(changed - tone())) == pytest.approx(wanted, abs=0.3)


def test_a_shift_moves_the_tone_and_nothing_else():
    for seed in range(5):
        changed = augment_signals.shift_frequency(tone(0.1), rng(seed))
        wanted = 0.1 + rng(seed).uniform(-0.05, 0.05)
        spectrum = torch.fft.fft(changed).abs()
        assert spectrum.argmax().item() / len(changed) == pytest.approx(wanted, abs=1e-3)
        torch.testing.assert_close(changed.abs(), torch.ones(8192), atol=1e-3, rtol=0)


def test_a_crop_is_a_part_of_the_frame():
    given = torch.randn(8192, dtype=torch.complex64)
    for seed in range(20):
        part = augment_signals.crop_time(given, rng(seed))
        assert 4096 <= len(part) <= 8192
        start = (given.unfold(0, 4, 1) == part[:4]).all(dim=1).nonzero()[0].item()
        assert torch.equal(part, given[start : start + len(part)])


def test_fading_has_mean_power_one_and_changes_slowly():
    powers = [power(augment_signals.fade(tone(0), rng(seed))) for seed in range(300)]
    assert np.mean(powers) == pytest.approx(1, abs=0.1)
    gain = augment_signals.fade(tone(0), rng(1))
    assert gain.abs().std() > 0.02
    assert (gain[1:] - gain[:-1]).abs().max() < 0.05


def test_never_shorter_than_a_transform(always):
    short = tone(count=128)
    changed = augment_signals.change(short, [augment_signals.crop_time], rng(), PARAMETERS)
    assert len(changed) == 128


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "a" / "0.iq"
    path.parent.mkdir()
    frames = torch.cat([tone(0.1), tone(-0.2)])
    path.write_bytes(torch.view_as_real(frames).numpy().astype("<f4").tobytes())
    return [Sample(path, "a/0.iq", frame=frame, info=described(path)) for frame in (0, 1)]


def test_a_reader_that_changes_follows_from_seed_epoch_and_frame(recording, always):
    plain = Reader(Preprocessing("iq", 32, *SPECTROGRAM, PARAMETERS), homes=[picture_cache.Memory(1_000_000)])
    names = list(augment_signals.SIGNALS)

    def read(frame=0, seed=1, epoch=0):
        return augment_signals.ChangingReader(plain, names, seed=seed, epoch=epoch).read(recording[frame])

    assert read().shape == plain.read(recording[0]).shape
    assert torch.equal(read(), read())
    for other in (read(seed=2), read(epoch=1), read(frame=1), plain.read(recording[0])):
        assert not torch.equal(read(), other)
    without = augment_signals.ChangingReader(plain, ["CLAHE"], seed=1, epoch=0)
    assert torch.equal(without.read(recording[0]), plain.read(recording[0]))


@pytest.mark.parametrize("names", [[], ["AddNoise"]], ids=["plain", "augmented"])
def test_a_frame_is_opened_once(recording, names, monkeypatch):
    opened, mapped = [], np.memmap
    monkeypatch.setattr(np, "memmap", lambda path, **how: opened.append(path) or mapped(path, **how))
    plain = Reader(Preprocessing("iq", 32, *SPECTROGRAM, PARAMETERS))
    augment_signals.ChangingReader(plain, names, seed=1, epoch=0).read(recording[0])
    assert len(opened) == 1
