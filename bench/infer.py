"""Images and IQ samples a second, files in to predictions out: `make bench-infer`.

Five sides over the same files with the same network: ours (a whole InferenceJob, as people run it: with its overview),
the same with a picture or video of each input (`all`) and with no pictures (`none`), the reference's way, and tuned
plain PyTorch (bench/infer_baselines.py), each in a process of its own. They take turns, so that what else runs disturbs
them alike, and the best of each side's turns counts. `pictures` is the time of ours and of `all`, and its ratio to that
of `none`: of the best turns, and the median of the turns. `limit` is the network alone on
images that are ready in memory, and the Fourier transforms alone on samples that are. All run on the GPU where there is
one, and more files are made. `realtime` is how many receivers of 100 MS/s ours keeps up with.

    python -m bench.infer [--images 256] [--frames 3] [--turns 2] [--cores 2] [--architecture resnet18]
        [--height 768] [--width 1024]
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from bench import infer_baselines as baselines
from bench.machine import apart, report, seconds
from bench.machine import device as device_name
from PIL import Image

from rfuav_crds import InferenceJobSpec
from rfuav_trainer.data.samples import Preprocessing
from rfuav_trainer.inference import infer
from rfuav_trainer.job import Job
from rfuav_trainer.networks import architectures, precision, weights
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.reporting.progress import Progress
from rfuav_trainer.signals.spectrogram import SpectrogramParameters

CLASSES = [f"drone-{number:02}" for number in range(37)]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FILES = {"cpu": {"images": 256, "frames": 3}, "cuda": {"images": 4096, "frames": 32}}
"""By default. On a GPU a few take no longer than starting a job."""


def job(root: Path, folder: str, annotate: str, turn: int, cores: int) -> Job:
    """An InferenceJob over root/<folder>."""
    kind, name = KINDS[folder], f"{KINDS[folder]}-{annotate}"
    spec = {
        "model": {"weights": f"file://{root}/{kind}.safetensors"},
        "input": {"uri": f"file://{root}/{folder}"},
        "output": {"uri": f"file://{root}/out-{name}-{turn}", "annotate": annotate},
        "resources": {"gpus": int(DEVICE.type == "cuda"), "cpu": str(cores), "memory": "8Gi"},
    }
    checked = InferenceJobSpec.model_validate(spec)
    return Job("InferenceJob", name, "", f"{name}-{turn}", 1, 0, checked, {})


def make(root: Path, arguments: argparse.Namespace) -> None:
    """Files with what files of recordings have: noise, a few signals, nothing that compresses to nothing."""
    rng = np.random.default_rng(1)
    (root / "images").mkdir()
    for number in range(arguments.images):
        pixels = rng.integers(0, 90, (arguments.height // 4, arguments.width // 4, 3), dtype=np.uint8)
        pixels[rng.integers(0, arguments.height // 8) :][:9] += 120
        image = Image.fromarray(pixels).resize((arguments.width, arguments.height), Image.Resampling.BICUBIC)
        image.save(root / f"images/{number:04}.jpg", quality=90)
    (root / "iq").mkdir()
    with (root / "iq/flight.iq").open("wb") as stream:
        for _ in range(arguments.frames):
            stream.write(rng.standard_normal(2 * baselines.FRAME, dtype=np.float32).tobytes())
    torch.manual_seed(1)
    network = architectures.build(arguments.architecture, len(CLASSES), baselines.SIZE)
    for kind in ("image", "iq"):
        parameters = SpectrogramParameters(baselines.RATE, 0.1) if kind == "iq" else None
        preprocessing = Preprocessing(kind, baselines.SIZE, spectrogram=parameters)
        card = weights.Card(arguments.architecture, CLASSES, preprocessing)
        weights.save(root / f"{kind}.safetensors", network.state_dict(), card)


KINDS = {"images": "image", "iq": "iq"}
"""What the folders hold."""
OURS = {"ours": "default", "all": "all", "none": "none"}
"""The value of output.annotate of our sides."""
SIDES = (*OURS, "reference", "tuned")


def prepare() -> None:
    """What a side's process says is not the benchmark's line."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def network(root: Path, architecture: str) -> torch.nn.Module:
    found = architectures.build(architecture, len(CLASSES), baselines.SIZE)
    weights.load(root / "image.safetensors", found, architecture=architecture)
    return found.eval().to(DEVICE)


def take(side: str, kind: str, turn: int, root: Path, arguments: argparse.Namespace) -> float:
    """Seconds of a side's turn."""
    cores = arguments.cores
    torch.set_num_threads(cores)  # the last turn may have left another number
    torch.backends.cudnn.benchmark = side != "reference"  # ours turns it on, the reference never does
    files, recording = sorted((root / "images").iterdir()), root / "iq/flight.iq"

    def ours() -> None:
        infer.run(job(root, kind, OURS[side], turn, cores), Progress(None), StopSignal())

    def reference() -> None:
        output = root / "reference.jsonl"
        if kind == "images":
            baselines.reference_images(network(root, arguments.architecture), files, output)
        else:
            baselines.reference_iq(network(root, arguments.architecture), recording, arguments.frames, output)

    def tuned() -> None:
        dataset = baselines.Images(files) if kind == "images" else baselines.Frames(recording, arguments.frames)
        autocast = precision.passing(precision.resolve("auto", DEVICE), DEVICE)
        found = network(root, arguments.architecture)
        baselines.tuned(found, dataset, root / "tuned.jsonl", workers=cores, autocast=autocast)

    took = seconds({"reference": reference, "tuned": tuned}.get(side, ours))
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()  # the others want the memory
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {**FILES[DEVICE.type], "turns": 2, "height": 768, "width": 1024}
    for name, default in {**defaults, "cores": len(os.sched_getaffinity(0))}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--architecture", default="resnet18")
    arguments = parser.parse_args()
    prepare()
    torch.set_num_threads(arguments.cores)
    chosen = precision.resolve("auto", DEVICE)
    counts = {"images": arguments.images, "iq": arguments.frames * baselines.FRAME}
    times: dict[tuple[str, str], list[float]] = {}
    limits = {"images": 0.0, "iq": 0.0}
    with tempfile.TemporaryDirectory() as folder, apart(SIDES, prepare) as processes:
        root = Path(folder)
        make(root, arguments)
        for turn in range(arguments.turns):
            for kind, side in itertools.product(counts, SIDES):
                took = processes[side].submit(take, side, kind, turn, root, arguments).result()
                times.setdefault((kind, side), []).append(took)
                print(f"turn {turn + 1}: {kind} {side} {took:.2f} s", file=sys.stderr)
            alone = network_alone(network(root, arguments.architecture), precision.passing(chosen, DEVICE))
            limits["images"] = max(limits["images"], alone)
            limits["iq"] = max(limits["iq"], transforms_alone(root / "iq/flight.iq"))
    best = {key: min(some) for key, some in times.items()}
    figures: dict[str, dict[str, Any]] = {}
    for kind, count in counts.items():
        rates = {side: count / best[kind, side] for side in SIDES}
        figures[kind] = {
            **{side: round(rate, 2) for side, rate in rates.items()},
            "pictures": {side: _against(times[kind, side], times[kind, "none"]) for side in ("ours", "all")},
            "ratio": round(rates["ours"] / rates["reference"], 2),
            "ofTuned": round(rates["ours"] / rates["tuned"], 2),
            "limit": round(limits[kind], 2),
            "ofLimit": round(rates["ours"] / limits[kind], 2),
        }
    figures["iq"]["realtime"] = round(counts["iq"] / best["iq", "ours"] / baselines.RATE, 2)
    settings = {**vars(arguments), "precision": chosen, "imageSize": baselines.SIZE}
    report("infer", {"device": device_name(), **figures, "settings": settings})


def _against(ours: list[float], none: list[float]) -> dict[str, float]:
    """Seconds of the best turn, and the ratio to `none`: of the best turns, and the median of the turns."""
    pairs = [one / other for one, other in zip(ours, none, strict=True)]
    ratio = min(ours) / min(none)
    return {"seconds": round(min(ours), 2), "ofNone": round(ratio, 2), "median": round(statistics.median(pairs), 2)}


@torch.inference_mode()
def network_alone(network: torch.nn.Module, autocast: torch.autocast) -> float:
    """Images a second through the network, in batches that lie ready."""
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    count = baselines.BATCH[DEVICE.type]
    batch = torch.randn(count, 3, baselines.SIZE, baselines.SIZE).to(DEVICE, memory_format=torch.channels_last)
    with autocast:
        return count / min(seconds(lambda: network(batch)) for _ in range(6))


def transforms_alone(recording: Path) -> float:
    """Samples a second through the Fourier transforms of one frame, windows half over each other."""
    values = torch.from_numpy(np.fromfile(recording, np.float32, 2 * baselines.FRAME))
    samples = torch.view_as_complex(values.view(-1, 2)).to(DEVICE)
    windows = samples.unfold(0, baselines.POINTS, baselines.POINTS // 2).contiguous()
    return baselines.FRAME / min(seconds(lambda: torch.fft.fft(windows)) for _ in range(3))


if __name__ == "__main__":
    main()
