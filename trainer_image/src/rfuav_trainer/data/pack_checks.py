"""Where the sidecars of packs say something else than the job or the files.

In: the recordings of a listing, and their packs. Out: how many packs there are, and how many of them disagree in what.
Each disagreement is logged once for each pack, with both values.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import structlog

from rfuav_trainer.signals import recording
from rfuav_trainer.storage import inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from rfuav_trainer.signals.recording import RecordingInfo
    from rfuav_trainer.signals.sidecar import Pack, Packs, Sidecar
    from rfuav_trainer.signals.spectrogram import SpectrogramParameters

log = structlog.get_logger()

UNREADABLE, RATE, SAMPLES, FORMAT = "unreadableSidecars", "otherSampleRate", "otherSampleCount", "otherSampleFormat"
RESAMPLED = "resampledFiles"


def check(packs: Packs, infos: Iterable[tuple[Path, RecordingInfo]], parameters: SpectrogramParameters) -> Counter[str]:
    """Compare the sidecars with the job and the files.

    A pack counts where its first file is: several shards, or the two sides of a split, may share it.

    Args:
        packs: of the recordings.
        infos: what is known of each recording.
        parameters: those of the job.

    Returns:
        `packs`, the packs with a sidecar, and how many of them have an unreadable one, or state another sample rate,
        sample count or sample format. `resampledFiles`, the recordings of another sample rate than the job.
    """
    found: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for path, info in infos:
        pack = packs.of(path)
        if pack is not None and path.name == pack.files[0]:
            found["packs"] += 1
            found.update(_disagreements(pack, info, parameters))
        if info.ratio(parameters) != 1:
            found[RESAMPLED] += 1
            others[f"{info.rate_hz:.12g}"] += pack is None
    if others.total():
        log.warning(
            "recordings have other sample rates than the job and are resampled",
            sampleRate=parameters.sample_rate,
            files=dict(+others),
        )
    return found


def _disagreements(pack: Pack, info: RecordingInfo, parameters: SpectrogramParameters) -> Iterator[str]:
    """What is wrong with the sidecar of a pack, and log it."""
    name = f"{pack.path.parent.name}/{pack.path.name}"
    if pack.stated is None:
        log.warning("ignoring the sidecar of a pack", file=name, problem=pack.problem)
        yield UNREADABLE
        return
    if pack.stated.ignored:
        log.warning("ignoring values of the sidecar of a pack", file=name, values=dict(pack.stated.ignored))
    if info.said_by != pack.path.name:
        return  # SigMF metadata takes precedence
    if info.ratio(parameters) != 1:
        log.warning(
            "a sidecar states another sample rate than the job, so its pack is resampled; if it is wrong, remove it",
            file=name,
            sidecar=info.rate_hz,
            job=parameters.sample_rate,
        )
        yield RATE
    yield from _of_files(pack, pack.stated, info, name, parameters.sample_format)


def _of_files(pack: Pack, stated: Sidecar, info: RecordingInfo, name: str, wanted: str) -> Iterator[str]:
    kind = next(name for name, kind in recording.SAMPLE_TYPES.items() if kind == info.kind)
    if stated.sample_format not in {None, kind}:
        by = "job" if wanted == kind else "suffix"
        told: dict[str, Any] = {"sidecar": stated.sample_format, by: kind}
        log.warning("a sidecar states another sample format, which is not used", file=name, **told)
        yield FORMAT
    try:
        sizes = [inputs.size(pack.path.with_name(file)) // info.width for file in pack.files]
    except OSError:  # it is reported as an unreadable file
        return
    if stated.samples is not None and {*sizes} != {stated.samples} and sum(sizes) != stated.samples:
        log.warning(
            "a sidecar states another number of samples than its pack has: is a file missing, or sampleFormat wrong?",
            file=name,
            sidecar=stated.samples,
            files=sum(sizes),
        )
        yield SAMPLES
