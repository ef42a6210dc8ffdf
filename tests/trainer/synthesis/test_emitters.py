"""The physics of the synthesized recordings, measured from the samples."""

import numpy as np
import pytest
import torch

from rfuav_trainer.signals.spectrogram import stft
from rfuav_trainer.synthesis.channel import add_passer_by, draw_taps, fade, offset_room, receive
from rfuav_trainer.synthesis.emitters.catalogue import EMITTERS
from rfuav_trainer.synthesis.emitters.emission import Emission

RATE = 30.72e6
COUNT = 307_200
SENDING = [name for name in EMITTERS if name != "idle"]


def emit(name, seed=0, count=COUNT):
    return EMITTERS[name].emit(np.random.default_rng(seed), count, RATE)


def record(name, seed=0, snr_db=10.0, interference=0.0):
    emission = emit(name, seed)
    return emission, receive(
        np.random.default_rng(seed + 1000),
        emission,
        sample_rate=RATE,
        span_hz=EMITTERS[name].span_hz,
        snr_db=snr_db,
        interference=interference,
    )


def bursts(active):
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(int)))
    return edges.reshape(-1, 2)


def whole_bursts(active):
    return [(a, b) for a, b in bursts(active) if a > 0 and b < len(active)]


def occupied(samples, share=0.99):
    spectrum = np.fft.fftshift(np.abs(np.fft.fft(samples * np.hanning(len(samples)))) ** 2)
    rising = np.cumsum(spectrum) / spectrum.sum()
    low, high = np.searchsorted(rising, [(1 - share) / 2, (1 + share) / 2])
    return (high - low) / len(samples) * RATE


def test_there_are_eight_emitters_and_silence():
    assert len(SENDING) == 8
    assert np.all(emit("idle").samples == 0)


@pytest.mark.parametrize("name", SENDING)
def test_power_is_one_in_bursts_and_nothing_between(name):
    emission = emit(name)
    assert emission.samples.shape == emission.active.shape == (COUNT,)
    assert np.mean(np.abs(emission.samples[emission.active]) ** 2) == pytest.approx(1, rel=1e-3)
    assert np.all(emission.samples[~emission.active] == 0)


@pytest.mark.parametrize("name", SENDING)
def test_occupied_bandwidth_is_the_stated_one(name):
    emitter = EMITTERS[name]
    widths = []
    for seed in range(3):
        emission = emit(name, seed)
        first, last = max(bursts(emission.active), key=lambda edge: edge[1] - edge[0])
        widths.append(occupied(emission.samples[first:last]))
    tolerance = 0.15 if name == "fm-video" else 0.06  # the picture decides how far an FM carrier sways
    assert np.mean(widths) == pytest.approx(emitter.occupied_hz, rel=tolerance)
    assert occupied(emit(name).samples) <= emitter.span_hz


@pytest.mark.parametrize(
    ("name", "dwell", "burst"),
    [("fhss-gmsk-fast", 625e-6, 366e-6), ("fhss-gmsk-slow", 4e-3, 3e-3), ("fhss-chirp", 2e-3, 19 * 128 / 1.625e6)],
)
def test_hops_as_stated_seen_in_the_spectrogram(name, dwell, burst):
    emission, recording = record(name, seed=3, snr_db=20)
    hop = 128
    levels = stft(torch.from_numpy(recording.samples), fft_size=512, hop_size=hop, window="hann").abs().numpy() ** 2
    loudest = levels.max(axis=0)
    on_air = loudest > 0.25 * np.quantile(loudest, 0.95)
    seen = bursts(on_air)
    whole = seen[(seen[:, 0] > 0) & (seen[:, 1] < len(on_air))]
    assert np.median((whole[:, 1] - whole[:, 0]) * hop / RATE) == pytest.approx(burst, abs=25e-6)
    starts = seen[seen[:, 0] > 0][:, 0] * hop / RATE
    assert np.median(np.diff(starts)) == pytest.approx(dwell, abs=10e-6)
    raster = EMITTERS[name].raster_hz
    offset = recording.drawn["centerOffsetHz"]
    centre = (EMITTERS[name].channels - 1) / 2
    frequencies = (np.arange(512) - 256) / 512 * RATE
    for first, last in seen:
        packet = int((emission.drawn["startSeconds"] + (first + last) / 2 * hop / RATE) / dwell)
        channel = emission.drawn["hopPattern"][packet]
        power = levels[:, first:last].mean(axis=1)
        power = np.where(power > 0.1 * power.max(), power, 0)
        middle = (power * frequencies).sum() / power.sum() - offset
        assert middle == pytest.approx((channel - centre) * raster, abs=0.35e6)


@pytest.mark.parametrize(
    ("name", "period", "shares"),
    [("ofdm-10mhz-tdd", 5e-3, (38 / 70, 52 / 70)), ("ofdm-20mhz-tdd", 2.5e-3, (38 / 70, 52 / 70))],
)
def test_time_shared_frames_repeat_with_their_period(name, period, shares):
    seen = set()
    for seed in range(6):
        emission = emit(name, seed, 2 * COUNT)
        starts = [first for first, _ in bursts(emission.active) if first > 0]
        assert np.diff(starts) / RATE == pytest.approx(period, rel=2e-3)
        whole = whole_bursts(emission.active)
        share = (whole[0][1] - whole[0][0]) / RATE / period
        seen.add(min(shares, key=lambda stated: abs(stated - share)))
        assert min(abs(stated - share) for stated in shares) < 0.01
    assert seen == set(shares)


def test_the_cyclic_prefix_repeats_the_end_of_each_symbol():
    emission = emit("ofdm-5mhz-continuous")
    points, prefix = 2048, 144
    product = emission.samples[:-points] * np.conj(emission.samples[points:])
    start = round(emission.drawn["startSeconds"] * RATE)
    phase = (np.arange(len(product)) + start) % (points + prefix)
    inside, outside = product[phase < prefix], product[phase >= prefix]
    assert inside.mean().real == pytest.approx(1, abs=0.05)
    assert abs(outside.mean()) < 0.05


def test_packets_differ_in_length_and_leave_pauses():
    lengths = [(b - a) / RATE for seed in range(4) for a, b in whole_bursts(emit("ofdm-20mhz-packets", seed).active)]
    assert 0.2e-3 <= min(lengths) < 0.5e-3 < max(lengths) <= 1.4e-3 + 1e-6


@pytest.mark.parametrize("name", SENDING)
def test_each_recording_starts_somewhere_else(name):
    assert not np.array_equal(emit(name, 1).samples[:1000], emit(name, 2).samples[:1000])


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 10.0, 20.0])
@pytest.mark.parametrize("name", SENDING)
def test_snr_is_the_requested_one(name, snr_db):
    """What was sent is rebuilt from the parameters and projected out of the recording; the rest is noise."""
    emission, recording = record(name, seed=7, snr_db=snr_db)
    delays = np.array([tap["delaySeconds"] for tap in recording.drawn["fadingTaps"]])
    gains = np.array([tap["gain"] * np.exp(1j * tap["phaseRadians"]) for tap in recording.drawn["fadingTaps"]])
    turned = np.exp(2j * np.pi * recording.drawn["centerOffsetHz"] / RATE * np.arange(COUNT))
    sent = fade(emission.samples, delays, gains, RATE) * turned
    amplitude = np.vdot(sent, recording.samples) / np.vdot(sent, sent)
    in_burst = np.mean(np.abs(amplitude * sent[emission.active]) ** 2)
    noise = np.mean(np.abs(recording.samples - amplitude * sent) ** 2)
    assert 10 * np.log10(in_burst / noise) == pytest.approx(snr_db, abs=0.5)


@pytest.mark.parametrize("name", EMITTERS)
def test_no_artefact_at_zero_frequency_or_at_the_edges(name):
    """At zero frequency and at the edges of the band nothing stands out that is not there one bin beside."""
    total = np.zeros(1024)
    for seed in range(6):
        _, recording = record(name, seed, snr_db=-20)
        spectrum = stft(torch.from_numpy(recording.samples), fft_size=1024, hop_size=1024, window="hann").abs().numpy()
        total += (spectrum**2).mean(axis=1) / np.mean(np.abs(recording.samples) ** 2)
    typical = np.median(total)
    for position in (0, 1, 511, 512, 513, 1023):
        assert total[position] == pytest.approx(typical, rel=0.35), position
    _, recording = record(name, 1)
    assert np.abs(recording.samples).max() < 1, "clipped"


@pytest.mark.parametrize("name", SENDING)
def test_the_offset_keeps_the_signal_inside_the_band(name):
    for seed in range(5):
        emission, recording = record(name, seed, snr_db=40)
        spectrum = np.abs(np.fft.fftshift(np.fft.fft(recording.samples * np.hanning(COUNT)))) ** 2
        edge = COUNT // 50
        assert (spectrum[:edge].sum() + spectrum[-edge:].sum()) / spectrum.sum() < 2e-3
        assert abs(recording.drawn["centerOffsetHz"]) <= offset_room(RATE, EMITTERS[name].span_hz)
        assert emission.active.any()


def test_taps_have_unit_mean_power_and_fade():
    rng = np.random.default_rng(0)
    powers = np.array([np.sum(np.abs(draw_taps(rng)[1]) ** 2) for _ in range(4000)])
    assert powers.mean() == pytest.approx(1, abs=0.05)
    assert np.quantile(powers, 0.05) < 0.5


def test_fade_sums_delayed_copies():
    impulse = np.zeros(100, dtype=np.complex64)
    impulse[10] = 1
    faded = fade(impulse, np.array([0.0, 20 / RATE]), np.array([0.5, 0.25j]), RATE)
    assert faded[10] == pytest.approx(0.5)
    assert faded[30] == pytest.approx(0.25j)
    assert np.count_nonzero(faded) == 2


def test_interference_comes_at_its_rate_at_its_place_and_changes_nothing_else():
    noise = np.zeros(COUNT, dtype=np.complex64)
    came = [bool(add_passer_by(np.random.default_rng(seed), noise.copy(), RATE, 0.2)) for seed in range(300)]
    assert np.mean(came) == pytest.approx(0.2, abs=0.07)
    (first, *_) = drawn = add_passer_by(np.random.default_rng(1), noise, RATE, 1.0)
    middle = round((first["startSeconds"] + first["seconds"] / 2) * RATE)
    part = noise[middle - 500 : middle + 500]
    assert 10 * np.log10(np.mean(np.abs(part) ** 2)) == pytest.approx(first["snrDb"], abs=1.5)
    assert np.count_nonzero(noise) <= sum(packet["seconds"] for packet in drawn) * RATE + 1
    _, without = record("fm-video", 2, interference=0.0)
    _, with_it = record("fm-video", 2, interference=1.0)
    assert without.drawn | {"interference": None} == with_it.drawn | {"interference": None}


def test_without_a_signal_there_is_only_noise():
    _, recording = record("idle", 3, snr_db=20)
    powers = np.abs(recording.samples) ** 2
    assert np.mean(powers**2) / np.mean(powers) ** 2 == pytest.approx(2, abs=0.05)  # of complex Gaussian noise
    assert recording.drawn["fadingTaps"] == []
    assert isinstance(emit("idle"), Emission)
