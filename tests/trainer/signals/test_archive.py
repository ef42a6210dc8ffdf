"""SigMF archives are read where they lie; what is hostile in one is refused by name, and the rest is used."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
from trainer.signals.test_sigmf import LENGTH, PARAMETERS, ramp

from rfuav_trainer.data.files import find_files
from rfuav_trainer.data.recordings import recognise
from rfuav_trainer.data.samples import SPECTROGRAM, Preprocessing, Reader, list_samples
from rfuav_trainer.errors import UnreadableFileError
from rfuav_trainer.signals import archive, recording


def meta(captures=(), **stated):
    """Metadata as it is stored."""
    content = {"global": {"core:datatype": "cf32_le", "core:version": "1.2.5", "core:sample_rate": 1e6}}
    content["global"] |= {f"core:{name}": value for name, value in stated.items()}
    return json.dumps({**content, "captures": list(captures), "annotations": []}).encode()


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def packed(path, *members, form=tarfile.PAX_FORMAT):
    """A tar file of members: pairs of a name or a header, and the content."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            info = member(name) if isinstance(name, str) else name
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def pair(name, frames=2, first=0, **stated):
    """The members of a recording that is a ramp."""
    return [(f"{name}.sigmf-meta", meta(**stated)), (f"{name}.sigmf-data", ramp(frames * LENGTH, first))]


def listed(path):
    return list_samples([path], path.parent, PARAMETERS)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_the_recordings_in_an_archive_are_read_in_place(tmp_path, form):
    path = packed(
        tmp_path / "a.sigmf",
        *pair("one", 3),
        (member("more", tarfile.DIRTYPE), b""),
        *reversed(pair("more/two", 1, 5000)),
        ("readme.txt", b"hello"),
        form=form,
    )
    before = sorted(tmp_path.rglob("*"))
    listing = listed(path)
    assert listing.unreadable == {}
    assert listing.files == 2
    assert [(s.name, s.frame) for s in listing.samples] == [
        *(("a.sigmf/one.sigmf-data", frame) for frame in range(3)), ("a.sigmf/more/two.sigmf-data", 0),
    ]  # fmt: skip
    assert {s.path for s in listing.samples} == {path}
    assert {s.file for s in listing.samples} == {"a.sigmf"}
    assert len({s.key for s in listing.samples}) == 4
    firsts = [recording.read_raw(s.info, s.frame, PARAMETERS)[:, 0].tolist() for s in listing.samples]
    assert firsts == [[*range(begin, begin + LENGTH)] for begin in (0, LENGTH, 2 * LENGTH, 5000)]
    assert sorted(tmp_path.rglob("*")) == before  # nothing was extracted


def test_two_recordings_of_an_archive_are_no_copies_of_each_other(tmp_path):
    """A cache of pictures tells them apart: their frames have the same numbers in the same file."""
    rng = np.random.default_rng(0)
    tones = [0.5 * np.exp(2j * np.pi * f * np.arange(LENGTH)) + 0.01 * rng.normal(size=LENGTH) for f in (0.1, -0.3)]
    members = [(f"{n}.sigmf-{what}", content) for n, tone in enumerate(tones)
               for what, content in (("meta", meta()), ("data", tone.astype("<c8").tobytes()))]  # fmt: skip
    reader = Reader(Preprocessing("iq", 32, *SPECTROGRAM, PARAMETERS))
    first, second = (reader.read(sample) for sample in listed(packed(tmp_path / "a.sigmf", *members)).samples)
    assert not (first == second).all()


def test_an_archive_is_a_recording_of_a_folder(tmp_path):
    packed(tmp_path / "a.sigmf", *pair("a"))
    assert find_files(tmp_path, where="x") == ([tmp_path / "a.sigmf"], "iq")


HOSTILE = {
    "link": ((member("x.sigmf-data", tarfile.SYMTYPE, "/etc/passwd"), b""), "x.sigmf-data", "is a link"),
    "hard link": ((member("x.sigmf-data", tarfile.LNKTYPE, "good.sigmf-data"), b""), "x.sigmf-data", "is a link"),
    "device": ((member("x.sigmf-data", tarfile.CHRTYPE), b""), "x.sigmf-data", "is a link, a device"),
    "up": (("../x.sigmf-data", b"y" * 9), "../x.sigmf-data", "leads out of the archive"),
    "up within": (("a/../../x.sigmf-meta", meta()), "a/../../x.sigmf-meta", "leads out of the archive"),
    "root": (("/x.sigmf-data", b"y" * 9), "/x.sigmf-data", "leads out of the archive"),
    "huge name": (("n" * 9000 + ".sigmf-data", b"y"), f"{'n' * 100}... (0)", "its name has 9011 characters"),
    "twice": (("good.sigmf-data", b"y" * 9), "good.sigmf-data", "is in the archive twice"),
    "no metadata": (("x.sigmf-data", b"y" * 9), "x.sigmf-data", "has no metadata in the archive"),
    "no data": (("x.sigmf-meta", meta()), "x.sigmf-data", "is not in the archive, but x.sigmf-meta describes it"),
    "bad metadata": (("x.sigmf-meta", b"[" * 9000), "x.sigmf-meta", "is not valid SigMF metadata"),
    "bad collection": (("x.sigmf-collection", b"{}"), "x.sigmf-collection", "is not a valid SigMF collection"),
    "elsewhere": (("x.sigmf-meta", meta(dataset="../y")), "x.sigmf-meta", "the name of a file in the same folder"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_member_is_refused_by_name_and_the_others_are_used(tmp_path, what):
    odd, name, reason = HOSTILE[what]
    listing = listed(packed(tmp_path / "a.sigmf", *pair("good"), odd, *pair("later", 1)))
    assert {s.name for s in listing.samples} == {"a.sigmf/good.sigmf-data", "a.sigmf/later.sigmf-data"}
    assert list(listing.unreadable) == [f"a.sigmf/{name}"]
    assert reason in listing.unreadable[f"a.sigmf/{name}"]
    assert listing.files == 3


def test_what_is_no_recording_is_ignored_and_counted(tmp_path, capsys):
    """Additional files are allowed in an archive: a link to a readme is no reason to fail a job."""
    odd = (member("latest", tarfile.SYMTYPE, "good"), b"")
    assert listed(packed(tmp_path / "a.sigmf", *pair("good"), odd)).unreadable == {}
    assert "ignoring members of an archive" in capsys.readouterr().out


@pytest.mark.parametrize("left", [1, 511, 513, 700])
def test_a_truncated_archive_gives_what_is_whole(tmp_path, left):
    """Cut within the data of the last recording, or within its header."""
    whole = packed(tmp_path / "a.sigmf", *pair("one"), ("two.sigmf-meta", meta()))
    content = whole.read_bytes().rstrip(b"\0")
    content += b"\0" * (-len(content) % 512)
    packed(tmp_path / "b.sigmf", ("two.sigmf-data", ramp(500)))
    whole.write_bytes(content + (tmp_path / "b.sigmf").read_bytes()[:left])
    listing = listed(whole)
    assert {s.name for s in listing.samples} == {"a.sigmf/one.sigmf-data"}
    assert len(listing.unreadable) in {1, 2}
    assert "a.sigmf/two.sigmf-data" in listing.unreadable


def test_a_damaged_header_ends_the_archive_and_says_after_what(tmp_path):
    path = packed(tmp_path / "a.sigmf", *pair("one"), *pair("two"))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"two.sigmf-meta")
    content[at : at + 4] = b"????"  # the checksum is wrong
    path.write_bytes(content)
    listing = listed(path)
    assert {s.name for s in listing.samples} == {"a.sigmf/one.sigmf-data"}
    assert listing.unreadable == {
        "a.sigmf/after one.sigmf-data": "the archive cannot be read further: a header is damaged"
    }


def test_headers_and_members_are_bounded(tmp_path, monkeypatch):
    """An extended header that would fill the memory, and more members than anyone lists."""
    path = packed(tmp_path / "a.sigmf", *pair("one"), ("n" * 3_000_000 + ".sigmf-data", b""), *pair("two"))
    listing = listed(path)
    assert {s.name for s in listing.samples} == {"a.sigmf/one.sigmf-data"}
    assert "1048576 are allowed" in listing.unreadable["a.sigmf/after one.sigmf-data"]
    monkeypatch.setattr(archive, "MOST_MEMBERS", 3)
    listing = listed(packed(tmp_path / "b.sigmf", *pair("one"), *pair("two"), *pair("three")))
    assert {s.name for s in listing.samples} == {"b.sigmf/one.sigmf-data"}
    assert "more than 3 members" in str(listing.unreadable)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"x" * 999), r"is compressed \(gzip\): decompress it"),
        (b"x" * 9999, "is not a tar file"),
        (b"", "is not a tar file"),
    ],
)
def test_what_is_no_archive(tmp_path, content, message):
    (tmp_path / "a.sigmf").write_bytes(content)
    with pytest.raises(UnreadableFileError, match=message):
        archive.read(tmp_path / "a.sigmf")
    assert list(listed(tmp_path / "a.sigmf").unreadable) == ["a.sigmf"]


def test_an_archive_without_a_recording(tmp_path):
    packed(tmp_path / "a.sigmf", ("x.sigmf-meta", meta(metadata_only=True)), ("readme", b"x"))
    with pytest.raises(UnreadableFileError, match="is an archive without a recording"):
        archive.read(tmp_path / "a.sigmf")


def test_damaged_archives_never_do_worse_than_refuse(tmp_path):
    """Random bytes changed: listed or refused, and what is listed can be read or is unreadable."""
    random = np.random.default_rng(3)
    path = packed(tmp_path / "a.sigmf", *pair("one"), ("n" * 300 + ".sigmf-data", b"x"), *pair("two", 1))
    whole = path.read_bytes()
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for place in random.integers(0, len(content), 20):
            content[place] = random.integers(256)
        path.write_bytes(content[: random.integers(1, len(content) + 1)])
        listing = listed(path)
        refused += bool(listing.unreadable)
        for sample in listing.samples:
            recording.read_raw(sample.info, sample.frame, PARAMETERS)
    assert refused > 200


def test_non_conforming_data_in_an_archive(tmp_path):
    members = [("x.sigmf-meta", meta([{"core:sample_start": 0, "core:header_bytes": 8}], dataset="x.raw")),
               ("x.raw", b"h" * 8 + ramp(LENGTH))]  # fmt: skip
    (sample,) = listed(packed(tmp_path / "a.sigmf", *members)).samples
    assert sample.name == "a.sigmf/x.raw"
    assert recording.read_raw(sample.info, 0, PARAMETERS)[:2, 0].tolist() == [0, 1]


def test_each_recording_of_an_archive_is_a_recording_unless_a_collection_lists_it(tmp_path):
    """A collection in the top folder may list recordings of any folder of the archive."""
    streams = {"collection": {"core:version": "1.2.5", "core:streams": [{"name": "one", "hash": "0"}, ["two", "0"]]}}
    collection = ("both.sigmf-collection", json.dumps(streams).encode())
    listing = listed(packed(tmp_path / "a.sigmf", collection, *pair("one"), *pair("more/two"), *pair("three")))
    assert {s.name: s.group for s in listing.samples} == {
        "a.sigmf/one.sigmf-data": "a.sigmf/both",
        "a.sigmf/more/two.sigmf-data": "a.sigmf/both",
        "a.sigmf/three.sigmf-data": "a.sigmf/three.sigmf-data",
    }
    names = ["A/x.sigmf/one.sigmf-data", "A/x.sigmf/two.sigmf-data", "A/y.sigmf/y.sigmf-data"]
    assert [(found.name, found.by) for found in recognise(names, "iq").values()] == [
        ("A/x.one", "sigmf"), ("A/x.two", "sigmf"), ("A/y", "sigmf"),
    ]  # fmt: skip
