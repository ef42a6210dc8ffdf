"""Which recording each file was cut from: a split keeps the files of one recording together.

In: the paths of the files of a data set, each beginning with its class. Out: the recording of each, and what it was
recognised by.

Pictures and short IQ files are cut from recordings, and the cuts of one recording resemble each other more than
anything new. On both sides of a split they make the validation look better than it is.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from rfuav_trainer.data.labels import without_conditions
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.signals.sidecar import INTERVAL
from rfuav_trainer.signals.sigmf import ARCHIVE, DATA

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

MANIFEST: Final = "manifest"
PATTERN: Final = "pattern"
FOLDER: Final = "folder"
PACK: Final = "pack"
COLLECTION: Final = "collection"
SIGMF: Final = "sigmf"
NAME: Final = "name"
FILE: Final = "file"
NUMBER: Final = "number"
TIME: Final = "time"
ALONE = frozenset({FILE, NUMBER})
"""The file is a recording of its own, for want of anything that says otherwise."""

NO_CLASS: Final = "-"
"""Stands for the class in paths without one."""
FIELD = "dataset.recordingPattern"
GROUP = "recording"
"""The group of the pattern whose text is the recording."""
SHOWN = 3

_CUT = (
    "frames?|frm|f|images?|imgs?|pictures?|pics?|slices?|segments?|segs?|chunks?|windows?|win|tiles?|crops?|cuts?|"
    "parts?|samples?|spectrograms?|specs?|screenshots?|plots?|figures?|figs?"
)
_NUMBER = re.compile(r"(?P<gap>[\s_.#-]*)(?P<number>\(\d+\)|\[\d+\]|\d+)$")
_WORD = re.compile(rf"(?:^|[\s_.#-]+)(?:{_CUT})[\s_.#-]*$")
_EDGES = " \t_.#-"


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording: its name, which begins with its class, and what it was recognised by."""

    name: str
    by: str


def recognise(
    names: Iterable[str], kind: str, *, pattern: str | None = None, loose: Collection[str] = ()
) -> dict[str, Recording]:
    """The recording of each file.

    From the most certain: the text that `pattern` finds; the pack (`pack1_0-1s.iq`); the folder below the class, if
    the class has several; what is before the number of the cut (`NAME (3).png`, `NAME_frame12.png`). A raw recording
    is numbered as a cut only where its class has two such names: `capture_1.iq`, `capture_2.iq` may be two captures.
    Conditions in a path (SNR, colour map) do not distinguish recordings. Neither does the case of letters.

    Args:
        names: paths that begin with their class.
        kind: image or iq.
        pattern: dataset.recordingPattern.
        loose: those whose folder contains several classes, so that it is not a recording.

    Raises:
        InputError: the pattern does not find a recording in every path.
        InvalidConfigurationError: it is not a regular expression.
    """
    if pattern is not None:
        return _by_pattern(list(names), pattern)
    classes: dict[str, list[_Place]] = {}
    for name in names:
        place = _Place.of(name, kind, loose=name in loose)
        classes.setdefault(place.label, []).append(place)
    return {place.path: found for places in classes.values() for place, found in _of_class(places, kind)}


@dataclass(frozen=True, slots=True)
class _Place:
    """What the path of one file says: the folder below its class, and its own name without the number of the cut."""

    path: str
    label: str
    folder: str
    loose: bool
    stem: str
    name: str
    by: str

    @classmethod
    def of(cls, path: str, kind: str, *, loose: bool) -> _Place:
        label, *parents, file = PurePosixPath(path).parts
        if parents and PurePosixPath(parents[-1]).suffix and file.startswith(f"{PurePosixPath(parents[-1]).stem}."):
            file = parents.pop()  # a picture and its copies, as `prepare augment` writes them: `a.png/a.copy-1.png`
        archive = next((at for at, folder in enumerate(parents) if folder.lower().endswith(ARCHIVE)), None)
        if archive is not None:  # `a.sigmf/b.sigmf-data` is a file `a.b`, or `a` if it has the name of the archive
            own = [PurePosixPath(parents[archive]).stem, *parents[archive + 1 :], file]
            parents, file = parents[:archive], ".".join(own[1:] if own[1:] == [f"{own[0]}{DATA}"] else own)
        kept = [left for folder in parents if (left := without_conditions(folder))]
        stem = _plain(without_conditions(PurePosixPath(file).stem))
        name, by = name_of(stem)
        if by in ALONE and kind == "iq":
            by = SIGMF if PurePosixPath(file).suffix.lower() in {ARCHIVE, DATA} else FILE
        return cls(path, label, _plain("/".join(kept)), loose, stem, name, by)


def _of_class(places: Sequence[_Place], kind: str) -> Iterable[tuple[_Place, Recording]]:
    """The recordings of one class."""
    named = {(place.folder, place.name) for place in places if place.by == NAME}
    counted = kind == "image" or len(named) > 1
    inner = {
        place.path: (place.name, place.by) if counted or place.by != NAME else (place.stem, FILE) for place in places
    }
    several = len({place.folder for place in places if not place.loose}) > 1
    told = kind == "iq" or len({key for key, by in inner.values() if by not in ALONE}) > 1
    for place in places:
        key, by = inner[place.path]
        if place.folder and not place.loose and by != PACK and (several or not told or not key):
            key, by = "", FOLDER
        yield place, Recording("/".join([place.label, *filter(None, (place.folder, key))]), by)


def name_of(stem: str) -> tuple[str, str]:
    """The recording that the name of a file says it was cut from, and by what: NAME, PACK, NUMBER or FILE.

    `rec (3)`, `rec_3`, `rec-3` and `rec_frame3` are of `rec`, `pack1_0-1s` is of `pack1`; `0003` and `img 3` say
    nothing but a number (the name is then the whole stem), and `rec3` is a name like any other.
    """
    rest, by = stem, FILE
    found = _NUMBER.search(stem)
    if found is not None:
        head = stem[: found.start()]
        before = _WORD.sub("", head).rstrip(_EDGES)
        bracket = not found["number"].isdecimal()
        if not before:
            by = NUMBER
        elif found["gap"] or bracket or before != head.rstrip(_EDGES):
            rest, by = before, NAME
    interval = INTERVAL.search(rest)
    if interval is not None and rest[: interval.start()].strip(_EDGES):
        rest, by = rest[: interval.start()].rstrip(_EDGES), PACK
    return rest, by


def _plain(text: str) -> str:
    """The text in one Unicode form and case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _by_pattern(names: list[str], pattern: str) -> dict[str, Recording]:
    """The recordings that the pattern finds. Matched by RE2, as in the API server: its time is linear in the path."""
    from pyarrow import ArrowInvalid, array, compute, string  # noqa: PLC0415  (half a second to import)

    texts = [name.encode(errors="replace").decode() for name in names]
    try:
        matched: list[dict[str, Any] | None] = compute.extract_regex(
            array(texts, string()), pattern=pattern
        ).to_pylist()
    except ArrowInvalid as error:
        raise InvalidConfigurationError(
            f"{FIELD} {pattern!r} is not a regular expression of RE2 whose groups all have names ({error}): write one "
            f"as in '(?P<{GROUP}>flight[0-9]+)', and (?:...) for other groups"
        ) from error
    found: dict[str, Recording] = {}
    missed: list[str] = []
    for name, groups in zip(names, matched, strict=True):
        text = (groups or {}).get(GROUP)
        if text:
            found[name] = Recording(f"{PurePosixPath(name).parts[0]}/{text}", PATTERN)
        else:
            missed.append(name)
    if missed:
        raise InputError(
            f"{FIELD} {pattern!r} finds no recording in {len(missed)} of {len(names)} paths ({_some(missed)}): write "
            f"one that matches every path from the class on, with the recording as the group {GROUP}, as in "
            f"'(?P<{GROUP}>flight[0-9]+)'"
        )
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
