"""What files contain: equal files are found, and little is read of the others."""

import os

import pytest

from rfuav_trainer.storage import contents
from rfuav_trainer.storage.contents import BEGINNING, END, Contents


def written(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def read(monkeypatch):
    """The files that are read, with the number of bytes at their beginning."""
    found, whole = [], contents._looked_at

    def looked_at(path, *bounds):
        found.append((path.name, bounds[0]))
        return whole(path, *bounds)

    monkeypatch.setattr(contents, "_looked_at", looked_at)
    return found


def test_files_of_other_sizes_are_not_read(tmp_path, read):
    some, others = [written(tmp_path / "a", b"123")], [written(tmp_path / "b", b"1234"), written(tmp_path / "c", b"")]
    assert Contents().pairs(some, others) == []
    assert read == []


@pytest.mark.parametrize("size", [3, BEGINNING, BEGINNING + 1, END, END + 1, 3 * END])
def test_equal_files_are_found_and_each_is_digested_once(tmp_path, read, size):
    content, other = os.urandom(size), os.urandom(size)
    some = [written(tmp_path / "one/a", content), written(tmp_path / "one/b", other)]
    others = [written(tmp_path / "two/c", os.urandom(size)), written(tmp_path / "two/d", content)]
    known = Contents()
    assert known.pairs(some, others) == [(some[0], others[1])]
    looked = {"a", "b", "c", "d"}
    assert {name for name, first in read if first == BEGINNING} == looked
    assert {name for name, first in read if first == END} == (set() if size <= BEGINNING else {"a", "d"})
    texts = known.of([*some, *others])
    assert texts == Contents().of([*some, *others])
    assert len({*texts.values()}) == 3
    read.clear()
    assert known.of([*some, *others]) == texts
    assert read == []


@pytest.mark.parametrize("at", [0, END - 1, -1])
def test_files_with_the_same_beginning_are_told_by_their_ends(tmp_path, at):
    content = bytearray(3 * END)
    first = written(tmp_path / "a", bytes(content))
    content[at] = 1
    assert Contents().pairs([first], [written(tmp_path / "b", bytes(content))]) == []


def test_a_file_that_cannot_be_opened_equals_none(tmp_path):
    gone = [tmp_path / "a", tmp_path / "b"]
    assert Contents().pairs(gone[:1], gone[1:]) == []
    assert Contents().of(gone) == dict.fromkeys(gone, contents.GONE)
