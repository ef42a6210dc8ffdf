"""The TrainingJob for a folder, or from a job file with a few other values.

In: what a user wrote at the command line or called in Python. Out: a checked `Job`; for a folder also its manifest in
the output, so that the training can be continued, repeated, or taken to a cluster.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rfuav_crds import JobError, changed, reasons
from rfuav_trainer.errors import InvalidConfigurationError
from rfuav_trainer.job import Job, from_file, from_manifest, local_mounts
from rfuav_trainer.quick.folder import look
from rfuav_trainer.quick.manifest import ARCHITECTURE, EPOCHS, IMAGE_SIZE, Machine, Options, name_of
from rfuav_trainer.quick.manifest import training as written
from rfuav_trainer.storage.files import atomic_writer
from rfuav_trainer.storage.paths import local_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RUNS = Path("runs")
"""The folder for results of trainings without a manifest, in the current folder."""
FILE = "job.yaml"
"""The manifest in the output of such a training."""
FIELDS = {"arch": "model.architecture", "epochs": "training.epochs", "size": "dataset.imageSize"}
"""The field that an option stands for."""


def training(
    source: Path,
    *,
    arch: str | None = None,
    epochs: int | None = None,
    size: int | None = None,
    output: str | Path | None = None,
    changes: Sequence[str] = (),
    mounts: Mapping[str, str | Path] | None = None,
    dry: bool = False,
) -> Job:
    """The job for `source`, a folder or a job file; options as in `api.train`.

    For a folder, the manifest is written to the output. If `dry`, nothing is written.

    Raises:
        InputError: the folder has no classes, or no data that can be read.
        InvalidConfigurationError: a value is wrong, or the output belongs to another training.
    """
    places = {claim: Path(folder).absolute() for claim, folder in (mounts or {}).items()}
    if source.is_dir():
        found = look(source)
        chosen = options(source, arch=arch, epochs=epochs, size=size, output=output)
        here = chosen.output.absolute()
        if here.resolve().is_relative_to(source.resolve()):
            raise InvalidConfigurationError(
                f"the output {chosen.output} is inside the data {source}, so the training would read its own output: "
                "add --output FOLDER, a folder outside the data"
            )
        text = written(found, chosen, Machine.this(), beside=here)
        try:
            content = changed(yaml.safe_load(text), changes)
        except JobError as error:
            raise InvalidConfigurationError(str(error)) from error
        job = from_manifest(content, mounts={**local_mounts(content, here), **places})
        if not dry:
            _keep(here / FILE, text if not changes else yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        return job
    if output is not None:
        raise InvalidConfigurationError("--output is for a folder: for a job file write --set output.uri=...")
    given = {"arch": arch, "epochs": epochs, "size": size}
    short = [f"{FIELDS[name]}={value}" for name, value in given.items() if value is not None]
    return from_file(source, mounts=places, changes=[*short, *changes])


def options(
    source: Path,
    *,
    arch: str | None = None,
    epochs: int | None = None,
    size: int | None = None,
    output: str | Path | None = None,
) -> Options:
    """The options with their defaults; the default output is the first `runs/NAME`, `runs/NAME-2`, ... that is free."""
    where = Path(output) if output is not None else _free(RUNS / name_of(source.absolute()))
    return Options(arch or ARCHITECTURE, epochs or EPOCHS, size or IMAGE_SIZE, where)


def output_folder(job: Job) -> Path:
    """The local folder of the output of a job."""
    return local_path(job, job.spec.output.uri, "output.uri")


def _free(path: Path) -> Path:
    return next(
        found
        for number in itertools.count(1)
        if not (found := path if number == 1 else path.with_name(f"{path.name}-{number}")).exists()
    )


def _keep(path: Path, text: str) -> None:
    """Write the manifest of a training, unless its output already has it.

    Raises:
        InvalidConfigurationError: the output has another one, or files that are not of a training.
    """
    folder = path.parent
    if path.is_file() and _decoded(path.read_text()) == _decoded(text):
        return
    if folder.is_dir() and any(folder.iterdir()):
        go_on = f", or go on with it: rfuav-trainer train -f {path}" if path.is_file() else ""
        raise InvalidConfigurationError(
            f"{folder} has files of another training: add --output FOLDER, a new one{go_on}",
            reason=reasons.OUTPUT_IN_USE,
        )
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as stream:
        stream.write(text.encode())


def _decoded(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
