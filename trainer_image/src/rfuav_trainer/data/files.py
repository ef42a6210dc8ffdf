"""Which files of a folder are data: pictures, recordings, one folder for each class.

In: a folder, as people and their file servers fill it. Out: the data files in a stable order, and their kind. What
systems leave in a folder is no data; files of unknown kinds are counted and logged. On a network file system each call
counts: a listing reads the folders and asks for no file's attributes, except behind links.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import structlog

from rfuav_trainer.errors import InputError
from rfuav_trainer.signals import recording, sigmf
from rfuav_trainer.signals.sidecar import Packs
from rfuav_trainer.signals.sigmf_folder import SigmfFolder, look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

log = structlog.get_logger()

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
IQ_SUFFIXES = frozenset({".iq", ".dat", sigmf.DATA, sigmf.ARCHIVE, *recording.SUFFIX_FORMATS})
SUFFIXES = {"image": IMAGE_SUFFIXES, "iq": IQ_SUFFIXES | recording.WITHOUT_FORMAT}
BESIDE = frozenset({".json", ".xml", sigmf.METADATA, sigmf.COLLECTION, ".jsonl", ".parquet"})
"""Files that belong to data files, or list them."""
DATA_SUFFIXES = IMAGE_SUFFIXES | IQ_SUFFIXES
KNOWN = DATA_SUFFIXES | BESIDE
SHOWN = 10
"""How many unknown suffixes are named."""
EVERYTHING = "**/*"
NO_DATA = frozenset({
    "lost+found", "found.000", "$recycle.bin", "recycler", "system volume information", "__macosx", "@eadir", "@tmp",
    "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "~snapshot", "network trash folder", "temporary items",
    "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
})  # fmt: skip
"""What file systems, file servers and desktops put into folders, in lower case; others begin with a dot."""


def is_data(name: str) -> bool:
    """Whether a file or folder of this name may be data: it is not hidden, and no system made it."""
    return not name.startswith(".") and name.lower() not in NO_DATA


def of_kind(files: Sequence[Path], kind: str, sample_format: str = "auto") -> list[Path]:
    """The files of one kind. `.bin` says nothing: it is a recording if the format is stated, or if no other file is.

    SigMF metadata makes any file a recording, and says of which the data are missing: reading those gives an error.
    """
    if kind == "image":
        return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    stated = {
        folder / name for folder, said in sigmf_folders(files).items() for name in (*said.described, *said.missing)
    }
    found = [path for path in files if path.suffix.lower() in IQ_SUFFIXES]
    if sample_format != "auto" or not (found or stated):
        found = [path for path in files if path.suffix.lower() in SUFFIXES["iq"]]
    return sorted({*found, *stated}) if stated else sorted(found)


def sigmf_folders(files: Iterable[Path]) -> dict[Path, SigmfFolder]:
    """What the SigMF metadata among `files` says about the others, by folder; without folders that have none."""
    names: dict[Path, list[str]] = {}
    for path in files:
        names.setdefault(path.parent, []).append(path.name)
    return {
        folder: look(folder, DATA_SUFFIXES, own)
        for folder, own in names.items()
        if any(name.endswith(sigmf.METADATA) for name in own)
    }


def listed(root: Path, pattern: str = EVERYTHING, *, where: str) -> list[Path]:
    """The files below `root` that match, sorted by path. `root` may also be a single file.

    Raises:
        InputError: `root` does not exist, or the pattern is no glob.
        PermissionError: a folder cannot be read; its files must not be missing silently.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise InputError(f"{where}: {root} does not exist: put the data there or correct the path")
    matches = _matcher(pattern, where)
    return sorted(p for p in _walk(root) if matches(p.relative_to(root).as_posix()))


def find_files(
    root: Path, pattern: str = EVERYTHING, kind: str = "auto", *, where: str, sample_format: str = "auto"
) -> tuple[list[Path], str]:
    """The data files below `root` that match, sorted by path, and their format (image or iq).

    Args:
        root: a folder, or a single file.
        pattern: glob of the relative paths.
        kind: image, iq, or auto: whichever there is.
        where: the field that names the folder, for messages.
        sample_format: of the recordings, see `of_kind`.

    Raises:
        InputError: nothing was found, or both formats were and none was chosen.
        PermissionError: a folder cannot be read.
    """
    return chosen(listed(root, pattern, where=where), root, pattern, kind, where=where, sample_format=sample_format)


def chosen(
    found: Sequence[Path],
    root: Path,
    pattern: str = EVERYTHING,
    kind: str = "auto",
    *,
    where: str,
    sample_format: str = "auto",
) -> tuple[list[Path], str]:
    """As `find_files`, of files that are listed already.

    Raises:
        InputError: nothing was found, or both formats were and none was chosen.
    """
    images, recordings = of_kind(found, "image"), of_kind(found, "iq", sample_format)
    if kind == "auto" and images and sample_format == "auto":
        recordings = [path for path in recordings if path.suffix.lower() not in recording.WITHOUT_FORMAT]
    known = {*images, *recordings}
    ignored = Counter(
        suffix or "none" for path in found if path not in known and (suffix := path.suffix.lower()) not in KNOWN
    )
    if ignored:
        log.warning("ignoring files of unknown kinds", folder=str(root), files=dict(ignored.most_common(SHOWN)))
    alone = [name for said in sigmf_folders(found).values() for name in said.without_data]
    if alone:
        log.info("leaving out SigMF metadata without data (core:metadata_only)", folder=str(root), files=len(alone))
    if kind == "auto":
        if images and recordings:
            raise InputError(
                f"{where}: {root} has {len(images)} images and {len(recordings)} recordings: write format image or iq",
            )
        kind = "iq" if recordings else "image"
    data = recordings if kind == "iq" else images
    if not data:
        kinds = ", ".join(sorted(SUFFIXES[kind]))
        there = ", ".join(f"{count} {suffix}" for suffix, count in ignored.most_common(SHOWN))
        raise InputError(
            f"{where}: no {kinds} files in {root} (pattern {pattern}{'; there are ' * bool(there)}{there}): "
            "put the data there or correct the path"
        )
    return data, kind


def with_sidecars(files: Mapping[str, Path]) -> dict[str, Path]:
    """`files` by relative name, and the sidecars of the packs that the recordings among them are of."""
    packs, found = Packs(), dict(files)
    for name, path in files.items():
        pack = packs.of(path) if path.suffix.lower() not in IMAGE_SUFFIXES else None
        if pack is not None:
            found[PurePosixPath(name).with_name(pack.path.name).as_posix()] = pack.path
    return found


def find_classes(root: Path, *, where: str) -> list[str]:
    """The class names: the sorted names of the folders in `root`.

    Raises:
        InputError: the folder is missing, or contains fewer than two class folders.
    """
    if not root.is_dir():
        raise InputError(
            f"{where}: {root} is not a folder: create one folder for each class there, as in {root}/CLASS/a.png"
        )
    with os.scandir(root) as entries:
        classes = sorted(entry.name for entry in entries if is_data(entry.name) and entry.is_dir())
    if len(classes) < 2:  # noqa: PLR2004  (a classifier needs two classes)
        raise InputError(
            f"{where}: {root} contains {len(classes)} class folders ({', '.join(classes) or 'none'}): "
            f"at least two are needed, as in {root}/CLASS/a.png",
        )
    for name in classes:
        check_text(name, where)
    return classes


def check_text(name: str, where: str) -> None:
    """Raise InputError if the name of a class is not valid UTF-8: it is written to UTF-8 files."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: the name of the class {name!a} is not UTF-8: rename it") from error


def in_classes(files: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    """The files by the name of the folder in `root` that contains them."""
    found: dict[str, list[Path]] = {}
    depth = len(root.parts)
    for path in files:
        if len(path.parts) > depth + 1:
            found.setdefault(path.parts[depth], []).append(path)
    return found


def _matcher(pattern: str, where: str) -> Callable[[str], object]:
    """Whether a relative path matches the glob `pattern`."""
    if pattern == EVERYTHING:
        return bool
    from fsspec.utils import glob_translate  # type: ignore[import-untyped]  # noqa: PLC0415  (most jobs have no pattern)

    try:
        return re.compile(glob_translate(pattern)).match
    except (ValueError, re.error) as error:
        raise InputError(f"{where}: pattern {pattern!r} is not a glob: {error}") from error


def _walk(root: Path) -> Iterator[Path]:
    """The files below `root`. Follows links, but not in circles.

    Includes dangling links, so that reading them gives an error; not pipes and devices, which could block a reader.
    """
    real = os.path.realpath(root)
    waiting = [(str(root), real, frozenset({real}))]
    while waiting:
        folder, real, come_by = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_data(entry.name):
                    continue
                if entry.is_file(follow_symlinks=False):  # the folder says so; only a link has to be looked at
                    yield Path(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    inside = f"{real.rstrip('/')}/{entry.name}"
                    waiting.append((entry.path, inside, come_by | {inside}))
                elif entry.is_symlink():
                    inside = os.path.realpath(entry.path)
                    if not os.path.isdir(inside):  # noqa: PTH112  (False for a link to itself)
                        if os.path.isfile(inside) or not os.path.exists(inside):  # noqa: PTH110, PTH113
                            yield Path(entry.path)
                    elif inside not in come_by:
                        waiting.append((entry.path, inside, come_by | {inside}))
