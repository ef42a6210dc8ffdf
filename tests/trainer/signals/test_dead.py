"""Frames and pictures that hold nothing are recognised, and those that hold little are not taken for them."""

import numpy as np
import pytest
import torch

from rfuav_trainer.signals import dead

COUNT = 50_000
RANDOM = np.random.default_rng(1)
TONE = 0.3 * np.exp(2j * np.pi * 0.1037 * np.arange(COUNT))
NOISE = RANDOM.normal(size=COUNT) + 1j * RANDOM.normal(size=COUNT)


def pairs(samples, kind="f4"):
    values = np.stack([samples.real, samples.imag], axis=1)
    if kind == "f4":
        return torch.from_numpy(values.astype("f4"))
    if kind == "u1":
        return pairs(samples, "i1").view(torch.uint8) ^ 128  # the same levels, moved up by 128
    limits = np.iinfo(kind)
    return torch.from_numpy(np.clip(np.round(values * limits.max), limits.min, limits.max).astype(kind))


def glitch(samples):
    changed = samples.copy()
    changed[1234] = 0.7
    return changed


@pytest.mark.parametrize("kind", ["f4", "i2", "i1", "u1"])
@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        (np.zeros(COUNT) + 0j, dead.ZERO),
        (glitch(np.zeros(COUNT) + 0j), dead.ZERO),
        (np.full(COUNT, 0.25 - 0.5j), dead.CONSTANT),
        (np.full(COUNT, 1 + 1j), dead.CONSTANT),
        (np.clip((40 * NOISE).real, -1, 1) + 1j * np.clip((40 * NOISE).imag, -1, 1), dead.SATURATED),
        (np.sign(NOISE.real) + 1j * np.sign(NOISE.imag), dead.SATURATED),
        (np.clip(NOISE.real, -0.9, 0.9) + 1j * np.clip(NOISE.imag, -0.9, 0.9), None),  # a third is clipped
        (TONE, None),
        (TONE.real + 0j, None),
        (0.05 * NOISE, None),
        (np.where(np.arange(COUNT) < COUNT // 50, TONE, 0), None),  # a burst
    ],
)
def test_frames(samples, kind, problem):
    assert dead.samples(pairs(samples, kind)) == problem


def test_a_clipped_frame_of_another_scale():
    samples = 0.2 * (np.clip(9 * NOISE.real, -1, 1) + 1j * np.clip(9 * NOISE.imag, -1, 1))
    assert dead.samples(pairs(samples)) == dead.SATURATED


@pytest.mark.parametrize("level", [0.6, 1.5])
def test_a_quiet_recording_of_few_bits_is_alive(level):
    assert dead.samples(pairs(level / 127 * NOISE, "i1")) is None
    assert dead.samples(pairs(level / 127 * NOISE, "u1")) is None
    assert dead.samples(pairs(level / 127 * NOISE, "i1").float() / 128) is None


def test_frames_with_nan_are_judged_elsewhere():
    assert dead.samples(torch.full((COUNT, 2), torch.nan)) is None


def picture(level, noise=0):
    pixels = torch.full((3, 32, 32), level) + torch.randint(0, noise + 1, (3, 32, 32))
    return pixels.clamp(0, 255).to(torch.uint8)


def test_pictures():
    assert dead.picture(picture(0)) == dead.ZERO
    assert dead.picture(picture(0, noise=2)) == dead.ZERO  # as JPEG leaves it
    assert dead.picture(picture(90)) == dead.CONSTANT
    assert dead.picture(picture(255)) == dead.CONSTANT
    assert dead.picture(picture(90, noise=9)) is None
    spot = picture(255)
    spot[:, 3, 3:8] = 0
    assert dead.picture(spot) == dead.SATURATED
    on_black = picture(0)
    on_black[:, 3, 3:8] = 255  # a tone in silence
    assert dead.picture(on_black) is None
