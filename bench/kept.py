"""What an epoch costs in reading when decoded pictures are kept, and when they are not: `make bench-kept`.

Reading alone, in the order and with the reader thread of a training, without a network: JPEG files, and frames of raw
recordings. `cold` is a later epoch from the disk after the page cache has forgotten the file. The homes take turns.

    python -m bench.kept [--images 400] [--frames 24] [--epochs 3] [--rounds 3] [--threads 2]
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.machine import report
from bench.train import SIZE, write_pictures

from rfuav_trainer.data import picture_cache
from rfuav_trainer.data.batches import batches, cut
from rfuav_trainer.data.samples import Home, Preprocessing, Reader, Sample, list_samples
from rfuav_trainer.signals.spectrogram import SpectrogramParameters
from rfuav_trainer.training.position import epoch_order

PARAMETERS = SpectrogramParameters(100e6, 0.02)
PLENTY = 2**40


def write_recording(path: Path, frames: int) -> None:
    """Noise, float32."""
    random = np.random.default_rng(0)
    path.parent.mkdir(parents=True)
    with path.open("wb") as stream:
        for _ in range(frames):
            stream.write(random.standard_normal(2 * PARAMETERS.frame_samples, dtype=np.float32).tobytes())


def epoch(samples: Sequence[Sample], reader: Reader, number: int) -> float:
    """Seconds to read all samples in the order of an epoch."""
    order = [samples[index] for index in epoch_order(len(samples), 0, number)]
    began = time.perf_counter()
    for _ in batches(cut(order, 8), reader, 1):
        pass
    return time.perf_counter() - began


def measure(
    name: str, samples: Sequence[Sample], preprocessing: Preprocessing, folder: Path, epochs: int
) -> dict[str, list[float]]:
    """Seconds of the first and of the later epochs with one of the homes."""
    homes: list[Home] = []
    if name == "memory":
        homes = [picture_cache.Memory(PLENTY)]
    path = folder / "pictures"
    if name == "disk":
        path.touch()
        channels = 1 if preprocessing.spectrogram else 3
        keys = [(sample.path, sample.frame) for sample in samples]
        homes = [picture_cache.Disk(path, keys, (channels, SIZE, SIZE), limit=PLENTY)]
    reader = Reader(preprocessing, homes=homes)
    found = {"first": [epoch(samples, reader, 0)], "later": [epoch(samples, reader, n) for n in range(1, epochs)]}
    if name == "disk":
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        found["cold"] = [epoch(samples, reader, epochs)]
        homes.clear()
        path.unlink()
    return found


def compare(samples: Sequence[Sample], kind: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Every home in turn; milliseconds a picture, the best of all epochs of a kind."""
    preprocessing = Preprocessing(kind, SIZE, spectrogram=PARAMETERS if kind == "iq" else None)
    seconds: dict[str, dict[str, list[float]]] = {}
    for turn in range(options.rounds):
        for name in ("nothing", "memory", "disk"):
            for when, took in measure(name, samples, preprocessing, folder, options.epochs).items():
                seconds.setdefault(name, {}).setdefault(when, []).extend(took)
            print(f"{kind} {turn} {name}: {seconds[name]}", file=sys.stderr)
    each = {
        name: {when: round(min(took) / len(samples) * 1000, 3) for when, took in theirs.items()}
        for name, theirs in seconds.items()
    }
    return {"pictures": len(samples), "ms_a_picture": each}


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser()
    for name, default in {"images": 400, "frames": 24, "epochs": 3, "rounds": 3, "threads": os.cpu_count()}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        folder = Path(name)
        write_pictures(folder / "images", options.images)
        write_recording(folder / "iq/a.iq", options.frames)
        files = sorted((folder / "images").rglob("*.jpg"))
        found = {
            "jpeg": compare(list_samples(files, folder, None).samples, "image", folder, options),
            "iq": compare(list_samples([folder / "iq/a.iq"], folder, PARAMETERS).samples, "iq", folder, options),
        }
    report("kept", {**{key: getattr(options, key) for key in ("epochs", "rounds", "threads")}, "size": SIZE, **found})


if __name__ == "__main__":
    main()
