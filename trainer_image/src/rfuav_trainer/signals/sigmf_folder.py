"""What the SigMF files of a folder say about its other files.

In: a folder. Out: which data other metadata describes than that of the same name, which data are missing, and which
recordings are streams of one collection. Only metadata without data of the same name is read.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

import structlog

from rfuav_trainer.errors import UnreadableFileError, as_unreadable
from rfuav_trainer.signals import recording, sigmf
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

log = structlog.get_logger()

NO_DATA = frozenset({"", ".json", ".xml", ".jsonl", ".parquet", sigmf.METADATA, sigmf.COLLECTION, sigmf.ARCHIVE})
"""Suffixes of files that a `.sigmf-meta` of the same name does not describe."""


@dataclass
class SigmfFolder:
    """What SigMF files say about the other files of their folder; names are those of files in it.

    Attributes:
        described: data that other metadata describes than that of its name, with the name of the metadata.
        missing: data that is not there, with the name of the metadata that describes it.
        without_data: metadata that has no data on purpose.
        streams: names of recordings without a suffix, with the name of the collection that lists them, without suffix.
        collections: names of the collections.
    """

    described: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    without_data: list[str] = field(default_factory=list)
    streams: dict[str, str] = field(default_factory=dict)
    collections: list[str] = field(default_factory=list)

    def metadata(self, name: str) -> str | None:
        """The metadata that describes the data `name`, if it has another name."""
        return self.described.get(name) or self.missing.get(name)

    def beside(self, name: str) -> list[str]:
        """The SigMF files that belong to the data `name` and do not have its name."""
        own = [self.described[name]] if name in self.described else []
        collection = self.streams.get(PurePath(own[0] if own else name).stem)
        return [*own, *(each for each in self.collections if collection is not None)]

    def collection(self, name: str) -> str:
        """The collection that lists the recording with the data `name`; empty if none does."""
        return self.streams.get(PurePath(self.described.get(name, name)).stem, "")


def look(folder: Path, known: Collection[str], names: Iterable[str] | None = None) -> SigmfFolder:
    """What the SigMF files of `folder` say.

    Args:
        folder: where they are.
        known: suffixes in lower case that make a file data. Metadata of the same name is theirs, and is not read here.
        names: of the files in the folder, if the caller has listed them.
    """
    if names is None:
        with suppress(OSError), os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    there = set(names or ())
    beside: dict[str, list[str]] = {}
    for name in there:
        if PurePath(name).suffix.lower() not in NO_DATA:
            beside.setdefault(PurePath(name).stem, []).append(name)
    found = SigmfFolder()
    for name in sorted(name for name in there if name.endswith(sigmf.METADATA)):
        own = sorted(beside.get(PurePath(name).stem, ()))
        if not any(PurePath(other).suffix.lower() in known for other in own):
            _look_at(folder / name, own, there, found)
    for name in sorted(name for name in there if name.endswith(sigmf.COLLECTION)):
        found.collections.append(name)
        try:
            gather(sigmf.streams(_content(folder / name), name), PurePath(name).stem, found.streams)
        except UnreadableFileError as error:
            log.warning("ignoring a collection that cannot be read", file=str(folder / name), problem=str(error))
    return found


def gather(streams: Iterable[str], collection: str, found: dict[str, str]) -> None:
    """Note the streams of a collection. Collections that share a stream count as one."""
    names = [*streams]
    known = {found[name] for name in names if name in found}
    first = min({collection, *known})
    found.update({name: first for name, other in found.items() if other in known})
    found.update(dict.fromkeys(names, first))


def _look_at(path: Path, own: Sequence[str], there: Collection[str], found: SigmfFolder) -> None:
    """Look at metadata; `own` are files of the same name whose suffix does not say that they are data."""
    conforming = f"{path.stem}{sigmf.DATA}"
    try:
        stated = sigmf.parse(_content(path), path.name)
    except UnreadableFileError:
        found.missing[conforming] = path.name  # whoever reads it gets the error
        return
    unnamed = next((name for name in own if PurePath(name).suffix.lower() in recording.WITHOUT_FORMAT), conforming)
    data = stated.dataset or unnamed
    if data in there and data in found.described:
        log.warning("ignoring a second description of the same data", file=str(path), data=data)
    elif data in there:
        found.described[data] = path.name
    elif stated.metadata_only:
        found.without_data.append(path.name)
    elif stated.dataset or not own:
        found.missing[data] = path.name


def _content(path: Path) -> bytes:
    with as_unreadable(f"{path.name} cannot be read"), inputs.opened(path) as here:
        sigmf.bounded(here.stat().st_size, path.name)
        return here.read_bytes()
