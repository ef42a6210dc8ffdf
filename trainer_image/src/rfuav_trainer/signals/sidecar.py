"""Sidecars of packs: the `.xml` that receivers of Signal Hound write beside raw recordings.

In: a recording, or its folder. Out: what the sidecar of its pack states, and which files it describes. A pack is a
sequence of files, `pack1_0-1s.iq`, `pack1_1-2s.iq`, ..., beside one `pack1.xml`.

Sidecars come from anywhere. They are parsed with expat of the standard library, with document type declarations
refused: without one no entity can be declared, so there is nothing to expand and nothing to fetch.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING
from xml.parsers import expat

from rfuav_trainer.errors import UnreadableFileError
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

SUFFIX = ".xml"
ROOT = "SignalHoundIQFile"
MOST_BYTES = 64 * 1024
"""A sidecar has a dozen elements; a larger file is not read."""
MOST_CHARACTERS = 1000
"""Of one element."""
RATES = (1.0, 1e12)
"""Lowest and highest sample rate that is believed, in Hz."""
MOST_DB = 1000
MOST_SAMPLES = 2**53
SAMPLE_TYPES = {"complex float": "float32", "complex short": "int16"}
INTERVAL = re.compile(r"[\s_-]+\d+(?:\.\d+)?-\d+(?:\.\d+)?\s?s(?:ec)?$", re.IGNORECASE)
"""What the files of a pack end with: `pack1_0-1s`."""

_PARTS = re.compile(r"[^\W\d_]+|\d+")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a sidecar states; None for what it does not, or not in a way that can be read.

    Attributes:
        sample_rate: complex samples a second.
        center_frequency: in Hz.
        bandwidth: of the receiver's filter, in Hz.
        snr: the reference level of the signal to the noise, in dB.
        scale_factor: what a stored value is multiplied with to get the square root of milliwatts.
        sample_format: a type of `recording.SAMPLE_TYPES`.
        samples: how many there are.
        file_name: of the recording, as it was called when it was made.
        ignored: elements that cannot be read, with their texts.
    """

    sample_rate: float | None = None
    center_frequency: float | None = None
    bandwidth: float | None = None
    snr: float | None = None
    scale_factor: float | None = None
    sample_format: str | None = None
    samples: int | None = None
    file_name: str | None = None
    ignored: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Pack:
    """The files of one pack, sorted by name, and what its sidecar states.

    Attributes:
        path: the sidecar.
        files: names in the same folder.
        stated: None if the sidecar cannot be read.
        problem: why it cannot be read; None if it can.
    """

    path: Path
    files: tuple[str, ...]
    stated: Sidecar | None
    problem: str | None = None


class SidecarError(Exception):
    """A sidecar cannot be read."""


class _ForeignError(Exception):
    """An XML file of something else."""


class Packs:
    """The packs of a data set. Reads each sidecar once.

    Args:
        files: of the data set, sidecars too. Default: each folder is read when it is asked for.
    """

    def __init__(self, files: Iterable[Path] | None = None) -> None:
        self._names: dict[Path, list[str]] | None = None
        if files is not None:
            self._names = {}
            for path in files:
                self._names.setdefault(path.parent, []).append(path.name)
        self._folders: dict[tuple[Path, str], Mapping[str, tuple[Path, tuple[str, ...]]]] = {}
        self._read: dict[Path, Pack | None] = {}

    def of(self, path: Path) -> Pack | None:
        """The pack of a recording; None if there is no sidecar for it."""
        key = path.parent, path.suffix.lower()
        if key not in self._folders:
            self._folders[key] = _packs(*key, self._listed(path.parent))
        found = self._folders[key].get(path.name)
        if found is None:
            return None
        if found[0] not in self._read:
            self._read[found[0]] = _read_pack(*found)
        return self._read[found[0]]

    def _listed(self, folder: Path) -> Sequence[str]:
        if self._names is not None:
            return sorted(self._names.get(folder, ()))
        try:
            with os.scandir(folder) as entries:
                return sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except OSError:
            return []

    def stated(self, path: Path) -> Sidecar:
        """What the sidecar of a recording states; nothing if there is none, or it cannot be read."""
        pack = self.of(path)
        return Sidecar() if pack is None or pack.stated is None else pack.stated


def pack_name(stem: str) -> str:
    """The name of the pack that a file is of, from its name without suffix: `pack1` of `pack1_0-1s`."""
    found = INTERVAL.search(stem)
    return stem if found is None or not stem[: found.start()].strip() else stem[: found.start()].rstrip()


def _packs(folder: Path, suffix: str, names: Sequence[str]) -> Mapping[str, tuple[Path, tuple[str, ...]]]:
    """By the name of each recording with this suffix: its sidecar, and all names of its pack."""
    sidecars = [name for name in names if name.lower().endswith(SUFFIX)]
    if not sidecars:
        return {}
    packs: dict[str, list[str]] = {}
    for name in names:
        stem, dot, end = name.rpartition(".")
        if dot and f".{end.lower()}" == suffix:
            packs.setdefault(pack_name(stem), []).append(name)
    found: dict[str, tuple[Path, tuple[str, ...]]] = {}
    for pack, sidecar in _paired([*packs], sidecars, folder).items():
        files = tuple(packs[pack])
        found.update(dict.fromkeys(files, (folder / sidecar, files)))
    return found


def _paired(packs: Sequence[str], sidecars: Sequence[str], folder: Path) -> dict[str, str]:
    """The sidecar of each pack.

    From the most certain: of the same name; of the same words and numbers (`Pack 01`, `pack1`); one name ends with the
    other (`vtsbw10_pack1`); one contains the other; the sidecar names the recording; one of each is left. A rule
    decides only between what is left, and only where one pack and one sidecar fit nothing else.
    """
    left, free = {pack: _parts(pack) for pack in packs}, {name: _parts(name[: -len(SUFFIX)]) for name in sidecars}
    found = {pack: name for pack in packs for name in sidecars if name[: -len(SUFFIX)] == pack}

    def decide(fits: Callable[[str, str], bool]) -> None:
        for pack, name in found.items():
            left.pop(pack, None)
            free.pop(name, None)
        by_pack = {pack: [name for name in free if fits(pack, name)] for pack in left}
        by_name = {name: [pack for pack, names in by_pack.items() if name in names] for name in free}
        for pack, names in by_pack.items():
            if len(names) == 1 and len(by_name[names[0]]) == 1:
                found[pack] = names[0]

    decide(lambda pack, name: bool(left[pack]) and left[pack] == free[name])
    if len(found) == len(packs) or len(found) == len(sidecars):
        return found
    decide(lambda pack, name: _ends(left[pack], free[name]))
    decide(lambda pack, name: _contains(left[pack], free[name]))
    if len(found) == len(packs) or len(found) == len(sidecars):
        return found
    named = {name: _named(folder / name) for name in free}
    foreign = {name for name, parts in named.items() if parts is None}
    decide(lambda pack, name: bool(left[pack]) and left[pack] == named[name])
    decide(lambda _, name: name not in foreign)
    return found


def _parts(stem: str) -> tuple[str, ...]:
    """Words and numbers of a name, without case, separators and leading zeros."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", stem).casefold())
    return tuple(part.lstrip("0") or "0" if part.isdecimal() else part for part in _PARTS.findall(text))


def _ends(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    short, long = sorted((one, other), key=len)
    return bool(short) and long[-len(short) :] == short


def _contains(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    short, long = sorted((one, other), key=len)
    return bool(short) and any(long[at : at + len(short)] == short for at in range(len(long) - len(short) + 1))


def _named(path: Path) -> tuple[str, ...] | None:
    """Words and numbers of the recording that a sidecar names, () if it names none, None if it is something else."""
    try:
        name = read(path).file_name
    except _ForeignError:
        return None
    except SidecarError:
        return ()
    return () if name is None else _parts(pack_name(PureWindowsPath(name).stem))


def _read_pack(path: Path, files: tuple[str, ...]) -> Pack | None:
    try:
        return Pack(path, files, read(path))
    except _ForeignError:
        return None
    except SidecarError as error:
        return Pack(path, files, None, str(error))


def read(path: Path) -> Sidecar:
    """What a sidecar states.

    Raises:
        SidecarError: it cannot be read, is too large, is no XML, or has a document type declaration.
    """
    try:
        size = inputs.size(path)
        if size > MOST_BYTES:
            raise SidecarError(f"has {size} bytes, more than the {MOST_BYTES} of any sidecar")
        with inputs.opened(path) as here, here.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise SidecarError(f"cannot be opened: {error.strerror}") from error
    except UnreadableFileError as error:
        raise SidecarError(str(error)) from error
    return parse(content)


def parse(content: bytes) -> Sidecar:
    """What the bytes of a sidecar state.

    Raises:
        SidecarError: they are too many, no XML, or have a document type declaration.
    """
    if len(content) > MOST_BYTES:
        raise SidecarError(f"has more than {MOST_BYTES} bytes")
    texts: dict[str, str] = {}
    names: list[str] = []

    def start(name: str, _attributes: object) -> None:
        if not names and name != ROOT:
            raise _ForeignError(name)
        names.append(name)

    def text(part: str) -> None:
        if len(names) == 2:  # noqa: PLR2004  (a child of the root)
            texts[names[1]] = (texts.get(names[1], "") + part)[:MOST_CHARACTERS]

    def refuse(*_: object) -> None:
        raise SidecarError("has a document type declaration: remove <!DOCTYPE ...>")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.CharacterDataHandler = start, text
    parser.EndElementHandler = lambda _: names.pop()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise SidecarError(f"is not XML: {error}") from error
    return _checked({name: value.strip() for name, value in texts.items()})


def _checked(texts: Mapping[str, str]) -> Sidecar:
    """The values of the elements. One that cannot be read does not make the others useless."""
    found: dict[str, float | int | str | None] = {}
    ignored = []
    for name, (field, reader) in _ELEMENTS.items():
        if texts.get(name):
            found[field] = reader(texts[name])
            if found[field] is None:
                ignored.append((name, texts[name][:80]))
    return Sidecar(**found, ignored=tuple(ignored))  # type: ignore[arg-type]


def _number(low: float, high: float) -> Callable[[str], float | None]:
    def reader(text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            return None
        return value if math.isfinite(value) and low <= value <= high else None

    return reader


def _count(text: str) -> int | None:
    value = _number(0, MOST_SAMPLES)(text)
    return int(value) if value is not None and value.is_integer() else None


_ELEMENTS: dict[str, tuple[str, Callable[[str], float | int | str | None]]] = {
    "SampleRate": ("sample_rate", _number(*RATES)),
    "CenterFrequency": ("center_frequency", _number(0, RATES[1])),
    "IFBandwidth": ("bandwidth", _number(*RATES)),
    "ReferenceSNRLevel": ("snr", _number(-MOST_DB, MOST_DB)),
    "ScaleFactor": ("scale_factor", _number(0, 1e300)),
    "DataType": ("sample_format", lambda text: SAMPLE_TYPES.get(text.lower())),
    "SampleCount": ("samples", _count),
    "IQFileName": ("file_name", str),
}
