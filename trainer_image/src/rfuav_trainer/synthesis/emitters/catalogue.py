"""Every emitter class of the synthesis by its name, with the numbers that make it what it is."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from rfuav_trainer.synthesis.emitters.hopping import Chirp, Gmsk, HoppingLink
from rfuav_trainer.synthesis.emitters.ofdm import FrameLink, PacketLink
from rfuav_trainer.synthesis.emitters.video import FmVideo, Idle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rfuav_trainer.synthesis.emitters.emission import Emitter

_LTE_CONFIGURATION_1 = "D" * 14 + "D" * 10 + "-" * 4 + "-" * 28 + "D" * 14  # subframes D S U U D
_LTE_CONFIGURATION_2 = "D" * 14 + "D" * 10 + "-" * 4 + "-" * 14 + "D" * 28  # subframes D S U D D
_NR_DDDSU = "D" * 42 + "D" * 10 + "-" * 18
_NR_DDSUU = "D" * 28 + "D" * 10 + "-" * 32

_ALL: tuple[Emitter, ...] = (
    FrameLink(
        name="ofdm-5mhz-continuous",
        summary="video downlink without pauses, LTE numerology for 5 MHz (3GPP TS 36.211: 300 subcarriers of 15 kHz)",
        spacing_hz=15e3,
        subcarriers=300,
        prefix_seconds=144 / 30.72e6,
        frames=("D" * 70,),
    ),
    FrameLink(
        name="ofdm-10mhz-tdd",
        summary="time-shared video downlink, LTE numerology for 10 MHz, frames of 5 ms (TS 36.211, table 4.2-2)",
        spacing_hz=15e3,
        subcarriers=600,
        prefix_seconds=144 / 30.72e6,
        frames=(_LTE_CONFIGURATION_1, _LTE_CONFIGURATION_2),
    ),
    FrameLink(
        name="ofdm-20mhz-tdd",
        summary="time-shared video downlink, 5G numerology 1 for 20 MHz (3GPP TS 38.211: 612 subcarriers of 30 kHz),"
        " frames of 2.5 ms",
        spacing_hz=30e3,
        subcarriers=612,
        prefix_seconds=72 / 30.72e6,
        frames=(_NR_DDDSU, _NR_DDSUU),
    ),
    PacketLink(
        name="ofdm-20mhz-packets",
        summary="video over a wireless LAN: packets and back-off (IEEE 802.11 clause 17: 52 subcarriers of 312.5 kHz)",
    ),
    HoppingLink(
        name="fhss-gmsk-fast",
        summary="control link, 1,600 hops a second, packets of 366 us, 1 Mbit/s GMSK on a raster of 1 MHz",
        dwell_seconds=625e-6,
        burst_seconds=366e-6,
        raster_hz=1e6,
        channels=20,
        modulation=Gmsk(bit_rate=1e6),
    ),
    HoppingLink(
        name="fhss-gmsk-slow",
        summary="control link, 250 hops a second, packets of 3 ms, 250 kbit/s GMSK on a raster of 0.5 MHz",
        dwell_seconds=4e-3,
        burst_seconds=3e-3,
        raster_hz=0.5e6,
        channels=40,
        modulation=Gmsk(bit_rate=250e3),
    ),
    HoppingLink(
        name="fhss-chirp",
        summary="control link, 500 hops a second, packets of 19 chirps over 1.625 MHz, 128 shifts, raster of 2 MHz",
        dwell_seconds=2e-3,
        burst_seconds=19 * 128 / 1.625e6,
        raster_hz=2e6,
        channels=10,
        modulation=Chirp(width_hz=1.625e6, spreading_factor=7),
    ),
    FmVideo(name="fm-video", summary="analog PAL picture and a sound subcarrier on one frequency-modulated carrier"),
    Idle(name="idle", summary="no transmission"),
)

EMITTERS: Mapping[str, Emitter] = MappingProxyType({emitter.name: emitter for emitter in _ALL})
"""Every class by its name, which is also its folder's name in a data set."""
