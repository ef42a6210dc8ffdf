"""Looks at a folder of labelled data: which part is for training, which classes it has, how it was recorded.

In: a folder with one folder for each class, or with `train`, and perhaps `val` and `test`, that have them. Out:
`Found`, from which `manifest` writes a job.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from rfuav_crds import parse_quantity
from rfuav_crds.iq import DEFAULT_SAMPLE_RATE
from rfuav_trainer.data.files import chosen, find_classes, in_classes, listed, sigmf_folders
from rfuav_trainer.data.samples import info_of, read_label_file, usual
from rfuav_trainer.errors import UnreadableFileError
from rfuav_trainer.signals import recording
from rfuav_trainer.signals.sidecar import Packs
from rfuav_trainer.signals.sigmf_folder import SigmfFolder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TRAIN = ("train", "training")
VALIDATION = ("val", "valid", "validation")
TEST = ("test", "testing")
LOOKED_AT = 3
"""How many recordings of each class are looked at; the files of a pack are one."""
DEFAULT_RATE = float(parse_quantity(DEFAULT_SAMPLE_RATE))


@dataclass(frozen=True)
class Found:
    """A folder of labelled data.

    Attributes:
        folder: as given, absolute.
        train: the name of the folder in it with the training data; empty: the folder itself.
        validation, test: the names of those with other data; empty if there are none.
        kind: image or iq.
        files: number of training files by class.
        sample_rate: of recordings, in samples per second; None if no file says it.
        seconds: the shortest of the recordings that were looked at, at that rate; None for images.
        sample_format: of recordings; None if no file says it.
    """

    folder: Path
    train: str
    validation: str
    test: str
    kind: str
    files: dict[str, int]
    sample_rate: float | None = None
    seconds: float | None = None
    sample_format: str | None = None


def look(folder: Path) -> Found:
    """What is in a folder of labelled data.

    Raises:
        InputError: it has no two class folders, no files that can be read, or images and recordings.
    """
    folder = folder.absolute()
    train, validation, test = (_first(folder, names) for names in (TRAIN, VALIDATION, TEST))
    source = folder / train
    classes = find_classes(source, where=str(folder))
    there = listed(source, where=str(folder))
    data, kind = chosen(there, source, where=str(folder))
    by_class = in_classes(data, source)
    for name in classes:
        if name not in by_class:
            chosen((), source / name, kind=kind, where=str(folder))
    counts = {name: len(by_class[name]) for name in classes}
    if not train:
        validation = test = ""
    if kind == "image":
        return Found(folder, train, validation, test, kind, counts)
    packs = Packs(there)
    paths = [path for name in classes for path in islice(_apart(by_class[name], packs), LOOKED_AT)]
    beside = sigmf_folders(there)
    seen = [_looked_at(path, packs, beside.get(path.parent, SigmfFolder())) for path in paths]
    rate = usual(one.rate for one in seen if one.rate)
    sample_format = next((one.sample_format for one in seen if one.sample_format), None)
    samples = min((one.samples for one in seen if one.samples), default=0)
    seconds = samples / (rate or DEFAULT_RATE)
    return Found(folder, train, validation, test, kind, counts, rate, seconds, sample_format)


def _first(folder: Path, names: tuple[str, ...]) -> str:
    return next((name for name in names if (folder / name).is_dir()), "")


def _apart(files: Iterable[Path], packs: Packs) -> Iterator[Path]:
    """The files, of each pack only the first."""
    known = set()
    for path in files:
        pack = packs.of(path)
        if pack is None or pack.path not in known:
            yield path
        if pack is not None:
            known.add(pack.path)


@dataclass(frozen=True)
class _Seen:
    """What is known of a recording: rate in Hz and format if a file says them, and the samples of its longest part."""

    rate: float | None
    sample_format: str | None
    samples: int


def _looked_at(path: Path, packs: Packs, said: SigmfFolder) -> _Seen:
    """What SigMF metadata, the label file, or the sidecar of its pack say about the first recording in a file."""
    sidecar = packs.stated(path)
    beside: dict[str, Any] = read_label_file(path)
    rate, name = beside.get("sampleRate", sidecar.sample_rate), beside.get("sampleFormat", sidecar.sample_format)
    name = name if name in recording.SAMPLE_TYPES else None
    try:
        info = info_of(path, said, name or recording.AUTO)
    except UnreadableFileError:
        pair = 2 * recording.SAMPLE_TYPES[name or "float32"].itemsize
        samples = path.stat().st_size // pair if path.is_file() else 0
    else:
        rate = info.rate_hz or rate
        samples = max(capture.samples for capture in info.captures)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0:
        rate = None
    return _Seen(None if rate is None else float(rate), name, samples)
