"""Samples: lists images and recordings, cuts recordings into frames, reads one sample at a time.

In: files, or a folder (`train/<class>/...` when labelled). Out: a `Listing` of samples in a stable order, and 8-bit
pictures of one size.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog
import torch

from rfuav_trainer.data import pack_checks
from rfuav_trainer.data.files import DATA_SUFFIXES, IMAGE_SUFFIXES, SUFFIXES, in_classes, listed, of_kind
from rfuav_trainer.data.images import TRANSFORM, Room, read_picture, whole_machine
from rfuav_trainer.data.labels import conditions
from rfuav_trainer.data.recordings import COLLECTION, MANIFEST, PATTERN, Recording, recognise
from rfuav_trainer.errors import DeadInputError, InputError, UnreadableFileError
from rfuav_trainer.signals import annotated, archive, dead, recording, sigmf
from rfuav_trainer.signals.sidecar import Pack, Packs
from rfuav_trainer.signals.sigmf_folder import SigmfFolder, look
from rfuav_trainer.signals.spectrogram import SpectrogramParameters, pictures
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from rfuav_trainer.signals.annotated import Box

log = structlog.get_logger()

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SPECTROGRAM = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
UNCHANGED = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Mean and deviation of pictures that are only scaled to 0 to 1, as in the reference service."""


Key = tuple[Path, int | None]
"""A file, or a recording in an archive as if the archive were a folder, and the frame of a recording."""


@dataclass(frozen=True)
class Preprocessing:
    """The conversion from a file to the input of a network; stored in the metadata of the weights.

    Attributes:
        format: image or iq.
        image_size: height and width in pixels.
        mean, std: of each channel, on a scale of 0 to 1.
        spectrogram: how recordings become pictures; None for images.
        transform: version of the way from a file to a picture, see `images.TRANSFORM`.
    """

    format: str
    image_size: int
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    spectrogram: SpectrogramParameters | None = None
    transform: int = field(default=TRANSFORM, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values, without what says where the samples are in a recording."""
        found = asdict(self)
        if self.spectrogram is not None:
            del found["spectrogram"]["channel"], found["spectrogram"]["channels"]
        return found

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_json`."""
        spectrogram = value.get("spectrogram")
        return cls(
            format=value["format"],
            image_size=value["image_size"],
            mean=tuple(value["mean"]),
            std=tuple(value["std"]),
            spectrogram=SpectrogramParameters(**spectrogram) if spectrogram else None,
            transform=value.get("transform", 1),
        )

    def normalise(self, pictures: Tensor) -> Tensor:
        """8-bit pictures (n, 1 or 3, size, size) as the network's input: float32 (n, 3, size, size), channels last."""
        mean = torch.tensor(self.mean, device=pictures.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pictures.device).view(1, 3, 1, 1)
        scaled = pictures.contiguous() / 255.0
        result = scaled.sub_(mean).div_(std) if scaled.shape[1] == len(self.mean) else (scaled - mean).div_(std)
        # Converted last: with interleaved channels the subtraction above could not be vectorised.
        return result.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Sample:
    """One picture to classify: an image, or one frame of a recording.

    Attributes:
        path: the file.
        name: its path relative to the input folder, with forward slashes; of a recording in an archive that of the
            archive, and then its own in there.
        label: index of its class; -1 when not labelled.
        frame: index of the frame in its recording; None for images.
        group: samples of one recording have the same group, and a split keeps them together.
        snr: in dB, if the manifest, the name, or the `.json` file gives it.
        recognised_by: how `group` was found, one of the words of `recordings`.
        info: of the recording; None for images.
        member: its name in the archive; empty if the file is no archive.
        at: index of the frame in `info`, if that is another than `frame`: annotations are numbered in their recording,
            and `info` is of the stretch that one describes.
        box: what an annotation describes of the frame; None: all of it.
    """

    path: Path
    name: str
    label: int = -1
    frame: int | None = None
    group: str = ""
    snr: float | None = None
    recognised_by: str = ""
    info: recording.RecordingInfo | None = field(default=None, compare=False, repr=False)
    member: str = ""
    at: int | None = None
    box: Box | None = None

    @property
    def file(self) -> str:
        """The path of its file, relative to the input folder."""
        return self.name.removesuffix(f"/{self.member}") if self.member else self.name

    @property
    def key(self) -> Key:
        """What distinguishes it from every other sample."""
        return self.path / self.member if self.member else self.path, self.frame


@dataclass
class Listing:
    """Samples in a stable order, the files that cannot be read (name to reason), and the number of files.

    `packs` counts packs and what is wrong with them (`pack_checks`).
    """

    samples: list[Sample]
    unreadable: dict[str, str] = field(default_factory=dict)
    files: int = 0
    packs: Counter[str] = field(default_factory=Counter)


def list_labelled(
    root: Path,
    classes: Sequence[str],
    kind: str,
    spectrogram: SpectrogramParameters | None,
    *,
    where: str,
    pattern: str | None = None,
    found: Sequence[Path] | None = None,
) -> Listing:
    """The samples of a folder with one folder for each class, and their recordings (`recordings.recognise`).

    `found` are all files below it, if they are listed already.

    Raises:
        InputError: a class folder contains no readable file, or `pattern` does not find the recording of a file.
        InvalidConfigurationError: `pattern` is not a regular expression.
    """
    total = Listing([])
    found = listed(root, where=where) if found is None else found
    chosen = of_kind(found, kind, "auto" if spectrogram is None else spectrogram.sample_format)
    there, by_class = frozenset(found), in_classes(chosen, root)
    packs = Packs(found)
    for label, name in enumerate(classes):
        files = by_class.get(name, [])
        if not files:
            raise InputError(f"{where}: no {', '.join(sorted(SUFFIXES[kind]))} files in {root / name}: put data there")
        listing = list_samples(files, root, spectrogram if kind == "iq" else None, packs)
        if not listing.samples:
            reason = next(iter(listing.unreadable.values()))
            raise InputError(
                f"{where}: none of the {len(files)} files in {root / name} can be read (the first: {reason})"
            )
        inputs.fetch_ahead(beside for path in files if (beside := path.with_suffix(".json")) in there)
        groups = recognise({sample.name: None for sample in listing.samples}, kind, pattern=pattern)
        levels: dict[Path, float | None] = {}  # the frames of a recording share one .json file
        for sample in listing.samples:
            if sample.path not in levels:
                stated = read_label_file(sample.path) if sample.path.with_suffix(".json") in there else {}
                levels[sample.path] = conditions(sample.name, stated, packs.stated(sample.path).snr)[0]
            told = recording_of(sample, groups[sample.name])
            snr = levels[sample.path]
            total.samples.append(replace(sample, label=label, group=told.name, recognised_by=told.by, snr=snr))
        total.unreadable.update(listing.unreadable)
        total.files += listing.files
        total.packs.update(listing.packs)
    return total


def recording_of(sample: Sample, told: Recording) -> Recording:
    """The recording of a sample: the collection that lists it, unless `told` was stated by the user."""
    if sample.recognised_by == COLLECTION and told.by not in {MANIFEST, PATTERN}:
        return Recording(sample.group, COLLECTION)
    return told


Cut = Callable[[Sample, recording.RecordingInfo], list[Sample]]
"""How a recording, as a sample without a frame, is cut into samples; may raise UnreadableFileError."""


def list_samples(
    files: Iterable[Path],
    root: Path,
    spectrogram: SpectrogramParameters | None,
    packs: Packs | None = None,
    *,
    cut: Cut | None = None,
) -> Listing:
    """The samples in `files`: one for an image, one for each complete frame of a recording, or those of `cut`.

    Without `spectrogram` recordings are not opened: each file is one sample. The streams of a SigMF collection have
    its name as their group; every other sample has its own.
    """
    files = list(files)
    inputs.fetch_ahead(path.with_suffix(recording.METADATA) for path in files)
    listing = Listing([])
    base = root if root.is_dir() else root.parent
    folders: dict[Path, SigmfFolder] = {}
    packs = packs or Packs()
    infos: list[tuple[Path, recording.RecordingInfo]] = []
    for path in files:
        sample = Sample(path, path.relative_to(base).as_posix())
        if path.suffix.lower() in IMAGE_SUFFIXES:
            listing.samples.append(replace(sample, group=sample.name))
            listing.files += 1
            continue
        if path.parent not in folders:
            folders[path.parent] = look(path.parent, DATA_SUFFIXES)
        pack = packs.of(path) if spectrogram else None
        infos.extend(
            (path, info) for info in _list_recordings(sample, folders[path.parent], spectrogram, listing, pack, cut=cut)
        )
    if spectrogram is not None:
        listing.packs = pack_checks.check(packs, infos, spectrogram)
    return listing


def usual(rates: Iterable[float]) -> float | None:
    """The most frequent rate, on a tie the lowest; None if there is none."""
    return min((-count, rate) for rate, count in found.items())[1] if (found := Counter(rates)) else None


def usual_rate(files: Iterable[Path], sample_format: str) -> float | None:
    """The sample rate that most of the recordings state, in Hz; None if none states one."""
    packs, folders = Packs(), dict[Path, SigmfFolder]()
    rates = []
    for path in files:
        if path.parent not in folders:
            folders[path.parent] = look(path.parent, DATA_SUFFIXES)
        with suppress(UnreadableFileError):  # it is reported when it is listed
            info = info_of(path, folders[path.parent], sample_format, pack=packs.of(path))
            rates += [] if info.rate_hz is None else [info.rate_hz]
    return usual(rates)


def named(root: Path, name: str, frame: int | None, spectrogram: SpectrogramParameters | None) -> Sample:
    """The sample that `list_samples` gave this name and frame.

    Raises:
        UnreadableFileError: its recording is gone, or can no longer be read.
    """
    path = root / name
    if frame is None or spectrogram is None:
        return Sample(path, name)
    file = next((up for up in path.parents if up.suffix.lower() == sigmf.ARCHIVE and up.is_file()), path)
    member = "" if file is path else path.relative_to(file).as_posix()
    return Sample(
        file,
        name,
        frame=frame,
        info=info_of(
            file,
            look(file.parent, DATA_SUFFIXES),
            spectrogram.sample_format,
            member,
            Packs().of(file),
            channels=spectrogram.channels,
        ),
        member=member,
    )


def info_of(
    path: Path,
    beside: SigmfFolder,
    sample_format: str,
    member: str = "",
    pack: Pack | None = None,
    *,
    channels: int = 1,
) -> recording.RecordingInfo:
    """What is known of the recording in a file; of an archive, of that called `member`, or the first.

    `beside` is what the SigMF files of its folder say, `pack` the pack that it is of; `channels` is for
    recordings without metadata.

    Raises:
        UnreadableFileError: it cannot be read, or is not there.
    """
    if path.suffix.lower() != sigmf.ARCHIVE:
        metadata = beside.metadata(path.name)
        said_by = path.with_name(metadata) if metadata else None
        return recording.described(path, sample_format, said_by, pack, channels=channels)
    for other, inside in archive.read(path).recordings.items():
        if member in {"", other}:
            return recording.laid_out(path, inside.metadata, inside.said_by, inside.offset, inside.size)
    raise UnreadableFileError(f"has no recording {member}".rstrip())


def _list_recordings(
    sample: Sample,
    beside: SigmfFolder,
    spectrogram: SpectrogramParameters | None,
    listing: Listing,
    pack: Pack | None,
    *,
    cut: Cut | None,
) -> list[recording.RecordingInfo]:
    """Add the recordings of a file to a listing: one, or those in an archive. What is known of those that are read."""
    path, name = sample.path, sample.name
    infos: list[recording.RecordingInfo] = []

    def grouped(sample: Sample, collection: str, folder: str) -> Sample:
        if not collection:
            return replace(sample, group=sample.name)
        return replace(sample, group=f"{folder}/{collection}".lstrip("/"), recognised_by=COLLECTION)

    def add(sample: Sample, describe: Callable[[], recording.RecordingInfo]) -> None:
        listing.files += 1
        if spectrogram is None and os.path.isfile(path):  # noqa: PTH113  (Path.is_file raises on too long a name)
            listing.samples.append(sample)
            return
        try:
            info = describe()  # of a file that is missing: an error
            frames = recording.count_frames(info, spectrogram) if spectrogram else 0
            found = _whole(sample, info, frames) if cut is None else cut(sample, info)
        except UnreadableFileError as error:
            listing.unreadable[sample.name] = str(error)
            return
        infos.append(info)
        listing.samples.extend(found)

    if spectrogram is None or path.suffix.lower() != sigmf.ARCHIVE:
        metadata = beside.metadata(path.name)
        add(
            grouped(sample, beside.collection(path.name), name.rpartition("/")[0]),
            lambda: recording.described(
                path,
                spectrogram.sample_format if spectrogram else "auto",
                path.with_name(metadata) if metadata else None,
                pack,
                channels=spectrogram.channels if spectrogram else 1,
            ),
        )
        return infos
    try:
        found = archive.read(path)
    except UnreadableFileError as error:
        listing.files += 1
        listing.unreadable[name] = str(error)
        return infos
    for member, inside in found.recordings.items():
        own = grouped(replace(sample, name=f"{name}/{member}", member=member), inside.collection, name)
        add(own, partial(recording.laid_out, path, inside.metadata, inside.said_by, inside.offset, inside.size))
    listing.files += len(found.refused)
    listing.unreadable.update({f"{name}/{member}": reason for member, reason in found.refused.items()})
    return infos


def read_recorded(sample: Sample, parameters: SpectrogramParameters) -> Tensor:
    """The frame of a sample as it was recorded, with what is outside its box.

    Raises:
        UnreadableFileError: it cannot be read, or is an image.
    """
    return recording.read_recorded(*_frame_of(sample), parameters)


def read_raw(sample: Sample, parameters: SpectrogramParameters, recorded: Tensor | None = None) -> Tensor:
    """The frame of a sample as `recording.read_raw` gives it; without what is outside its box.

    `recorded` is what `read_recorded` gave for the sample, if it was read already.

    Raises:
        UnreadableFileError: it cannot be read, or is an image.
    """
    if sample.box is not None:
        return torch.view_as_real(read_frame(sample, parameters, recorded))
    return recording.read_raw(*_frame_of(sample), parameters, recorded)


def read_frame(sample: Sample, parameters: SpectrogramParameters, recorded: Tensor | None = None) -> Tensor:
    """The frame of a sample as `recording.read_frame` gives it; without what is outside its box.

    `recorded` is as for `read_raw`.

    Raises:
        UnreadableFileError: it cannot be read, has values that are no numbers, or is an image.
    """
    found = recording.read_frame(*_frame_of(sample), parameters, recorded)
    if sample.box is None:
        return found
    seed = zlib.crc32(os.fsencode(f"{sample.name}/{sample.frame}"))
    return annotated.only(sample.box, found, parameters, seed)


def _frame_of(sample: Sample) -> tuple[recording.RecordingInfo, int]:
    if sample.info is None or sample.frame is None:
        raise UnreadableFileError("is an image")
    return sample.info, sample.frame if sample.at is None else sample.at


def _whole(sample: Sample, info: recording.RecordingInfo, frames: int) -> list[Sample]:
    """A sample for each frame."""
    info = replace(info, annotations=())
    return [replace(sample, frame=index, info=info) for index in range(frames)]


class Home(Protocol):
    """A store of decoded pictures; used by several threads."""

    def holds(self, key: Key) -> bool:
        """Whether the picture is stored."""

    def get(self, key: Key) -> Tensor | None:
        """The stored picture, which must not be changed."""

    def put(self, key: Key, picture: Tensor) -> bool:
        """Store it; False if there is no space."""


class Reader:
    """Reads samples as 8-bit pictures. Pictures that one of the homes holds are not decoded again.

    Args:
        preprocessing: how files become pictures.
        homes: stores of pictures, in order of preference.
        device: where recordings are transformed.
        room: memory for decoding; by default of the whole machine.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        *,
        homes: Sequence[Home] = (),
        device: torch.device | str = "cpu",
        room: Room | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        self._room = room or whole_machine()
        self.device = torch.device(device)
        self._homes = homes
        self._dead: dict[Key, str] = {}

    def holds(self, sample: Sample) -> bool:
        """Whether the picture is stored, so that the file is not needed."""
        key = sample.key
        return key in self._dead or any(home.holds(key) for home in self._homes)

    def read(self, sample: Sample) -> Tensor:
        """The picture of one sample: uint8, (3, size, size) for images, (1 or 3, size, size) for recordings.

        Raises:
            UnreadableFileError: the file cannot be read.
            DeadInputError: it holds nothing (`dead`).
        """
        key = sample.key
        if key in self._dead:
            raise DeadInputError(self._dead[key])
        for home in self._homes:
            kept = home.get(key)
            if kept is not None:
                return kept
        size = self.preprocessing.image_size
        spectrogram = self.preprocessing.spectrogram
        if sample.frame is None or sample.info is None or spectrogram is None:
            result = read_picture(sample.path, size, room=self._room, transform=self.preprocessing.transform)
            self._check_alive(key, dead.picture(result))
        else:
            recorded = read_recorded(sample, spectrogram)
            self._check_alive(key, dead.samples(recorded))
            raw = read_raw(sample, spectrogram, recorded)
            found, good = pictures(raw[None].to(self.device), spectrogram, size)
            if not good.item():
                raise UnreadableFileError(recording.NO_NUMBERS.format(frame=sample.frame))
            result = found[0].cpu()
        any(home.put(key, result) for home in self._homes)  # the first with space
        return result

    def _check_alive(self, key: Key, problem: str | None) -> None:
        if problem is not None:
            self._dead[key] = problem  # in the next epoch it need not be read
            raise DeadInputError(problem)


def read_label_file(path: Path) -> dict[str, Any]:
    """The content of the label file of a recording (`a.iq` -> `a.json`), such as {"snrDb": 10}; empty if missing."""
    try:
        with inputs.opened(path.with_suffix(".json")) as here:
            content = json.loads(here.read_bytes())
    except (OSError, UnreadableFileError):
        return {}
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        log.warning("ignoring a file that is not a JSON object", file=path.with_suffix(".json").name)
        return {}
    return content
