"""The conditions that a path states: what is an SNR, and what only looks like one."""

import pytest

from rfuav_trainer.data.labels import conditions


@pytest.mark.parametrize(
    ("name", "snr"),
    [
        ("A/snr_-10/jet/x.png", -10),
        ("A/SNR10.png", 10),
        ("A/x_snr=5.png", 5),
        ("A/x_-10dB.iq", -10),
        ("A/-10dB/x.iq", -10),
        ("A/x 20 dB.iq", 20),
        ("A/x_(4dB).iq", 4),
        ("A/12.5dB_x.iq", 12),
        ("A/+6dB.iq", 6),
        ("A/rec_3dB_snr10.png", 10),
        ("A/flight-2_10dB.png", 10),
        ("A/flight2-10dB.png", None),
        ("A/flight2--10dB.png", None),
        ("A/rec-10dB.png", None),
        ("A/rec_gain40dB.png", None),
        ("A/rec_gain_40dB.png", None),
        ("A/att_20dB/x.png", None),
        ("A/LNA 16dB.iq", None),
        ("A/v1.5dB.iq", None),
        ("A/x_-40dBm.iq", None),
        ("A/x_-3dBFS.iq", None),
        ("A/x_3db2.iq", None),
        ("A/lesnr10.iq", None),
        ("10dB/x.iq", None),
    ],
)
def test_an_snr_is_named_or_has_its_unit_and_nothing_before_it_that_may_be_a_sign(name, snr):
    assert conditions(name, {})[0] == snr
