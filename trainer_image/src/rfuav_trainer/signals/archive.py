"""SigMF archives: tar files with recordings, which are read where they lie, without extracting them.

In: a `.sigmf` file. Out: where each recording in it begins and ends, and its metadata. An archive comes from outside:
what a tar file may do to who extracts it (links, paths that lead out of it, endless names) is refused member by member.
"""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

import structlog

from rfuav_trainer.errors import UnreadableFileError, as_unreadable
from rfuav_trainer.signals import sigmf
from rfuav_trainer.signals.sigmf_folder import gather
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger()

MOST_MEMBERS = 10_000
MOST_NAME = 1024
"""Characters in the name of a member."""
MOST_HEADER = 2**20
"""Bytes of one extended header, which tarfile reads whole."""
SHOWN = 100
"""Characters of the name of a refused member."""
OURS = (sigmf.METADATA, sigmf.DATA, sigmf.COLLECTION)
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""What compressed files begin with."""


@dataclass(frozen=True)
class Inside:
    """A recording in an archive: its metadata, and where its data begin in the archive and how long they are, in bytes.

    `collection` is the name of the collection that lists it, without a suffix; empty if none does.
    """

    metadata: sigmf.Metadata
    said_by: str
    offset: int
    size: int
    collection: str = ""


@dataclass
class Archive:
    """What is in an archive.

    Attributes:
        recordings: by the name of their data.
        refused: recordings and members that cannot be used, by name, with the reason.
    """

    recordings: dict[str, Inside] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class _Bounded:
    """The file as tarfile reads it: no extended header may fill the memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, count: int) -> bytes:
        if count > MOST_HEADER:
            raise tarfile.ReadError(f"a header of {count} bytes, {MOST_HEADER} are allowed")
        return self._stream.read(count)


def read(path: Path) -> Archive:
    """What is in the archive at `path`.

    Raises:
        UnreadableFileError: it cannot be opened, is no tar file, is compressed, or has no recording and nothing that
            was refused.
    """
    with as_unreadable("cannot be read"), inputs.opened(path) as here, here.open("rb") as stream:
        head = stream.read(8)
        packed = next((name for begin, name in COMPRESSED.items() if head.startswith(begin)), None)
        if packed is not None:
            raise UnreadableFileError(f"is compressed ({packed}): decompress it; a SigMF archive is a plain tar file")
        stream.seek(0)
        found = Archive()
        members = _members(stream, found.refused)
        _recordings(stream, members, found)
    if not found.recordings and not found.refused:
        raise UnreadableFileError("is an archive without a recording: it needs .sigmf-meta and .sigmf-data files")
    return found


def _members(stream: IO[bytes], refused: dict[str, str]) -> dict[str, tarfile.TarInfo]:
    """The files in the archive that may be used, by name."""
    size = os.fstat(stream.fileno()).st_size
    found: dict[str, tarfile.TarInfo] = {}
    strange: Counter[str] = Counter()
    last, ended = "its beginning", ""
    offset, count = -1, 0
    try:
        with tarfile.TarFile(fileobj=_Bounded(stream), encoding="utf-8", errors="surrogateescape") as tar:  # type: ignore[arg-type]
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]
                count += 1
                if member.offset <= offset or member.size < 0 or count > MOST_MEMBERS:
                    ended = "a header is damaged" if count <= MOST_MEMBERS else f"more than {MOST_MEMBERS} members"
                    break
                offset = member.offset
                name = member.name.removeprefix("./")
                last = name if len(name) <= SHOWN else f"{name[:SHOWN]}... ({len(refused)})"
                problem = _problem(member, name, size, found)
                if problem and name.endswith(OURS):
                    refused[last] = problem
                elif problem:
                    strange[problem] += 1
                elif member.isreg():
                    found[name] = member
            stream.seek(min(tar.offset, size))
        if not ended and stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
            ended = "a header is damaged"
    except (tarfile.TarError, RecursionError, ValueError, OverflowError) as error:
        if offset < 0:
            raise UnreadableFileError(f"is not a tar file: {error}") from error
        if last not in refused:
            ended = str(error)
    if ended:
        refused[f"after {last}"] = f"the archive cannot be read further: {ended}"
    if strange:
        log.warning("ignoring members of an archive", archive=stream.name, members=dict(strange))
    return found


def _problem(member: tarfile.TarInfo, name: str, size: int, found: dict[str, tarfile.TarInfo]) -> str:
    """Why a member is not used; empty if it is."""
    if member.isdir():
        return ""
    if len(name) > MOST_NAME:
        return f"its name has {len(name)} characters, {MOST_NAME} are allowed"
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
        return "its path leads out of the archive"
    if not member.isreg() or member.issparse():
        return "is a link, a device, or sparse: only plain files are read"
    if name in found:
        return "is in the archive twice"
    if member.offset_data + member.size > size:
        return f"is incomplete: the archive ends within its {member.size} bytes"
    return ""


def _recordings(stream: IO[bytes], members: dict[str, tarfile.TarInfo], found: Archive) -> None:
    """Fill in the recordings that `members` make up, and refuse those that are not whole."""
    collections = [name for name in members if name.endswith(sigmf.COLLECTION)]
    listed: dict[str, str] = {}
    used = set()
    for name in collections:
        try:
            gather(sigmf.streams(_content(stream, members[name], name), name), PurePosixPath(name).stem, listed)
        except UnreadableFileError as error:
            found.refused[name] = str(error)
    for name, member in members.items():
        if not name.endswith(sigmf.METADATA):
            continue
        try:
            stated = sigmf.parse(_content(stream, member, name), name)
        except UnreadableFileError as error:
            found.refused[name] = str(error)
            used.add(name.removesuffix(sigmf.METADATA) + sigmf.DATA)
            continue
        stem = name.removesuffix(sigmf.METADATA)
        data = str(PurePosixPath(stem).with_name(stated.dataset)) if stated.dataset else stem + sigmf.DATA
        if data in members:
            used.add(data)
            where = members[data]
            group = listed.get(PurePosixPath(stem).name, "")
            found.recordings[data] = Inside(stated, name, where.offset_data, where.size, group)
        elif not stated.metadata_only and data not in found.refused:
            found.refused[data] = f"is not in the archive, but {name} describes it"
    for name in members:
        if name.endswith(sigmf.DATA) and name not in used:
            found.refused[name] = "has no metadata in the archive"


def _content(stream: IO[bytes], member: tarfile.TarInfo, name: str) -> bytes:
    sigmf.bounded(member.size, name)
    stream.seek(member.offset_data)
    return stream.read(member.size)
