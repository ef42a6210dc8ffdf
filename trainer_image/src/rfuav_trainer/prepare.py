"""Prepares data sets: splits them, adds augmented copies of pictures, crops pictures.

In: a folder with one folder for each class. Out: another folder of the same kind, which appears when it is complete.
The source is never changed, and the same seed gives the same files.
"""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import structlog
import torch
from PIL import Image

from rfuav_trainer.data import augment_pictures
from rfuav_trainer.data.dataset import Unreadable
from rfuav_trainer.data.files import DATA_SUFFIXES, find_classes, find_files
from rfuav_trainer.data.images import Room, decoded, in_colours, whole_machine
from rfuav_trainer.data.labels import without_conditions
from rfuav_trainer.data.samples import list_labelled
from rfuav_trainer.data.splitting import split as split_samples
from rfuav_trainer.errors import InputError, InvalidConfigurationError, UnreadableFileError, as_unreadable, naming
from rfuav_trainer.signals.sidecar import Packs
from rfuav_trainer.signals.sigmf import METADATA
from rfuav_trainer.signals.sigmf_folder import SigmfFolder, look
from rfuav_trainer.storage.files import fitting, replace_folder, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Work = Callable[[Path, str], Iterator[tuple[str, Image.Image]]]
    """The results for the picture of a path and a name: their names and themselves."""

    from rfuav_trainer.process.stop import StopSignal

log = structlog.get_logger()
T = TypeVar("T")

MARK = ".prepared.json"
BESIDE = (".json", METADATA)
"""Suffixes of the files that belong to a file: conditions, SigMF metadata."""
JPEG_QUALITY = 95
NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}
"""Different volumes, no hard links on the file system, or too many of them."""
COPY = ".copy-"
"""Separates the name of a picture from the number of its copy."""
CHANGES = sorted(augment_pictures.PICTURES.keys() - augment_pictures.MASKS)
"""Masks are left out: they help only when every epoch draws others."""


@dataclass(frozen=True)
class Task:
    """One preparation.

    Attributes:
        source: folder to read.
        output: folder to create.
        overwrite: whether to replace an output that prepare created before.
        stop: checked between files.
        error_threshold: fraction of unreadable pictures above which the preparation fails.
        report: called with the number of files that are done, and of all.
    """

    source: Path
    output: Path
    overwrite: bool
    stop: StopSignal
    error_threshold: float = 0.05
    report: Callable[[int, int], None] = lambda _done, _total: None


@dataclass
class Made:
    """The result: number of files written, in total and by part; unreadable files with the reason."""

    files: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def split(
    task: Task,
    *,
    fraction: float,
    seed: int,
    link: bool,
    pattern: str | None = None,
    test: float = 0.0,
    validation_folder: str = "val",
) -> Made:
    """Copy (or hard-link) the source to `train/` and `val/`: whole recordings, every class and SNR on both sides.

    Args:
        task: source and output.
        fraction: of every class that goes to the validation data.
        seed: decides which recordings.
        link: make hard links.
        pattern: finds the recording of a path.
        test: fraction of every class that goes to a third part, `test/`; 0: there is none.
        validation_folder: name of the folder of validation data.

    Raises:
        InputError: a class has a single recording.
        InvalidConfigurationError: the output is not allowed there.
    """
    if not 0 < fraction < 1:
        raise InvalidConfigurationError(f"--validation {fraction}: write a fraction between 0 and 1, as in 0.2")
    if not 0 <= test < 1 - fraction:
        raise InvalidConfigurationError(
            f"--test {test}: write a fraction that leaves training data beside --validation {fraction}, as in 0.1"
        )
    if validation_folder in ("", ".", "..", "train", "test") or "/" in validation_folder:
        raise InvalidConfigurationError(f"--validation-folder {validation_folder}: write a name such as valid")
    where = str(task.source)
    classes = find_classes(task.source, where=where)
    _, kind = find_files(task.source, where=where)
    listing = list_labelled(task.source, classes, kind, None, where=where, pattern=pattern)
    rest, tests = split_samples(listing.samples, classes, test, seed, where="--test") if test else (listing.samples, [])
    train, validation = split_samples(rest, classes, fraction / (1 - test), seed, where="--validation")
    parts = {"train": train, validation_folder: validation, **({"test": tests} if test else {})}
    made = Made(parts={part: len(files) for part, files in parts.items()}, unreadable=listing.unreadable)
    Unreadable(made.unreadable).check(task.error_threshold, files=listing.files, frames=0)
    packs = Packs()
    with _output(task, {"split": fraction, "seed": seed}) as folder:
        for part, sample in _shown(task, [(part, sample) for part, files in parts.items() for sample in files]):
            target = folder / part / sample.name
            target.parent.mkdir(parents=True, exist_ok=True)
            pack = packs.of(sample.path) if kind == "iq" else None
            for path in (sample.path, *_beside(sample.path), *([] if pack is None else [pack.path])):
                _bring(path, target.with_name(path.name), link=link)
            made.files += 1
    return made


def augmented(task: Task, *, changes: Sequence[str], copies: int, seed: int) -> Made:
    """Write every picture and `copies` augmented copies to a folder of their own, which a later split keeps together.

    Each copy has at least one of the changes; the others have a probability of one half. The random numbers depend on
    the seed, the name of the picture and the number of the copy.

    Raises:
        InvalidConfigurationError: a picture in the source has the name of a copy.
    """
    unknown = sorted(set(changes) - set(CHANGES))
    if unknown or not changes:
        raise InvalidConfigurationError(f"--change {', '.join(unknown) or 'is missing'}: write {', '.join(CHANGES)}")
    if copies < 1:
        raise InvalidConfigurationError(f"--copies {copies}: write 1 or more")
    wanted = [name for name in CHANGES if name in changes]
    room = whole_machine()

    def change(path: Path, name: str) -> Iterator[tuple[str, Image.Image]]:
        original = _opened(path, room, colours=True)
        pixels = torch.from_numpy(np.asarray(original).copy()).permute(2, 0, 1)[None].float() / 255
        parent, _, file = name.rpartition("/")
        alone = not any(map(without_conditions, parent.split("/")[1:]))  # else the recording already has a folder
        inside = f"{name if alone else parent}/"
        yield f"{inside}{file}", original
        for number in range(1, copies + 1):
            random = np.random.default_rng([seed, zlib.crc32(os.fsencode(name)), number])
            yield f"{inside}{fitting(path.stem, f'{COPY}{number}{path.suffix}')}", _changed(pixels, wanted, random)

    return _pictures(task, change, {"augment": wanted, "copies": copies, "seed": seed})


def read_box(text: str) -> tuple[int, int, int, int]:
    """Parse LEFT,TOP,WIDTH,HEIGHT.

    Raises:
        InvalidConfigurationError: it is not a box.
    """
    steps = text.split(",")
    numbers = [int(step) for step in steps if step.strip().isdecimal()]
    if len(steps) != 4 or len(numbers) != 4 or 0 in numbers[2:]:  # noqa: PLR2004  (the four numbers of a box)
        raise InvalidConfigurationError(f"--box {text}: write LEFT,TOP,WIDTH,HEIGHT in pixels, as in 80,60,496,370")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def cropped(task: Task, *, box: tuple[int, int, int, int]) -> Made:
    """Crop every picture to the box (left, top, width, height), in pixels; smaller pictures count as unreadable."""
    left, top, width, height = box
    room = whole_machine()

    def cut(path: Path, name: str) -> Iterator[tuple[str, Image.Image]]:
        image = _opened(path, room)
        if left + width > image.width or top + height > image.height:
            raise UnreadableFileError(f"has {image.width} x {image.height} pixels: the box does not fit")
        yield name, image.crop((left, top, left + width, top + height))

    return _pictures(task, cut, {"crop": list(box)})


def _changed(pixels: torch.Tensor, wanted: Sequence[str], random: np.random.Generator) -> Image.Image:
    """The picture (1, 3, height, width), from 0 to 1, with random changes, as an image."""
    drawn = random.random(len(wanted)) < augment_pictures.PROBABILITY
    drawn[random.integers(len(wanted))] = True
    for name in [name for name, chosen in zip(wanted, drawn, strict=True) if chosen]:
        pixels = augment_pictures.PICTURES[name](pixels, random).clamp(0, 1)
    return Image.fromarray((pixels[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())


def _pictures(task: Task, work: Work, settings: dict[str, object]) -> Made:
    """Write the results of `work` for every picture of the source, with the files that belong to it."""
    found, _ = find_files(task.source, kind="image", where=str(task.source))
    root = task.source.parent if task.source.is_file() else task.source
    made = Made()
    with _output(task, settings) as folder:
        for path in _shown(task, found):
            name = path.relative_to(root).as_posix()
            try:
                made.files += naming(name, partial(_make, path, name, folder, work))
            except UnreadableFileError as error:
                made.unreadable[name] = str(error)
                log.warning("skipping unreadable file", file=name, problem=str(error))
        Unreadable(made.unreadable).check(task.error_threshold, files=len(found), frames=0)
    return made


def _make(path: Path, name: str, folder: Path, work: Work) -> int:
    """Write the results of one picture; returns how many there are."""
    count = 0
    for target, image in work(path, name):
        _save(image, folder / target)
        for other in _beside(path):
            _bring(other, (folder / target).with_suffix(other.suffix), link=False)
        count += 1
    return count


def _opened(path: Path, room: Room, *, colours: bool = False) -> Image.Image:
    """The image as stored, or as 8-bit RGB; upright."""
    with decoded(path, room) as image:
        return in_colours(image) if colours else image.copy()


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise InvalidConfigurationError(
            f"two pictures would have the name {path.name}: rename the one in the source that ends in {COPY}<number>"
        )
    try:
        image.save(path, quality=JPEG_QUALITY)  # ignored by lossless formats
    except OSError as error:
        if error.errno is not None:  # an error of the disk
            raise
        # The format of the suffix does not support these colours: JPEG has no transparency and no palette.
        _in_colours(image).save(path, quality=JPEG_QUALITY)


def _in_colours(image: Image.Image) -> Image.Image:
    with as_unreadable("not a readable image"):
        return in_colours(image)


def _bring(path: Path, target: Path, *, link: bool) -> None:
    """Copy or link a file unless the target exists: `a.json` may belong to both `a.png` and `a.jpg`.

    Raises:
        InvalidConfigurationError: the output is on another volume, so that hard links are impossible.
    """
    if target.exists():
        return
    try:
        (os.link if link else shutil.copy2)(path, target)
    except OSError as error:
        if not link or error.errno not in NO_LINKS:
            raise
        raise InvalidConfigurationError(
            f"{target.name} cannot be linked to {path} ({error.strerror}): leave --link out to copy the files"
        ) from error


def _beside(path: Path) -> list[Path]:
    """The files that belong to a file, and SigMF files of other names that describe it."""
    own = [other for suffix in BESIDE if os.path.isfile(other := path.with_suffix(suffix))]  # noqa: PTH113  (no error for too long a name)
    return [*own, *(path.with_name(name) for name in _folder(path.parent).beside(path.name))]


@lru_cache(maxsize=8)
def _folder(folder: Path) -> SigmfFolder:
    return look(folder, DATA_SUFFIXES)


def _shown(task: Task, items: Sequence[T]) -> Iterator[T]:
    """The items, with reports of how many are done. SIGTERM stops between two items."""
    for done, item in enumerate(items):
        task.stop.check()
        task.report(done, len(items))
        yield item


@contextmanager
def _output(task: Task, settings: dict[str, object]) -> Iterator[Path]:
    """A temporary folder that becomes the output after the body, or is removed if that fails.

    Raises:
        InvalidConfigurationError: the output exists and may not be replaced, or is inside the source.
        InputError: the source is missing.
    """
    source, output = task.source.resolve(), task.output.resolve()
    if not source.exists() or (source.is_file() and "crop" not in settings):
        raise InputError(f"{task.source} is not a folder: write the folder that contains the classes")
    if output.is_relative_to(source) or source.is_relative_to(output):
        raise InvalidConfigurationError(
            f"one of {task.output} and {task.source} contains the other: write another output"
        )
    if output.exists():
        if not task.overwrite:
            raise InvalidConfigurationError(
                f"{task.output} exists: add --overwrite to replace it, or write another output"
            )
        if not (output / MARK).is_file():
            raise InvalidConfigurationError(
                f"{task.output} was not created by prepare: remove it, or write another output"
            )
    staging = output.with_name(f".{output.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        write_json(staging / MARK, settings)
        replace_folder(staging, output)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
