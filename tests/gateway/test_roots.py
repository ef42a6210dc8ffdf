"""Paths of the model service as URIs: nothing leaves the roots."""

import posixpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rfuav_gateway.tasks.roots import Places, below, beside
from rfuav_gateway.tasks.words import CHINESE, ENGLISH, RefusedError

PLACES = Places(
    roots={"/data": "pvc://captures", "/data/models": "pvc://models/all", "/archive": "s3://old/drones"}, base="/data"
)


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("/data/train", "pvc://captures/train"),
        ("/data/train/", "pvc://captures/train"),
        ("/data", "pvc://captures"),
        ("/data/", "pvc://captures"),
        ("//data//train", "pvc://captures/train"),
        ("/data/./a/../train", "pvc://captures/train"),
        ("/data/models", "pvc://models/all"),
        ("/data/models/resnet/best.pth", "pvc://models/all/resnet/best.pth"),
        ("/data/models2/x", "pvc://captures/models2/x"),
        ("/data/models/../train", "pvc://captures/train"),
        ("/archive/2024", "s3://old/drones/2024"),
        ("data/train", "pvc://captures/data/train"),
        ("./train", "pvc://captures/train"),
        ("models/output_3", "pvc://models/all/output_3"),
        ("a b/无人机 (1).png", "pvc://captures/a b/无人机 (1).png"),
        ("~/x", "pvc://captures/~/x"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("pvc://other/x", "pvc://other/x"),
        ("hf://datasets/owner/name", "hf://datasets/owner/name"),
        ("file:///mnt/x", "file:///mnt/x"),
        ("C:/data/x", "pvc://captures/C:/data/x"),
    ],
)
def test_where_a_path_is(path, uri):
    assert PLACES.resolve(path, "train_path") == uri


@pytest.mark.parametrize(
    ("places", "path", "words"),
    [
        (
            PLACES,
            "/etc/passwd",
            "/etc/passwd is outside of the folders that are offered: /archive, /data, /data/models",
        ),
        (PLACES, "/data/../etc", "/data/../etc is outside of"),
        (PLACES, "/database", "/database is outside of"),
        (PLACES, "/", "/ is outside of"),
        (PLACES, "../archive/x", "../archive/x leaves /data, below which relative paths lie"),
        (PLACES, "a/../../data2", "a/../../data2 leaves /data"),
        (PLACES, "", "A path is missing: write one below /archive, /data, /data/models"),
        (PLACES, "  ", "A path is missing"),
        (PLACES, "ftp://host/x", "ftp://host/x: write a path, or a URI with pvc://, s3://, hf:// or file://"),
        (PLACES, "S3://bucket/x", "S3://bucket/x: write a path"),
        (Places(roots={"/data": "pvc://x"}), "train", "train is a relative path: write an absolute one below /data"),
        (Places(), "/data/x", "/data/x: no folders are offered (roots of the gateway)"),
        (Places(), "", "A path is missing: write one below -"),
    ],
)
def test_what_is_refused(places, path, words):
    with pytest.raises(RefusedError) as error:
        places.resolve(path, "train_path")
    (problem,) = error.value.problems
    assert problem.field == "train_path"
    assert problem.what.text(ENGLISH).startswith(words)
    assert problem.what.text(CHINESE)


def test_the_root_of_everything():
    places = Places(roots={"/": "pvc://all", "/data": "pvc://captures"}, base="/")
    assert [places.resolve(path, "x") for path in ("/", "/etc/x", "../../x", "/data/x")] == [
        "pvc://all",
        "pvc://all/etc/x",
        "pvc://all/x",
        "pvc://captures/x",
    ]


STEPS = st.sampled_from(["..", ".", "", "data", "models", "archive", "a", "b", "...", "a..", " "])
PATHS = st.builds(
    lambda lead, steps: lead + "/".join(steps), st.sampled_from(["", "/", "//"]), st.lists(STEPS, max_size=8)
)


@given(PATHS)
@example("/data/models/../../archive/x")
@example("/archive/../data")
def test_no_path_leaves_its_root(path):
    """A URI has no step that climbs, and is where a file system without links would lead, below a root."""
    try:
        uri = PLACES.resolve(path, "x")
    except RefusedError:
        return
    rooted = [root for root, there in PLACES.roots.items() if uri == there or uri.startswith(f"{there}/")]
    assert rooted
    assert not {".", "..", ""} & set(uri.partition("://")[2].split("/"))
    there = posixpath.normpath(posixpath.join("/data", path)).replace("//", "/")
    assert any(there == root or there.startswith(f"{root}/") for root in rooted)
    assert uri.endswith(there[len(max(rooted, key=len)) :])


@given(st.text(max_size=30))
def test_any_text_is_a_uri_or_refused(text):
    try:
        assert "://" in PLACES.resolve(text, "x")
    except RefusedError as error:
        assert error.problems[0].what.text(CHINESE)


@pytest.mark.parametrize("name", ["run1", "run 1", "...", "..a", "无人机", "x" * 200])
def test_a_folder_below(name):
    assert below("pvc://x/", name, "name") == f"pvc://x/{name}"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\nb", "\x7f", "x" * 201, "无" * 67])
def test_what_is_not_one_folder(name):
    with pytest.raises(RefusedError, match="is not the name of one folder"):
        below("pvc://x", name, "name")


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("pvc://captures/a/b.iq", "pvc://captures/a/b.iq_results"),
        ("pvc://captures/a/", "pvc://captures/a_results"),
        ("s3://bucket/a", "s3://bucket/a_results"),
        ("file:///a", "file:///a_results"),
        ("pvc://captures", None),
        ("pvc://captures/", None),
        ("s3://bucket", None),
        ("file:///", None),
        ("hf://datasets/owner/name", None),
    ],
)
def test_beside(uri, folder):
    assert beside(uri) == folder
