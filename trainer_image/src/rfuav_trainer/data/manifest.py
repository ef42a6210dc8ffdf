"""Manifests: JSON Lines or Parquet files that list path, label, and optionally SNR and recording of each file.

In: `train.jsonl` or `train.parquet`, with paths relative to its folder. Out: checked rows, and the samples of a
training; `inputs` has those of an inference.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rfuav_trainer.data.files import SUFFIXES as SAMPLE_SUFFIXES
from rfuav_trainer.data.files import check_text
from rfuav_trainer.data.labels import conditions, in_class
from rfuav_trainer.data.recordings import MANIFEST, Recording, recognise
from rfuav_trainer.data.samples import Listing, list_samples, read_label_file, recording_of
from rfuav_trainer.errors import InputError
from rfuav_trainer.signals.sidecar import Packs
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from rfuav_trainer.signals.spectrogram import SpectrogramParameters

SUFFIXES = (".jsonl", ".parquet")
COLUMNS = ("path", "label", "snr", "recording")
MOST_DB = 1000
"""Larger SNRs, infinite ones, and NaN are errors."""
MISSING = "does not exist"
"""The reason for a listed file that is missing."""


@dataclass(frozen=True)
class Row:
    """One file of a data set.

    Attributes:
        path: relative to the manifest's folder, with forward slashes.
        label: name of its class; empty when not stated.
        snr: in dB; None when not stated.
        recording: name of the recording, which a split keeps together; None when not stated.
    """

    path: str
    label: str
    snr: float | None
    recording: str | None


def is_manifest(path: Path) -> bool:
    """Whether the path has the suffix of a manifest and is not a folder."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def read(path: Path, *, where: str, labelled: bool = True) -> list[Row]:
    """The rows of a manifest, sorted by path. Ignores other columns.

    Args:
        path: the file.
        where: the field that names it, for messages.
        labelled: whether every row must have a label.

    Raises:
        InputError: the file is missing or not a manifest, or a row is invalid; the message names the row.
    """
    if not path.is_file():
        raise InputError(f"{where}: {path} does not exist: put the manifest there or correct the path")
    rows: dict[str, Row] = {}
    with inputs.opened(path) as here:
        for number, content in enumerate(_records(here, where), start=1):
            at = f"{where}: {path.name}, row {number}"
            row = _checked(content, at, labelled=labelled)
            if row.path in rows:
                raise InputError(f"{at}: {row.path} is listed twice: list every file once")
            rows[row.path] = row
    if not rows:
        raise InputError(f"{where}: {path} is empty")
    inputs.name(path.parent, rows)
    return [rows[name] for name in sorted(rows)]


def classes(rows: Iterable[Row], *, where: str) -> list[str]:
    """The sorted labels; InputError if there are fewer than two."""
    found = sorted({row.label for row in rows})
    if len(found) < 2:  # noqa: PLR2004  (a classifier needs two classes)
        raise InputError(f"{where}: the manifest has a single label ({found[0]}): at least two are needed")
    return found


def suffix(row: Row) -> str:
    """The suffix of its file in lower case, such as `.png`."""
    return f".{row.path.rpartition('.')[2].lower()}"


def kind_of(rows: Iterable[Row], wanted: str, *, where: str) -> str:
    """Image or iq: `wanted`, or determined from the suffixes.

    Raises:
        InputError: a file is neither, no file is `wanted`, or there are both and none was chosen.
    """
    kinds: dict[str, str] = {}
    for row in rows:
        kind = next((kind for kind, suffixes in SAMPLE_SUFFIXES.items() if suffix(row) in suffixes), None)
        if kind is None:
            raise InputError(f"{where}: {row.path} has the suffix of neither a picture nor a recording: remove the row")
        kinds.setdefault(kind, row.path)
    if wanted not in {"auto", *kinds}:
        raise InputError(f"{where}: the manifest has no files of format {wanted}: write {next(iter(kinds))}, or auto")
    if wanted == "auto" and len(kinds) > 1:
        raise InputError(
            f"{where}: the manifest lists pictures ({kinds['image']}) and recordings ({kinds['iq']}): "
            "write format image or iq"
        )
    return next(iter(kinds)) if wanted == "auto" else wanted


def is_there(path: Path) -> bool:
    """Whether a listed file exists; False too for an impossible file name."""
    return os.path.isfile(path)  # noqa: PTH113  (Path.is_file raises on too long a name)


def list_rows(
    path: Path,
    rows: Sequence[Row],
    labels: Sequence[str],
    kind: str,
    spectrogram: SpectrogramParameters | None,
    *,
    where: str,
    pattern: str | None = None,
) -> Listing:
    """The samples of the rows of `kind`: one for a picture, one for each complete frame of a recording.

    Raises:
        InputError: no file of a class can be read, or `pattern` does not find the recording of a file.
        InvalidConfigurationError: `pattern` is not a regular expression.
    """
    wanted = {row.path: row for row in rows if suffix(row) in SAMPLE_SUFFIXES[kind]}
    root = path.parent
    missing = {name: MISSING for name in wanted if not is_there(root / name)}
    found = [row for name, row in wanted.items() if name not in missing]
    listing = list_samples([root / row.path for row in found], root, spectrogram if kind == "iq" else None)
    index = {name: number for number, name in enumerate(labels)}
    inputs.fetch_ahead((root / row.path).with_suffix(".json") for row in found if row.snr is None)
    packs = Packs()
    levels = {row.path: _snr(row, root, packs) for row in found}
    groups = _recordings([*wanted.values()], kind, pattern)
    samples = [
        replace(s, label=index[row.label], group=told.name, recognised_by=told.by, snr=levels[s.file])
        for s in listing.samples
        for row, told in ((wanted[s.file], recording_of(s, groups[s.file])),)
    ]
    unreadable = {**missing, **listing.unreadable}
    empty = sorted(set(range(len(labels))) - {s.label for s in samples})
    if empty:
        reason = next(iter(unreadable.items()), ("no file", f"none has format {kind}"))
        raise InputError(f"{where}: no file of class {labels[empty[0]]} can be read (for example {': '.join(reason)})")
    return Listing(samples, unreadable, listing.files + len(missing), listing.packs)


def _recordings(rows: Sequence[Row], kind: str, pattern: str | None) -> dict[str, Recording]:
    """The recording of each row, by its path: as stated, else as in a data set with one folder for each class.

    A folder with several classes is not a recording.
    """
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(_folder(row.path), set()).add(row.label)
    below = {row.path: _below_class(row) for row in rows if row.recording is None}
    loose = {name for path, name in below.items() if len(labels[_folder(path)]) > 1}
    found = recognise(dict.fromkeys(below.values()), kind, pattern=pattern, loose=loose)
    stated = {row.path: Recording(row.recording, MANIFEST) for row in rows if row.recording is not None}
    return stated | {path: found[name] for path, name in below.items()}


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _below_class(row: Row) -> str:
    """The path from the class folder on: `2024/A/r1/0.png` of class A is `A/r1/0.png`."""
    parts = row.path.split("/")
    return "/".join(parts[parts.index(row.label) :]) if row.label in parts[:-1] else f"{row.label}/{row.path}"


def _snr(row: Row, root: Path, packs: Packs) -> float | None:
    """The SNR of the row, else of the label file, of the file name, or of the sidecar of the pack."""
    if row.snr is not None:
        return row.snr
    path = root / row.path
    otherwise = packs.stated(path).snr if suffix(row) in SAMPLE_SUFFIXES["iq"] else None
    return conditions(in_class(row.label, row.path), read_label_file(path), otherwise)[0]


def _records(path: Path, where: str) -> Iterator[Any]:
    if path.suffix.lower() == ".jsonl":
        yield from _json_lines(path, where)
        return
    from pyarrow import ArrowException  # noqa: PLC0415  (half a second to import)
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415

    try:
        with ParquetFile(path) as opened:
            there = [name for name in COLUMNS if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(columns=there):
                yield from batch.to_pylist()
    except (ArrowException, OSError, ValueError, MemoryError) as error:
        raise InputError(f"{where}: {path} is not a complete Parquet file: {error}") from error


def _json_lines(path: Path, where: str) -> Iterator[Any]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where}: {path.name}, line {number} is not JSON: {error}") from error


def _checked(content: Any, where: str, *, labelled: bool) -> Row:
    if not isinstance(content, dict):
        raise InputError(f"{where}: write an object with path{' and label' if labelled else ''}")
    path, label, snr = content.get("path"), content.get("label"), content.get("snr")
    recording = content.get("recording")
    if not isinstance(path, str) or not {"", ".", ".."}.isdisjoint(path.split("/")) or "\\" in path:
        raise InputError(f"{where}: path {path!r}: write a path below the manifest's folder, without '..'")
    if (labelled or label is not None) and (not isinstance(label, str) or not label):
        raise InputError(
            f"{where}: label {label!r}: write the name of the class{'' if labelled else ', or leave it out'}"
        )
    check_text(label or "", where)
    if snr is not None and (isinstance(snr, bool) or not isinstance(snr, int | float) or not abs(snr) <= MOST_DB):
        raise InputError(f"{where}: snr {snr!r}: write a number of dB, or leave it out")
    if recording is not None and not isinstance(recording, str):
        raise InputError(f"{where}: recording {recording!r}: write a name, or leave it out")
    return Row(path, label or "", None if snr is None else float(snr), recording or None)
