"""Looks at a folder of labelled data: which part is for training, which classes it has, how it was recorded.

In: a folder with one folder for each class, or with `train`, and perhaps `val` and `test`, that have them. Out:
`Found`, from which `manifest` writes a job.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from rfuav_crds import Iq, parse_quantity
from rfuav_trainer.data.files import chosen, find_classes, in_classes, listed
from rfuav_trainer.data.samples import read_label_file
from rfuav_trainer.signals import recording
from rfuav_trainer.signals.sidecar import Packs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TRAIN = ("train", "training")
VALIDATION = ("val", "valid", "validation")
TEST = ("test", "testing")
LOOKED_AT = 3
"""How many recordings of each class are looked at; the files of a pack are one."""
DEFAULT_RATE = float(parse_quantity(str(Iq.model_fields["sample_rate"].default)))


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
    seen = [path for name in classes for path in islice(_apart(by_class[name], packs), LOOKED_AT)]
    stated = [_stated(path, packs) for path in seen]
    rate = usual(rate for rate, _ in stated if rate)
    sample_format = next((name for _, name in stated if name), None)
    pair = 2 * recording.SAMPLE_TYPES[sample_format or "float32"].itemsize
    seconds = min(path.stat().st_size for path in seen) / pair / (rate or DEFAULT_RATE)
    return Found(folder, train, validation, test, kind, counts, rate, seconds, sample_format)


def usual(rates: Iterable[float]) -> float | None:
    """The most frequent rate, on a tie the lowest; None if there is none."""
    return min((-count, rate) for rate, count in found.items())[1] if (found := Counter(rates)) else None


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


def _stated(path: Path, packs: Packs) -> tuple[float | None, str | None]:
    """Sample rate and sample format of a recording.

    As SigMF metadata, the label file beside it, or the sidecar of its pack say.
    """
    sidecar = packs.stated(path)
    beside: dict[str, Any] = read_label_file(path)
    rate, name = beside.get("sampleRate", sidecar.sample_rate), beside.get("sampleFormat", sidecar.sample_format)
    with suppress(OSError, ValueError, KeyError, TypeError):
        rate = json.loads(path.with_suffix(recording.METADATA).read_bytes())["global"]["core:sample_rate"]
    if not isinstance(rate, int | float) or rate <= 0:
        rate = None
    return None if rate is None else float(rate), name if name in recording.SAMPLE_TYPES else None
