"""Sidecars of packs: what they state, which files they describe, and files that mean harm."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer.data.test_images import mutated

from rfuav_trainer.signals import sidecar
from rfuav_trainer.signals.sidecar import Packs, Sidecar, SidecarError

ELEMENTS = {
    "DeviceType": "SM200C",
    "Drone": "DJI Mini 3",
    "SerialNumber": "21134008",
    "DataType": "Complex Float",
    "ReferenceSNRLevel": "-6",
    "CenterFrequency": "2.44e9",
    "SampleRate": "100000000",
    "IFBandwidth": "80000000.0",
    "ScaleFactor": "0.000123",
    "IQFileName": "pack1.iq",
    "SampleCount": "200000000",
}


def xml(root="SignalHoundIQFile", before='<?xml version="1.0" encoding="utf-8"?>', **changes):
    """A sidecar, with other texts for some elements; None leaves one out."""
    kept = {name: text for name, text in {**ELEMENTS, **changes}.items() if text is not None}
    inside = "\n".join(f"  <{name}>{text}</{name}>" for name, text in kept.items())
    return f"{before}\n<{root}>\n{inside}\n</{root}>\n".encode()


def packs(folder, *names, content=None):
    """Files in a folder: sidecars, and recordings of no samples."""
    for name in names:
        (folder / name).write_bytes(
            (xml(IQFileName=None) if content is None else content) if name.lower().endswith(".xml") else b""
        )
    return folder


def described(folder):
    """The name of the sidecar of each recording."""
    names = sorted(path for path in folder.iterdir() if path.suffix == ".iq")
    known = Packs()
    found = {path.name: known.of(path) for path in names}
    return {name: None if pack is None else pack.path.name for name, pack in found.items()}


def test_what_a_sidecar_states():
    assert sidecar.parse(xml()) == Sidecar(
        sample_rate=100e6, center_frequency=2.44e9, bandwidth=80e6, snr=-6, scale_factor=0.000123,
        sample_format="float32", samples=200_000_000, file_name="pack1.iq",
    )  # fmt: skip
    assert sidecar.parse(xml(DataType="Complex Short")).sample_format == "int16"
    assert sidecar.parse(b"<SignalHoundIQFile/>") == Sidecar()
    padded = xml(SampleRate="\n  40000000\n").decode().replace(' encoding="utf-8"', "")
    assert sidecar.parse(padded.encode("utf-16")).sample_rate == 40e6


@pytest.mark.parametrize(
    ("element", "text"),
    [
        ("SampleRate", "fast"), ("SampleRate", "0"), ("SampleRate", "-1"), ("SampleRate", "nan"), ("SampleRate", "1e300"),
        ("CenterFrequency", "inf"), ("ReferenceSNRLevel", "1e9"), ("SampleCount", "1.5"), ("SampleCount", "-3"),
        ("SampleCount", "1e400"), ("DataType", "Real"), ("IFBandwidth", "x" * 10_000),
    ],
)  # fmt: skip
def test_an_element_that_cannot_be_read_leaves_the_others(element, text):
    found = sidecar.parse(xml(**{element: text}))
    assert found.ignored == ((element, text[:80]),)
    known = [found.sample_rate, found.center_frequency, found.bandwidth, found.snr, found.sample_format, found.samples]
    assert known.count(None) == 1


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (xml(before=BOMB, SampleRate="&b;"), "document type declaration"),
        (xml(before='<!DOCTYPE x SYSTEM "file:///etc/passwd">'), "document type declaration"),
        (xml(before='<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>', SampleRate="&a;"), "document type"),
        (xml(SampleRate="&a;"), "is not XML: undefined entity"),
        (b"x" * (sidecar.MOST_BYTES + 1), "more than 65536 bytes"),
        (b"", "is not XML"),
        (b"\xff\xfe<", "is not XML"),
        (xml()[:100], "is not XML"),
        (xml(before='<?xml version="1.0" encoding="no-such"?>'), "is not XML"),
        (b"<SignalHoundIQFile>" * 3000, "is not XML"),
    ],
    ids=range(10),
)
def test_hostile_and_damaged_sidecars_are_refused(tmp_path, content, words):
    """Entities are neither expanded nor fetched, and the recording stays readable."""
    packs(tmp_path, "pack1_0-1s.iq", "pack1.xml", content=content)
    with pytest.raises(SidecarError, match=words):
        sidecar.parse(content)
    pack = Packs().of(tmp_path / "pack1_0-1s.iq")
    assert (pack.stated, pack.files) == (None, ("pack1_0-1s.iq",))
    assert pack.problem


def test_a_large_sidecar_is_not_read(tmp_path, monkeypatch):
    packs(tmp_path, "a.iq")
    (tmp_path / "a.xml").write_bytes(xml() + b" " * sidecar.MOST_BYTES)
    monkeypatch.setattr(sidecar, "parse", None)
    assert "more than the 65536" in Packs().of(tmp_path / "a.iq").problem


def test_damaged_sidecars_raise_nothing_else():
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(500):
        try:
            sidecar.parse(mutated(xml(), random))
        except (SidecarError, sidecar._ForeignError):
            refused += 1
    assert 0 < refused < 500


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["pack1_0-1s.iq", "pack1_1-2s.iq", "pack1.xml", "pack2_0-1s.iq", "pack2.xml"], ["pack1", "pack1", "pack2"]),
        (["pack1_0-1s.iq", "vtsbw10_pack1.xml", "pack2_0-1s.iq", "vtsbw10_pack2.xml"], ["vtsbw10_pack1", "vtsbw10_pack2"]),
        (["vtsbw10_pack1_0-1s.iq", "pack1.xml"], ["pack1"]),
        (["pack1_0-1s.iq", "Pack 01.xml", "pack11_0-1s.iq", "Pack 11.xml"], ["Pack 11", "Pack 01"]),
        (["VTSBW=10_pack1_0-1s.iq", "vtsbw10_pack1.xml"], ["vtsbw10_pack1"]),
        (["pack1_0-1s.iq", "pack1.xml", "vtsbw20_pack1.xml"], ["pack1"]),
        (["pack1_0-1s.iq", "vtsbw10_pack1.xml", "vtsbw20_pack1.xml"], [None]),
        (["a_pack1_0-1s.iq", "b_pack1_0-1s.iq", "pack1.xml"], [None, None]),
        (["pack1_0-1s.iq", "pakc1.xml"], ["pakc1"]),
        (["pack1_0-1s.iq", "pack2_0-1s.iq", "pakc1.xml"], [None, None]),
        (["pack1_0-1s.iq", "pack2_0-1s.iq", "pack1.xml", "pakc2.xml"], ["pack1", "pakc2"]),
        (["a.iq", "a.XML", "b.iq"], ["a", None]),
        (["_0-1s.iq", "b.xml", "c.xml"], [None]),
        (["a.iq", ".a.xml"], [None]),
    ],
    ids=str,
)  # fmt: skip
def test_the_sidecar_of_a_pack_is_found_by_its_name(tmp_path, names, expected):
    packs(tmp_path, *names)
    found = [name and name.rpartition(".")[0] for name in described(tmp_path).values()]
    assert found == expected


def test_a_sidecar_names_its_recording(tmp_path):
    """As it was called on the computer that made it."""
    for number, name in (("10", "pack1.iq"), ("20", r"D:\captures\Pack2_0-1s.iq")):
        (tmp_path / f"recording-{number}.xml").write_bytes(xml(IQFileName=name))
    packs(tmp_path, "pack1_0-1s.iq", "pack2_0-1s.iq", "pack3_0-1s.iq")
    assert [*described(tmp_path).values()] == ["recording-10.xml", "recording-20.xml", None]


def test_xml_of_something_else_is_no_sidecar(tmp_path):
    packs(tmp_path, "pack1_0-1s.iq", "pack1.xml", "x_0-1s.iq", "notes.xml", content=xml(root="annotation"))
    assert [*described(tmp_path).values()] == [None, None]


def test_a_pack_has_all_its_files(tmp_path):
    packs(tmp_path, "pack1_0-1s.iq", "pack1_1-2s.iq", "pack10_0-1s.iq", "pack1.xml", "pack10.xml", "pack1_9-10s.dat")
    assert Packs().of(tmp_path / "pack1_1-2s.iq").files == ("pack1_0-1s.iq", "pack1_1-2s.iq")
    assert Packs().of(tmp_path / "pack10_0-1s.iq").files == ("pack10_0-1s.iq",)


def test_a_folder_is_read_once(tmp_path, monkeypatch):
    packs(tmp_path, *(f"pack{number}_0-1s.iq" for number in range(50)), "pack1.xml")
    read = []
    scandir = sidecar.os.scandir
    monkeypatch.setattr(sidecar.os, "scandir", lambda folder: read.append(folder) or scandir(folder))
    known = Packs()
    assert [known.of(tmp_path / f"pack{number}_0-1s.iq") is None for number in range(50)].count(False) == 1
    assert read == [tmp_path]


@given(names=st.lists(st.text("ab12_- .", min_size=1, max_size=8), max_size=8, unique=True), data=st.data())
@settings(deadline=None, max_examples=200)
def test_no_sidecar_describes_two_packs(names, data):
    sidecars = [f"{name}.xml" for name in data.draw(st.lists(st.text("ab12_- .", min_size=1, max_size=8), unique=True))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sidecar, "_named", lambda _: ())
        found = sidecar._paired(names, sidecars, Path("x"))
    assert len({*found.values()}) == len(found)
    assert all(found[name] == f"{name}.xml" for name in names if f"{name}.xml" in sidecars)
