"""The input of an InferenceJob: the files of a folder, a single file, or the files of a manifest.

In: spec.input. Out: `Inputs`, whose names decide the shards, and the samples of some of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rfuav_trainer.data import manifest
from rfuav_trainer.data.files import IMAGE_SUFFIXES, SUFFIXES, find_files
from rfuav_trainer.data.labels import first_folder
from rfuav_trainer.data.samples import Listing, list_samples, usual_rate
from rfuav_trainer.storage import inputs as storage
from rfuav_trainer.storage import outputs
from rfuav_trainer.storage.contents import Contents
from rfuav_trainer.storage.paths import local_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rfuav_crds import InferenceJobSpec
    from rfuav_trainer.job import Job
    from rfuav_trainer.signals.spectrogram import SpectrogramParameters

WHERE = "input.uri"


@dataclass(frozen=True)
class Inputs:
    """The inputs of a whole job.

    Attributes:
        root: the folder that their names are relative to.
        kind: image or iq.
        names: paths below `root`, with forward slashes, sorted.
        rows: of the manifest, by name; empty for a folder.
        listed_in: the manifest, by its name; empty for a folder.
        contents: what is known of the files.
    """

    root: Path
    kind: str
    names: Sequence[str]
    rows: dict[str, manifest.Row] = field(default_factory=dict)
    listed_in: dict[str, Path] = field(default_factory=dict)
    contents: Contents = field(default_factory=Contents)

    def label(self, name: str) -> str:
        """The class of an input: from the manifest, else its first folder; empty if unknown."""
        row = self.rows.get(name)
        return first_folder(name) if row is None else row.label

    def usual_rate(self, sample_format: str) -> float | None:
        """The sample rate that most of the recordings of the whole job state, in Hz; None if none states one."""
        return usual_rate((self.root / name for name in self.names), sample_format)

    def samples(self, names: Sequence[str], spectrogram: SpectrogramParameters | None) -> Listing:
        """The samples of some of the inputs; listed files that do not exist count as unreadable."""
        missing = {name: manifest.MISSING for name in names if self.rows and not manifest.is_there(self.root / name)}
        files = [self.root / name for name in names if name not in missing]
        listing = list_samples(files, self.root, spectrogram)
        return Listing(listing.samples, {**missing, **listing.unreadable}, listing.files + len(missing), listing.packs)


def root_of(job: Job, spec: InferenceJobSpec) -> Path:
    """The folder that the names of the inputs are relative to."""
    return _root(local_path(job, spec.input.uri, WHERE))


def find(job: Job, spec: InferenceJobSpec) -> Inputs:
    """The inputs of the whole job.

    Raises:
        InputError: nothing was found, both formats were and none was chosen, or the manifest is invalid.
        InvalidConfigurationError: the output of the job is inside its input.
    """
    outputs.check_apart(job, spec.input.uri, WHERE)
    path = local_path(job, spec.input.uri, WHERE)
    if manifest.is_manifest(path):
        rows = manifest.read(path, where=WHERE, labelled=False)
        kind = manifest.kind_of(rows, spec.input.format, where=WHERE)
        chosen = {row.path: row for row in rows if manifest.suffix(row) in SUFFIXES[kind]}
        return Inputs(path.parent, kind, [*chosen], chosen, {path.name: path})
    if path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES:
        storage.name(path.parent, [path.name])  # the sidecar of its pack, and metadata of another name
    files, kind = find_files(
        path,
        spec.input.pattern,
        spec.input.format,
        where=WHERE,
        sample_format="auto" if spec.iq is None else spec.iq.sample_format,
    )
    root = _root(path)
    return Inputs(root, kind, [file.relative_to(root).as_posix() for file in files])


def _root(path: Path) -> Path:
    return path if path.is_dir() else path.parent
